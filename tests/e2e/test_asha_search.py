"""Whole searches by asynchronous successive halving: what is promoted, and how they go on."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_at_once import at_once, by_trial, without_workers
from test_search import (
    KILLED,
    SMALL,
    Ran,
    assert_nothing_repeats_or_runs,
    assert_same_weights,
    command,
    finish,
    here,
    start,
    with_store,
)

from pneumonia.config.search_space import find
from pneumonia.evaluation.objective import Objective
from pneumonia.reporting import report
from pneumonia.search.oracle import Oracle

__all__ = ["command", "here"]

ASHA = (
    *SMALL,
    *("tuner=asha", "tuner.max_trials=9", "tuner.max_epochs=4", "tuner.factor=2"),
    *("training.jit=false", 'dense.dropout="interval(0.1, 0.5)"'),
)
FREE = ("executor.workers=2", "executor.in_order=false")


def assert_decided_as_recorded(ran: Ran) -> None:
    """Ask a new oracle, told of each trial where the journal is: it decides as the search did."""
    cfg = OmegaConf.load(ran.folder / "config.yaml")
    assert OmegaConf.is_dict(cfg)
    tuner = OmegaConf.to_container(cfg.tuner, resolve=True)
    oracle = Oracle(find(cfg), tuner, Objective("val_auc", "max"))  # type: ignore[arg-type]
    for event in ran.events:
        if event["kind"] == "trial_started":
            proposal = oracle.propose()
            assert proposal is not None
            assert (proposal.trial_id, proposal.tags) == (event["trial_id"], event["tags"])
            assert proposal.values.items() <= event["values"].items()
            assert proposal.epochs == event["values"]["epochs"]
        elif event["kind"] == "trial_ended":
            oracle.tell(event["trial_id"], event["score"])


def epochs(ran: Ran) -> dict[str, list[int]]:
    """Return the epochs that each trial has trained."""
    found: dict[str, list[int]] = {event["trial_id"]: [] for event in ran.of("trial_started")}
    for event in ran.of("epoch_ended"):
        found[event["trial_id"]].append(event["epoch"])
    return found


def assert_promoted_go_on(ran: Ran) -> None:
    """Check that each trial trains the epochs of its round, and those alone."""
    first, last = {"0": 1, "1": 2, "2": 3}, {"0": 1, "1": 2, "2": 4}
    trained = epochs(ran)
    for event in ran.of("trial_started"):
        number = event["tags"]["round"]
        expected = list(range(first[number], last[number] + 1))
        assert trained[event["trial_id"]] == expected


@pytest.mark.slow  # what is promoted is in test_asha
def test_what_is_promoted_goes_on_and_is_shown(here: Callable[..., Ran]) -> None:
    ran = here(*ASHA)
    assert ran.status == 0, ran.stderr
    assert_decided_as_recorded(ran)
    assert_promoted_go_on(ran)
    places = [event["tags"]["round"] for event in ran.of("trial_started")]
    assert places[:3] == ["0", "0", "1"]
    assert "2" in places
    for event in ran.of("trial_started"):
        tags = ran.children[event["trial_id"]].data.tags
        assert event["tags"].items() <= tags.items()
    assert "asha over efficientnet_lite0: 9 trials, at most" in ran.stderr
    assert "warning" not in ran.stderr
    page = report.write(ran.folder).read_text()
    assert re.search(r"<h2[^>]*>ASHA</h2>", page)
    assert "arxiv.org/abs/1810.05934" in page


@pytest.mark.slow
def test_in_order_it_is_the_same_with_two_workers_and_says_what_that_costs(
    here: Callable[..., Ran],
) -> None:
    alone = here(*ASHA)
    ran = here(*ASHA, "executor.workers=2")
    assert (at_once(alone), at_once(ran)) == (1, 2)
    assert without_workers(ran) == without_workers(alone)
    assert_same_weights(ran, alone)
    assert ran.stderr.count("warning: in order, what ASHA tries next waits for scores") == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), FREE])
def test_one_that_is_killed_decides_again_as_it_had(
    workers: tuple[str, ...], tmp_path: Path, empty_store: Path, command: Callable[..., Ran]
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    killed = finish(start(project, *ASHA, *workers, code=KILLED), project)
    assert killed.status == -signal.SIGKILL, killed.stderr
    before = killed.events
    assert any("promoted_from" in event["tags"] for event in killed.of("trial_started"))
    again = command(project, "resume=last")
    assert (again.status, again.folder) == (0, killed.folder), again.stderr
    assert again.events[: len(before)] == before
    assert len(again.of("trial_started")) == len(again.of("trial_ended")) == 9
    assert_decided_as_recorded(again)
    assert_promoted_go_on(again)
    assert_nothing_repeats_or_runs(again.store)
    if not workers:
        alone = command(with_store(tmp_path / "alone", empty_store), *ASHA)
        assert by_trial(again) == by_trial(alone)
        assert_same_weights(again, alone)


@pytest.mark.slow
def test_one_that_came_to_its_end_goes_on_with_more_trials(
    tmp_path: Path, empty_store: Path, command: Callable[..., Ran]
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    ended = command(project, *ASHA, "tuner.max_trials=6")
    assert not (ended.folder / "trials").exists()
    again = command(project, "resume=last", "tuner.max_trials=12")
    assert (again.status, again.folder) == (0, ended.folder), again.stderr
    alone = command(with_store(tmp_path / "alone", empty_store), *ASHA, "tuner.max_trials=12")
    ends = [{(one["trial_id"], one["score"]) for one in ran.of("trial_ended")}
            for ran in (again, alone)]  # fmt: skip
    assert ends[0] == ends[1]
    assert len(ends[0]) == 12
    # Who is promoted only now is trained again from its beginning: its state was dropped.
    assert again.of("training_repeated")
    assert_decided_as_recorded(again)
    assert_same_weights(again, alone)

"""Whole searches that end early: by a budget, a signal, a disk; and what they say beforehand."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_search import (
    GRID,
    SMALL,
    TRAIN,
    Ran,
    assert_nothing_repeats_or_runs,
    command,
    finish,
    here,
    start,
    with_store,
)

from pneumonia.cli import main
from pneumonia.storage import journal
from pneumonia.storage.journal import Journal

__all__ = ["command", "here"]

SEARCH = (*GRID, 'dense.dropout="choice(0.1, 0.2, 0.3)"')

# Sends itself a signal, as a terminal or the system would, after an epoch of the second trial.
SIGNALLED = """
import os, signal, sys
from pneumonia.cli import main as cli
from pneumonia.storage import journal
append = journal.Journal.append
def append_and_signal(self, kind, /, **fields):
    event = append(self, kind, **fields)
    if kind == "epoch_ended" and (int(fields["trial_id"]), fields["epoch"]) == (1, 1):
        os.kill(os.getpid(), signal.SIGTERM)
    return event
journal.Journal.append = append_and_signal
"""


def epochs(ran: Ran) -> list[int]:
    """Return how many epochs each trial has trained."""
    counts = Counter(event["trial_id"] for event in ran.of("epoch_ended"))
    return [counts[event["trial_id"]] for event in ran.of("trial_started")]


def statuses(ran: Ran) -> list[str]:
    return [run.info.status for run in ran.children.values()]


def score(ran: Ran) -> Any:
    return ran.end["metrics"]["val_auc"]


# Budgets.


@pytest.mark.slow
def test_a_budget_of_epochs_ends_a_search_within_a_trial_and_more_of_it_goes_on(
    here: Callable[..., Ran],
) -> None:
    ran = here(*SEARCH, "budget.epochs=3")
    assert ran.status == 0, ran.stderr
    assert epochs(ran) == [2, 1]
    assert len(ran.of("trial_ended")) == 1
    search_id = ran.events[0]["search_id"]
    note = (
        "`budget.epochs=3` has ended the search. With more of it, it goes on: "
        f"pneumonia resume={search_id} budget.epochs=6"
    )
    assert (ran.end["status"], ran.end["reason"]) == ("completed", note)
    assert note in ran.stdout
    assert "grid over efficientnet_lite0: 3 trials, at most 3 epochs" in ran.stderr
    assert ran.end["metrics"]["trials"] == 1
    every = [event["metrics"]["val_auc"] for event in ran.of("epoch_ended")]
    assert score(ran) == max(every)
    assert ran.parent.info.status == "FINISHED"
    assert ran.parent.data.tags["reason"] == note
    assert statuses(ran) == ["FINISHED", "KILLED"]
    assert ran.store.champion().run_id == ran.parent.info.run_id

    rest = here(f"resume={search_id}", "budget.epochs=null")
    assert (rest.status, rest.folder) == (0, ran.folder), rest.stderr
    assert epochs(rest) == [2, 2, 2]
    assert statuses(rest) == ["FINISHED"] * 3
    assert rest.end["reason"] == ""
    assert not (rest.folder / "trials").exists()
    assert_nothing_repeats_or_runs(rest.store)

    whole = here(*SEARCH)
    assert score(whole) == score(rest)
    assert [e["score"] for e in whole.of("trial_ended")] == [
        e["score"] for e in rest.of("trial_ended")
    ]


@pytest.mark.slow  # as a search
def test_a_training_that_has_no_more_time_gives_what_it_has(here: Callable[..., Ran]) -> None:
    ran = here(*TRAIN, "tuner.max_epochs=4", "budget.seconds=0.001")
    assert ran.status == 0, ran.stderr
    assert epochs(ran) == [1]
    assert ran.of("trial_ended") == []
    assert (ran.end["winner"], ran.end["classifier"]) == ("0000", "classifier.keras")
    assert ran.store.champion().run_id == ran.parent.info.run_id
    assert "val_auc" in ran.stdout
    again = here("resume=last", "budget.seconds=1000")
    assert again.status == 0, again.stderr
    assert epochs(again) == [4]
    assert [event["status"] for event in again.of("search_ended")] == ["completed"] * 2


@pytest.mark.slow
def test_a_budget_of_trials_counts_over_all_the_processes_of_a_search(
    here: Callable[..., Ran],
) -> None:
    ran = here(*SEARCH, "budget.trials=1")
    assert ran.status == 0, ran.stderr
    assert epochs(ran) == [2]
    assert "3 trials" not in ran.stderr
    more = here("resume=last", "budget.trials=2")
    assert more.status == 0, more.stderr
    assert epochs(more) == [2, 2]
    assert "`budget.trials=2` has ended the search" in more.stdout
    search_id = ran.events[0]["search_id"]
    assert more.end["reason"].endswith(f"goes on: pneumonia resume={search_id} budget.trials=4")
    plan = here("resume=last", "budget.trials=3", "--dry-run")
    assert plan.status == 0, plan.stderr
    assert f"{search_id} goes on: 2 of its trials have ended" in plan.stdout
    wrong = here("resume=last", "budget.trials=many")
    assert (wrong.status, wrong.stderr.count("`budget.trials`")) == (2, 1)
    over = here(f"resume={search_id}")
    assert over.status == 0, over.stderr
    assert over.events == more.events


# Signals.


@contextlib.contextmanager
def written_past_python(file: Path) -> Iterator[Path]:
    """Let what is written to the second stream of the system go to a file."""
    kept = os.dup(2)
    with file.open("wb") as target:
        os.dup2(target.fileno(), 2)
    try:
        yield file
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@pytest.mark.parametrize("is_alone", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_signal_ends_a_search_after_the_epoch(
    is_alone: bool,
    tmp_path: Path,
    empty_store: Path,
    command: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    if is_alone:  # in a process of its own
        code = f"{SIGNALLED}sys.exit(cli.main())"
        ran = finish(start(project, *SEARCH, code=code), project)
        at_once = ran.stderr
    else:
        append = Journal.append
        monkeypatch.setattr(Journal, "append", append)  # is put back in the end
        exec(SIGNALLED, {})
        with written_past_python(tmp_path / "told") as told:
            ran = command(project, *SEARCH)
        at_once = told.read_text()
        monkeypatch.setattr(Journal, "append", append)
    search_id = ran.events[0]["search_id"]
    assert ran.status == 130
    assert ran.stderr.endswith(f"Interrupted. To go on: pneumonia resume={search_id}\n")
    assert "Stopping after this epoch" in at_once
    assert "Traceback" not in ran.stderr
    assert epochs(ran) == [2, 1]
    assert (ran.end["status"], statuses(ran)) == ("interrupted", ["FINISHED", "KILLED"])
    assert (ran.parent.info.status, ran.parent.data.tags["status"]) == ("KILLED", "interrupted")
    second = ran.of("trial_started")[1]["trial_id"]
    assert (ran.folder / "trials" / f"{second}.zip").exists()
    again = command(project, f"resume={search_id}")
    assert again.status == 0, again.stderr
    assert epochs(again) == [2, 2, 2]
    assert statuses(again) == ["FINISHED"] * 3
    assert_nothing_repeats_or_runs(again.store)


def test_a_signal_ends_the_computing_of_features_after_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pneumonia.training import frozen_graph

    done: list[int] = []

    def call(models: Any, images: Any, precision: str) -> Any:
        done.append(len(images))
        os.kill(os.getpid(), signal.SIGINT)
        return compute(models, images, precision)

    compute = frozen_graph.call
    monkeypatch.setattr(frozen_graph, "call", call)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pneumonia", *TRAIN, "dataset.train=300"])
    assert main.main() == 130
    assert "Interrupted. To go on: pneumonia resume=last" in capsys.readouterr().err
    assert done == [128]
    assert list((tmp_path / "outputs" / "features").glob("*.part")) == []


# Disks.


def test_a_full_disk_stops_a_search_which_goes_on_when_there_is_room(
    here: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Journal.append
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def append_until_full(self: Journal, kind: str, /, **fields: Any) -> Any:
        event = append(self, kind, **fields)
        if kind == "trial_ended":
            size = self.path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        return event

    monkeypatch.setattr(Journal, "append", append_until_full)
    try:
        ran = here(*SEARCH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.setattr(Journal, "append", append)
    assert ran.status == 2
    search_id = ran.events[0]["search_id"]
    last = ran.stderr.splitlines()[-1]
    assert "journal.jsonl: File too large. What has finished is kept." in last
    assert last.endswith(f"pneumonia resume={search_id}")
    assert "Traceback" not in ran.stderr
    assert epochs(ran) == [2]
    assert ran.events[-1]["kind"] == "trial_ended"
    assert ran.parent.info.status == "KILLED"
    again = here(f"resume={search_id}")
    assert again.status == 0, again.stderr
    assert epochs(again) == [2, 2, 2]
    assert statuses(again) == ["FINISHED"] * 3


def test_a_fault_of_the_program_keeps_its_traceback_and_ends_the_run(
    here: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("pneumonia.search.winner.evaluate", fail)
    with pytest.raises(ZeroDivisionError, match="a fault") as caught:
        here(*TRAIN)
    assert caught.value.__cause__ is None


@pytest.mark.skipif(not Path("/sys").exists(), reason="needs a folder that root cannot write")
def test_a_folder_that_cannot_be_written_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/sys")
    monkeypatch.setattr(sys, "argv", ["pneumonia", *TRAIN])
    assert main.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("`hydra.run.dir`: expected a folder that can be made and written to.")
    assert said.count("\n") == 1


# Plans.


@pytest.mark.parametrize("how", ["--dry-run", "plan=true"])
def test_a_plan_says_all_and_writes_nothing(
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pneumonia", *SMALL, "tuner.max_epochs=9", how])
    assert main.main() == 0
    said = capsys.readouterr().out
    assert "hyperband over efficientnet_lite0: 23 trials, at most 75 epochs, time unknown" in said
    rows = [line.split() for line in said.splitlines()[5:11]]
    assert rows == [
        ["2", "0", "9", "0", "1", "9"],
        ["2", "1", "3", "1", "3", "6"],
        ["2", "2", "1", "3", "9", "6"],
        ["1", "0", "5", "0", "3", "15"],
        ["1", "1", "2", "3", "9", "12"],
        ["0", "0", "3", "0", "9", "27"],
    ]
    for part in ("classifiers", "features", "states while it runs", "logs"):
        assert part in said
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_why_there_are_few_trials_and_what_is_odd_about_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)
    images[3] = 7
    parts = {name: images + n for n, name in enumerate(("train", "val", "test"))}
    labels = {f"{name}_labels": np.arange(12) % 2 for name in parts}
    np.savez(
        tmp_path / "a.npz", **{f"{name}_images": part for name, part in parts.items()}, **labels
    )
    monkeypatch.chdir(tmp_path)
    options = ["dataset=npz", "dataset.path=a.npz", "model=cnn", "model.blocks=1", "plan=true"]
    options += ["model.filters=4", "dense.dropout=0.1", "optimizer.learning_rate=0.001"]
    units = 'dense.units="choice(8, 16)"'
    options += ["tuner=bayesian", "tuner.max_trials=100", units]
    monkeypatch.setattr(sys, "argv", ["pneumonia", *options])
    assert main.main() == 0
    said = capsys.readouterr().out
    assert "bayesian over cnn: 2 trials, " in said
    for line in (
        "there are 2 combinations, and none is tried twice: so not the 100 of tuner.max_trials",
        "warning: blank images, of one value all over: 1 in train, 1 in val, 1 in test",
    ):
        assert said.splitlines().count(line) == 1


@pytest.mark.slow
def test_a_plan_knows_the_time_of_searches_of_the_same_model_and_images(
    here: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = here(*TRAIN)
    (ended,) = ran.of("trial_ended")
    files = sorted(ran.project.rglob("*"))
    for arguments, expected in (
        ((*SEARCH, "dense.units=16"), "by an earlier search of the same model and images"),
        ((*SEARCH, "model.layer=block3b_add"), "time unknown"),
        ((*SEARCH, "dataset.train=200"), "time unknown"),
    ):
        monkeypatch.setattr(sys, "argv", ["pneumonia", *arguments, "--dry-run"])
        assert main.main() == 0
        assert expected in capsys.readouterr().out
    assert sorted(ran.project.rglob("*")) == files
    assert json.loads((ran.folder / journal.NAME).read_text().splitlines()[-1])
    assert ended["seconds"] > 0

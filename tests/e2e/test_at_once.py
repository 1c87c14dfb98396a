"""Whole searches whose trials run at once: the same as one after the other, however they end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_ending import epochs, statuses
from test_search import (
    SEARCH,
    SMALL,
    Ran,
    assert_nothing_repeats_or_runs,
    assert_same_weights,
    command,
    comparable,
    finish,
    here,
    start,
    with_store,
)

__all__ = ["command", "here"]

RANDOM = (
    *SMALL,
    *("tuner=random", "tuner.max_trials=6", "tuner.max_epochs=3", "training.jit=false"),
    *("augment=chest", "augment.views=2"),
    *('dense.dropout="choice(0.1, 0.2, 0.3)"', 'optimizer.learning_rate="interval(0.001, 0.01)"'),
)

# Ends itself when the first two trials have trained an epoch each.
ENDED = """
import os, signal, sys, threading, time
from dataclasses import replace
from pneumonia import startup
from pneumonia.cli import main as cli
startup.start()
from pneumonia.training import trial
run, meeting = trial._run, threading.Barrier(2, timeout=60)
def run_and_end(task, store, hooks, kept):
    calls = []
    def between():
        calls.append(None)
        if len(calls) == 2 and int(task.trial_id) < 2:
            if meeting.wait() == 0:
                os.kill(os.getpid(), signal.SIG{name})
            time.sleep(1)
        hooks.between_epochs()
    return run(task, store, replace(hooks, between_epochs=between), kept)
trial._run = run_and_end
"""


def by_trial(ran: Ran) -> list[Any]:
    """Return the events of the trials, those of one after those of the other."""
    events = [event for event in comparable(ran) if "trial_id" in event]
    return sorted(events, key=lambda event: event["trial_id"])


def without_workers(ran: Ran) -> list[Any]:
    """Return all the events but the workers, those of one trial after those of the other."""
    first, *_, last = comparable(ran)
    first["params"].pop("executor.workers")
    return [first, *by_trial(ran), last]


def best_scores(ran: Ran) -> list[tuple[int, float]]:
    """Return the curve of best scores in MLflow: steps and values."""
    points = ran.store.client.get_metric_history(ran.parent.info.run_id, "best_score")
    return sorted((point.step, point.value) for point in points)


def at_once(ran: Ran) -> int:
    """Return how many trials ran at once, at most."""
    running, most = set(), 0
    for event in ran.events:
        if event["kind"] == "trial_started":
            running.add(event["trial_id"])
        elif event["kind"] == "trial_ended":
            running.discard(event["trial_id"])
        most = max(most, len(running))
    return most


def test_the_search_is_the_same(here: Callable[..., Ran]) -> None:
    alone = here(*RANDOM, "executor.workers=1")
    ran = here(*RANDOM, "executor.workers=3")
    assert (at_once(alone), at_once(ran)) == (1, 3)
    assert without_workers(ran) == without_workers(alone)
    assert_same_weights(ran, alone)
    assert best_scores(ran) == best_scores(alone)
    assert len(best_scores(ran)) == 6
    assert statuses(ran) == ["FINISHED"] * 6
    assert_nothing_repeats_or_runs(ran.store)


@pytest.mark.slow
def test_a_hyperband_is_the_same(here: Callable[..., Ran]) -> None:
    one, two = here(*SEARCH, "executor.workers=1"), here(*SEARCH, "executor.workers=2")
    assert (at_once(one), at_once(two)) == (1, 2)
    assert without_workers(one) == without_workers(two)
    assert_same_weights(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["INT", "KILL"])
def test_a_search_that_ends_with_two_trials_begun_goes_on_to_the_same_end(
    name: str,
    tmp_path: Path,
    empty_store: Path,
    command: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pneumonia.artifacts import state_key
    from pneumonia.training import trial

    project = with_store(tmp_path / "project", empty_store)
    run, gone_on = trial._run, []
    code = ENDED.replace("{name}", name)
    if name == "INT":
        monkeypatch.setattr(trial, "_run", run)  # is put back in the end
        exec(code, {})
        ran = command(project, *RANDOM, "executor.workers=2")
    else:
        code += "sys.exit(cli.main())"
        ran = finish(start(project, *RANDOM, "executor.workers=2", code=code), project)
    assert ran.status == (130 if name == "INT" else -signal.SIGKILL), ran.stderr
    assert "Traceback" not in ran.stderr
    assert epochs(ran) == [1, 1]
    if name == "INT":
        assert ran.stderr.count("Interrupted. To go on: pneumonia resume=") == 1
        assert statuses(ran) == ["KILLED", "KILLED"]
        states = {path.stem for path in (ran.folder / "trials").glob("*.zip")}
        assert states == {event["trial_id"] for event in ran.of("trial_started")}

    def watched(task: trial.Task, *rest: Any) -> trial.Outcome:
        gone_on.append((rest[0].folder / state_key(task.trial_id)).exists())
        return run(task, *rest)

    monkeypatch.setattr(trial, "_run", watched)
    again = command(project, "resume=last", "executor.workers=1")
    assert gone_on == [True, True, False, False, False, False]
    assert (again.status, again.folder) == (0, ran.folder), again.stderr
    alone = command(with_store(tmp_path / "alone", empty_store), *RANDOM, "executor.workers=1")
    assert by_trial(again) == by_trial(alone)
    scores = [event["score"] for event in alone.of("trial_ended")]
    assert best_scores(again) == [(n, max(scores[:n])) for n in range(1, 7)]
    assert_same_weights(again, alone)
    assert statuses(again) == ["FINISHED"] * 6
    assert_nothing_repeats_or_runs(again.store)


@pytest.mark.slow
def test_a_budget_is_shared(here: Callable[..., Ran]) -> None:
    ran = here(*RANDOM, "budget.trials=3", "executor.workers=2")
    assert ran.status == 0, ran.stderr
    assert epochs(ran) == [3, 3, 3]
    ran = here(*RANDOM, "budget.epochs=4", "executor.workers=2")
    assert epochs(ran) == [3, 1]
    ran = here(*RANDOM, "budget.seconds=0.001", "executor.workers=2")
    assert ran.status == 0, ran.stderr
    assert all(count <= 2 for count in epochs(ran))
    assert ran.of("trial_ended") == []
    assert ran.end["winner"] in {event["trial_id"] for event in ran.of("trial_started")}


def test_what_stops_one_trial_stops_the_others(
    here: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pneumonia.training import trial

    run = trial._run

    def disturb(task: trial.Task, *rest: Any) -> trial.Outcome:
        if int(task.trial_id) == 2:
            raise KeyboardInterrupt
        if int(task.trial_id) == 1:
            raise MemoryError("out of memory")
        return run(task, *rest)

    monkeypatch.setattr(trial, "_run", disturb)
    endless = ("tuner.max_epochs=200", "training.early_stopping=null", "executor.workers=2")
    ran = here(*RANDOM, *endless)
    assert ran.status == 130
    assert [event["status"] for event in ran.of("trial_ended")] == ["FAILED"]
    assert statuses(ran) == ["KILLED", "FAILED", "KILLED"]
    assert epochs(ran)[0] < 200
    assert ran.end["status"] == "interrupted"


@pytest.mark.slow
def test_networks_that_are_trained_whole_take_turns(here: Callable[..., Ran]) -> None:
    options = ("model=cnn", "model.image_size=16", "model.blocks=1", "model.filters=4")
    rest = [item for item in RANDOM if not item.startswith(("model.", "augment"))]
    options += ("tuner.max_trials=3", "tuner.max_epochs=2")
    ran = here(*rest, *options, "executor.workers=2")
    assert ran.status == 0, ran.stderr
    order = [event["trial_id"] for event in ran.of("epoch_ended")]
    assert order == sorted(order)
    one = here(*rest, *options, "executor.workers=1")
    assert without_workers(one) == without_workers(ran)

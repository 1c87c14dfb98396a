"""A budget says when it is spent, of a whole search, and what it has stopped may win."""

from __future__ import annotations

import errno
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from families import slow
from test_loop import GRID, Doing, here, of, results, run

from pneumonia.artifacts import ArtifactStore
from pneumonia.errors import UserError
from pneumonia.search.callbacks import SearchCallback, SearchEnd
from pneumonia.search.stopping import Budget, StopRule
from pneumonia.search.trials import Proposal
from pneumonia.storage.journal import Journal
from pneumonia.storage.search_record import SearchRecord
from pneumonia.training import trial
from pneumonia.training.checkpoint import Checkpoints
from pneumonia.training.trial import Hooks, Outcome, Task

__all__ = ["here"]  # a fixture

NONE: dict[str, Any] = {"seconds": None, "trials": None, "epochs": None}


def test_without_limits_nothing_is_ever_spent() -> None:
    budget = Budget(NONE, clock=lambda: 1e9, epochs=10**9)
    budget.trials = 10**9
    assert budget.spent() == ""
    assert Budget({}, clock=lambda: 1e9).spent() == ""  # of a search from before there were any


@pytest.mark.parametrize(("name", "limit"), [("seconds", 2.5), ("trials", 3), ("epochs", 41)])
def test_each_limit_is_spent_when_it_is_reached(name: str, limit: float) -> None:
    used = {"seconds": 0.0, "trials": 0, "epochs": 0}
    budget = Budget({**NONE, name: limit}, clock=lambda: used["seconds"])
    for share, is_spent in ((0, False), (limit - 1.5, False), (limit, True), (limit + 1, True)):
        used[name] = share
        budget.trials, budget.epochs = int(used["trials"]), int(used["epochs"]) + 1
        assert bool(budget.spent()) == is_spent
        if is_spent:
            assert budget.spent() == f"`budget.{name}={limit:g}`"
        # Of a trial that has begun, the number of trials stops nothing.
        assert bool(budget.spent(("seconds", "epochs"))) == (is_spent and name != "trials")


def test_a_search_has_an_epoch_before_its_time_is_up() -> None:
    budget = Budget({**NONE, "seconds": 0.1}, clock=lambda: 5.0)
    assert budget.spent() == ""
    budget.epochs += 1
    assert budget.spent() == "`budget.seconds=0.1`"


def test_a_full_disk_says_how_to_go_on_where_there_is_something_to_go_on_with(
    tmp_path: Path,
) -> None:
    with closing(Journal(tmp_path)) as log:
        past = SearchRecord(tmp_path)
        rule = StopRule(NONE, most_failures=3, journal=log, past=past)
        full = OSError(errno.ENOSPC, "full", "journal.jsonl")
        # The folder of a search that has not begun is removed.
        assert str(rule.explain(full)) == "journal.jsonl: No space left on device."
        past.started = {"search_id": "s1"}
        assert "When that is mended, the search goes on: " in str(rule.explain(full))


# What the budget has stopped.


class Ranking(SearchCallback):
    """Notes the trials that a search has to choose from."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def search_ending(self, end: SearchEnd) -> None:
        if end.won is not None:
            self.numbers = {proposal.number for proposal, _ in end.won.ranked}


def kill_at_the_end(folder: Path, proposal: Proposal | None) -> None:
    if proposal is None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("epochs", [1, slow(3)])
def test_a_trial_that_the_budget_has_stopped_may_win_in_a_later_process(
    epochs: int, here: Path
) -> None:
    ranking, limit = Ranking(), f"budget.epochs={epochs}"
    with pytest.raises(KeyboardInterrupt):
        run(here / "a", *GRID, limit, callbacks=[Doing(kill_at_the_end)])
    events = run(here / "a", *GRID, limit, callbacks=[ranking])
    (end,) = [event for event in of(events, "search_ended") if event["status"] == "completed"]
    assert ranking.numbers == ({1} if epochs == 1 else {1, 2})
    assert len(of(events, "epoch_ended")) == epochs
    assert end["reason"].startswith(f"`{limit}` has ended the search. With more of it, it goes on")
    before = of(events, "search_ended")[0]["seconds_elapsed"]
    assert before < end["metrics"]["seconds"] <= end["seconds_elapsed"] + 0.001


@pytest.mark.parametrize(
    ("workers", "in_order"), [(1, True), slow(2, False), slow(1, False), slow(2, True)]
)
def test_all_that_had_begun_may_win_where_the_budget_is_spent(
    workers: int, in_order: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(2, timeout=60)
    options = (*GRID, "model.trainable=false", f"executor.in_order={in_order}")

    def end(task: Task, store: ArtifactStore, hooks: Hooks, kept: Checkpoints) -> Outcome:
        calls = iter(range(9))

        def between_epochs() -> None:
            if next(calls) == 1:
                meeting.wait()
                raise KeyboardInterrupt

        return train(task, store, replace(hooks, between_epochs=between_epochs), kept)

    train = trial._run
    monkeypatch.setattr(trial, "_run", end)
    with pytest.raises(KeyboardInterrupt):
        run(here / "a", *options, "executor.workers=2")
    monkeypatch.setattr(trial, "_run", train)
    ranking, spent = Ranking(), ("budget.seconds=0.01", f"executor.workers={workers}")
    events = run(here / "a", *options, *spent, callbacks=[ranking])
    assert ranking.numbers == {1, 2}
    assert len(of(events, "epoch_ended")) == 2


def test_folds_that_the_budget_has_stopped_within_the_first_trial_say_so(here: Path) -> None:
    match = r"no winner\. `budget\.epochs=3` has ended the search\. .* budget\.epochs=6$"
    with pytest.raises(UserError, match=match):
        run(here / "a", *GRID, "objective.folds=2", "budget.epochs=3")


# Forks of what the budget has ended.


@pytest.mark.parametrize(
    "limit", ["budget.epochs=3", *map(slow, ("budget.trials=1", "budget.seconds=0.01"))]
)
def test_a_fork_that_only_scores_the_winner_trains_nothing(limit: str, here: Path) -> None:
    unread = run(here / "a", *GRID, limit, "winner.test=false")
    events = run(here / "b", *GRID, limit, fork_of=here / "a")
    (end,) = of(events, "search_ended")
    trained = [
        [(e["trial_id"], e["epoch"], e["metrics"]) for e in of(one, "epoch_ended")]
        for one in (events, unread)
    ]
    assert trained[0] == trained[1]
    trials, winner, measured = results(unread)
    assert results(events)[:2] == [trials, winner]
    assert "test_auc" not in measured
    assert end["metrics"].items() >= measured.items()
    assert "test_auc" in end["metrics"]
    assert end["reason"].startswith(f"`{limit}` has ended the search. With more of it, it goes on")


def test_what_a_fork_takes_over_counts(here: Path) -> None:
    run(here / "a", *GRID, "budget.trials=2")
    other = 'dense.dropout="choice(0.1, 0.2, 0.3, 0.5)"'
    events = run(here / "b", *GRID, other, "budget.trials=2", fork_of=here / "a")
    tags = [event["tags"] for event in of(events, "trial_started")]
    assert ["taken_over_from" in one for one in tags] == [True, False]
    more = run(here / "c", *GRID, "budget.trials=3", fork_of=here / "a")
    tags = [event["tags"] for event in of(more, "trial_started")]
    assert ["taken_over_from" in one for one in tags] == [True, True, False]

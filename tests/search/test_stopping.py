"""A budget says when it is spent, of a whole search."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pneumonia.search.stopping import Budget, StopRule
from pneumonia.storage.journal import Journal
from pneumonia.storage.search_record import SearchRecord

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

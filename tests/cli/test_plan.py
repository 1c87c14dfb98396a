"""What is said of the plan of a search."""

from __future__ import annotations

from typing import Any

import pytest

from pneumonia.cli.plan import footprint, headline, table
from pneumonia.config import compose
from pneumonia.formatting import megabytes
from pneumonia.search import plan as planning
from pneumonia.search.disk_usage import Cost
from pneumonia.search.oracle import Round
from pneumonia.search.plan import Plan, Speed

BRACKETS = (
    *(Round(2, 0, 9, 0, 1), Round(2, 1, 3, 1, 3), Round(2, 2, 1, 3, 9)),
    *(Round(1, 0, 5, 0, 3), Round(1, 1, 2, 3, 9)),
    Round(0, 0, 3, 0, 9),
)


def plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "tuner": "hyperband",
        "model": "cnn",
        "is_search": True,
        "rounds": BRACKETS,
        "fits": 1,
        "trials": 23,
        "epochs": 75,
        "likely": 75,
        "pace": None,
        "max_seconds": None,
        "cost": Cost(72_000_000, 900_000, 4_900_000, 4_800_000),
        "free": 10**9,
        "log_models": "all",
    }
    return Plan(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "hyperband over cnn: 23 trials, at most 75 epochs, time unknown until the first"),
        ({"trials": 1, "epochs": 1}, "hyperband over cnn: 1 trial, at most 1 epoch, time unknown"),
        (
            {"trials": 0, "epochs": 0, "likely": 0},
            "hyperband over cnn: trials without an end, time unknown",
        ),
        ({"is_search": False, "epochs": 9}, "nothing to search: one training of at most 9 epochs"),
        (
            {"pace": Speed(1.0, 2.0, 3)},
            "about 2:01 by the fastest of 3 earlier searches of the same model and images",
        ),
        ({"pace": Speed(2.0, 0.0, 1)}, "about 2:30 by an earlier search"),
        ({"pace": Speed(2.0, 0.0, 1), "max_seconds": 60}, "about 1:00 by"),
    ],
)
def test_the_first_line_says_how_much_there_is_to_do(
    changes: dict[str, Any], expected: str
) -> None:
    assert expected in headline(plan(**changes))


def test_the_table_shows_the_brackets_and_their_sum() -> None:
    shown = table(plan(fits=2))
    assert shown.rows[0] == ("2", "0", "9", "0", "1", "18")
    assert shown.rows[-1] == ("", "sum", "23", "", "", "150")
    assert "every trial is trained 2 times" in str(shown)


def test_a_round_without_trials_is_not_one_of_which_nobody_knows() -> None:
    rounds = (Round(0, 0, 60, 0, 1), Round(0, 1, 0, 1, 9))
    *shown, _ = table(plan(tuner="asha", rounds=rounds, trials=60)).rows
    assert [row[2] for row in shown] == ["60", "0"]
    assert [row[2] for row in table(plan(rounds=(Round(None, 0, 0, 0, 9),))).rows] == ["?", "?"]


def test_the_footprint_warns_of_a_disk_that_is_too_small() -> None:
    assert footprint(plan()) == (
        "takes up to 83 MB on disk: classifiers 72 (tracking.log_models=all), features 0.9, "
        "states while it runs 4.9, logs 4.8"
    )
    assert "warning: only 50 MB are free there" in footprint(plan(free=50_000_000))
    assert "unknown" in footprint(plan(cost=None))
    assert (megabytes(1_234_567_890), megabytes(9_900_000)) == ("1,235", "9.9")


def told_of_ray(*overrides: str, seconds: float | None = None) -> list[str]:
    return planning.of_ray(compose.check(["dataset=phantom", *overrides])[0], seconds)


@pytest.mark.slow
def test_a_plan_says_what_ray_costs_and_where_it_does_not_pay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told_of_ray() == []
    monkeypatch.setattr(planning, "processors", lambda: 4)
    alone = "training.threads=1"
    (cost,) = told_of_ray("executor=ray", "executor.workers=3", "model=cnn", alone, seconds=3600)
    assert cost == "executor=ray: Ray and its 3 workers begin in 12 to 30 s, and take about 2.1 GB"
    _, short = told_of_ray("executor=ray", "model=cnn", alone, seconds=40)
    assert short.startswith("warning: too short for Ray: 2 workers save less than that of 40 s")
    _, stored = told_of_ray("executor=ray", alone, seconds=3600)
    assert stored.startswith("warning: heads on stored features train in less time than Ray takes")
    assert len(told_of_ray("executor=ray", "augment=chest", "augment.views=online", alone)) == 1
    _, many = told_of_ray("executor=ray", "model=cnn", seconds=3600)
    assert many == (
        "warning: 2 workers take 8 threads, and there are 4 processors: training.threads=2"
    )
    assert len(told_of_ray("executor=ray", "executor.address=a:1", "model=cnn", seconds=3600)) == 1

"""Who leads."""

from __future__ import annotations

import math

import pytest

from pneumonia.console.leaderboard import Standings


def ran(standings: Standings, number: int, score: float | None, **values: object) -> None:
    standings.begin(number, values, executions=1, now=0.0)
    standings.end(number, score, now=2.0)


@pytest.mark.parametrize(("direction", "order"), [("max", [3, 1, 2]), ("min", [2, 1, 3])])
def test_the_best_come_first(direction: str, order: list[int]) -> None:
    standings = Standings(direction)
    for number, score in ((1, 0.5), (2, 0.4), (3, 0.6), (4, None), (5, math.nan)):
        ran(standings, number, score, units=number)
    assert [place.number for place in standings.top(5)] == order
    assert [place.number for place in standings.top(1)] == order[:1]
    assert standings.best == {"max": 0.6, "min": 0.4}[direction]


def test_equals_stay_in_order_and_the_same_values_count_once() -> None:
    standings = Standings()
    for number, score, units in ((1, 0.5, 8), (2, 0.5, 16), (3, 0.4, 8), (4, 0.5, 8), (5, 0.6, 16)):
        ran(standings, number, score, units=units)
    assert [place.number for place in standings.top(5)] == [5, 1]


def test_columns_are_what_differs() -> None:
    standings = Standings()
    assert standings.varying() == []
    ran(standings, 1, 0.5, units=8, dropout=0.1)
    assert standings.varying() == ["units", "dropout"]
    ran(standings, 2, 0.5, units=16, dropout=0.1, momentum=0.9)
    assert standings.varying() == ["units", "momentum"]


def test_the_epoch_of_the_best_value_of_the_best_execution() -> None:
    standings = Standings()
    standings.begin(1, {}, executions=2, now=0.0)
    for epoch, value in ((1, 0.5), (2, math.nan), (3, 0.7), (4, 0.7), (1, 0.8), (2, 0.6)):
        standings.epoch(1, epoch, value)
    assert math.isnan(standings.best)
    standings.end(1, 0.75, now=4.0)
    (place,) = standings.top(5)
    assert (place.epoch, place.seconds, standings.best) == (1, 4.0, 0.75)

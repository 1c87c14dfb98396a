"""Who leads."""

from __future__ import annotations

import math

import pytest

from pneumonia.console.leaderboard import Leaderboard
from pneumonia.evaluation.objective import Objective


def ran(board: Leaderboard, number: int, score: float | None, **values: object) -> None:
    board.begin(number, values, of=0, fits=1, now=0.0)
    board.end(number, score, now=2.0)


@pytest.mark.parametrize(("direction", "order"), [("max", [3, 1, 2]), ("min", [2, 1, 3])])
def test_the_best_come_first(direction: str, order: list[int]) -> None:
    board = Leaderboard(Objective("val_auc", direction))
    for number, score in ((1, 0.5), (2, 0.4), (3, 0.6), (4, None), (5, math.nan)):
        ran(board, number, score, units=number)
    assert [row.number for row in board.top(5)] == order
    assert [row.number for row in board.top(1)] == order[:1]
    assert board.best == {"max": 0.6, "min": 0.4}[direction]


def test_equals_stay_in_order_and_the_same_values_count_once() -> None:
    board = Leaderboard(Objective("val_auc", "max"))
    for number, score, units in ((1, 0.5, 8), (2, 0.5, 16), (3, 0.4, 8), (4, 0.5, 8), (5, 0.6, 16)):
        ran(board, number, score, units=units)
    assert [row.number for row in board.top(5)] == [5, 1]


def test_columns_are_what_differs() -> None:
    board = Leaderboard(Objective("val_auc", "max"))
    assert board.varying() == []
    ran(board, 1, 0.5, units=8, dropout=0.1)
    assert board.varying() == ["units", "dropout"]
    ran(board, 2, 0.5, units=16, dropout=0.1, momentum=0.9)
    assert board.varying() == ["units", "momentum"]


def test_the_epoch_of_the_best_value_of_the_best_execution() -> None:
    board = Leaderboard(Objective("val_auc", "max"))
    board.begin(1, {}, of=4, fits=2, now=0.0)
    for epoch, value in ((1, 0.5), (2, math.nan), (3, 0.7), (4, 0.7), (1, 0.8), (2, 0.6)):
        board.epoch(board.running[1], epoch, value)
    assert board.best == -math.inf
    board.end(1, 0.75, now=4.0)
    (row,) = board.top(5)
    assert (row.epoch, row.seconds, board.best) == (1, 4.0, 0.75)

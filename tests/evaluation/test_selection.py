"""Greedy selection takes what helps, as often as it helps."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from pneumonia.evaluation import selection

LABELS = np.array([0, 0, 0, 1, 1, 1])
EVEN = np.ones(6)
GOOD = np.array([0.2, 0.3, 0.6, 0.7, 0.8, 0.6])
OTHER = np.array([0.4, 0.6, 0.1, 0.4, 0.7, 0.9])  # is wrong where GOOD is right
BAD = 1 - GOOD


def test_the_log_loss_is_weighted_and_finite() -> None:
    weights = [1, 1, 1, 3, 3, 3]
    found = selection.log_loss(LABELS, GOOD, weights)
    assert found == pytest.approx(log_loss(LABELS, GOOD, sample_weight=weights))
    assert selection.log_loss([0, 1], [1.0, 0.0], [1, 1]) == pytest.approx(-np.log(1e-7))


def test_what_is_alone_the_best_stays_alone() -> None:
    assert selection.select(LABELS, [BAD, GOOD, BAD], most=5, weights=EVEN) == [1]


def test_what_is_different_helps_and_counts_as_often_as_it_does() -> None:
    drawn = selection.select(LABELS, [BAD, OTHER, GOOD], most=2, weights=EVEN)
    assert drawn == [2, 1]
    drawn = selection.select(LABELS, [GOOD, OTHER], most=50, weights=EVEN)
    shares = np.linspace(0, 1, 1001)[:, None]
    mixed = shares * GOOD + (1 - shares) * OTHER
    best = shares[np.argmin([selection.log_loss(LABELS, one, EVEN) for one in mixed]), 0]
    assert drawn.count(0) / len(drawn) == pytest.approx(best, abs=0.02)


def test_there_are_no_more_than_asked_for_and_the_first_of_equals() -> None:
    assert selection.select(LABELS, [GOOD, OTHER], most=1, weights=EVEN) == [0]
    assert selection.select(LABELS, [GOOD, GOOD, GOOD], most=4, weights=EVEN) == [0]

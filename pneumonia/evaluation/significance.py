"""Whether two classifiers differ on the same images beyond chance, and by how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Flags = NDArray[np.bool_]

_Z = NormalDist().inv_cdf(0.975)
_STEPS = 60  # of a bisection, past the digits of a float


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two classifiers on the same images, and the difference `second - first`.

    Attributes:
        first: The metric of the first classifier.
        second: That of the second.
        low: Lower end of the 95 % interval of the difference.
        high: Its upper end.
        p: Two-sided, of such a difference or a larger one where there is none.
    """

    first: float
    second: float
    low: float
    high: float
    p: float

    @property
    def value(self) -> float:
        """The difference."""
        return self.second - self.first


def delong(positive: Flags, first: FloatArray, second: FloatArray) -> Difference:
    """Compare the areas under two ROC curves of the same images.

    DeLong, DeLong & Clarke-Pearson 1988 (doi:10.2307/2531595), by ranks in O(N log N) as Sun & Xu
    2014 (doi:10.1109/LSP.2014.2337313). All is nan without images of both classes, and the
    variance needs two of each.

    Args:
        positive: Labels (N,).
        first: Probabilities of the first classifier (N,).
        second: Those of the second.
    """
    of_positives, of_negatives = zip(
        *(_placements(positive, scores) for scores in (first, second)), strict=True
    )
    n_positives, n_negatives = len(of_positives[0]), len(of_negatives[0])
    if not n_positives or not n_negatives:
        return Difference(*(math.nan,) * 5)
    one, other = (float(values.mean()) for values in of_positives)
    if min(n_positives, n_negatives) < 2:
        return Difference(one, other, math.nan, math.nan, math.nan)
    variance = (
        np.var(of_positives[1] - of_positives[0], ddof=1) / n_positives
        + np.var(of_negatives[1] - of_negatives[0], ddof=1) / n_negatives
    )
    error, value = math.sqrt(float(variance)), other - one
    if error == 0:  # the same ranks, or ranks that differ in the same way for every image
        return Difference(one, other, value, value, 1.0 if value == 0 else 0.0)
    p = math.erfc(abs(value) / error / math.sqrt(2))
    low, high = max(-1.0, value - _Z * error), min(1.0, value + _Z * error)
    return Difference(one, other, low, high, p)


def mcnemar(first: Flags, second: Flags) -> Difference:
    """Compare the accuracies of two classifiers on the same images.

    The p value is McNemar's exact one, mid-p (Fagerland, Lydersen & Laake 2013,
    doi:10.1186/1471-2288-13-91): the exact one alone finds too little. The interval is Tango's
    (1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B). Both arguments
    (N,) tell which images a classifier has right.
    """
    count = len(first)
    if not count:
        return Difference(*(math.nan,) * 5)
    gained, lost = int(np.sum(second & ~first)), int(np.sum(first & ~second))
    low, high = paired_interval(gained, lost, count)
    return Difference(float(first.mean()), float(second.mean()), low, high, mid_p(gained, lost))


def mid_p(gained: int, lost: int) -> float:
    """Return McNemar's mid-p value of how many pairs differ one way and the other."""
    pairs, fewer = gained + lost, min(gained, lost)
    if gained == lost:
        # Twice the tail counts the middle of the distribution twice.
        return 1.0 - math.comb(pairs, fewer) / (1 << pairs) / 2 if pairs else 1.0
    tail = sum(math.comb(pairs, k) for k in range(fewer + 1))
    return (2 * tail - math.comb(pairs, fewer)) / (1 << pairs)


def paired_interval(gained: int, lost: int, count: int) -> tuple[float, float]:
    """Return Tango's 95 % score interval of `(gained - lost) / count`."""

    def excess(delta: float) -> float:
        """Return the score statistic at a true difference; it falls as that grows."""
        a = 2 * count
        b = -gained - lost + (2 * count - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        # The probability of a loss that is most likely with that difference.
        q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = count * (2 * q + delta * (1 - delta))
        distance = gained - lost - count * delta
        scale = math.sqrt(variance) if variance > 0 else 0.0
        return distance / scale if scale else math.copysign(math.inf, distance)

    value = (gained - lost) / count
    low = _bisect(lambda delta: excess(delta) > _Z, -1.0, value)
    high = _bisect(lambda delta: excess(delta) >= -_Z, value, 1.0)
    return low, high


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return where a condition that holds at the lower end ceases to hold."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def _placements(positive: Flags, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return for each image of a class the share of the other class that it stands right of.

    A tie counts half. The mean of either is the area under the ROC curve.
    """
    positives, negatives = scores[positive], scores[~positive]
    below = _share_below(positives, negatives)
    return below, 1.0 - _share_below(negatives, positives)


def _share_below(scores: FloatArray, others: FloatArray) -> FloatArray:
    ordered = np.sort(others)
    ranks = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(ranks / (2 * max(1, len(others))), dtype=np.float64)

"""Scores of a binary classifier: functions of labels and probabilities, and their intervals.

Every public metric is a plug-in: a function `(y_true, y_score) -> float` that the configuration can
name. NumPy alone computes them, because they run once an epoch and importing scikit-learn takes two
seconds. Undefined is nan, never a guess: of a score that is nan, or without images (or predictions)
of a class that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumonia.evaluation.bootstrap import (
    NAMES,
    FloatArray,
    IntArray,
    arrange,
    measure,
    percentiles,
    resample,
)

BINS = 10
_NAMES = {"auc": "AUC", "f1": "F1", "brier": "Brier score"}
_Z = 1.959964
DECIDED = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1")
"""The metrics that depend on the threshold."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images there are of each true class and predicted class."""

    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int

    @property
    def negatives(self) -> int:
        """Images whose true class is the negative one."""
        return self.true_negatives + self.false_positives

    @property
    def positives(self) -> int:
        """Images whose true class is the positive one."""
        return self.true_positives + self.false_negatives


@dataclass(frozen=True, slots=True)
class Scores:
    """All the scores of one classifier on one split.

    `auc` and `accuracy` are what MedMNIST's evaluator gives (`medmnist/evaluator.py`, MedMNIST v2,
    Yang et al. 2023, doi:10.1038/s41597-022-01721-8): the area under the ROC curve, and the share
    of images that are right where a score strictly above 0.5 means positive.
    """

    auc: Estimate
    average_precision: Estimate
    accuracy: Estimate
    balanced_accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    precision: Estimate
    f1: Estimate
    brier: Estimate
    log_loss: Estimate
    confusion: Confusion
    threshold: float
    resamples: int

    def estimates(self) -> dict[str, Estimate]:
        """Return the estimates by name, in the order of the fields."""
        return {name: getattr(self, name) for name in NAMES}

    def flat(self, prefix: str = "") -> dict[str, float]:
        """Return plain numbers: `<prefix>auc`, `<prefix>auc_low`, `<prefix>auc_high`, and so on.

        Scores that are undefined are left out.
        """
        numbers = {
            f"{prefix}{name}{end}": value
            for name, one in self.estimates().items()
            for end, value in (("", one.value), ("_low", one.low), ("_high", one.high))
        }
        return {name: value for name, value in numbers.items() if not np.isnan(value)}


def roc_auc(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the area under the ROC curve.

    Counted exactly as the Mann-Whitney statistic: the share of pairs of a positive and a negative
    image in which the positive one scores higher, a tie being worth half (Hanley and McNeil 1982,
    doi:10.1148/radiology.143.1.7063747).

    Args:
        y_true: Labels, 0 or 1, of shape (N,) or (N, 1).
        y_score: Scores of the positive class, of the same number; only their order matters.
    """
    positive, score = _flatten(y_true, y_score)
    positives, negatives = np.sort(score[positive]), np.sort(score[~positive])
    pairs = len(positives) * len(negatives)
    if pairs == 0 or np.isnan(score).any():
        return float("nan")
    lower = int(np.searchsorted(negatives, positives, "left").sum())
    lower_or_equal = int(np.searchsorted(negatives, positives, "right").sum())
    return (lower + lower_or_equal) / (2 * pairs)


def average_precision(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the average precision: precision at each threshold, weighted by the gain in recall.

    Not interpolated, as in scikit-learn's `average_precision_score`. Arguments as of `roc_auc`.
    """
    return _value("average_precision", y_true, y_score)


def accuracy(y_true: ArrayLike, y_score: ArrayLike, *, threshold: float = 0.5) -> float:
    """Return the share of images that are right, strictly above the threshold being positive."""
    return _value("accuracy", y_true, y_score, threshold)


def balanced_accuracy(y_true: ArrayLike, y_score: ArrayLike, *, threshold: float = 0.5) -> float:
    """Return the mean of sensitivity and specificity, which no share of positives can flatter."""
    return _value("balanced_accuracy", y_true, y_score, threshold)


def sensitivity(y_true: ArrayLike, y_score: ArrayLike, *, threshold: float = 0.5) -> float:
    """Return the share of the positive images that are predicted positive (recall)."""
    return _value("sensitivity", y_true, y_score, threshold)


def specificity(y_true: ArrayLike, y_score: ArrayLike, *, threshold: float = 0.5) -> float:
    """Return the share of the negative images that are predicted negative."""
    return _value("specificity", y_true, y_score, threshold)


def brier(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the mean squared difference of probability and label: less is better.

    Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2. Scores are probabilities.
    """
    return _value("brier", y_true, y_score)


def log_loss(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the mean negative log likelihood, in nats: less is better.

    Probabilities are kept 1.2e-7 away from 0 and 1, as scikit-learn does for float32.
    """
    return _value("log_loss", y_true, y_score)


def balanced_log_loss(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Return the mean of both classes' log losses, in nats: less is better.

    It does not gain by leaning to the class that a split has more of, as `log_loss` does, and still
    tells classifiers apart whose order of the images, and so whose AUC, is nearly perfect.
    """
    positive, score = _flatten(y_true, y_score)
    return float(np.mean([log_loss(positive[rows], score[rows]) for rows in (positive, ~positive)]))


def evaluate(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    seed: int,
    threshold: float = 0.5,
    resamples: int = 1000,
) -> Scores:
    """Return all the scores, each with a 95 % bootstrap interval.

    The interval is the percentile interval (Efron and Tibshirani 1993, chapter 13) of resamples
    that are stratified by class, as in the R package pROC (Robin et al. 2011,
    doi:10.1186/1471-2105-12-77), so that every score is defined in each. It measures the luck of
    which images are in the split, given its share of positives; not the luck of training. Where
    every image is right it has no width, which is not certainty.

    Args:
        y_true: Labels, 0 or 1, of shape (N,) or (N, 1).
        y_score: Probabilities of the positive class, of the same number.
        seed: Of the resampling.
        threshold: Strictly above it, an image is predicted positive.
        resamples: How many, at least 1.

    Raises:
        ValueError: If the numbers of labels and scores differ, or `resamples` is below 1.
    """
    if resamples < 1:
        raise ValueError(f"`resamples`: expected an integer of at least 1. Received: {resamples}.")
    positive, score = _flatten(y_true, y_score)
    sample = arrange(positive, score, threshold)
    values = measure(sample, np.ones((1, len(score))))[0]
    blocks = [measure(sample, weights) for weights in resample(sample, resamples, seed)]
    lows, highs = percentiles(np.concatenate(blocks))
    estimates = {
        name: Estimate(float(value), float(low), float(high))
        for name, value, low, high in zip(NAMES, values, lows, highs, strict=True)
    }
    counts = confusion(y_true, y_score, threshold=threshold)
    return Scores(**estimates, confusion=counts, threshold=threshold, resamples=resamples)


def confusion(y_true: ArrayLike, y_score: ArrayLike, *, threshold: float = 0.5) -> Confusion:
    """Count the images of each true and predicted class; a score that is nan counts as negative."""
    positive, score = _flatten(y_true, y_score)
    cells = np.bincount(2 * positive + (score > threshold), minlength=4)
    return Confusion(*(int(count) for count in cells))


def worst_errors(
    y_true: ArrayLike, y_score: ArrayLike, *, threshold: float = 0.5, limit: int = 24
) -> IntArray:
    """Return the indices of the images that are wrong, the most confidently wrong first."""
    positive, score = _flatten(y_true, y_score)
    wrong = np.flatnonzero(positive != (score > threshold))
    distance = np.abs(score[wrong] - positive[wrong])
    return wrong[np.argsort(-distance, kind="stable")][:limit].astype(np.int64)


def operating_points(
    y_true: ArrayLike, y_score: ArrayLike
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return what each threshold gives: false positives, true positives, and the threshold.

    One point for each distinct score, descending, the scores that are not below it being positive,
    and a first point at infinity where none is. The ROC curve is the second over the first; the
    curve of precision over recall follows from both. A score that is nan counts as the lowest.
    """
    positive, score = _flatten(y_true, y_score)
    score = np.where(np.isnan(score), -np.inf, score)
    order = np.argsort(-score, kind="stable")
    score = score[order]
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    true_positives = np.cumsum(positive[order])[ends]
    false_positives = ends + 1 - true_positives
    return (
        np.concatenate([[0], false_positives]).astype(np.int64),
        np.concatenate([[0], true_positives]).astype(np.int64),
        np.concatenate([[np.inf], score[ends]]),
    )


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often images are positive at each probability, in `BINS` bins of equal width.

    Attributes:
        total: The images in each bin; all the others are of the bins that have images.
        counts: The images in it.
        mean: Their mean probability.
        share: The share of positive images.
        low: The lower end of the share's 95 % interval (Wilson 1927,
            doi:10.1080/01621459.1927.10502953).
        high: The upper end.
        ece: The expected calibration error: the distance of mean and share, averaged over the
            images (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602).
    """

    total: IntArray
    counts: IntArray
    mean: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray
    ece: float


def measure_reliability(y_true: ArrayLike, y_score: ArrayLike) -> Reliability:
    """Compare probabilities with how many images are positive; a nan counts nowhere."""
    positive, score = _flatten(y_true, y_score)
    positive, score = positive[~np.isnan(score)], score[~np.isnan(score)]
    which = np.clip((score * BINS).astype(int), 0, BINS - 1)
    total = np.bincount(which, minlength=BINS).astype(np.int64)
    used = np.flatnonzero(total)
    n = total[used]
    mean = np.bincount(which, weights=score, minlength=BINS)[used] / n
    share = np.bincount(which, weights=positive, minlength=BINS)[used] / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    low, high = np.minimum(centre - half, share), np.maximum(centre + half, share)
    ece = float(n @ np.abs(mean - share) / max(1, n.sum()))
    return Reliability(total, n, mean, share, low, high, ece)


def _flatten(y_true: ArrayLike, y_score: ArrayLike) -> tuple[NDArray[np.bool_], FloatArray]:
    positive = np.asarray(y_true).ravel() > 0
    score = np.asarray(y_score, dtype=np.float64).ravel()
    if len(positive) != len(score):
        raise ValueError(f"expected as many scores as labels: {len(score)} and {len(positive)}.")
    return positive, score


def _value(name: str, y_true: ArrayLike, y_score: ArrayLike, threshold: float = 0.5) -> float:
    sample = arrange(*_flatten(y_true, y_score), threshold)
    values = measure(sample, np.ones((1, len(sample.positive))))
    return float(values[0, NAMES.index(name)])


def score_name(name: str) -> str:
    """Return what people call a score, such as 'AUC'."""
    return _NAMES.get(name, name.replace("_", " "))

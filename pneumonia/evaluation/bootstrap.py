"""The arithmetic of the metrics, on weighted images: a resample is a row of weights.

Drawing an image again is counting it again, so all the metrics of all the resamples come of sums
over images that are sorted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NAMES = (
    *("auc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity"),
    *("specificity", "precision", "f1", "brier", "log_loss"),
)

# Probabilities come out of a float32 sigmoid: nearer to 0 or 1 they cannot be told from it.
_EPSILON = float(np.finfo(np.float32).eps)
# Weights in one block of resamples (64 KB): in larger ones the allocation of every intermediate
# result costs as much as its arithmetic.
_BLOCK = 1 << 13


@dataclass(frozen=True, slots=True)
class Sample:
    """Images in descending order of their scores.

    Attributes:
        positive: 1 or 0, (N,).
        starts: Where each distinct score begins; None where no two images share one.
        columns: (N, 4), what an image adds to the true positives, the false positives, the squared
            error and the log loss.
        is_defined: Whether no score is nan.
    """

    positive: FloatArray
    starts: IntArray | None
    columns: FloatArray
    is_defined: bool


def arrange(positive: NDArray[np.bool_], score: FloatArray, threshold: float) -> Sample:
    """Sort images (N,) by their scores, and note what each adds to the sums."""
    order = np.argsort(-score, kind="stable")
    positive, score = positive[order], score[order]
    probability = np.clip(score, _EPSILON, 1 - _EPSILON)
    columns = np.stack(
        [
            positive & (score > threshold),
            ~positive & (score > threshold),
            (score - positive) ** 2,
            -np.log(np.where(positive, probability, 1 - probability)),
        ],
        axis=1,
    )
    starts = np.flatnonzero(np.append(True, score[1:] != score[:-1])[: len(score)])
    return Sample(
        positive=positive.astype(np.float64),
        starts=None if len(starts) == len(score) else starts.astype(np.int64),
        columns=columns.astype(np.float64),
        is_defined=not np.isnan(score).any(),
    )


def measure(sample: Sample, weights: FloatArray) -> FloatArray:
    """Return the metrics of weighted images, (R, metrics) in the order of `NAMES`.

    The weights (R, N) are how often each of N images counts, a row being one resample.
    """
    if not sample.is_defined:
        return np.full((len(weights), len(NAMES)), np.nan)
    tp, fp, squared, nats = (weights @ sample.columns).T
    p = weights @ sample.positive
    n = weights.sum(axis=1) - p
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, true_negative_rate = tp / p, (n - fp) / n
        auc, precision_mean = _areas(sample, weights)
        metrics = (
            auc / (p * n),
            precision_mean / p,
            (tp + n - fp) / (p + n),
            (recall + true_negative_rate) / 2,
            recall,
            true_negative_rate,
            tp / (tp + fp),
            2 * tp / (tp + fp + p),
            squared / (p + n),
            nats / (p + n),
        )
    return np.stack(metrics, axis=1)


def _areas(sample: Sample, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the pairs in the right order, and the sum of the precisions at the positives."""
    positives = weights * sample.positive
    negatives = weights - positives
    if sample.starts is not None:
        positives = np.add.reduceat(positives, sample.starts, axis=1)
        negatives = np.add.reduceat(negatives, sample.starts, axis=1)
    tp, fp = np.cumsum(positives, axis=1), np.cumsum(negatives, axis=1)
    lower = fp[:, -1:] - fp + negatives / 2
    precision = tp / np.maximum(tp + fp, 1)  # they count images: below 1 is none at all
    return np.einsum("ru,ru->r", positives, lower), np.einsum("ru,ru->r", positives, precision)


def resample(sample: Sample, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks of weights, (rows, N): how often each image was drawn, within its class."""
    rng = np.random.default_rng(seed)
    size = len(sample.positive)
    classes = [np.flatnonzero(sample.positive == label) for label in (0, 1)]
    block = max(1, _BLOCK // max(1, size))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        weights = np.empty((rows, size))
        for members in filter(len, classes):
            drawn = rng.integers(len(members), size=(rows, len(members)))
            drawn += len(members) * np.arange(rows)[:, np.newaxis]
            counts = np.bincount(drawn.ravel(), minlength=drawn.size)
            weights[:, members] = counts.reshape(rows, -1)
        yield weights


def percentiles(values: FloatArray) -> tuple[list[float], list[float]]:
    """Return the 2.5th and 97.5th percentile of each column, without the resamples that are nan."""
    known = [column[~np.isnan(column)] for column in values.T]
    ends = [np.percentile(one, [2.5, 97.5]) if len(one) else (np.nan, np.nan) for one in known]
    return [low for low, _ in ends], [high for _, high in ends]

"""The metrics, held against scikit-learn."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as reference
from families import slow

from pneumonia.evaluation import metrics

SAMPLES = ["float64", "float32", "ties", "two values", "constant", "few"]


def sample(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size = 12 if kind == "few" else 624
    y = (rng.random(size) < 0.6).astype(np.int64)
    y[:2] = 0, 1
    score = 1 / (1 + np.exp(-(rng.normal(size=size) * 1.5 + 2 * y)))
    if kind == "float32":
        score = score.astype(np.float32)
    if kind == "ties":
        score = score.round(1)
    if kind == "two values":
        score = (score > 0.6) * 0.5
    if kind == "constant":
        score = np.full(size, 0.7)
    return y, score


@pytest.mark.parametrize("kind", SAMPLES)
def test_roc_auc_equals_scikit_learn(kind: str) -> None:
    for seed in range(20):
        y, score = sample(kind, seed)
        expected = reference.roc_auc_score(y, score)
        assert metrics.roc_auc(y, score) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.average_precision, reference.average_precision_score),
        (metrics.accuracy, lambda y, s: reference.accuracy_score(y, s > 0.5)),
        (metrics.balanced_accuracy, lambda y, s: reference.balanced_accuracy_score(y, s > 0.5)),
        (metrics.sensitivity, lambda y, s: reference.recall_score(y, s > 0.5)),
        (metrics.specificity, lambda y, s: reference.recall_score(y, s > 0.5, pos_label=0)),
        (metrics.brier, reference.brier_score_loss),
    ],
)
@pytest.mark.parametrize("kind", SAMPLES)
def test_metrics_equal_scikit_learn(
    kind: str, metric: Callable[..., float], expected: Callable[..., float]
) -> None:
    y, score = sample(kind)
    assert metric(y, score) == pytest.approx(expected(y, score), abs=1e-7)


def test_log_loss_equals_scikit_learn_where_float32_is_certain_and_wrong() -> None:
    y, score = sample("float32")
    score[:4] = 1, 0, 1, 0
    expected = reference.log_loss(y, score)
    assert metrics.log_loss(y, score) == pytest.approx(expected, rel=1e-5)
    assert metrics.log_loss(y, score.astype(np.float64)) == metrics.log_loss(y, score)


def test_balanced_log_loss_gives_both_classes_half() -> None:
    y, score = sample("float64")
    weights = (len(y) / (2 * np.bincount(y)))[y]
    expected = reference.log_loss(y, score, sample_weight=weights)
    assert metrics.balanced_log_loss(y, score) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", SAMPLES)
def test_evaluate_gives_the_same_values_as_the_metrics_and_scikit_learn(kind: str) -> None:
    y, score = sample(kind)
    scores = metrics.evaluate(y, score, seed=1, resamples=10)
    assert scores.auc.value == pytest.approx(metrics.roc_auc(y, score), abs=1e-12)
    for name in ("average_precision", "accuracy", "balanced_accuracy", "sensitivity"):
        assert getattr(scores, name).value == getattr(metrics, name)(y, score)
    assert scores.f1.value == pytest.approx(
        reference.f1_score(y, score > 0.5, zero_division=np.nan), abs=1e-12
    )
    if (score > 0.5).any():
        expected = reference.precision_score(y, score > 0.5)
        assert scores.precision.value == pytest.approx(expected, abs=1e-12)
    else:
        assert math.isnan(scores.precision.value)


@pytest.mark.parametrize("kind", SAMPLES)
def test_intervals_contain_the_value_and_are_ordered(kind: str) -> None:
    y, score = sample(kind)
    for name, estimate in metrics.evaluate(y, score, seed=1, resamples=200).estimates().items():
        if not math.isnan(estimate.value):
            low, high = estimate.low - 1e-12, estimate.high + 1e-12
            assert low <= estimate.value <= high, name


@pytest.mark.slow  # as wide as another way says, and right as often as they say, they are always
@pytest.mark.parametrize("kind", ["float64", "ties"])
def test_intervals_equal_those_of_resampled_images(kind: str) -> None:
    """The weights give what scikit-learn gives on images that are really drawn."""
    y, score = sample(kind)
    rng = np.random.default_rng(5)
    classes = [np.flatnonzero(y == label) for label in (0, 1)]
    drawn = [np.concatenate([rng.choice(c, len(c)) for c in classes]) for _ in range(1000)]
    scores = metrics.evaluate(y, score, seed=1, resamples=1000)
    for name, function in (
        ("auc", reference.roc_auc_score),
        ("average_precision", reference.average_precision_score),
        ("brier", reference.brier_score_loss),
    ):
        low, high = np.percentile([function(y[d], score[d]) for d in drawn], [2.5, 97.5])
        estimate = getattr(scores, name)
        # Two bootstraps of 1,000 differ by chance: about a tenth of the half width.
        close = 0.15 * (high - low)
        assert estimate.low == pytest.approx(low, abs=close)
        assert estimate.high == pytest.approx(high, abs=close)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    truth = 0.8413447460685429  # sensitivity: a normal variable of mean 1 is above 0
    covered = 0
    for seed in range(200):
        y = np.repeat([0, 1], 150)
        logit = rng.normal(size=300) + np.where(y, 1, -1)
        scores = metrics.evaluate(y, 1 / (1 + np.exp(-logit)), seed=seed, resamples=200)
        covered += scores.sensitivity.low <= truth <= scores.sensitivity.high
    assert 0.89 <= covered / 200 <= 0.99


def test_evaluate_is_reproducible_and_follows_its_seed() -> None:
    y, score = sample("float32")
    one, same, other = (metrics.evaluate(y, score, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.auc.value == other.auc.value
    assert one.auc != other.auc


def test_the_threshold_is_strict() -> None:
    y, score = [0, 1, 1], [0.5, 0.5, 0.9]
    assert metrics.accuracy(y, score) == pytest.approx(2 / 3)
    assert metrics.accuracy(y, score, threshold=0.4) == pytest.approx(2 / 3)
    assert metrics.sensitivity(y, score, threshold=0.4) == 1


def test_shapes_and_types_of_keras_are_taken() -> None:
    y, score = sample("float32")
    column = metrics.roc_auc(y.astype(np.float32)[:, None], score[:, None])
    assert column == metrics.roc_auc(y, score)
    assert isinstance(column, float)


PLUG_INS = [
    metrics.roc_auc,
    metrics.average_precision,
    metrics.accuracy,
    metrics.balanced_accuracy,
    metrics.sensitivity,
    metrics.specificity,
    metrics.brier,
    metrics.log_loss,
    metrics.balanced_log_loss,
]


@pytest.mark.parametrize("metric", PLUG_INS)
def test_a_score_that_is_nan_gives_nan(metric: Callable[..., float]) -> None:
    assert math.isnan(metric([0, 1, 1], [0.1, math.nan, 0.8]))


@pytest.mark.parametrize("metric", PLUG_INS)
def test_no_images_give_nan(metric: Callable[..., float]) -> None:
    assert math.isnan(metric([], []))


@pytest.mark.parametrize("metric", PLUG_INS)
def test_different_numbers_are_refused(metric: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="as many scores as labels: 1 and 2"):
        metric([0, 1], [0.5])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_undefined_what_needs_two(label: int) -> None:
    y, score = [label] * 3, [0.2, 0.6, 0.7]
    scores = metrics.evaluate(y, score, seed=1)
    assert math.isnan(metrics.roc_auc(y, score))
    assert math.isnan(scores.auc.value)
    assert math.isnan(scores.auc.low)
    assert math.isnan(scores.balanced_accuracy.value)
    assert scores.accuracy.value == pytest.approx([1 / 3, 2 / 3][label])
    assert "test_auc" not in scores.flat("test_")


def test_infinite_scores_are_ranked() -> None:
    y, score = [0, 0, 1, 1], [-math.inf, 0.0, 0.0, math.inf]
    assert metrics.roc_auc(y, score) == pytest.approx(3.5 / 4)
    assert metrics.average_precision(y, score) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_flat_has_the_value_and_both_ends_of_every_score() -> None:
    scores = metrics.evaluate(*sample("float32"), seed=1, resamples=50)
    flat = scores.flat("test_")
    assert len(flat) == 3 * len(scores.estimates()) == 30
    assert flat["test_auc_low"] == scores.auc.low
    assert flat["test_log_loss"] == scores.log_loss.value


def test_no_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="`resamples`: expected an integer of at least 1"):
        metrics.evaluate([0, 1], [0.1, 0.9], seed=1, resamples=0)


def test_confusion_equals_scikit_learn() -> None:
    y, score = sample("float32")
    counts = metrics.confusion(y, score, threshold=0.6)
    assert dataclasses.astuple(counts) == tuple(reference.confusion_matrix(y, score > 0.6).ravel())
    assert (counts.negatives, counts.positives) == ((y == 0).sum(), (y == 1).sum())


def test_worst_errors_are_wrong_and_in_order() -> None:
    y, score = [0, 0, 1, 1, 1], [0.9, 0.2, 0.3, 0.8, 0.01]
    assert metrics.worst_errors(y, score).tolist() == [4, 0, 2]
    assert metrics.worst_errors(y, score, limit=2).tolist() == [4, 0]
    assert metrics.worst_errors(y, score, threshold=0.005).tolist() == [0, 1]


@pytest.mark.parametrize("kind", SAMPLES)
def test_operating_points_are_those_of_scikit_learn(kind: str) -> None:
    y, score = sample(kind)
    false_positives, true_positives, thresholds = metrics.operating_points(y, score)
    rates = reference.roc_curve(y, score, drop_intermediate=False)
    np.testing.assert_allclose(false_positives / (y == 0).sum(), rates[0])
    np.testing.assert_allclose(true_positives / (y == 1).sum(), rates[1])
    np.testing.assert_allclose(thresholds, rates[2])


def test_operating_points_of_nothing_and_of_nan() -> None:
    assert [len(points) for points in metrics.operating_points([], [])] == [1, 1, 1]
    assert metrics.operating_points([1, 0], [math.nan, 0.5])[1].tolist() == [0, 0, 1]


def test_the_expected_calibration_error() -> None:
    p = np.array([0.05] * 10 + [0.95] * 10)
    labels = np.array([0] * 10 + [1] * 5 + [0] * 5)
    found = metrics.measure_reliability(labels, p)
    assert found.ece == pytest.approx(0.5 * 0.05 + 0.5 * 0.45)
    assert found.share.tolist() == [0, 0.5]
    assert ((found.low <= found.share) & (found.share <= found.high)).all()


def best_seconds(function: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_roc_auc_takes_little_more_than_sorting() -> None:
    rng = np.random.default_rng(0)
    y, score = rng.random(5000) < 0.6, rng.random(5000, dtype=np.float32)
    sorting = best_seconds(lambda: np.argsort(score.astype(np.float64)), 20)
    assert best_seconds(lambda: metrics.roc_auc(y, score), 20) < 10 * sorting


@pytest.mark.parametrize("size", [624, slow(10_000)])
def test_evaluate_takes_no_longer_than_sorting_every_resample(size: int) -> None:
    rng = np.random.default_rng(0)
    y, score = rng.random(size) < 0.6, rng.random(size, dtype=np.float32)
    drawn = rng.random((1000, size))
    sorting = best_seconds(lambda: np.argsort(drawn), 1)
    assert best_seconds(lambda: metrics.evaluate(y, score, seed=1), 3) < 5 * sorting


def test_the_interval_of_the_auc_is_as_wide_as_that_of_delong() -> None:
    """DeLong et al. 1988, doi:10.2307/2531595: another way to the same width."""
    y, score = sample("float64")
    positives, negatives = score[y == 1], score[y == 0]
    wins = positives[:, None] > negatives[None, :]
    error = math.sqrt(
        wins.mean(axis=1).var(ddof=1) / len(positives)
        + wins.mean(axis=0).var(ddof=1) / len(negatives)
    )
    auc = metrics.evaluate(y, score, seed=1).auc
    assert auc.high - auc.low == pytest.approx(2 * 1.96 * error, rel=0.1)

"""Weighted images."""

from __future__ import annotations

import numpy as np
import pytest

from pneumonia.evaluation.bootstrap import NAMES, arrange, measure, percentiles, resample


@pytest.mark.parametrize("size", [2, 30, 20_000])
def test_a_resample_has_as_many_images_of_each_class_as_the_sample(size: int) -> None:
    positive = np.arange(size) % 3 == 0
    sample = arrange(positive, np.linspace(0, 1, size), 0.5)
    weights = np.concatenate(list(resample(sample, 7, seed=1)))
    assert weights.shape == (7, size)
    assert (weights @ sample.positive == positive.sum()).all()
    assert (weights.sum(axis=1) == size).all()
    assert (np.ptp(weights, axis=0) > 0).any() == (size > 2)


@pytest.mark.parametrize("decimals", [1, 8])
def test_a_weight_counts_like_as_many_images(decimals: int) -> None:
    rng = np.random.default_rng(0)
    positive, score = rng.random(50) < 0.5, rng.random(50).round(decimals)
    order = np.argsort(-score, kind="stable")
    times = rng.integers(0, 4, 50)
    weighted = measure(arrange(positive, score, 0.5), times[order][None].astype(float))
    drawn = np.repeat(np.arange(50), times)
    plain = measure(arrange(positive[drawn], score[drawn], 0.5), np.ones((1, len(drawn))))
    np.testing.assert_allclose(weighted, plain, rtol=1e-12)
    assert weighted.shape == (1, len(NAMES))


def test_percentiles_leave_out_what_is_undefined() -> None:
    values = np.column_stack([np.arange(101.0), np.full(101, np.nan)])
    values[100, 0] = np.nan
    lows, highs = percentiles(values)
    assert (lows[0], highs[0]) == pytest.approx((2.475, 96.525))
    assert np.isnan([lows[1], highs[1]]).all()

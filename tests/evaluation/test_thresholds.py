"""Thresholds do what their rules say, held against counting and against scikit-learn and SciPy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from pneumonia.evaluation.metrics import confusion, sensitivity, specificity
from pneumonia.evaluation.thresholds import (
    Decision,
    choose,
    fit_shared_temperature,
    fit_temperature,
    logit,
    predictive_values,
    sigmoid,
)

RNG = np.random.default_rng(0)
LABELS = (RNG.random(300) < 0.7).astype(np.int64)
LOGITS = RNG.normal(2.0 * (2 * LABELS - 1), 2.5)
PROBABILITIES = sigmoid(LOGITS).astype(np.float32)


def section(rule: Any, **changes: Any) -> dict[str, Any]:
    usual = {"target": 0.95, "false_negative_cost": 1.0, "false_positive_cost": 1.0}
    return {"rule": rule, "prevalence": None, "calibrate": False, **usual, **changes}


def chosen(rule: Any, *, share: float = 0.7, **changes: Any) -> float:
    threshold, statement = choose(LABELS, PROBABILITIES, section(rule, **changes), share=share)
    assert statement
    assert 0 <= threshold <= 1
    return threshold


def every_cut() -> list[float]:
    values = np.unique(PROBABILITIES.astype(np.float64))
    return [0.0, *((values[1:] + values[:-1]) / 2), 1.0]


@pytest.mark.parametrize("rule", [0.5, 0.2, 0, 1])
def test_a_number_is_the_threshold(rule: float) -> None:
    assert chosen(rule) == rule


def test_youden_is_the_best_of_all_cuts() -> None:
    def index(threshold: float) -> float:
        return sensitivity(LABELS, PROBABILITIES, threshold=threshold) + specificity(
            LABELS, PROBABILITIES, threshold=threshold
        )

    best = max(index(cut) for cut in every_cut())
    assert index(chosen("youden")) == pytest.approx(best, abs=1e-12)
    assert chosen("youden", prevalence=0.01) == chosen("youden")


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95, 1.0])
def test_sensitivity_is_reached_at_the_greatest_specificity(target: float) -> None:
    threshold = chosen("sensitivity", target=target)
    assert sensitivity(LABELS, PROBABILITIES, threshold=threshold) >= target
    best = max(
        specificity(LABELS, PROBABILITIES, threshold=cut)
        for cut in every_cut()
        if sensitivity(LABELS, PROBABILITIES, threshold=cut) >= target
    )
    assert specificity(LABELS, PROBABILITIES, threshold=threshold) == best


def test_cost_is_the_least() -> None:
    def cost(threshold: float) -> float:
        cells = confusion(LABELS, PROBABILITIES, threshold=threshold)
        return 7.0 * cells.false_negatives + 2.0 * cells.false_positives

    threshold = chosen("cost", false_negative_cost=7.0, false_positive_cost=2.0)
    assert cost(threshold) == min(map(cost, every_cut()))
    # Only the ratio counts.
    assert threshold == chosen("cost", false_negative_cost=3.5, false_positive_cost=1.0)


def test_a_rarer_disease_raises_the_threshold() -> None:
    thresholds = [chosen("cost", prevalence=p) for p in (0.9, 0.5, 0.1, 0.02)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]
    fixed = [chosen(0.5, prevalence=p) for p in (0.9, 0.7, 0.1)]
    assert fixed[0] < 0.5 < fixed[2]
    assert fixed[1] == pytest.approx(0.5)


@pytest.mark.parametrize("prevalence", [0.01, 0.2, 0.5, 0.9])
def test_prevalence_is_corrected_as_bayes_says(prevalence: float) -> None:
    share = 0.7
    p = chosen(0.3, prevalence=prevalence, share=share)
    # The posterior of each class in proportion to the change of its prior, made to sum to one.
    ill, well = p * prevalence / share, (1 - p) * (1 - prevalence) / (1 - share)
    assert ill / (ill + well) == pytest.approx(0.3)


@pytest.mark.parametrize("rule", ["youden", "sensitivity", "cost"])
def test_ties_and_extremes(rule: str) -> None:
    labels = np.array([0, 0, 1, 1])
    # Parted without an error by anything between 0.2 and 0.8.
    threshold, _ = choose(labels, np.array([0.1, 0.2, 0.8, 0.9]), section(rule), share=0.5)
    assert threshold == pytest.approx(0.5)
    # One value for all: every image is positive, or none is.
    threshold, _ = choose(labels, np.full(4, 0.3), section(rule, target=1.0), share=0.5)
    assert threshold in (0.15, 0.65)
    # All the probability that there is.
    threshold, _ = choose(labels, np.array([0.0, 0.0, 1.0, 1.0]), section(rule), share=0.5)
    assert threshold == 0.5


def test_a_sensitivity_that_no_threshold_gives_is_told() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0])
    found = np.array([0.9, 0.8, 0.0, 0.3, 0.0, 0.0])  # nothing is above a threshold that 0 is not
    threshold, statement = choose(labels, found, section("sensitivity", target=1.0), share=0.5)
    assert threshold == pytest.approx(0.55)
    assert statement == (
        "the greatest specificity on val (6 images) at a sensitivity of 0.666667, as no threshold "
        "gives the 1 asked for"
    )
    threshold, statement = choose(labels, found, section("sensitivity", target=0.6), share=0.5)
    assert threshold == pytest.approx(0.55)
    assert statement.endswith("at a sensitivity of 0.6")
    # One that is above 0 is found, as little as that may be.
    threshold, statement = choose(
        labels, np.maximum(found, 1e-45), section("sensitivity", target=1.0), share=0.5
    )
    assert 0 <= threshold < 1e-45
    assert statement.endswith("at a sensitivity of 1")


@pytest.mark.parametrize("rule", ["youden", "sensitivity", "cost"])
def test_probabilities_of_0_alone(rule: str) -> None:
    threshold, _ = choose(np.array([0, 1]), np.zeros(2), section(rule), share=0.5)
    assert threshold == 0.5


def test_temperature_is_the_likeliest() -> None:
    for factor in (0.2, 1.0, 4.0):
        z = factor * LOGITS
        found = fit_temperature(LABELS, z)

        def loss(log_t: float, z: Any = z) -> float:
            signed = np.where(LABELS == 1, -z, z) / np.exp(log_t)
            return float(np.mean(np.logaddexp(0, signed)))

        best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
        assert found == pytest.approx(np.exp(best.x), rel=1e-4)
    many = np.random.default_rng(1)
    z = many.normal(0, 3, 200_000)
    drawn = many.random(len(z)) < sigmoid(z / 2.5)
    assert fit_temperature(drawn, z) == pytest.approx(2.5, rel=0.02)


def test_weights_give_the_temperature_of_other_shares_of_the_classes() -> None:
    rng = np.random.default_rng(2)
    z = rng.gamma(2.0, 1.5, 400_000) - 2.0  # not symmetric, where a shift would pass for heat
    drawn = rng.random(len(z)) < sigmoid(z)
    kept = ~drawn | (rng.random(len(z)) < 0.1)
    labels, z = drawn[kept].astype(np.int64), z[kept]
    assert fit_temperature(labels, z, np.where(labels == 1, 10.0, 1.0)) == pytest.approx(
        1, rel=0.03
    )
    assert abs(fit_temperature(labels, z) - 1) > 0.1


def test_temperature_keeps_its_bounds() -> None:
    labels, z = np.array([0, 1]), np.array([-3.0, 3.0])
    assert fit_temperature(labels, z) == pytest.approx(0.05)
    assert fit_temperature(labels, -z) == pytest.approx(20)


def test_sigmoid_and_logit() -> None:
    z = np.array([-800.0, -5.0, 0.0, 5.0, 800.0])
    np.testing.assert_allclose(sigmoid(z), [0, 1 / (1 + np.exp(5)), 0.5, 1 / (1 + np.exp(-5)), 1])
    np.testing.assert_allclose(logit(sigmoid(z[1:4])), z[1:4])


def test_predictive_values() -> None:
    # Of 1000, 100 ill: 90 found; of 900 well, 180 alarms.
    assert predictive_values(0.9, 0.8, 0.1) == pytest.approx((90 / 270, 720 / 730))
    assert np.isnan(predictive_values(0.0, 1.0, 0.1)[0])


def test_facts_are_plain() -> None:
    facts = Decision(0.3, "youden", 1.5, "so").facts(("well", "ill"))
    assert json.loads(json.dumps(facts)) == {
        "class_names": ["well", "ill"],
        "threshold": 0.3,
        "rule": "youden",
        "temperature": 1.5,
        "statement": "so",
    }


def test_a_shared_temperature_is_that_of_one_or_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = 4 * (2 * labels - 1) + rng.normal(0, 6, (3, 300))
    weights = np.where(labels > 0, 2.0, 1.0)
    alone = fit_temperature(labels, logits[0], weights)
    assert fit_shared_temperature(labels, logits[:1], weights) == pytest.approx(alone, rel=1e-6)
    twice = fit_shared_temperature(labels, logits[[0, 0]], weights)
    assert twice == pytest.approx(alone, rel=1e-6)

    def loss(temperature: float) -> float:
        mean = sigmoid(logits / temperature).mean(axis=0)
        return float(log_loss(labels, mean, sample_weight=weights))

    found = fit_shared_temperature(labels, logits, weights)
    assert loss(found) < min(loss(found * 1.02), loss(found / 1.02))
    assert found < alone  # averaging makes them unsure
    assert 0.05 <= fit_shared_temperature(labels, 1000 * (2 * labels - 1)[None], weights) <= 20

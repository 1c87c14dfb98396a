"""From probabilities to decisions: threshold and temperature, chosen on what was held out.

The rules, each a value of `threshold.rule`:

a number
    That threshold. With `threshold.prevalence` it is a threshold on the probability at that
    prevalence: by Bayes' rule the odds of the disease change by the odds of the prevalences
    (Saerens et al. 2002, doi:10.1162/089976602753284446, equation 2.4), so that
    logit(threshold) = logit(rule) - logit(prevalence) + logit(share), where `share` is the share of
    positives that the probabilities are for.
`youden`
    The greatest sensitivity + specificity - 1 (Youden 1950,
    doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3).
`sensitivity`
    The greatest specificity whose sensitivity is at least `threshold.target`, or the greatest there
    is: a positive image of probability 0 is found at no threshold.
`cost`
    The least expected cost of an image, false_negative_cost x prevalence x (1 - sensitivity) +
    false_positive_cost x (1 - prevalence) x (1 - specificity) (Metz 1978,
    doi:10.1016/S0001-2998(78)80014-2); the prevalence is val's own where none is given.

Sensitivity and specificity do not depend on the prevalence, so it changes neither `youden` nor
`sensitivity`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumonia.evaluation.metrics import Scores, operating_points

Floats = NDArray[np.float64]

_COLDEST, _HOTTEST = 0.05, 20.0
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Decision:
    """How a classifier decides, as its file tells it.

    Attributes:
        threshold: Strictly above it, an image is positive.
        rule: `fixed`, `youden`, `sensitivity` or `cost`.
        temperature: What the logits were divided by; 1 where nothing was calibrated.
        statement: How the threshold was chosen, in words.
    """

    threshold: float = 0.5
    rule: str = "fixed"
    temperature: float = 1.0
    statement: str = ""

    def facts(self, class_names: tuple[str, str]) -> dict[str, Any]:
        """Return what the classifier's file says of it, as JSON takes it."""
        return {"class_names": list(class_names), **asdict(self)}


def choose(
    labels: ArrayLike,
    probabilities: ArrayLike,
    section: Mapping[str, Any],
    *,
    share: float,
    where: str = "on val",
) -> tuple[float, str]:
    """Choose the threshold by the rule of a config's section `threshold`.

    A threshold found on images lies midway between two probabilities that occur; of several as
    good, it is the one nearest to 0.5.

    Args:
        labels: Of the images of val, 0 or 1, (n,); both occur.
        probabilities: Of the positive class, (n,).
        section: rule, target, false_negative_cost, false_positive_cost and prevalence.
        share: The share of positives that the probabilities are for: val's, weighted as training
            weighted the classes.
        where: What the images are, for the words.

    Returns:
        The threshold in [0, 1], and how it was chosen, in words.
    """
    rule, prevalence = section["rule"], section["prevalence"]
    where = f"{where} ({np.size(labels):,} images)"
    if not isinstance(rule, str):
        return _fixed(float(rule), prevalence, share)
    sensitivity, specificity, cuts = _cuts(labels, probabilities)
    if rule == "youden":
        threshold = _nearest_half(cuts, sensitivity + specificity)
        return threshold, f"the greatest sensitivity + specificity {where}"
    if rule == "sensitivity":
        target = section["target"]
        reached = min(target, float(sensitivity.max()))
        enough = np.where(sensitivity >= reached, specificity, -1.0)
        words = f"the greatest specificity {where} at a sensitivity of {reached:g}"
        if reached < target:
            words += f", as no threshold gives the {target:g} asked for"
        return _nearest_half(cuts, enough), words
    own = float(np.mean(np.asarray(labels) > 0)) if prevalence is None else prevalence
    missed, alarmed = section["false_negative_cost"], section["false_positive_cost"]
    cost = missed * own * (1 - sensitivity) + alarmed * (1 - own) * (1 - specificity)
    return _nearest_half(cuts, -cost), (
        f"the least cost {where} where a missed image costs {missed:g}, a false "
        f"alarm {alarmed:g}, and {own:.1%} are positive"
    )


def fit_temperature(
    labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Return the temperature T that makes sigmoid(logits / T) likeliest (Guo et al. 2017).

    The log loss is convex in 1 / T, so bisection of its slope finds the minimum
    (https://arxiv.org/abs/1706.04599, section 4.2). The result is kept within 0.05 to 20: where
    every image is right, no T is small enough. The weights of the samples are those of training:
    probabilities are for the classes' shares by weight. All arguments are (n,).
    """
    y, z = np.asarray(labels, dtype=np.float64), np.asarray(logits, dtype=np.float64)
    w = np.ones_like(y) if weights is None else np.asarray(weights, dtype=np.float64)
    low, high = math.log(1 / _HOTTEST), math.log(1 / _COLDEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = float(np.average(z * (sigmoid(math.exp(middle) * z) - y), weights=w))
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def fit_shared_temperature(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike) -> float:
    """Return the temperature T that makes the mean of sigmoid(logits / T) likeliest.

    As of `fit_temperature`, for the logits (m, n) of several classifiers whose probabilities are
    averaged before they are judged (Rahaman & Thiery 2021, https://arxiv.org/abs/2007.08792): the
    mean of calibrated ones is too unsure. Within its bounds the loss falls and rises again.
    """
    signed = np.where(np.asarray(labels) > 0, 1.0, -1.0) * np.asarray(logits, dtype=np.float64)
    w = np.asarray(weights, dtype=np.float64)

    def loss(log_t: float) -> float:
        likelihoods = np.logaddexp.reduce(-np.logaddexp(0, -signed / math.exp(log_t)), axis=0)
        return float(-np.average(likelihoods, weights=w))

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    for _ in range(_HALVINGS):
        third = (high - low) / 3
        if loss(low + third) <= loss(high - third):
            high -= third
        else:
            low += third
    return math.exp((low + high) / 2)


def sigmoid(z: ArrayLike) -> Floats:
    """Return 1 / (1 + exp(-z)) without overflow."""
    return 0.5 * np.tanh(0.5 * np.asarray(z, dtype=np.float64)) + 0.5


def logit(p: ArrayLike) -> Floats:
    """Return log(p / (1 - p)) of probabilities in (0, 1)."""
    p = np.asarray(p, dtype=np.float64)
    result: Floats = np.log(p) - np.log1p(-p)
    return result


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float, float]:
    """Return the positive and the negative predictive value at a prevalence, by Bayes' rule."""
    found, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    cleared, missed = (1 - prevalence) * specificity, prevalence * (1 - sensitivity)
    positive = found / (found + alarms) if found + alarms else math.nan
    return positive, cleared / (cleared + missed) if cleared + missed else math.nan


def _fixed(rule: float, prevalence: float | None, share: float) -> tuple[float, str]:
    if prevalence is None or not 0 < rule < 1:
        return rule, "given"
    shifted = logit(rule) - logit(prevalence) + logit(share)
    return float(sigmoid(shifted)), (
        f"{rule:g} on the probability at a prevalence of {prevalence:.1%}, where the classifier's "
        f"is that at {share:.1%}"
    )


def _cuts(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return sensitivity, specificity and threshold of every way to part the images in two."""
    false_positives, true_positives, scores = operating_points(labels, probabilities)
    above = np.append(1.0, scores[1:])
    below = np.append(scores[1:], 0.0)
    sensitivity = true_positives / true_positives[-1]
    specificity = 1 - false_positives / false_positives[-1]
    # Positive is what is strictly above: where 0 occurs, no threshold makes all images positive.
    count = len(scores) - int(scores[-1] <= 0)
    return sensitivity[:count], specificity[:count], ((above + below) / 2)[:count]


def _nearest_half(cuts: Floats, goodness: Floats) -> float:
    """Return the best cut; of several as good within rounding, the one nearest to 0.5."""
    best = cuts[goodness >= goodness.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def decided(decision: Decision, chosen: Scores, *, prevalence: float | None) -> list[str]:
    """Return how a classifier decides, in sentences, by the scores at its threshold.

    The prevalence is the share of positives where it will be used, if that is known.
    """
    lines = [f"The classifier's own threshold is {decision.threshold:.4g}: {decision.statement}."]
    if decision.temperature != 1:
        lines.append(
            f"Its logits are divided by {decision.temperature:.4g}, the temperature that fits "
            "images which were held out."
        )
    if prevalence is not None:
        rates = chosen.sensitivity.value, chosen.specificity.value
        positive, negative = predictive_values(*rates, prevalence)
        lines.append(
            f"At a prevalence of {prevalence:.1%}, {positive:.1%} of its positive decisions would "
            f"be right, and {negative:.1%} of its negative ones."
        )
    return lines

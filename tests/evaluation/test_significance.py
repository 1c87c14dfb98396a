"""DeLong and McNemar, against brute force, other libraries and published values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.metrics import roc_auc_score

from pneumonia.evaluation.significance import Difference, delong, mcnemar, mid_p, paired_interval


def drawn(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < 0.6
    first = rng.normal(size=80) + positive
    second = 0.7 * first + 0.3 * rng.normal(size=80) + 0.5 * positive
    return (positive, np.round(first), np.round(second)) if ties else (positive, first, second)


def by_pairs(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Psi of DeLong et al. 1988, equation 2, for all pairs: positives down, negatives across."""
    one, other = scores[positive][:, None], scores[~positive][None]
    return np.where(one > other, 1.0, np.where(one == other, 0.5, 0.0))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_delong_is_what_its_definition_gives(seed: int, ties: bool) -> None:
    positive, first, second = drawn(seed, ties=ties)
    found = delong(positive, first, second)
    psi = [by_pairs(positive, scores) for scores in (first, second)]
    # Their equations 4 to 7: the covariance matrices of the structural components.
    down = np.cov([one.mean(axis=1) for one in psi]) / positive.sum()
    across = np.cov([one.mean(axis=0) for one in psi]) / (~positive).sum()
    contrast = np.array([-1, 1])
    error = math.sqrt(contrast @ (down + across) @ contrast)
    value = psi[1].mean() - psi[0].mean()
    assert found.first == pytest.approx(roc_auc_score(positive, first))
    assert found.second == pytest.approx(roc_auc_score(positive, second))
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(value) / error))
    ends = stats.norm.interval(0.95, value, error)
    assert (found.low, found.high) == pytest.approx(ends)


def test_delong_comes_near_what_resampling_gives() -> None:
    positive, first, second = drawn(7, ties=False)
    found = delong(positive, first, second)
    rng = np.random.default_rng(0)
    classes = [np.flatnonzero(positive == label) for label in (False, True)]
    values = []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(members, len(members)) for members in classes])
        areas = [by_pairs(positive[rows], scores[rows]).mean() for scores in (first, second)]
        values.append(areas[1] - areas[0])
    low, high = np.percentile(values, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_delong_finds_a_difference_by_chance_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(120) < 50
    found = 0
    for _ in range(1000):
        shared, one, other = rng.normal(size=(3, 120))
        found += delong(positive, shared + one + positive, shared + other + positive).p < 0.05
    assert 30 <= found <= 75


def test_the_order_turns_the_sign() -> None:
    positive, first, second = drawn(1, ties=True)
    one, other = delong(positive, first, second), delong(positive, second, first)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p


def test_the_same_classifier_does_not_differ() -> None:
    positive, first, _ = drawn(1, ties=True)
    assert delong(positive, first, first * 2) == Difference(
        *(pytest.approx(roc_auc_score(positive, first)),) * 2, 0.0, 0.0, 1.0
    )
    right = first > 0
    assert mcnemar(right, right).p == 1.0


@pytest.mark.parametrize("count", [0, 1])
def test_delong_without_enough_images_is_undefined(count: int) -> None:
    scores = np.arange(5.0)
    found = delong(np.arange(5) < count, scores, -scores)
    assert math.isnan(found.p)
    assert math.isnan(found.first) == (count == 0)


# Fagerland et al. 2013, doi:10.1186/1471-2288-13-91, tables 1 and 4: airway hyper-responsiveness
# before and after stem cell transplantation (Bentur et al. 2009), 1 and 7 of 21 pairs differ.
def test_mcnemar_gives_the_published_value() -> None:
    assert mid_p(1, 7) == mid_p(7, 1) == pytest.approx(0.0391, abs=5e-5)
    exact = stats.binomtest(1, 8).pvalue
    assert exact == pytest.approx(0.0703, abs=5e-5)
    assert mid_p(1, 7) == pytest.approx(exact - stats.binom.pmf(1, 8, 0.5))


@pytest.mark.parametrize(("gained", "lost"), list(itertools.product((0, 1, 2, 5, 40), repeat=2)))
def test_mid_p_is_the_exact_value_less_half_of_what_was_seen(gained: int, lost: int) -> None:
    pairs = gained + lost
    pmf = stats.binom.pmf(np.arange(pairs + 1), pairs, 0.5)
    more_extreme = pmf[pmf < pmf[gained] * (1 - 1e-9)].sum()
    as_extreme = pmf[np.isclose(pmf, pmf[gained], atol=0)].sum()
    expected = more_extreme + as_extreme / 2 if pairs else 1.0
    if gained == lost and pairs:
        expected = 1 - pmf[gained] / 2
    assert mid_p(gained, lost) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gained", "lost", "count"), [(1, 7, 21), (40, 20, 160), (0, 5, 30), (3, 3, 624), (0, 0, 50)]
)
def test_the_interval_is_where_the_score_test_of_a_fitted_loss_rejects(
    gained: int, lost: int, count: int
) -> None:
    def rejects(delta: float) -> bool:
        def unlikelihood(q: float) -> float:
            terms = ((gained, q + delta), (lost, q), (count - gained - lost, 1 - 2 * q - delta))
            return -sum(k * math.log(max(share, 1e-300)) for k, share in terms if k)

        bounds = (max(0.0, -delta), (1 - delta) / 2)
        q = float(optimize.minimize_scalar(unlikelihood, bounds=bounds, method="bounded",
                                           options={"xatol": 1e-12}).x)  # fmt: skip
        variance = count * (2 * q + delta - delta**2)
        return (gained - lost - count * delta) ** 2 / max(variance, 1e-12) > stats.chi2.ppf(0.95, 1)

    low, high = paired_interval(gained, lost, count)
    assert -1 <= low <= (gained - lost) / count <= high <= 1
    for end, outwards in ((low, -1e-3), (high, 1e-3)):
        assert rejects(end + outwards)
        assert not rejects(end - outwards)


def test_mcnemar_on_images() -> None:
    first = np.array([True] * 12 + [False] * 9)
    second = np.array([True] * 5 + [False] * 7 + [True] + [False] * 8)
    found = mcnemar(first, second)
    assert (found.first, found.second) == pytest.approx((12 / 21, 6 / 21))
    assert found.p == pytest.approx(0.0391, abs=5e-5)
    # Fagerland et al. 2014, doi:10.1002/sim.6148: Tango's interval of these data.
    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=5e-4)

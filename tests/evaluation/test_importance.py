"""How much each hyperparameter matters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from pneumonia.config.ranges import Range, parse
from pneumonia.evaluation import importance

RANGES = (
    parse("a", "interval(0, 1)"),
    parse("b", "tag(log, interval(1e-4, 1e-2))"),
    parse("c", "choice(x, y, z)"),
)


Trial = tuple[dict[str, Any], int, float]  # values, epochs, score


def trials(score: Callable[[dict[str, Any], Any], float], count: int) -> list[Trial]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        values = {"a": rng.uniform(), "b": 10 ** rng.uniform(-4, -2), "c": "xyz"[rng.integers(3)]}
        found.append((values, 5, score(values, rng)))
    return found


def measured(some: list[Trial], ranges: tuple[Range, ...]) -> importance.Importances:
    values, epochs, scores = zip(*some, strict=True) if some else ((), (), ())
    keys = [repr(sorted(one.items())) for one in values]
    return importance.measure(ranges, values, keys=keys, epochs=epochs, scores=scores)


def test_what_matters_is_found_on_each_kind_of_axis() -> None:
    for name, score in {
        "a": lambda v, rng: v["a"] + 0.05 * rng.normal(),
        "b": lambda v, rng: np.log10(v["b"]) + 0.05 * rng.normal(),
        "c": lambda v, rng: "xyz".index(v["c"]) + 0.05 * rng.normal(),
    }.items():
        found = measured(trials(score, 60), RANGES)
        first, *others = found.parts
        assert first.path == name
        assert first.low <= first.value <= first.high
        assert first.value > 0.75
        assert all(other.value < 0.1 for other in others)
        assert found.explained > 0.8


def test_noise_is_not_foretold() -> None:
    found = measured(trials(lambda v, rng: rng.normal(), 40), RANGES)
    assert found.explained < 0.2
    assert {part.path for part in found.parts} == {"a", "b", "c"}  # all had the same epochs


def test_too_few_trials_or_no_differences_tell_nothing() -> None:
    few = measured(trials(lambda v, rng: v["a"], importance.LEAST - 1), RANGES)
    same = measured(trials(lambda v, rng: 0.5, 40), RANGES)
    assert few.parts == same.parts == ()
    assert few.settings == importance.LEAST - 1
    assert measured([], RANGES).settings == 0


def test_epochs_take_the_blame_for_what_they_did() -> None:
    short = trials(lambda v, rng: 0.5 + 0.01 * rng.normal(), 40)
    long = [(values, 20, 0.9) for values, _, _ in short[:20]]
    found = measured([*short[20:], *long], RANGES)
    assert found.parts[0].path == "epochs"
    assert found.parts[0].value > 0.6


def test_shares_are_those_of_all_combinations() -> None:
    rng = np.random.default_rng(0)
    axes = [np.arange(4.0), np.arange(3.0), np.arange(5.0)]
    grid = np.array(list(itertools.product(*axes)))
    tree = DecisionTreeRegressor(max_leaf_nodes=9).fit(grid, rng.normal(size=len(grid)))
    values = tree.predict(grid)
    expected = [
        np.var([values[grid[:, column] == value].mean() for value in axis]) / values.var()
        for column, axis in enumerate(axes)
    ]
    assert importance.decompose(tree.tree_, axes) == pytest.approx(expected)


def test_a_value_that_does_not_exist_has_a_place_of_its_own() -> None:
    assert importance.position(RANGES[0], ...) == -1
    assert importance.position(RANGES[1], ...) == pytest.approx(-5)
    assert importance.position(RANGES[2], ...) == -1
    assert importance.position(RANGES[1], 1e-3) == pytest.approx(-3)
    some = trials(lambda v, rng: v["a"], 40)
    some = [({"a": values["a"]}, epochs, score) for values, epochs, score in some]
    found = measured(some, RANGES)
    assert found.parts[0].path == "a"


def test_single_values_are_left_out() -> None:
    single: tuple[Range, ...] = (RANGES[0], parse("d", "choice(1)"))
    found = measured(trials(lambda v, rng: v["a"], 40), single)
    assert [part.path for part in found.parts] == ["a"]

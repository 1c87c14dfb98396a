"""How much each hyperparameter matters: functional ANOVA of a random forest over the trials.

After Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter
importance" (https://proceedings.mlr.press/v32/hutter14.html): a forest of regression trees learns
the objective; the importance of a hyperparameter is the share of the forest's variance over the
whole space that it explains alone, all the others being averaged out.

The epochs that a trial was given are an input too, so that Hyperband's short trials are not held
against their values. Trials with the same values, such as one and what it was promoted to, are
drawn together, and how well the forest foretells values it has not seen says whether there is
anything to believe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumonia.config.ranges import Range, same

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EPOCHS = "epochs"
# With fewer different values than this, a forest finds patterns in anything.
LEAST = 12
_RESAMPLES, _TREES = 40, 4
_POINTS = 32  # that stand for all the values of an interval
_MOST = 1000  # trials that are looked at: further ones tell little


@dataclass(frozen=True, slots=True)
class Importance:
    """The share of the variance, 0 to 1, that a hyperparameter (or `epochs`) explains alone.

    It is the mean over resamples of the trials, and their 2.5th and 97.5th percentile.
    """

    path: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Importances:
    """What the trials tell of the hyperparameters.

    Attributes:
        parts: The most important first; empty where there is nothing to tell.
        explained: The share of the variance between trials left out that the forest foretells
            (R squared, out of bag); nan if unknown, and below 0 where it is worse than the mean.
        settings: How many different values the trials had.
    """

    parts: tuple[Importance, ...]
    explained: float
    settings: int


def measure(
    ranges: Sequence[Range],
    values: Sequence[Mapping[str, Any]],
    *,
    keys: Sequence[str],
    epochs: Sequence[int],
    scores: Sequence[float],
) -> Importances:
    """Return the importance of every hyperparameter that varies.

    Args:
        ranges: What was searched.
        values: The hyperparameters of each trial that came to a score, by path.
        keys: One for each trial, the same for those with the same values.
        epochs: Up to which each trial was to be trained.
        scores: What each came to.
    """
    values, y = values[:_MOST], np.array(scores[:_MOST], np.float64)
    groups = np.unique(keys[:_MOST], return_inverse=True)[1] if keys else np.zeros(0, np.int64)
    settings = int(groups.max()) + 1 if len(groups) else 0
    if settings < LEAST or np.ptp(y) == 0:
        return Importances((), float("nan"), settings)
    given = np.array(epochs[:_MOST], np.float64)
    columns = [
        np.array([position(item, one.get(item.path, ...)) for one in values]) for item in ranges
    ]
    x = np.stack([*columns, given], axis=1)
    axes = [*map(_axis, ranges, columns), np.unique(given)]
    shares, explained = _resample(x, y, groups, axes)
    low, high = np.percentile(shares, [2.5, 97.5], axis=0)
    parts = [
        Importance(path, float(mean), float(start), float(end))
        for path, mean, start, end, column in zip(
            [*(item.path for item in ranges), EPOCHS], shares.mean(axis=0), low, high, x.T,
            strict=True,
        )
        if np.ptp(column) > 0
    ]  # fmt: skip
    return Importances(tuple(sorted(parts, key=lambda p: -p.value)), explained, settings)


def _resample(
    x: FloatArray, scores: FloatArray, groups: IntArray, axes: Sequence[FloatArray]
) -> tuple[FloatArray, float]:
    """Return the shares (resamples, columns), and the R squared of what was left out."""
    from sklearn.tree import DecisionTreeRegressor

    rng = np.random.default_rng(0)  # the same trials always tell the same
    count = int(groups.max()) + 1
    shares = np.zeros((_RESAMPLES, x.shape[1]))
    sums, times = np.zeros(len(x)), np.zeros(len(x))
    for number in range(_RESAMPLES):
        drawn = rng.integers(count, size=count)
        left_out = ~np.isin(groups, drawn)
        for _ in range(_TREES):
            weights = np.bincount(rng.choice(drawn, size=count), minlength=count)[groups]
            used = weights > 0
            tree = DecisionTreeRegressor(min_samples_leaf=2, random_state=int(rng.integers(2**31)))
            tree.fit(x[used], scores[used], sample_weight=weights[used])
            shares[number] += decompose(tree.tree_, axes) / _TREES
            if left_out.any():
                sums[left_out] += tree.predict(x[left_out])
                times[left_out] += 1
    known = times > 0
    residual = scores[known] - sums[known] / times[known]
    spread = scores[known] - scores[known].mean()
    return shares, float(1 - (residual @ residual) / max(spread @ spread, 1e-300))


def decompose(tree: Any, axes: Sequence[FloatArray]) -> FloatArray:
    """Return the share of the variance of scikit-learn's tree that each input explains alone.

    Exact: a tree is constant in boxes, so that averaging the other inputs out is a weighted sum
    over its leaves. The axes are the values, all equally likely, that each input can have.
    """
    inside, values = _leaves(tree, axes)
    parts = np.stack([member.mean(axis=1) for member in inside], axis=1)  # (leaves, inputs)
    volumes = parts.prod(axis=1)
    mean = float(volumes @ values)
    total = float(volumes @ (values - mean) ** 2)
    if total <= 0:
        return np.zeros(len(axes))
    found = []
    for column, member in enumerate(inside):
        others = np.delete(parts, column, axis=1).prod(axis=1)
        marginal = (others * values) @ member
        found.append(float(np.mean((marginal - mean) ** 2)) / total)
    return np.array(found)


def _leaves(tree: Any, axes: Sequence[FloatArray]) -> tuple[list[NDArray[np.bool_]], FloatArray]:
    """Return for each input which of its values lie in each leaf's box, and the leaves' values."""
    boxes: list[list[NDArray[np.bool_]]] = []
    values: list[float] = []
    waiting = [(0, [np.ones(len(axis), bool) for axis in axes])]
    while waiting:
        node, box = waiting.pop()
        column = int(tree.feature[node])
        if column < 0:
            boxes.append(box)
            values.append(float(tree.value[node].ravel()[0]))
            continue
        below = axes[column] <= tree.threshold[node]
        for child, side in ((tree.children_left, below), (tree.children_right, ~below)):
            waiting.append(
                (int(child[node]), [*box[:column], box[column] & side, *box[column + 1 :]])
            )
    inside = [np.stack([box[column] for box in boxes]) for column in range(len(axes))]
    return inside, np.array(values)


def position(item: Range, value: Any) -> float:
    """Return where a value lies on the axis of a hyperparameter: its logarithm, or its index.

    A value that is not there (an ellipsis), because the hyperparameter's condition does not hold,
    lies before all the others.
    """
    if value is ...:
        return _ends(item)[0] - 1.0
    if item.kind == "choice":
        found = (index for index, own in enumerate(item.values) if same(own, value))
        return float(next(found, -1))
    return float(np.log10(value)) if item.log else float(value)


def _axis(item: Range, column: FloatArray) -> FloatArray:
    """Return values that stand for all that a hyperparameter can have, absence too if it occurs."""
    low, high = _ends(item)
    if item.kind == "choice":
        points = np.arange(len(item.values), dtype=np.float64)
    elif item.kind == "int" and item.size <= _POINTS:
        whole = np.arange(item.low, item.high + 1, dtype=np.float64)
        points = np.log10(whole) if item.log else whole
    else:
        points = np.linspace(low, high, _POINTS)
    absent = position(item, ...)
    return np.insert(points, 0, absent) if absent in column else points


def _ends(item: Range) -> tuple[float, float]:
    if item.kind == "choice":
        return 0.0, len(item.values) - 1.0
    if item.log:
        return float(np.log10(item.low)), float(np.log10(item.high))
    return float(item.low), float(item.high)

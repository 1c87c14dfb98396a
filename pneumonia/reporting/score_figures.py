"""Figures of how good the final classifier is: ROC, precision-recall, reliability."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pneumonia.evaluation import metrics
from pneumonia.evaluation.metrics import BINS, Reliability
from pneumonia.reporting import figures
from pneumonia.reporting.figures import Figure, Json, axis, escape
from pneumonia.storage.predictions import Predictions

FloatArray = NDArray[np.float64]

_MOST_POINTS = 400  # of a curve: more than a screen can show apart
_LOOKS: Mapping[str, Json] = {
    "test": {"color": "@blue", "dash": "solid", "width": 2.4},
    "val": {"color": "@orange", "dash": "dash", "width": 1.6},
}
_HOVER = "%{y:.3f} at %{x:.3f}<extra>%{fullData.name}</extra>"
_CHANCE = {"color": "@grey", "dash": "dot", "width": 1.0}


def roc(predictions: Mapping[str, Predictions], thresholds: Mapping[str, float]) -> Figure:
    """Draw the ROC curve of each split, and the named thresholds on that of the test split."""
    traces, told = [_line([0, 1], [0, 1], "chance", _CHANCE)], []
    for name, one in _splits(predictions):
        false, true, _ = metrics.operating_points(one.labels, one.probabilities)
        auc = metrics.roc_auc(one.labels, one.probabilities)
        x, y = false / max(1, false[-1]), true / max(1, true[-1])
        traces.append(_line(*_thin(x, y), f"{name}, AUC {auc:.3f}", _LOOKS[name]))
        told.append(f"AUC {auc:.3f} on {name}")
    traces += _marks(predictions, thresholds, is_roc=True)
    text = f"True positive rate against false positive rate: {', '.join(told)}."
    axes = ("false positive rate (1 - specificity)", "sensitivity")
    return _square("roc", "ROC curve", text, traces, *axes)


def precision_recall(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float]
) -> Figure:
    """Draw precision over recall of each split, and the named thresholds on that of test."""
    traces, told = [], []
    for name, one in _splits(predictions):
        false, true, _ = metrics.operating_points(one.labels, one.probabilities)
        false, true, share = false[1:], true[1:], float(one.labels.mean())
        mean = metrics.average_precision(one.labels, one.probabilities)
        recall, precision = true / max(1, true[-1]), true / np.maximum(1, true + false)
        traces.append(_line(*_thin(recall, precision), f"{name}, AP {mean:.3f}", _LOOKS[name]))
        chance = _line([0, 1], [share, share], f"chance on {name}", _CHANCE)
        traces.append(chance | {"showlegend": False, "hoverinfo": "name"})
        told.append(f"average precision {mean:.3f} on {name}")
    traces += _marks(predictions, thresholds, is_roc=False)
    text = f"Precision against recall: {', '.join(told)}."
    axes = ("recall (sensitivity)", "precision")
    return _square("precision-recall", "Precision and recall", text, traces, *axes)


def reliability(measured: Mapping[str, Reliability]) -> Figure:
    """Draw how often images are positive at each probability given."""
    traces = [_line([0, 1], [0, 1], "ideal", _CHANCE)]
    for name in sorted(measured, key=list(_LOOKS).index):
        one = measured[name]
        ends = list(zip(one.share, one.low, one.high, strict=True))
        line = _line(one.mean, one.share, f"{name}, ECE {one.ece:.3f}", _LOOKS[name])
        line |= {
            "mode": "lines+markers", "text": [f"{count:,} images" for count in one.counts],
            "error_y": figures.intervals(ends, _LOOKS[name]["color"], width=3),
            "hovertemplate": "%{y:.1%} positive at %{x:.1%}, %{text}<extra></extra>",
        }  # fmt: skip
        traces.append(line)
    told = ", ".join(f"{one.ece:.3f} on {name}" for name, one in measured.items())
    text = "Share of positive images against the probability given; expected calibration error"
    axes = ("probability given", "share of positive images")
    return _square("reliability", "Reliability", f"{text} {told}.", traces, *axes)


def histogram(predictions: Predictions, class_names: tuple[str, str], split: str) -> Figure:
    """Draw how many images of each class were given which probability."""
    edges = np.linspace(0, 1, 2 * BINS + 1)
    traces = []
    for label, colour in ((0, "@blue"), (1, "@orange")):
        counts, _ = np.histogram(predictions.probabilities[predictions.labels == label], edges)
        x, hover = figures.rounded(edges[:-1] + 0.025), "%{y} images at about %{x:.2f}"
        bars = figures.bars(x, counts, escape(class_names[label]), colour, hover)
        traces.append(bars | {"width": 0.046})
    return Figure(
        "histogram",
        f"Probabilities on {split}",
        f"Numbers of images of each class by the probability given, on the {split} split.",
        traces,
        {
            "barmode": "stack",
            "xaxis": axis("probability given", range=[0, 1]),
            "yaxis": axis("images"),
        },
        height=420,
    )


def _splits(predictions: Mapping[str, Predictions]) -> list[tuple[str, Predictions]]:
    """Return the splits that are drawn, test first."""
    return [(name, predictions[name]) for name in _LOOKS if name in predictions]


def _line(x: figures.Numbers, y: figures.Numbers, name: str, line: Json) -> Json:
    return figures.lines(x, y, name, line=line, hovertemplate=_HOVER)


def _marks(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float], *, is_roc: bool
) -> list[Json]:
    """Return a point for each threshold on the curve of the test split."""
    traces, test = [], predictions.get("test")
    symbols = ("circle", "diamond", "square")
    for symbol, (name, threshold) in zip(symbols, thresholds.items(), strict=False):
        if test is not None:
            one = metrics.confusion(test.labels, test.probabilities, threshold=threshold)
            recall = one.true_positives / max(1, one.positives)
            precision = one.true_positives / max(1, one.true_positives + one.false_positives)
            false = one.false_positives / max(1, one.negatives)
            x, y = (false, recall) if is_roc else (recall, precision)
            edge = {"color": "@page", "width": 1.5}
            look = {"color": "@purple", "size": 11, "symbol": symbol, "line": edge}
            traces.append(figures.dots([x], [y], name, marker=look, hovertemplate=_HOVER))
    return traces


def _square(key: str, title: str, alt: str, traces: list[Json], x: str, y: str) -> Figure:
    """Return a figure of which both axes go from 0 to 1."""
    unit = {"range": [-0.02, 1.02], "zeroline": False}
    axes = {"xaxis": axis(x, **unit), "yaxis": axis(y, **unit)}
    return Figure(key, title, alt, traces, axes, height=420)


def _thin(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return at most so many points of a curve, the ends among them."""
    kept = np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS))
    kept = np.unique(np.rint(kept).astype(np.int64))
    return x[kept], y[kept]

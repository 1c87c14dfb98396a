"""Figures of how good the final classifier is: ROC, precision-recall, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pneumonia.evaluation import metrics
from pneumonia.evaluation.metrics import BINS, Reliability
from pneumonia.reporting.figures import Figure, Json, escape, rounded
from pneumonia.storage.search_record import Predictions

FloatArray = NDArray[np.float64]

_MOST_POINTS = 400  # of a curve: more than a screen can show apart
_LOOKS = {"test": ("@blue", "solid", 2.4), "val": ("@orange", "dash", 1.6)}


def roc(predictions: Mapping[str, Predictions], thresholds: Mapping[str, float]) -> Figure:
    """Draw the ROC curve of each split, and the thresholds on that of the test split.

    Args:
        predictions: By split, at least one.
        thresholds: What to mark, by what it is called.
    """
    traces = [_line([0, 1], [0, 1], "chance", "@grey", "dot", 1.0)]
    told = []
    for name, one in _splits(predictions):
        false, true, _ = metrics.operating_points(one.labels, one.probabilities)
        kept = _thin(len(false))
        x, y = false[kept] / max(1, false[-1]), true[kept] / max(1, true[-1])
        auc = metrics.roc_auc(one.labels, one.probabilities)
        traces.append(_line(x, y, f"{name}, AUC {auc:.3f}", *_LOOKS.get(name, _LOOKS["val"])))
        told.append(f"AUC {auc:.3f} on {name}")
    traces += _marks(predictions, thresholds, is_roc=True)
    return Figure(
        "roc",
        "ROC curve",
        f"True positive rate against false positive rate: {', '.join(told)}.",
        traces,
        _unit("false positive rate (1 - specificity)", "sensitivity"),
        height=420,
    )


def precision_recall(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float]
) -> Figure:
    """Draw precision over recall of each split, and the thresholds on that of the test split.

    Args:
        predictions: By split, at least one.
        thresholds: What to mark, by what it is called.
    """
    traces, told = [], []
    for name, one in _splits(predictions):
        false, true, _ = metrics.operating_points(one.labels, one.probabilities)
        false, true = false[1:], true[1:]
        kept = _thin(len(false))
        recall, precision = true / max(1, true[-1]), true / np.maximum(1, true + false)
        mean = metrics.average_precision(one.labels, one.probabilities)
        look = _LOOKS.get(name, _LOOKS["val"])
        traces.append(_line(recall[kept], precision[kept], f"{name}, AP {mean:.3f}", *look))
        share = float(one.labels.mean())
        chance = _line([0, 1], [share, share], f"chance on {name}", "@grey", "dot", 1.0)
        traces.append(chance | {"showlegend": False, "hoverinfo": "name"})
        told.append(f"average precision {mean:.3f} on {name}")
    traces += _marks(predictions, thresholds, is_roc=False)
    return Figure(
        "precision-recall",
        "Precision and recall",
        f"Precision against recall: {', '.join(told)}.",
        traces,
        _unit("recall (sensitivity)", "precision"),
        height=420,
    )


def reliability(measured: Mapping[str, Reliability]) -> Figure:
    """Draw how often images are positive at each probability given."""
    traces = [_line([0, 1], [0, 1], "ideal", "@grey", "dot", 1.0)]
    for name in sorted(measured, key=list(_LOOKS).index):
        one, (colour, dash, width) = measured[name], _LOOKS[name]
        error = {
            "type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 3,
            "array": rounded(one.high - one.share), "arrayminus": rounded(one.share - one.low),
        }  # fmt: skip
        line = _line(one.mean, one.share, f"{name}, ECE {one.ece:.3f}", colour, dash, width)
        texts = [f"{count:,} images" for count in one.counts]
        line |= {
            "mode": "lines+markers", "error_y": error, "text": texts,
            "hovertemplate": "%{y:.1%} positive at %{x:.1%}, %{text}<extra></extra>",
        }  # fmt: skip
        traces.append(line)
    told = ", ".join(f"{one.ece:.3f} on {name}" for name, one in measured.items())
    return Figure(
        "reliability",
        "Reliability",
        "Share of positive images against the probability given; expected calibration error "
        f"{told}.",
        traces,
        _unit("probability given", "share of positive images"),
        height=420,
    )


def histogram(predictions: Predictions, class_names: tuple[str, str], split: str) -> Figure:
    """Draw how many images of each class were given which probability."""
    edges = np.linspace(0, 1, 2 * BINS + 1)
    traces = [
        {"type": "bar", "name": escape(class_names[label]), "x": rounded(edges[:-1] + 0.025),
         "y": np.histogram(predictions.probabilities[predictions.labels == label], edges)[0]
         .tolist(), "width": 0.046, "marker": {"color": colour},
         "hovertemplate": "%{y} images at about %{x:.2f}<extra>%{fullData.name}</extra>"}
        for label, colour in ((0, "@blue"), (1, "@orange"))
    ]  # fmt: skip
    return Figure(
        "histogram",
        f"Probabilities on {split}",
        f"Numbers of images of each class by the probability given, on the {split} split.",
        traces,
        {"barmode": "stack", "xaxis": {"title": {"text": "probability given"}, "range": [0, 1]},
         "yaxis": {"title": {"text": "images"}}},
        height=420,
    )  # fmt: skip


def _splits(predictions: Mapping[str, Predictions]) -> list[tuple[str, Predictions]]:
    """Return the splits that are drawn, test first."""
    return [(name, predictions[name]) for name in _LOOKS if name in predictions]


def _line(
    x: Sequence[float] | FloatArray,
    y: Sequence[float] | FloatArray,
    name: str,
    colour: str,
    dash: str,
    width: float,
) -> Json:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": rounded(x), "y": rounded(y),
        "line": {"color": colour, "dash": dash, "width": width},
        "hovertemplate": "%{y:.3f} at %{x:.3f}<extra>%{fullData.name}</extra>",
    }  # fmt: skip


def _marks(
    predictions: Mapping[str, Predictions], thresholds: Mapping[str, float], *, is_roc: bool
) -> list[Json]:
    """Return a point for each threshold on the curve of the test split."""
    if "test" not in predictions:
        return []
    test, traces = predictions["test"], []
    symbols = ("circle", "diamond", "square")
    for symbol, (name, threshold) in zip(symbols, thresholds.items(), strict=False):
        counts = metrics.confusion(test.labels, test.probabilities, threshold=threshold)
        recall = counts.true_positives / max(1, counts.positives)
        called = counts.true_positives + counts.false_positives
        precision = counts.true_positives / max(1, called)
        false = counts.false_positives / max(1, counts.negatives)
        x, y = (false, recall) if is_roc else (recall, precision)
        point = _line([x], [y], name, "@ink", "solid", 1.0)
        traces.append(point | {"mode": "markers", "marker":
                      {"color": "@purple", "size": 11, "symbol": symbol,
                       "line": {"color": "@page", "width": 1.5}}})  # fmt: skip
    return traces


def _unit(x_title: str, y_title: str) -> Json:
    axis = {"range": [-0.02, 1.02], "zeroline": False}
    return {
        "xaxis": axis | {"title": {"text": x_title}},
        "yaxis": axis | {"title": {"text": y_title}},
    }


def _thin(count: int) -> NDArray[np.int64]:
    """Return the indices of at most so many points, the ends among them."""
    kept = np.linspace(0, count - 1, min(count, _MOST_POINTS))
    return np.unique(np.rint(kept).astype(np.int64))

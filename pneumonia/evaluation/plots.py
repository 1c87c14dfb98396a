"""Figures of a search and of its winner, drawn by matplotlib without its global state.

Colours are those of Okabe and Ito, which colour-blind readers tell apart
(https://jfly.uni-koeln.de/color/), and nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pneumonia import files
from pneumonia.evaluation.metrics import (
    BINS,
    Estimate,
    Scores,
    measure_reliability,
    operating_points,
)

_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_SKY, _YELLOW, _GREY = "#56B4E9", "#E69F00", "#767676"
_CURVES = (_BLUE, _ORANGE, _GREEN, _PURPLE, _YELLOW, _SKY)
_DPI = 150
_FONT = "DejaVu Sans"  # comes with matplotlib, so a figure looks the same everywhere
_IN_A_ROW = 6  # images of a sheet
_PIXELS = 512  # of an image's side: more than its place on the sheet has
_GUIDE: dict[str, Any] = {"color": _GREY, "linestyle": ":", "linewidth": 1}
_CURVE: dict[str, Any] = {"color": _BLUE, "linewidth": 2, "label": "Classifier"}
_POINTS: dict[str, Any] = {"fmt": "o", "color": _BLUE, "markersize": 5, "capsize": 2.5}


class LearningCurve(NamedTuple):
    """What one trial, called `label`, measured after each of its absolute epochs, by name."""

    label: str
    epochs: Sequence[int]
    metrics: Mapping[str, Sequence[float]]


def confusion_matrix(scores: Scores, class_names: tuple[str, str]) -> Figure:
    """Draw the confusion matrix: numbers of images, and their share of the true class."""
    cells = np.array(astuple(scores.confusion)).reshape(2, 2)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(4.6, 4.2)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    intervals = {(0, 0): scores.specificity, (1, 1): scores.sensitivity}
    for (row, column), count in np.ndenumerate(cells):
        ink = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", size=20, color=ink)
        share = f"{shares[row, column]:.1%}"
        if (row, column) in intervals:
            low, high = intervals[row, column].low, intervals[row, column].high
            share += "" if np.isnan(low) else f"\n({low:.1%} to {high:.1%})"
        axes.text(column, row + 0.24, share, ha="center", va="center", size=9, color=ink)
    names = [_class(name) for name in class_names]
    axes.set_xticks([0, 1], names, parse_math=False)
    axes.set_yticks([0, 1], names, parse_math=False, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"Predicted class (threshold {scores.threshold:g})")
    axes.set_ylabel("True class")
    _title(axes, f"Balanced accuracy {_interval(scores.balanced_accuracy)}")
    return figure


def roc(y_true: ArrayLike, y_score: ArrayLike, scores: Scores) -> Figure:
    """Draw the ROC curve, and the threshold's point on it with both its intervals."""
    false_positives, true_positives, _ = operating_points(y_true, y_score)
    figure, axes = _figure(4.6, 4.6)
    axes.plot([0, 1], [0, 1], label="Chance", **_GUIDE)
    x = false_positives / max(1, false_positives[-1])
    axes.plot(x, true_positives / max(1, true_positives[-1]), **_CURVE)
    specificity = scores.specificity
    rate = Estimate(1 - specificity.value, 1 - specificity.high, 1 - specificity.low)
    _mark(axes, rate, scores.sensitivity, f"Threshold {scores.threshold:g}")
    _unit(axes, "False positive rate (1 - specificity)", "True positive rate (sensitivity)")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", frameon=False)
    _title(axes, f"AUC {_interval(scores.auc)}")
    return figure


def precision_recall(y_true: ArrayLike, y_score: ArrayLike, scores: Scores) -> Figure:
    """Draw precision over recall, and the threshold's point on it with both its intervals."""
    false_positives, true_positives, _ = operating_points(y_true, y_score)
    false_positives, true_positives = false_positives[1:], true_positives[1:]
    figure, axes = _figure(4.6, 4.6)
    share = scores.confusion.positives / max(1, np.size(y_true))
    axes.axhline(share, label=f"Chance {share:.3f}", **_GUIDE)
    precision = true_positives / (true_positives + false_positives)
    x = np.append(0, true_positives / max(1, scores.confusion.positives))
    y = np.append(precision[:1], precision) if len(precision) else [np.nan]
    axes.step(x, y, where="pre", **_CURVE)
    _mark(axes, scores.sensitivity, scores.precision, f"Threshold {scores.threshold:g}")
    _unit(axes, "Recall (sensitivity)", "Precision (positive predictive value)")
    axes.set_aspect("equal")
    axes.legend(loc="lower left", frameon=False)
    _title(axes, f"Average precision {_interval(scores.average_precision)}")
    return figure


def calibration(y_true: ArrayLike, y_score: ArrayLike, scores: Scores) -> Figure:
    """Draw how often images are positive at each probability, over how many images there are."""
    found = measure_reliability(y_true, y_score)
    figure = _bare_figure(4.6, 5.4)
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], label="Ideal", **_GUIDE)
    lengths = (found.share - found.low, found.high - found.share)
    axes.errorbar(found.mean, found.share, yerr=lengths, label="Classifier", **_POINTS)
    axes.plot(found.mean, found.share, color=_BLUE, linewidth=1)
    _unit(axes, "", "Share of positive images")
    axes.legend(loc="upper left", frameon=False)
    _title(axes, f"Brier score {_interval(scores.brier)}")
    edges = np.linspace(0, 1, BINS + 1)[:-1]
    below.bar(edges, found.total, width=1 / BINS, align="edge", color=_SKY, edgecolor="white")
    below.set(xlabel="Probability given", ylabel="Images")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _plain(below)
    figure.align_ylabels()
    return figure


def learning_curves(curves: Sequence[LearningCurve], objective: str = "val_auc") -> Figure:
    """Draw the objective and the loss of trials over epochs, training dashed.

    The best comes first and is drawn boldest; those after the sixth are left out.
    """
    names = dict.fromkeys([objective, "val_loss"])
    shown = [n for n in names if n == objective or any(n in one.metrics for one in curves)]
    figure = _bare_figure(4.4 * len(shown) + 1.2, 3.6)
    panels = np.atleast_1d(figure.subplots(1, len(shown)))
    for axes, name in zip(panels, shown, strict=True):
        for rank, one in reversed(list(enumerate(curves[: len(_CURVES)]))):
            _curve(axes, one, name, rank)
        axes.set(xlabel="Epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#E5E5E5", linewidth=0.6)
        _plain(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False)
    _title(panels[0], "Best trials: validation solid, training dashed")
    return figure


def error_sheet(
    images: Sequence[NDArray[np.uint8]],
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    *,
    class_names: tuple[str, str],
) -> Figure:
    """Draw a contact sheet of images that the classifier got wrong, in the order given.

    Args:
        images: uint8, each of any shape (H, W, 1), (H, W, 3) or (H, W).
        labels: Their true classes, 0 or 1.
        scores: Their probabilities of the positive class.
        names: Their names; long ones are cut at the front.
        class_names: Negative, positive.
    """
    if not len(images):
        figure, axes = _figure(4.6, 1.2)
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No image was wrong.", ha="center", va="center", size=12)
        return figure
    columns = min(_IN_A_ROW, len(images))
    rows = -(-len(images) // columns)
    figure = _bare_figure(max(4.6, 1.75 * columns), 2.25 * rows + 0.6)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_visible(False)  # or the layout measures the ticks that are not drawn
    facts = zip(np.ravel(labels), np.asarray(scores, float).ravel(), names, strict=False)
    for axes, image, (truth, share, name) in zip(figure.axes, images, facts, strict=False):
        image = _rgb(image)
        axes.imshow(image)
        _centre(axes, *image.shape[:2])
        cut = name if len(name) <= 24 else f"…{name[-23:]}"
        text = f"{_class(class_names[int(truth)])}\np = {share:.3f}\n{cut}"
        colour = _ORANGE if truth else _BLUE
        axes.set_title(_printable(text), size=7, color=colour, loc="left", parse_math=False)
    title = f"The worst errors: true class, probability of {_class(class_names[1])}, name"
    figure.suptitle(_printable(title), size=10, parse_math=False)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as a PNG file, whole or not at all, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as part:
        figure.savefig(part, format="png", dpi=_DPI)
    return path


def _bare_figure(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _bare_figure(width, height)
    return figure, figure.subplots()


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", size=10, weight="bold")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _unit(axes: Axes, x_label: str, y_label: str) -> None:
    """Make both axes run from 0 to 1, with a margin in which curves at the edge are seen whole."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    _plain(axes)


def _mark(axes: Axes, x: Estimate, y: Estimate, label: str) -> None:
    """Draw a point with the intervals of its coordinates, if it is defined."""
    if np.isnan([x.value, y.value]).any():
        return
    # A percentile interval need not contain the value, and matplotlib refuses a negative length.
    lengths = [[[max(0.0, e.value - e.low)], [max(0.0, e.high - e.value)]] for e in (x, y)]
    style = _POINTS | {"color": _ORANGE, "zorder": 3}
    axes.errorbar([x.value], [y.value], xerr=lengths[0], yerr=lengths[1], label=label, **style)


def _curve(axes: Axes, curve: LearningCurve, name: str, rank: int) -> None:
    """Draw one metric of one trial, and the same metric of the training images if it is there."""
    width, size = (1.2, 2.5) if rank else (2.4, 3.5)
    style: dict[str, Any] = {"color": _CURVES[rank], "linewidth": width, "markersize": size}
    if name in curve.metrics:
        label = _printable(curve.label)
        axes.plot(curve.epochs, curve.metrics[name], marker="o", label=label, **style)
    training = name.removeprefix("val_")
    if training != name and training in curve.metrics:
        axes.plot(curve.epochs, curve.metrics[training], linestyle="--", alpha=0.6, **style)


def _interval(estimate: Estimate) -> str:
    return "undefined" if np.isnan(estimate.value) else str(estimate)


def _centre(axes: Axes, height: int, width: int) -> None:
    """Give an image of any shape a square place, so that the texts above stand in a row."""
    side = max(height, width)
    left, top = (width - side) / 2 - 0.5, (height - side) / 2 - 0.5
    axes.set(xlim=(left, left + side), ylim=(top + side, top))


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image with three channels, and of less than twice the pixels that are drawn."""
    step = max(1, max(image.shape[:2]) // _PIXELS)
    image = image[::step, ::step]
    image = image[..., np.newaxis] if image.ndim == 2 else image
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]


def _class(name: str) -> str:
    return _printable(name if len(name) <= 18 else f"{name[:17]}…")


def _printable(text: str) -> str:
    """Replace what the font does not have: matplotlib would warn and draw boxes."""
    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    return "".join(c if ord(c) in known or c == "\n" else "?" for c in text)

"""Figures of a search's trials: parallel coordinates, importances, Hyperband's brackets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pneumonia.config.ranges import Range
from pneumonia.evaluation.importance import EPOCHS, Importance, position
from pneumonia.formatting import short
from pneumonia.reporting.figures import (
    MOST_TRIALS,
    Figure,
    Json,
    escape,
    focus,
    hover,
    number,
    rounded,
)
from pneumonia.storage.search_record import Chronicle, Trial

_TICKS = 6


def parallel(search: Chronicle) -> Figure | None:
    """Draw every trial as a line through its hyperparameters to its score."""
    ranked = search.ranked()[:MOST_TRIALS]
    if len(ranked) < 2 or not search.ranges:
        return None
    dimensions = [_dimension(item, ranked) for item in search.ranges]
    epochs = [trial.epochs for trial in ranked]
    if len(set(epochs)) > 1:
        dimensions.append(_numbers(EPOCHS, [float(one) for one in epochs]))
    scores = [trial.score or 0.0 for trial in ranked]
    dimensions.append(_numbers(search.objective, scores))
    low, high = np.percentile(scores, [10, 100] if search.direction == "max" else [0, 90])
    bar = {"title": {"text": escape(search.objective), "side": "right"}, "thickness": 12}
    line = {
        "color": rounded(scores), "colorscale": "@scale", "showscale": True, "colorbar": bar,
        "cmin": number(low), "cmax": number(high), "reversescale": search.direction == "min",
    }  # fmt: skip
    paths = ", ".join(item.path for item in search.ranges)
    return Figure(
        "parallel",
        "Trials as lines",
        f"Parallel coordinates of {len(ranked)} trials over {paths}, coloured by "
        f"{search.objective}. The table of trials below has the same values.",
        [{"type": "parcoords", "dimensions": dimensions, "line": line,
          "unselected": {"line": {"color": "@grey", "opacity": 0.12}}}],
        {"margin": {"l": 70, "r": 30, "t": 64, "b": 28}},
        height=420,
        note="Drag along an axis to keep the trials of that part, drag an axis to move it; a "
        "click on the axis lets go.",
        min_width=120 * (len(dimensions) + 1),
    )  # fmt: skip


def importances(parts: Sequence[Importance]) -> Figure:
    """Draw the importance of each hyperparameter with its interval."""
    shown = list(reversed(parts))
    values = [part.value for part in shown]
    error = {
        "type": "data", "symmetric": False, "color": "@ink", "thickness": 1.2, "width": 4,
        "array": rounded([max(0.0, part.high - part.value) for part in shown]),
        "arrayminus": rounded([max(0.0, part.value - part.low) for part in shown]),
    }  # fmt: skip
    bars = {
        "type": "bar", "orientation": "h", "x": rounded(values), "error_x": error,
        "y": [escape(part.path) for part in shown],
        "marker": {"color": ["@grey" if p.path == EPOCHS else "@blue" for p in shown]},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }  # fmt: skip
    told = ", ".join(f"{part.path} {part.value:.0%}" for part in parts)
    axis = {"tickformat": ".0%", "range": [0, 1.02], "title": {"text": "share of the variance"}}
    return Figure(
        "importance",
        "Importance of each hyperparameter",
        f"Bars of the share of the variance that each explains alone: {told}.",
        [bars],
        {"xaxis": axis, "yaxis": {"automargin": True, "type": "category"}},
        height=110 + 34 * len(parts),
    )


def brackets(search: Chronicle) -> list[Figure]:
    """Draw each Hyperband bracket: the score of each trial at the end of each round."""
    scored = (t.bracket for t in search.trials if t.score is not None)
    names = sorted({name for name in scored if name is not None}, reverse=True)
    return [_bracket(search, name) for name in names]


def _bracket(search: Chronicle, bracket: int) -> Figure:
    members = [t for t in search.trials if t.bracket == bracket and t.score is not None]
    members = members[:MOST_TRIALS]
    by_id = {trial.trial_id: trial for trial in members}
    promoted = {trial.parent for trial in members}
    winner = search.winner()
    lines: Json = {"x": [], "y": []}
    for child in members:
        if child.parent in by_id:
            parent = by_id[child.parent]
            lines["x"] += [parent.epochs, child.epochs, None]
            lines["y"] += [*rounded([parent.score, child.score]), None]
    kinds = {
        "stopped": ("circle-open", "@grey", [t for t in members if t.trial_id not in promoted]),
        "promoted": ("circle", "@blue", [t for t in members if t.trial_id in promoted]),
        "winner": ("star", "@orange", [t for t in members if t is winner]),
    }
    traces = [
        {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False,
         "line": {"color": "@blue", "width": 1.5}, **lines},
        *(_nodes(name, *kind) for name, kind in kinds.items() if kind[2]),
    ]  # fmt: skip
    epochs = sorted({trial.epochs for trial in members})
    sizes = [sum(trial.epochs == one for trial in members) for one in epochs]
    text = ", then ".join(f"{n} trials to epoch {e}" for n, e in zip(sizes, epochs, strict=True))
    sign = 1 if search.direction == "max" else -1
    ticks = {"tickvals": epochs, "ticktext": [str(one) for one in epochs]}
    return Figure(
        f"bracket-{bracket}",
        f"Bracket {bracket}",
        f"Hyperband bracket {bracket}: {text}. Lines lead from a trial to what it was promoted to.",
        traces,
        {
            "xaxis": {"title": {"text": "trained to epoch"}, **ticks, "zeroline": False},
            "yaxis": {
                "title": {"text": escape(search.objective)},
                "range": focus([trial.score or 0.0 for trial in members], sign),
            },
        },
        note=f"{text[:1].upper()}{text[1:]}.",
    )


def _nodes(name: str, symbol: str, colour: str, trials: Sequence[Trial]) -> Json:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [trial.epochs for trial in trials],
        "y": rounded([trial.score for trial in trials]),
        "marker": {"symbol": symbol, "color": colour, "size": 13 if symbol == "star" else 8},
        "text": [hover(trial) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _dimension(item: Range, trials: Sequence[Trial]) -> Json:
    """Return the axis of one hyperparameter: logarithmic or of names where it is."""
    values = [position(item, trial.values.get(item.path, ...)) for trial in trials]
    if item.kind != "choice" and not item.log:
        return _numbers(item.path, values)
    if item.kind == "choice":
        ticks = {float(index): short(value) for index, value in enumerate(item.values)}
        ends = [-0.2, max(ticks) + 0.2]
    else:
        low, high = math.log10(item.low), math.log10(item.high)
        ticks = {math.log10(one): short(one) for one in _log_ticks(item.low, item.high)}
        ends = [low, high]
    absent = position(item, ...)
    if absent in values:
        ticks[absent] = "-"
        ends[0] = absent - 0.2
    texts = [text if len(text) <= 18 else f"{text[:17]}…" for text in ticks.values()]
    return {
        "label": _label(item.path), "values": rounded(values), "range": ends,
        "tickvals": list(ticks), "ticktext": texts,
    }  # fmt: skip


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers on a logarithmic axis, the ends of one that is too short for them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5)):
        inside = [float(f"{digit}e{power}") for power in powers for digit in digits]
        inside = [one for one in inside if low <= one <= high]
        found = inside if len(found) < 2 or len(inside) <= _TICKS else found
    return found if len(found) > 1 else [low, high]


def _numbers(name: str, values: Sequence[float]) -> Json:
    return {"label": _label(name), "values": rounded(values)}


def _label(path: str) -> str:
    """Return a dotted path on two lines: the axes stand close to each other."""
    group, _, name = path.rpartition(".")
    return f"{escape(group)}.<br>{escape(name)}" if group else escape(name)

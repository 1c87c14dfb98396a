"""Figures of a search's trials: parallel coordinates, importances, Hyperband's brackets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pneumonia.config.ranges import Range
from pneumonia.evaluation.importance import EPOCHS, Importance, position
from pneumonia.formatting import short
from pneumonia.reporting import figures
from pneumonia.reporting.figures import MOST_TRIALS, Figure, Json, axis, escape, number, rounded
from pneumonia.storage.search_record import SearchRecord, TrialRecord

_TICKS = 6


def parallel(search: SearchRecord) -> Figure | None:
    """Draw every trial as a line through its hyperparameters to its score."""
    ranked, objective = search.ranked()[:MOST_TRIALS], search.objective
    if len(ranked) < 2 or not search.ranges:
        return None
    dimensions = [_dimension(item, ranked) for item in search.ranges]
    epochs = [trial.epochs for trial in ranked]
    if len(set(epochs)) > 1:
        dimensions.append(_numbers(EPOCHS, [float(one) for one in epochs]))
    scores = [trial.score or 0.0 for trial in ranked]
    dimensions.append(_numbers(objective.name, scores))
    low, high = np.percentile(scores, [10, 100] if objective.sign > 0 else [0, 90])
    bar = {"title": {"text": escape(objective.name), "side": "right"}, "thickness": 12}
    line = {
        "color": rounded(scores), "colorscale": "@scale", "showscale": True, "colorbar": bar,
        "cmin": number(low), "cmax": number(high), "reversescale": objective.sign < 0,
    }  # fmt: skip
    paths = ", ".join(item.path for item in search.ranges)
    return Figure(
        "parallel",
        "Trials as lines",
        f"Parallel coordinates of {len(ranked)} trials over {paths}, coloured by "
        f"{objective.name}. The table of trials below has the same values.",
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
    bars = {
        "type": "bar", "orientation": "h", "x": rounded(part.value for part in shown),
        "error_x": figures.intervals([(p.value, p.low, p.high) for p in shown], "@ink"),
        "y": [escape(part.path) for part in shown],
        "marker": {"color": ["@grey" if p.path == EPOCHS else "@blue" for p in shown]},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }  # fmt: skip
    told = ", ".join(f"{part.path} {part.value:.0%}" for part in parts)
    return Figure(
        "importance",
        "Importance of each hyperparameter",
        f"Bars of the share of the variance that each explains alone: {told}.",
        [bars],
        {
            "xaxis": axis("share of the variance", tickformat=".0%", range=[0, 1.02]),
            "yaxis": {"automargin": True, "type": "category"},
        },
        height=110 + 34 * len(parts),
    )


def brackets(search: SearchRecord) -> list[Figure]:
    """Draw each Hyperband bracket: the score of each trial at the end of each round."""
    scored = (t.bracket for t in search.trials.values() if t.score is not None)
    names = sorted({name for name in scored if name is not None}, reverse=True)
    return [_bracket(search, name) for name in names]


def _bracket(search: SearchRecord, bracket: int) -> Figure:
    own = (t for t in search.trials.values() if t.bracket == bracket and t.score is not None)
    members = list(own)[:MOST_TRIALS]
    promoted, winner = {trial.parent for trial in members}, search.winner()
    kinds = {
        "stopped": ("circle-open", "@grey", [t for t in members if t.trial_id not in promoted]),
        "promoted": ("circle", "@blue", [t for t in members if t.trial_id in promoted]),
        "winner": ("star", "@orange", [t for t in members if t is winner]),
    }
    epochs = sorted({trial.epochs for trial in members})
    sizes = [sum(trial.epochs == one for trial in members) for one in epochs]
    text = ", then ".join(f"{n} trials to epoch {e}" for n, e in zip(sizes, epochs, strict=True))
    ticks = {"tickvals": epochs, "ticktext": [str(one) for one in epochs], "zeroline": False}
    scores = [trial.score or 0.0 for trial in members]
    name, sign = search.objective.name, search.objective.sign
    return Figure(
        f"bracket-{bracket}",
        f"Bracket {bracket}",
        f"Hyperband bracket {bracket}: {text}. Lines lead from a trial to what it was promoted to.",
        [_promotions(members), *(_nodes(name, *kind) for name, kind in kinds.items() if kind[2])],
        {
            "xaxis": axis("trained to epoch", **ticks),
            "yaxis": axis(name, range=figures.focus(scores, sign)),
        },
        note=f"{text[:1].upper()}{text[1:]}.",
    )


def _promotions(members: Sequence[TrialRecord]) -> Json:
    """Return lines from trials to what they were promoted to."""
    by_id = {trial.trial_id: trial for trial in members}
    x: list[int | None] = []
    y: list[float | None] = []
    for child in members:
        if child.parent in by_id:
            parent = by_id[child.parent]
            x += [parent.epochs, child.epochs, None]
            y += [parent.score, child.score, None]
    look = {"color": "@blue", "width": 1.5}
    return figures.lines(x, y, "promotions", line=look, hoverinfo="skip", showlegend=False)


def _nodes(name: str, symbol: str, colour: str, trials: Sequence[TrialRecord]) -> Json:
    return figures.dots(
        [trial.epochs for trial in trials], [trial.score for trial in trials], name,
        marker={"symbol": symbol, "color": colour, "size": 13 if symbol == "star" else 8},
        text=[_hover(trial) for trial in trials], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _hover(trial: TrialRecord) -> str:
    """Return what is told of a trial that the pointer is on."""
    values = trial.hyperparameters.items()
    told = [f"{escape(name)} {escape(short(value))}" for name, value in values]
    return "<br>".join([f"trial {trial.number}: {trial.score:.4f}", *told])


def _dimension(item: Range, trials: Sequence[TrialRecord]) -> Json:
    """Return the axis of one hyperparameter: logarithmic or of names where it is."""
    values = [position(item, trial.hyperparameters.get(item.path, ...)) for trial in trials]
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
    return {**_numbers(item.path, values), "range": ends, "tickvals": [*ticks], "ticktext": texts}


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers on a logarithmic axis, the ends of one that is too short for them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5)):
        inside = [float(f"{digit}e{power}") for power in powers for digit in digits]
        inside = [one for one in inside if low <= one <= high]
        found = inside if len(found) < 2 or len(inside) <= _TICKS else found
    return found if len(found) > 1 else [low, high]


def _numbers(path: str, values: Sequence[float]) -> Json:
    """Return an axis; its path has two lines, for the axes stand close to each other."""
    group, _, name = path.rpartition(".")
    label = f"{escape(group)}.<br>{escape(name)}" if group else escape(name)
    return {"label": label, "values": rounded(values)}

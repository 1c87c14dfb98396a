"""Figures of a search's course: the best so far, learning curves, where time went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pneumonia.evaluation.objective import Metrics, Objective
from pneumonia.reporting import figures
from pneumonia.reporting.figures import CURVES, MOST_TRIALS, Figure, Json, axis, lines
from pneumonia.storage.search_record import SearchRecord
from pneumonia.storage.trial_record import TrialRecord

_MOST_CURVES = 5  # of learning: the best trials
AXES = {"epochs": "epochs trained", "seconds": "seconds"}


@dataclass(frozen=True, slots=True)
class Step:
    """When a search came to a better objective than before: the epochs and seconds until then."""

    epochs: int
    seconds: float
    best: float
    number: int


def best_steps(search: SearchRecord) -> list[Step]:
    """Return each time the best objective so far grew, and at last where it stands at the end."""
    points = _points(search)
    best, steps = search.objective.worst, []
    for count, (seconds, value, number) in enumerate(points, start=1):
        if search.objective.better(value, best):
            best = value
            steps.append(Step(count, seconds, value, number))
    if steps:
        steps.append(replace(steps[-1], epochs=len(points), seconds=points[-1][0]))
    return steps


def best_so_far(search: SearchRecord) -> list[Figure]:
    """Draw the best objective so far against epochs trained, and against seconds."""
    steps = best_steps(search)
    if not steps:
        return []
    last: dict[int, tuple[int, float]] = {}
    for count, (seconds, _, number) in enumerate(_points(search), start=1):
        last[number] = (count, seconds)
    ends = [
        Step(*last[trial.number], trial.score, trial.number)
        for trial in search.trials.values()
        if trial.score is not None and trial.number in last
    ][:MOST_TRIALS]
    return [_best(search, steps, ends, kind) for kind in AXES]


def _points(search: SearchRecord) -> list[tuple[float, float, int]]:
    """Return the objective after every epoch of all trials: seconds, value, trial.

    Where a trial is trained several times, its score is the mean over them, known at its end: no
    epoch before that has a value that could be the best.
    """
    is_mean = search.fits != 1
    name, none = search.objective.name, search.objective.worst
    found: list[tuple[float, float, int]] = []
    for trial in search.trials.values():
        known = [
            (seconds, float(metrics[name]), trial.number)
            for seconds, metrics in trial.points
            if math.isfinite(metrics.get(name, math.nan))
        ]
        if is_mean and known:
            last = none if trial.score is None else trial.score
            values = [*(none for _ in known[1:]), last]
            known = [(s, value, n) for (s, _, n), value in zip(known, values, strict=True)]
        found += known
    return sorted(found)


def _best(search: SearchRecord, steps: Sequence[Step], ends: Sequence[Step], kind: str) -> Figure:
    marks = figures.dots(
        (getattr(end, kind) for end in ends), (end.best for end in ends), "trials, at their end",
        marker={"color": "@grey", "size": 6, "opacity": 0.75},
        text=[f"trial {end.number}" for end in ends],
        hovertemplate="%{y:.4f}<extra>%{text}</extra>",
    )  # fmt: skip
    text = [f"trial {step.number}" for step in steps]
    hover = "%{y:.4f}, %{text}<extra>best so far</extra>"
    look = {"color": "@blue", "width": 2.5}
    line = stairs(steps, kind, "best so far", line=look, text=text, hovertemplate=hover)
    last, values = steps[-1], [one.best for one in (*ends, steps[-1])]
    told = f"{last.best:.4f} by trial {last.number} after {getattr(last, kind):.0f} {AXES[kind]}"
    return best_figure(search.objective, kind, [marks, line], values, told)


def stairs(steps: Sequence[Step], kind: str, name: str, *, line: Json, **properties: Any) -> Json:
    """Return the trace of the best so far, by `epochs` or `seconds`."""
    x = (getattr(step, kind) for step in steps)
    return lines(x, (s.best for s in steps), name, line={"shape": "hv", **line}, **properties)


def best_figure(
    objective: Objective,
    kind: str,
    traces: list[Json],
    values: Sequence[float],
    told: str,
    *,
    whose: str = "",
    height: int = 340,
) -> Figure:
    """Return a figure of the best so far, by `epochs` or `seconds`."""
    return Figure(
        f"best-{kind}",
        f"Best so far, by {AXES[kind]}",
        f"The best {objective.name} so far{whose} against {AXES[kind]}: {told}.",
        traces,
        {
            "xaxis": axis(AXES[kind], rangemode="tozero"),
            "yaxis": axis(objective.name, range=figures.focus(values, objective.sign)),
        },
        height=height,
    )


def learning(search: SearchRecord) -> list[Figure]:
    """Draw the objective and the loss of the best trials over epochs, training dashed."""
    best: dict[str, tuple[TrialRecord, tuple[Metrics, ...]]] = {}
    for trial in search.ranked():
        if curve := search.curve(trial.trial_id):
            best.setdefault(trial.key, (trial, curve))
    shown, objective = list(best.values())[:_MOST_CURVES], search.objective
    names = dict.fromkeys([objective.name, "val_loss"])
    signs = {name: objective.sign if name == objective.name else -1 for name in names}
    return [
        _learning(shown, name, sign)
        for name, sign in signs.items()
        if any(name in metrics for _, curve in shown for metrics in curve)
    ]


def _learning(
    shown: Sequence[tuple[TrialRecord, Sequence[Metrics]]], name: str, sign: float
) -> Figure:
    traces = []
    reached = [m[name] for _, curve in shown for m in curve if math.isfinite(m.get(name, math.nan))]
    for rank, (trial, curve) in enumerate(shown):
        for metric, dash in {name.removeprefix("val_"): "dash", name: "solid"}.items():
            values = [metrics.get(metric) for metrics in curve]
            if any(value is not None for value in values):
                traces.append(_curve(trial, metric, values, rank, dash))
    told = (f"trial {t.number} reaches {t.score:.4f} by epoch {t.best_epoch}" for t, _ in shown)
    return Figure(
        "learning-loss" if name == "val_loss" else "learning-objective",
        name,
        f"{name} over epochs of the best {len(shown)} trials: {', '.join(told)}.",
        traces,
        {"xaxis": axis("epoch"), "yaxis": axis(name, range=figures.focus(reached, sign))},
        height=360,
    )


def _curve(trial: TrialRecord, metric: str, values: Sequence[Any], rank: int, dash: str) -> Json:
    is_solid = dash == "solid"
    width = 2.6 if rank == 0 and is_solid else 1.5
    return lines(
        range(1, len(values) + 1), values, f"trial {trial.number}",
        mode="lines+markers" if is_solid else "lines",
        line={"color": CURVES[rank % len(CURVES)], "dash": dash, "width": width},
        legendgroup=trial.trial_id, showlegend=is_solid,
        opacity=1 if is_solid else 0.7, marker={"size": 5},
        hovertemplate=f"epoch %{{x}}: %{{y:.4f}}<extra>trial {trial.number}, "
                      f"{figures.escape(metric)}</extra>",
    )  # fmt: skip


def times(search: SearchRecord) -> Figure | None:
    """Draw how long each trial took, and what for."""
    shown = [trial for trial in search.trials.values() if trial.seconds > 0][:MOST_TRIALS]
    if not shown:
        return None
    waited = [t.points[0][0] - t.began if t.points else 0.0 for t in shown]
    first = [min(wait, trial.seconds) for wait, trial in zip(waited, shown, strict=True)]
    spans = [(t.points[-1][0] - t.points[0][0]) if t.points else 0.0 for t in shown]
    middle = [max(0.0, min(s, t.seconds - w)) for s, t, w in zip(spans, shown, first, strict=True)]
    rest = [max(0.0, t.seconds - w - m) for t, w, m in zip(shown, first, middle, strict=True)]
    parts: Mapping[str, tuple[str, list[float]]] = {
        "up to the end of its first epoch": ("@orange", first),
        "further epochs": ("@blue", middle),
        "keeping its classifier": ("@green", rest),
    }
    numbers = [trial.number for trial in shown]
    longest = max(shown, key=lambda trial: trial.seconds)
    return Figure(
        "times",
        "Seconds of each trial",
        f"Bars of the seconds of each of {len(shown)} trials; the longest is trial "
        f"{longest.number} with {longest.seconds:.1f} s.",
        [
            figures.bars(numbers, values, name, colour, "trial %{x}: %{y:.2f} s")
            for name, (colour, values) in parts.items()
        ],
        {
            **{"barmode": "stack", "bargap": 0.15},
            "xaxis": axis("trial", dtick=max(1, len(shown) // 10)),
            "yaxis": axis("seconds", rangemode="tozero"),
        },
        note="The first epoch brings with it the features that no trial before needed, building "
        "and tracing.",
    )

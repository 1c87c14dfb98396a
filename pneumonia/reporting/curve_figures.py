"""Figures of a search's course: the best so far, learning curves, where time went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pneumonia.reporting.figures import CURVES, MOST_TRIALS, Figure, Json, escape, focus, rounded
from pneumonia.storage.search_record import Chronicle, Trial


@dataclass(frozen=True, slots=True)
class Step:
    """When a search came to a better objective than before: the epochs and seconds until then."""

    epochs: int
    seconds: float
    best: float
    number: int


def best_steps(search: Chronicle) -> list[Step]:
    """Return each time the best objective so far grew, and at last where it stands at the end."""
    points = _points(search)
    sign = 1 if search.direction == "max" else -1
    best, steps = -math.inf, []
    for count, (seconds, value, number) in enumerate(points, start=1):
        if sign * value > best:
            best = sign * value
            steps.append(Step(count, seconds, value, number))
    if steps:
        steps.append(replace(steps[-1], epochs=len(points), seconds=points[-1][0]))
    return steps


def best_so_far(search: Chronicle) -> list[Figure]:
    """Draw the best objective so far against epochs trained, and against seconds."""
    steps = best_steps(search)
    if not steps:
        return []
    last: dict[int, tuple[int, float]] = {}
    for count, (seconds, _, number) in enumerate(_points(search), start=1):
        last[number] = (count, seconds)
    ends = [
        Step(*last[trial.number], trial.score, trial.number)
        for trial in search.trials
        if trial.score is not None and trial.number in last
    ][:MOST_TRIALS]
    return [_best(search, steps, ends, kind) for kind in ("epochs", "seconds")]


def _points(search: Chronicle) -> list[tuple[float, float, int]]:
    """Return the objective after every epoch of all trials: seconds, value, trial.

    Where a trial is trained several times, its score is the mean over them, known at its end: no
    epoch before that has a value that could be the best.
    """
    params = search.started.get("params") or {}
    is_mean = params.get("training.executions_per_trial", 1) != 1
    none = -math.inf if search.direction == "max" else math.inf
    found: list[tuple[float, float, int]] = []
    for trial in search.trials:
        known = [
            (seconds, float(metrics[search.objective]), trial.number)
            for seconds, metrics in trial.points
            if math.isfinite(metrics.get(search.objective, math.nan))
        ]
        if is_mean and known:
            last = none if trial.score is None else trial.score
            values = [*(none for _ in known[1:]), last]
            known = [(s, value, n) for (s, _, n), value in zip(known, values, strict=True)]
        found += known
    return sorted(found)


def _best(search: Chronicle, steps: Sequence[Step], ends: Sequence[Step], kind: str) -> Figure:
    axis = "epochs trained" if kind == "epochs" else "seconds"
    line = {
        "type": "scatter", "mode": "lines", "name": "best so far",
        "x": rounded(getattr(step, kind) for step in steps), "y": rounded(s.best for s in steps),
        "line": {"shape": "hv", "color": "@blue", "width": 2.5},
        "text": [f"trial {step.number}" for step in steps],
        "hovertemplate": "%{y:.4f}, %{text}<extra>best so far</extra>",
    }  # fmt: skip
    dots = {
        "type": "scatter", "mode": "markers", "name": "trials, at their end",
        "x": rounded(getattr(end, kind) for end in ends), "y": rounded(e.best for e in ends),
        "marker": {"color": "@grey", "size": 6, "opacity": 0.75},
        "text": [f"trial {end.number}" for end in ends],
        "hovertemplate": "%{y:.4f}<extra>%{text}</extra>",
    }  # fmt: skip
    sign, last = 1 if search.direction == "max" else -1, steps[-1]
    return Figure(
        f"best-{kind}",
        f"Best so far, by {axis}",
        f"The best {search.objective} so far against {axis}: {last.best:.4f} by trial "
        f"{last.number} after {getattr(last, kind):.0f} {axis}.",
        [dots, line],
        {
            "xaxis": {"title": {"text": axis}, "rangemode": "tozero"},
            "yaxis": {
                "title": {"text": escape(search.objective)},
                "range": focus([one.best for one in (*ends, last)], sign),
            },
        },
    )


def learning(search: Chronicle, *, most: int = 5) -> list[Figure]:
    """Draw the objective and the loss of the best trials over epochs, training dashed."""
    best: dict[str, Trial] = {}
    for trial in search.ranked():
        if trial.curve:
            best.setdefault(repr(sorted(trial.values.items())), trial)
    shown = list(best.values())[:most]
    names = [
        name
        for name in dict.fromkeys([search.objective, "val_loss"])
        if any(name in metrics for trial in shown for metrics in trial.curve)
    ]
    signs = {search.objective: 1 if search.direction == "max" else -1}
    return [_learning(shown, name, signs.get(name, -1)) for name in names]


def _learning(trials: Sequence[Trial], name: str, sign: int) -> Figure:
    traces = []
    reached = [m[name] for t in trials for m in t.curve if math.isfinite(m.get(name, math.nan))]
    for rank, trial in enumerate(trials):
        for metric, dash in {name.removeprefix("val_"): "dash", name: "solid"}.items():
            values = [metrics.get(metric) for metrics in trial.curve]
            if any(value is not None for value in values):
                traces.append(_curve(trial, metric, values, rank, dash))
    return Figure(
        "learning-loss" if name == "val_loss" else "learning-objective",
        name,
        f"{name} over epochs of the best {len(trials)} trials: "
        + ", ".join(f"trial {t.number} reaches {t.score:.4f} by epoch {t.best_epoch}"
                    for t in trials) + ".",
        traces,
        {"xaxis": {"title": {"text": "epoch"}},
         "yaxis": {"title": {"text": escape(name)}, "range": focus(reached, sign)}},
        height=360,
    )  # fmt: skip


def _curve(trial: Trial, metric: str, values: Sequence[Any], rank: int, dash: str) -> Json:
    is_solid = dash == "solid"
    return {
        "type": "scatter", "mode": "lines+markers" if is_solid else "lines",
        "name": f"trial {trial.number}", "legendgroup": trial.trial_id, "showlegend": is_solid,
        "x": list(range(1, len(values) + 1)), "y": rounded(values),
        "opacity": 1 if is_solid else 0.7, "marker": {"size": 5},
        "line": {"color": CURVES[rank % len(CURVES)], "dash": dash,
                 "width": 2.6 if rank == 0 and is_solid else 1.5},
        "hovertemplate": f"epoch %{{x}}: %{{y:.4f}}<extra>trial {trial.number}, "
                         f"{escape(metric)}</extra>",
    }  # fmt: skip


def times(search: Chronicle) -> Figure | None:
    """Draw how long each trial took, and what for."""
    shown = [trial for trial in search.trials if trial.seconds > 0][:MOST_TRIALS]
    if not shown:
        return None
    first = [min(trial.waited, trial.seconds) for trial in shown]
    spans = [(t.points[-1][0] - t.points[0][0]) if t.points else 0.0 for t in shown]
    middle = [max(0.0, min(s, t.seconds - w)) for s, t, w in zip(spans, shown, first, strict=True)]
    rest = [max(0.0, t.seconds - w - m) for t, w, m in zip(shown, first, middle, strict=True)]
    parts = {
        "up to the end of its first epoch": ("@orange", first),
        "further epochs": ("@blue", middle),
        "keeping its classifier": ("@green", rest),
    }
    traces = [
        {"type": "bar", "name": name, "x": [trial.number for trial in shown],
         "y": rounded(values), "marker": {"color": colour},
         "hovertemplate": f"trial %{{x}}: %{{y:.2f}} s<extra>{name}</extra>"}
        for name, (colour, values) in parts.items()
    ]  # fmt: skip
    longest = max(shown, key=lambda trial: trial.seconds)
    return Figure(
        "times",
        "Seconds of each trial",
        f"Bars of the seconds of each of {len(shown)} trials; the longest is trial "
        f"{longest.number} with {longest.seconds:.1f} s.",
        traces,
        {
            "barmode": "stack", "bargap": 0.15,
            "xaxis": {"title": {"text": "trial"}, "dtick": max(1, len(shown) // 10)},
            "yaxis": {"title": {"text": "seconds"}, "rangemode": "tozero"},
        },
        note="The first epoch brings with it the features that no trial before needed, building "
        "and tracing.",
    )  # fmt: skip

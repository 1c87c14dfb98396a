"""The parts of a report that tell of the trials: which there were, what mattered, how long."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pneumonia.config.ranges import Range
from pneumonia.evaluation import importance
from pneumonia.evaluation.importance import EPOCHS, LEAST, Importance, Importances, position
from pneumonia.formatting import clock_time, cut, short, with_spread
from pneumonia.reporting import curve_figures, figures
from pneumonia.reporting.figures import MOST_TRIALS, Figure, Json, axis, escape, number, rounded
from pneumonia.reporting.page import Section
from pneumonia.storage.search_record import SearchRecord
from pneumonia.storage.trial_record import TrialRecord
from pneumonia.tables import Table

MOST_ROWS = 300  # of a table
_MOST_FAILURES = 20
_MOST_TEXT = 6000  # characters of a traceback
# R squared of what the forest foretells, below which its importances are not believed.
_WEAK = 0.25
_TICKS = 6
_HYPERBAND = "best of a round go on (Li et al. 2018, https://jmlr.org/papers/v18/16-558.html)"
_ASHA = "best of a round so far go on (Li et al. 2020, https://arxiv.org/abs/1810.05934)"
_PHASES = {
    "preparation": "preparation: reading the images, features of the first trial",
    "trials": "trials: features of further layers, training, keeping classifiers",
    "evaluation": "evaluation: the winner on val and test, pictures",
}


def build(search: SearchRecord) -> list[Section]:
    """Return the parts on the trials, in their order."""
    return [
        _trials(search),
        _importance(search),
        _course(search),
        *_brackets(search),
        _learning(search),
    ]


def _trials(search: SearchRecord) -> Section:
    figure = parallel(search)
    texts = [] if figure else ["Parallel coordinates need two trials with scores."]
    ranked = search.ranked()
    hidden = len(ranked) - MOST_TRIALS
    if hidden > 0:
        texts.append(f"The plot shows the best {MOST_TRIALS:,}, {hidden:,} are left out.")
    drawn, tables = [figure] if figure else [], [_table(search, ranked)]
    return Section("trials", "Trials", texts, figures=drawn, tables=tables)


def _table(search: SearchRecord, ranked: list[TrialRecord]) -> Table:
    names = [item.path for item in search.ranges]
    where = ["bracket/round"] if any(trial.bracket is not None for trial in ranked) else []
    rows = []
    for rank, trial in enumerate(ranked[:MOST_ROWS], start=1):
        given = trial.hyperparameters
        seconds = "-" if math.isnan(trial.seconds) else f"{trial.seconds:.1f}"
        of = f"{trial.best_epoch}/{trial.epochs}"
        rows.append((
            str(rank), str(trial.number), with_spread(trial.score, trial.spread), of, seconds,
            *(f"{trial.bracket}/{trial.round}" for _ in where),
            *(short(given[name]) if name in given else "-" for name in names),
        ))  # fmt: skip
    of_numbers = [item.kind != "choice" or _are_numbers(item.values) for item in search.ranges]
    hidden = len(ranked) - len(rows)
    objective = search.objective.name
    return Table(
        title=f"Trials by {objective}, the best first",
        header=("rank", "trial", objective, "best epoch", "seconds", *where, *names),
        rows=tuple(rows),
        is_number=(*(True for _ in range(5 + len(where))), *of_numbers),
        notes=(f"{hidden:,} more trials are not shown.",) if hidden else (),
    )


def _are_numbers(values: tuple[object, ...]) -> bool:
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)


def _importance(search: SearchRecord) -> Section:
    scored = [trial for trial in search.trials.values() if trial.score is not None]
    found = importance.measure(
        search.ranges,
        [trial.hyperparameters for trial in scored],
        keys=[trial.key for trial in scored],
        epochs=[trial.epochs for trial in scored],
        scores=[trial.score or 0.0 for trial in scored],
    )
    method = (
        "Method: functional ANOVA of a random forest that learns the objective from the "
        "hyperparameters (Hutter, Hoos and Leyton-Brown 2014). A bar is the share of the forest's "
        "variance over the whole space that one hyperparameter explains alone; what the bars lack "
        "to 100 % is explained by several together. The lines are 95 % intervals over bootstrap "
        "resamples of the trials. The epochs that a trial was given are an input as well."
    )
    drawn = [importances(found.parts)] if found.parts else []
    texts = [_verdict(found)]
    return Section("importance", "What mattered", texts, figures=drawn, notes=[method])


def _verdict(found: Importances) -> str:
    if not found.parts:
        return (
            f"Too few trials to tell: {found.settings} different settings came to a score, and "
            f"below {LEAST}, or without differences between their scores, importances mean nothing."
        )
    told = (
        f"From {found.settings} different settings. Of the differences between those left out, "
        f"the forest foretells {max(0.0, found.explained):.0%}"
    )
    if found.explained < _WEAK:
        return f"{told}: too little to believe this picture. More trials would tell."
    return f"{told} (R² out of bag)."


def _course(search: SearchRecord) -> Section:
    drawn = curve_figures.best_so_far(search)
    texts = [] if drawn else ["No epoch was trained."]
    note = (
        "Seconds count from the beginning of the search, with its features and its overhead; "
        "pauses before it was resumed are left out."
    )
    return Section("course", "Best so far", texts, figures=drawn, notes=[note])


def _brackets(search: SearchRecord) -> list[Section]:
    drawn = brackets(search)
    is_asha = str(search.params.get("tuner._target_")).endswith(".AshaOracle")
    name, rule = ("ASHA", _ASHA) if is_asha else ("Hyperband", _HYPERBAND)
    text = (
        f"Each bracket begins with trials of few epochs; the {rule}. A point is a trial at the end "
        "of its round, a line leads to what it was promoted to."
    )
    return [Section(name.lower(), name, [text], figures=drawn)] if drawn else []


def _learning(search: SearchRecord) -> Section:
    drawn = curve_figures.learning(search)
    text = "The best trials with different hyperparameters: validation solid, training dashed."
    texts = [text if drawn else "No trial came to a score."]
    return Section("learning", "Learning curves", texts, figures=drawn)


def times(search: SearchRecord) -> Section:
    """Return the part on where time went."""
    figure = curve_figures.times(search)
    rows = tuple(
        (_PHASES.get(name, name), f"{value:,.1f}", f"{value / max(search.seconds, 1e-9):.0%}")
        for key, value in search.metrics.items()
        if (name := key.removeprefix("seconds_")) != key
    )
    title, header = f"{clock_time(search.seconds)} in all", ("phase", "seconds", "share")
    tables = [Table(title, header, rows, (False, True, True))]
    texts = [] if rows else ["The search has not come to its end: only trials are known."]
    drawn = [figure] if figure else []
    return Section("time", "Where time went", texts, figures=drawn, tables=tables)


def failures(search: SearchRecord) -> Section:
    """Return the part on trials that came to no score."""
    failed, unfinished = search.with_status("failed"), search.with_status("unfinished")
    texts = [] if failed else ["No trial failed."]
    if unfinished:
        numbers = ", ".join(str(trial.number) for trial in unfinished[:_MOST_FAILURES])
        texts.append(f"Without an end in the journal: trial {numbers}.")
    losses = [(one.number, reason) for one in search.trials.values() for reason in one.losses]
    texts += [f"Trial {number} has lost a worker: {why}." for number, why in losses[:MOST_ROWS]]
    rows = []
    for trial in failed[:MOST_ROWS]:
        values = " ".join(f"{name}={short(v)}" for name, v in trial.hyperparameters.items())
        rows.append((str(trial.number), trial.reason, values))
    header, is_number = ("trial", "reason", "hyperparameters"), (True, False, False)
    tables = [Table(f"{len(failed)} failed", header, tuple(rows), is_number)]
    details = [
        (f"Traceback of trial {trial.number}", text[-_MOST_TEXT:])
        for trial in failed[:_MOST_FAILURES]
        if (text := str((trial.ended or {}).get("traceback", "")))
    ]
    return Section("failures", "Failed trials", texts, tables=tables, details=details)


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
    """Draw each bracket: the score of each trial at the end of each round."""
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
        f"Bracket {bracket}: {text}. Lines lead from a trial to what it was promoted to.",
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
    texts = [cut(text, 18) for text in ticks.values()]
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

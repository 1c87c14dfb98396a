"""The parts of a report that tell of the trials: which there were, what mattered, how long."""

from __future__ import annotations

import math

from pneumonia.evaluation import importance
from pneumonia.evaluation.importance import LEAST, Importances
from pneumonia.formatting import clock_time, short
from pneumonia.reporting import curve_figures, trial_figures
from pneumonia.reporting.figures import MOST_TRIALS
from pneumonia.reporting.page import Section
from pneumonia.storage.search_record import SearchRecord, TrialRecord
from pneumonia.tables import Table

MOST_ROWS = 300  # of a table
_MOST_FAILURES = 20
_MOST_TEXT = 6000  # characters of a traceback
# R squared of what the forest foretells, below which its importances are not believed.
_WEAK = 0.25
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
    figure = trial_figures.parallel(search)
    texts = [] if figure else ["Parallel coordinates need two trials with scores."]
    ranked = search.ranked()
    hidden = len(ranked) - MOST_TRIALS
    if hidden > 0:
        texts.append(f"The plot shows the best {MOST_TRIALS:,}, {hidden:,} are left out.")
    figures, tables = [figure] if figure else [], [_table(search, ranked)]
    return Section("trials", "Trials", texts, figures=figures, tables=tables)


def _table(search: SearchRecord, ranked: list[TrialRecord]) -> Table:
    names = [item.path for item in search.ranges]
    where = ["bracket/round"] if any(trial.bracket is not None for trial in ranked) else []
    rows = []
    for rank, trial in enumerate(ranked[:MOST_ROWS], start=1):
        given = trial.hyperparameters
        seconds = "-" if math.isnan(trial.seconds) else f"{trial.seconds:.1f}"
        of = f"{trial.best_epoch}/{trial.epochs}"
        rows.append((
            str(rank), str(trial.number), f"{trial.score:.4f}", of, seconds,
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
    figures = [trial_figures.importances(found.parts)] if found.parts else []
    texts = [_verdict(found)]
    return Section("importance", "What mattered", texts, figures=figures, notes=[method])


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
    figures = curve_figures.best_so_far(search)
    texts = [] if figures else ["No epoch was trained."]
    note = (
        "Seconds count from the beginning of the search, with its features and its overhead; "
        "pauses before it was resumed are left out."
    )
    return Section("course", "Best so far", texts, figures=figures, notes=[note])


def _brackets(search: SearchRecord) -> list[Section]:
    figures = trial_figures.brackets(search)
    text = (
        "Each bracket begins with trials of few epochs; the best of a round are promoted and go "
        "on (Li et al. 2018, https://jmlr.org/papers/v18/16-558.html). A point is a trial at the "
        "end of its round, a line leads to what it was promoted to."
    )
    return [Section("hyperband", "Hyperband", [text], figures=figures)] if figures else []


def _learning(search: SearchRecord) -> Section:
    figures = curve_figures.learning(search)
    text = "The best trials with different hyperparameters: validation solid, training dashed."
    texts = [text if figures else "No trial came to a score."]
    return Section("learning", "Learning curves", texts, figures=figures)


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
    figures = [figure] if figure else []
    return Section("time", "Where time went", texts, figures=figures, tables=tables)


def failures(search: SearchRecord) -> Section:
    """Return the part on trials that came to no score."""
    failed, unfinished = search.with_status("failed"), search.with_status("unfinished")
    texts = [] if failed else ["No trial failed."]
    if unfinished:
        numbers = ", ".join(str(trial.number) for trial in unfinished[:_MOST_FAILURES])
        texts.append(f"Without an end in the journal: trial {numbers}.")
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

"""One page that compares several searches, such as those of a multirun."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pneumonia.evaluation.bootstrap import NAMES
from pneumonia.evaluation.metrics import Estimate, score_name
from pneumonia.formatting import clock_time, cut, short
from pneumonia.reporting import curve_figures, figures, page, score_sections
from pneumonia.reporting.figures import CURVES, Figure, escape
from pneumonia.reporting.page import Section, Tile
from pneumonia.storage.jobs import JobRecord
from pneumonia.storage.search_record import SearchRecord
from pneumonia.storage.trial_record import varying
from pneumonia.tables import Table

Scores = Mapping[str, Mapping[str, Estimate]]  # by split and name

MOST_SEARCHES = 200
_SCORES = ("auc", "balanced_accuracy", "sensitivity", "specificity", "brier")
_COLUMNS = (("val", "auc"), ("test", "auc"), ("test", "sensitivity"), ("test", "specificity"))
# What differs between searches without telling them apart.
_OWN = ("hydra", "tracking.", "resume")


def render(
    searches: Sequence[SearchRecord], links: Mapping[str, str], jobs: Sequence[JobRecord] = ()
) -> str:
    """Return the page that compares searches, at least one, as HTML.

    Args:
        searches: In their order.
        links: The address of the page of each, by its folder's name, where there is one.
        jobs: Those of a multirun that failed before they came to a search.
    """
    shown = list(searches[:MOST_SEARCHES])
    differing = _differences(shown)
    names = _labels(shown, differing)
    scores = [_scores(one) for one in shown]
    sections = [
        _summary(shown, names, hidden=len(searches) - len(shown)),
        _table(shown, names, scores, links),
        *_failures(shown, names, jobs),
        _intervals(names, scores),
        _course(shown, names),
        _what_differs(shown, differing),
    ]
    title = f"{len(shown)} searches compared"
    subtitle = f"By {', '.join(sorted({str(one.objective) for one in shown}))}"
    return page.render(title, subtitle, sections, class_names=("negative", "positive"))


def _labels(searches: Sequence[SearchRecord], differing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what to call each search: its folder, and what of it differs from the others."""
    found = []
    for number, folder in enumerate(_folders(searches)):
        values = {key.rpartition(".")[2]: of[number] for key, of in differing.items()}
        told = cut(", ".join(f"{key}={value}" for key, value in values.items()), 90)
        found.append(f"{folder}: {told}" if told else folder)
    return found


def _folders(searches: Sequence[SearchRecord]) -> list[str]:
    """Return the names of the searches' folders, whole paths where names occur twice."""
    names = [one.folder.name for one in searches]
    return names if len(set(names)) == len(names) else [str(one.folder) for one in searches]


def _differences(searches: Sequence[SearchRecord]) -> dict[str, list[str]]:
    """Return the choices and the values that differ between searches, by their dotted path.

    Where the option of a group differs, its values are left out: the option tells them.
    """
    choices = _varying([one.first.get("choices") or {} for one in searches])
    choices.pop("experiment", None)
    params = _varying([one.first.get("params") or {} for one in searches])
    values = {path: row for path, row in params.items() if path.split(".")[0] not in choices}
    return choices | values


def _varying(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    told = [{key: short(value) for key, value in row.items()} for row in rows]
    names = (name for name in varying(told) if not name.startswith(_OWN))
    return {name: [row.get(name, "-") for row in told] for name in names}


def _scores(search: SearchRecord) -> Scores:
    """Return the scores of a search, each with its interval."""
    evaluated = score_sections.evaluate(search)
    found = {split: by[score_sections.STANDARD].estimates() for split, by in evaluated.items()}
    return {"test": score_sections.recorded(search), **found}


def _summary(searches: Sequence[SearchRecord], names: Sequence[str], *, hidden: int) -> Section:
    tiles = (
        Tile("searches", f"{len(searches):,}"),
        Tile("trials", f"{sum(len(one.trials) for one in searches):,}"),
        Tile("time", clock_time(sum(one.seconds for one in searches)),
             "of all the searches together"),
    )  # fmt: skip
    texts, objective = [], searches[0].objective
    if all(one.objective == objective for one in searches):
        led = [(w.score, name) for one, name in zip(searches, names, strict=True)
               if (w := one.winner())]  # fmt: skip
        for score, name in objective.rank(led, lambda pair: pair[0])[:1]:
            texts.append(f"The best {objective.name}, {score:.4f}, is that of {name}.")
    else:
        texts.append("The searches have different objectives: their scores on val do not compare.")
    texts.append(
        "Intervals that overlap say that val and test are too small to tell two searches apart; "
        "the test split must not choose between them."
    )
    if hidden > 0:
        texts.append(f"{hidden:,} more searches are not shown.")
    return Section("summary", "Summary", texts, tiles=tiles)


def _table(
    searches: Sequence[SearchRecord],
    names: Sequence[str],
    scores: Sequence[Scores],
    links: Mapping[str, str],
) -> Section:
    rows = []
    is_shared = len({one.objective for one in searches}) == 1
    for one, name, found in zip(searches, names, scores, strict=True):
        winner = one.winner()
        best = "-" if winner is None else f"{winner.score:.4f}"
        best = best if is_shared or winner is None else f"{one.objective} {best}"
        values = {} if winner is None else winner.hyperparameters
        told = ", ".join(f"{path}={short(value)}" for path, value in values.items())
        rows.append((
            name, one.status, best, *(_cell(found, *key) for key in _COLUMNS),
            str(len(one.trials)), str(len(one.with_status("failed"))), clock_time(one.seconds),
            told or "nothing searched",
        ))  # fmt: skip
    objective = str(searches[0].objective) if is_shared else "objective"
    columns = [f"{score_name(name)} on {split}" for split, name in _COLUMNS]
    header = ("search", "status", objective, *columns, "trials", "failed", "time", "winner")
    is_number = (False, False, is_shared, *(True for _ in header[3:-1]), False)
    title = "Scores at the threshold 0.5, with 95 % intervals"
    folders = {name: str(one.folder) for one, name in zip(searches, names, strict=True)}
    return Section(
        "searches",
        "Searches",
        tables=[Table(title, header, tuple(rows), is_number)],
        links={name: links[folder] for name, folder in folders.items() if folder in links},
    )


def _failures(
    searches: Sequence[SearchRecord], names: Sequence[str], jobs: Sequence[JobRecord]
) -> list[Section]:
    """Return what failed, searches and jobs that came to none, each with its reason."""
    rows = [(job.name, job.reason) for job in jobs]
    for one, name in zip(searches, names, strict=True):
        if one.status == "failed":
            rows.append((name, str(one.ended.get("reason") or "unknown")))
    table = Table("", ("search", "reason"), tuple(rows), (False, False))
    return [Section("failed", f"Failed: {len(rows)}", tables=[table])] if rows else []


def _cell(found: Scores, split: str, name: str) -> str:
    estimate = found.get(split, {}).get(name)
    return "-" if estimate is None or math.isnan(estimate.value) else str(estimate)


def _intervals(names: Sequence[str], scores: Sequence[Scores]) -> Section:
    drawn = [
        _interval_figure(name, names, scores)
        for name in NAMES
        if name in _SCORES and any(name in by for found in scores for by in found.values())
    ]
    texts = [] if drawn else ["No search has scores."]
    return Section("scores", "Scores with intervals", texts, figures=drawn)


def _interval_figure(name: str, names: Sequence[str], scores: Sequence[Scores]) -> Figure:
    traces = []
    for split, colour, shift in (("val", "@orange", 0.16), ("test", "@blue", -0.16)):
        known = [(n, found[split][name]) for n, found in enumerate(scores)
                 if name in found.get(split, {})]  # fmt: skip
        if known:
            ends = [(one.value, one.low, one.high) for _, one in known]
            traces.append(figures.dots(
                (value for value, _, _ in ends), (n + shift for n, _ in known), split,
                marker={"color": colour, "size": 8}, error_x=figures.intervals(ends, colour),
                text=[escape(names[n]) for n, _ in known],
                hovertemplate=f"%{{x:.3f}} on {split}<extra>%{{text}}</extra>",
            ))  # fmt: skip
    ticks = {
        "tickvals": list(range(len(names))), "ticktext": [escape(cut(one, 34)) for one in names],
        "range": [len(names) - 0.5, -0.5], "zeroline": False,
    }  # fmt: skip
    return Figure(
        f"score-{name.replace('_', '-')}",
        score_name(name),
        f"{score_name(name)} of each search on val and test, with 95 % intervals; the table above "
        "has the same numbers.",
        traces,
        {"xaxis": {"zeroline": False}, "yaxis": ticks},
        height=110 + min(40 * len(names), 1200),
    )


def _course(searches: Sequence[SearchRecord], names: Sequence[str]) -> Section:
    drawn = []
    if all(one.objective == searches[0].objective for one in searches):
        steps = {
            name: curve_figures.best_steps(one) for one, name in zip(searches, names, strict=True)
        }
        if any(steps.values()):
            drawn = [_together(searches[0], steps, kind) for kind in curve_figures.AXES]
    texts = [] if drawn else ["Nothing to draw: no epochs, or different objectives."]
    return Section("course", "Best so far", texts, figures=drawn)


def _together(
    first: SearchRecord, steps: Mapping[str, Sequence[curve_figures.Step]], kind: str
) -> Figure:
    traces = []
    for number, (name, some) in enumerate(steps.items()):
        dash = ("solid", "dash", "dot", "dashdot")[number // len(CURVES) % 4]
        look = {"width": 2, "dash": dash, "color": CURVES[number % len(CURVES)]}
        hover = "%{y:.4f}<extra>%{fullData.name}</extra>"
        label = escape(cut(name, 34))
        traces.append(curve_figures.stairs(some, kind, label, line=look, hovertemplate=hover))
    ends = [f"{some[-1].best:.4f} in {name}" for name, some in steps.items() if some]
    values = [one.best for some in steps.values() for one in some]
    return curve_figures.best_figure(
        first.objective, kind, traces, values, ", ".join(ends),
        whose=" of each search", height=400 + 12 * min(len(steps), 24),
    )  # fmt: skip


def _what_differs(
    searches: Sequence[SearchRecord], differing: Mapping[str, Sequence[str]]
) -> Section:
    rows = tuple((path, *values) for path, values in differing.items())
    header = ("choice or value", *_folders(searches))
    table = Table("Only what is not the same in all", header, rows, tuple(False for _ in header))
    texts = [] if rows else ["The searches have the same configuration."]
    return Section("differences", "What differs", texts, tables=[table])

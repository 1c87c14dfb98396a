"""One page that compares several searches, such as those of a multirun."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pneumonia.evaluation.bootstrap import NAMES
from pneumonia.evaluation.metrics import Estimate, score_name
from pneumonia.formatting import clock_time, short
from pneumonia.reporting import curve_figures, page, score_sections
from pneumonia.reporting.figures import CURVES, Figure, escape, focus, rounded
from pneumonia.reporting.page import Section, Tile
from pneumonia.storage.search_record import Chronicle, Job
from pneumonia.tables import Table

MOST_SEARCHES = 200
_SCORES = ("auc", "balanced_accuracy", "sensitivity", "specificity", "brier")
# What differs between searches without telling them apart.
_OWN = ("hydra", "tracking.", "resume")


def render(
    searches: Sequence[Chronicle], links: Mapping[str, str], jobs: Sequence[Job] = ()
) -> str:
    """Return the page that compares searches as HTML.

    Args:
        searches: At least one, in their order.
        links: The address of the page of each search, by its folder's name, where there is one.
        jobs: Those of a multirun that failed before they came to a search.
    """
    shown = list(searches[:MOST_SEARCHES])
    names = labels(shown)
    scores = [_scores(one) for one in shown]
    sections = [
        _summary(shown, names, hidden=len(searches) - len(shown)),
        _table(shown, names, scores, links),
        *_failures(shown, names, jobs),
        _intervals(shown, names, scores),
        _course(shown, names),
        _differences(shown),
    ]
    title = f"{len(shown)} searches compared"
    subtitle = f"By {', '.join(sorted({one.objective for one in shown}))}"
    return page.render(title, subtitle, sections, class_names=("negative", "positive"))


def labels(searches: Sequence[Chronicle]) -> list[str]:
    """Return what to call each search: its folder, and what of it differs from the others."""
    differing = differences(searches)
    found = []
    for number, folder in enumerate(_folders(searches)):
        told = ", ".join(f"{_last(key)}={values[number]}" for key, values in differing.items())
        told = told if len(told) <= 90 else f"{told[:89]}…"
        found.append(f"{folder}: {told}" if told else folder)
    return found


def _folders(searches: Sequence[Chronicle]) -> list[str]:
    """Return the names of the searches' folders, whole paths where names occur twice."""
    names = [one.folder.name for one in searches]
    return names if len(set(names)) == len(names) else [str(one.folder) for one in searches]


def differences(searches: Sequence[Chronicle]) -> dict[str, list[str]]:
    """Return the choices and the values that differ between searches, by their dotted path.

    Where the option of a group differs, its values are left out: the option tells them.
    """
    choices = [dict(one.started.get("choices") or {}) for one in searches]
    params = [dict(one.started.get("params") or {}) for one in searches]
    found = _varying(choices)
    found = {group: values for group, values in found.items() if group != "experiment"}
    for path, values in _varying(params).items():
        if path.split(".")[0] not in found:
            found[path] = values
    return found


def _varying(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [short(row[key]) if key in row else "-" for row in rows]
        if len(set(values)) > 1 and not key.startswith(_OWN):
            found[key] = values
    return found


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _scores(search: Chronicle) -> dict[str, dict[str, Estimate]]:
    """Return the scores of a search by split and name, each with its interval."""
    evaluated = score_sections.evaluate(search)
    found = {
        split: dict(by[score_sections.STANDARD].estimates()) for split, by in evaluated.items()
    }
    found.setdefault("test", score_sections.recorded(search))
    return found


def _summary(searches: Sequence[Chronicle], names: Sequence[str], *, hidden: int) -> Section:
    seconds = sum(one.metrics.get("seconds") or one.seconds for one in searches)
    tiles = (
        Tile("searches", f"{len(searches):,}"),
        Tile("trials", f"{sum(len(one.trials) for one in searches):,}"),
        Tile("time", clock_time(seconds), "of all the searches together"),
    )
    texts = []
    if len({(one.objective, one.direction) for one in searches}) == 1:
        sign = 1 if searches[0].direction == "max" else -1
        led = [
            (sign * (w.score or 0.0), n) for n, one in enumerate(searches) if (w := one.winner())
        ]
        if led:
            best = max(led, key=lambda pair: (pair[0], -pair[1]))[1]
            winner = searches[best].winner()
            score = 0.0 if winner is None else winner.score or 0.0
            texts.append(
                f"The best {searches[best].objective}, {score:.4f}, is that of {names[best]}."
            )
    else:
        texts.append("The searches have different objectives: their scores on val do not compare.")
    texts.append(
        "Intervals that overlap say that val and test are too small to tell two searches apart; "
        "the test split must not choose between them."
    )
    if hidden > 0:
        texts.append(f"{hidden:,} more searches are not shown.")
    return Section("summary", "Summary", tuple(texts), tiles=tiles)


def _table(
    searches: Sequence[Chronicle],
    names: Sequence[str],
    scores: Sequence[Mapping[str, Mapping[str, Estimate]]],
    links: Mapping[str, str],
) -> Section:
    rows = []
    is_shared = len({one.objective for one in searches}) == 1
    for one, name, found in zip(searches, names, scores, strict=True):
        winner, failed = one.winner(), sum(t.status == "failed" for t in one.trials)
        best = "-" if winner is None else f"{winner.score:.4f}"
        best = best if is_shared or winner is None else f"{one.objective} {best}"
        values = {} if winner is None else winner.values
        told = ", ".join(f"{path}={short(value)}" for path, value in values.items())
        seconds = one.metrics.get("seconds") or one.seconds
        rows.append(
            (
                name, one.status, best, *(_cell(found, *key) for key in _COLUMNS),
                str(len(one.trials)), str(failed), clock_time(seconds), told or "nothing searched",
            )
        )  # fmt: skip
    objective = searches[0].objective if is_shared else "objective"
    header = ("search", "status", objective,
              *(f"{score_name(name)} on {split}" for split, name in _COLUMNS),
              "trials", "failed", "time", "winner")  # fmt: skip
    is_number = (False, False, is_shared, *(True for _ in header[3:-1]), False)
    table = Table(
        "Scores at the threshold 0.5, with 95 % intervals", header, tuple(rows), is_number
    )
    addresses = {
        name: links[str(one.folder)]
        for one, name in zip(searches, names, strict=True)
        if str(one.folder) in links
    }
    return Section("searches", "Searches", tables=(table,), links=tuple(addresses.items()))


def _failures(
    searches: Sequence[Chronicle], names: Sequence[str], jobs: Sequence[Job]
) -> list[Section]:
    """Return what failed, searches and jobs that came to none, each with its reason."""
    rows = [(job.name, job.reason) for job in jobs]
    for one, name in zip(searches, names, strict=True):
        if one.status == "failed":
            rows.append((name, str(one.ended.get("reason") or "unknown")))
    table = Table("", ("search", "reason"), tuple(rows), (False, False))
    return [Section("failed", f"Failed: {len(rows)}", tables=(table,))] if rows else []


_COLUMNS = (("val", "auc"), ("test", "auc"), ("test", "sensitivity"), ("test", "specificity"))


def _cell(found: Mapping[str, Mapping[str, Estimate]], split: str, name: str) -> str:
    estimate = found.get(split, {}).get(name)
    return "-" if estimate is None or math.isnan(estimate.value) else str(estimate)


def _intervals(
    searches: Sequence[Chronicle],
    names: Sequence[str],
    scores: Sequence[Mapping[str, Mapping[str, Estimate]]],
) -> Section:
    figures = [
        _interval_figure(name, names, scores)
        for name in NAMES
        if name in _SCORES and any(name in by for found in scores for by in found.values())
    ]
    texts = () if figures else ("No search has scores.",)
    return Section("scores", "Scores with intervals", texts, figures=tuple(figures))


def _interval_figure(
    name: str, names: Sequence[str], scores: Sequence[Mapping[str, Mapping[str, Estimate]]]
) -> Figure:
    traces = []
    for split, colour, shift in (("val", "@orange", 0.16), ("test", "@blue", -0.16)):
        known = [(n, found[split][name]) for n, found in enumerate(scores)
                 if name in found.get(split, {})]  # fmt: skip
        if known:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": split,
                    "x": rounded(e.value for _, e in known), "y": [n + shift for n, _ in known],
                    "error_x": {
                        "type": "data", "symmetric": False, "color": colour, "thickness": 1.6,
                        "width": 4,
                        "array": rounded(max(0.0, e.high - e.value) for _, e in known),
                        "arrayminus": rounded(max(0.0, e.value - e.low) for _, e in known),
                    },
                    "marker": {"color": colour, "size": 8},
                    "text": [escape(names[n]) for n, _ in known],
                    "hovertemplate": f"%{{x:.3f}} on {split}<extra>%{{text}}</extra>",
                }
            )  # fmt: skip
    return Figure(
        f"score-{name.replace('_', '-')}",
        score_name(name),
        f"{score_name(name)} of each search on val and test, with 95 % intervals; the table above "
        "has the same numbers.",
        traces,
        {
            "xaxis": {"zeroline": False},
            "yaxis": {
                "tickvals": list(range(len(names))), "zeroline": False,
                "ticktext": [_short(one) for one in names],
                "range": [len(names) - 0.5, -0.5],
            },
        },
        height=110 + min(40 * len(names), 1200),
    )  # fmt: skip


def _short(label: str) -> str:
    return escape(label if len(label) <= 34 else f"{label[:33]}…")


def _course(searches: Sequence[Chronicle], names: Sequence[str]) -> Section:
    figures = []
    if len({(one.objective, one.direction) for one in searches}) == 1:
        steps = [curve_figures.best_steps(one) for one in searches]
        if any(steps):
            figures = [_together(searches[0], names, steps, kind) for kind in (0, 1)]
    texts = () if figures else ("Nothing to draw: no epochs, or different objectives.",)
    return Section("course", "Best so far", texts, figures=tuple(figures))


def _together(
    first: Chronicle,
    names: Sequence[str],
    steps: Sequence[Sequence[curve_figures.Step]],
    kind: int,
) -> Figure:
    of = ("epochs trained", "seconds")[kind]
    traces = []
    for number, (name, some) in enumerate(zip(names, steps, strict=True)):
        dash = ("solid", "dash", "dot", "dashdot")[number // len(CURVES) % 4]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": _short(name),
                "x": rounded((one.epochs, one.seconds)[kind] for one in some),
                "y": rounded(one.best for one in some),
                "line": {"shape": "hv", "width": 2, "dash": dash,
                         "color": CURVES[number % len(CURVES)]},
                "hovertemplate": "%{y:.4f}<extra>%{fullData.name}</extra>",
            }
        )  # fmt: skip
    sign = 1 if first.direction == "max" else -1
    ends = [(some[-1].best, name) for name, some in zip(names, steps, strict=True) if some]
    told = ", ".join(f"{best:.4f} in {name}" for best, name in ends)
    return Figure(
        ("best-epochs", "best-seconds")[kind],
        f"Best so far, by {of}",
        f"The best {first.objective} so far of each search against {of}: {told}.",
        traces,
        {
            "xaxis": {"title": {"text": of}, "rangemode": "tozero"},
            "yaxis": {
                "title": {"text": escape(first.objective)},
                "range": focus([one.best for some in steps for one in some], sign),
            },
        },
        height=400 + 12 * min(len(names), 24),
    )


def _differences(searches: Sequence[Chronicle]) -> Section:
    found = differences(searches)
    rows = tuple((path, *values) for path, values in found.items())
    header = ("choice or value", *_folders(searches))
    table = Table("Only what is not the same in all", header, rows, tuple(False for _ in header))
    texts = () if rows else ("The searches have the same configuration.",)
    return Section("differences", "What differs", texts, tables=(table,) if rows else ())

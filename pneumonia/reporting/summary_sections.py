"""The parts of a report that tell what it is about: the winner, the data, the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pneumonia.evaluation.metrics import Estimate, score_name
from pneumonia.formatting import clock_time, short
from pneumonia.reporting.page import Section, Tile
from pneumonia.reporting.score_sections import STANDARD, Evaluated, recorded, thresholds
from pneumonia.storage.search_record import Chronicle
from pneumonia.tables import Table

_STATES = {
    "completed": "",
    "interrupted": "This search was interrupted. What follows is what it came to.",
    "failed": "This search has failed. What follows is what it came to.",
    "unfinished": "This search has not come to its end. What follows is what there is so far.",
}


def summary(
    search: Chronicle, evaluated: Evaluated, commands: Sequence[tuple[str, str]]
) -> Section:
    """Return the part that tells the outcome.

    Args:
        search: The search.
        evaluated: The scores of its winner.
        commands: What to do next, each with what it does.
    """
    winner = search.winner()
    texts = [text for text in (_STATES.get(search.status, search.status),) if text]
    if reason := str(search.ended.get("reason") or ""):
        texts.append(reason)
    if winner is None:
        texts.append("No trial came to a score, so there is no winner.")
        return Section("summary", "Summary", tuple(texts), tiles=_counts(search))
    verb = "won" if search.status == "completed" else "leads"
    texts.append(
        f"Trial {winner.number} {verb} with {search.objective} {winner.score:.4f} at epoch "
        f"{winner.best_epoch}. Positive is the class {search.class_names[1]!r}."
    )
    rows = tuple((name, short(value)) for name, value in winner.values.items())
    table = Table("The winner's hyperparameters", ("hyperparameter", "value"), rows, (False, False))
    return Section(
        "summary",
        "Summary",
        tuple(texts),
        tiles=(*_score_tiles(search, evaluated), *_counts(search)),
        tables=(table,) if rows else (),
        commands=tuple(commands),
    )


def _score_tiles(search: Chronicle, evaluated: Evaluated) -> tuple[Tile, ...]:
    label, threshold = list(thresholds(search).items())[-1]
    test = evaluated.get("test")
    known: Mapping[str, Estimate]
    known = test[threshold].estimates() if test else recorded(search)
    if not test:
        label = f"at {STANDARD:g}"
    names = ("auc", "sensitivity", "specificity", "balanced_accuracy", "brier")
    return tuple(
        Tile(
            f"{score_name(name)} on test",
            f"{known[name].value:.3f}",
            f"{known[name].low:.3f} to {known[name].high:.3f}"
            + ("" if name in ("auc", "brier") else f", {label}"),
        )
        for name in names
        if name in known
    )


def _counts(search: Chronicle) -> tuple[Tile, ...]:
    scored = len(search.ranked())
    failed = sum(trial.status == "failed" for trial in search.trials)
    epochs = sum(len(trial.points) for trial in search.trials)
    seconds = search.metrics.get("seconds") or search.seconds
    return (
        Tile("trials", f"{len(search.trials):,}", f"{scored:,} with a score, {failed:,} failed"),
        Tile("epochs", f"{epochs:,}", "in all the trials"),
        Tile("time", clock_time(seconds), "min:s" if seconds < 3600 else "h:min:s"),
    )


def data_card(search: Chronicle) -> Section:
    """Return the part on the data: numbers, digests, duplicates, sizes, source."""
    datasets: list[Mapping[str, Any]] = search.started.get("datasets") or []
    if not datasets:
        return Section("data", "Data", ("The journal does not tell of the data.",))
    negative, positive = search.class_names
    rows = [
        (
            str(row["split"]),
            f"{row['size']:,}",
            f"{row['size'] - row['positives']:,}",
            f"{row['positives']:,}",
            f"{row['positives'] / max(1, row['size']):.1%}",
            _shapes(row.get("shapes")),
            str(row["digest"]),
        )
        for row in datasets
    ]
    header = ("split", "images", negative, positive, "share positive", "pixels", "sha256")
    is_number = (False, True, True, True, True, False, False)
    name = datasets[0].get("name")
    sources = sorted({str(row.get("source")) for row in datasets})
    note = "Pixels: height, width and channels of some images across the split."
    return Section(
        "data",
        "Data",
        (
            f"{name}: {'; '.join(sources)}",
            _duplicates(search.started.get("duplicates")),
            *(f"Note: {note}." for note in search.started.get("notes") or ()),
        ),
        tables=(Table("Splits", header, tuple(rows), is_number, (note,)),),
    )


def _duplicates(found: Mapping[str, int] | None) -> str:
    if found is None:
        return "The journal, of an older version, does not tell of duplicates across the splits."
    pairs = {pair.replace("/", " and "): count for pair, count in found.items()}
    if not any(pairs.values()):
        return "No image occurs, byte for byte, in two splits."
    told = ", ".join(f"{count:,} in {pair}" for pair, count in pairs.items())
    return f"Images that occur, byte for byte, in two splits: {told}."


def _shapes(shapes: Sequence[Sequence[int]] | None) -> str:
    if not shapes:
        return "unknown"
    texts = [" by ".join(map(str, shape)) for shape in shapes]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def export(search: Chronicle) -> tuple[Section, ...]:
    """Return the part on what `pneumonia export` has written, if it has."""
    facts = search.export
    try:
        height, width = facts["timed_shape"][1:3]
        latency, size = facts["latency_ms"], {"classifier": facts["classifier_bytes"],
                                              "export": facts["bytes"]}  # fmt: skip
        rows = tuple(
            (name, f"{size[key] / 1e6:.1f}", f"{latency[key]:.1f}")
            for name, key in ((f"{facts['model']}", "classifier"), (str(facts["file"]), "export"))
        )
        text = (
            f"As {facts['format']}: on {facts['images']:,} images its probabilities differ from "
            f"the classifier's by at most {facts['largest_difference']:.1g}."
        )
        note = f"Median of one image of {width} by {height} pixels at a time, on {facts['machine']}"
    except (KeyError, TypeError, ValueError):  # there is none, or another version's
        return ()
    header, is_number = ("file", "megabytes", "milliseconds per image"), (False, True, True)
    table = Table("Sizes and latencies", header, rows, is_number, (f"{note}.",))
    return (Section("export", "Export", (text,), tables=(table,)),)


def provenance(search: Chronicle) -> Section:
    """Return the part on the configuration, the versions and the machine."""
    ranges = tuple((item.path, str(item)) for item in search.ranges)
    known = {
        "search": search.started.get("search_id"),
        "began": datetime.fromtimestamp(search.started["time"] / 1000).astimezone(),
        "folder": search.folder,
        **{name: value for name, value in search.tags.items() if name != "class_names"},
    }
    facts = tuple((name.removeprefix("version."), _fact(value)) for name, value in known.items())
    tables = [Table("Where it comes from", ("what", "value"), facts, (False, False))]
    if ranges:
        tables.insert(0, Table("What was searched", ("hyperparameter", "range"), ranges,
                               (False, False)))  # fmt: skip
    details = (("The configuration, with its ranges: config.yaml", search.config),)
    return Section(
        "provenance",
        "Configuration and versions",
        tables=tuple(tables),
        details=details if search.config else (),
    )


def _fact(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M %Z}" if isinstance(value, datetime) else str(value)

"""The parts of a report that tell what it is about: the winner, the data, the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pneumonia.evaluation.metrics import Estimate, score_name
from pneumonia.formatting import clock_time, short
from pneumonia.reporting.page import Section, Tile
from pneumonia.reporting.score_sections import STANDARD, Evaluated, recorded, thresholds
from pneumonia.storage import members
from pneumonia.storage.readings import Readings
from pneumonia.storage.search_record import SearchRecord
from pneumonia.tables import Table

_STATES = {
    "completed": "",
    "interrupted": "This search was interrupted. What follows is what it came to.",
    "failed": "This search has failed. What follows is what it came to.",
    "unfinished": "This search has not come to its end. What follows is what there is so far.",
}


def summary(
    search: SearchRecord, evaluated: Evaluated, commands: Sequence[tuple[str, str]]
) -> Section:
    """Return the part that tells the outcome, with commands and what each does."""
    winner = search.winner()
    told = _STATES.get(search.status, search.status), str(search.ended.get("reason") or "")
    texts = [text for text in told if text]
    if winner is None:
        texts.append("No trial came to a score, so there is no winner.")
        return Section("summary", "Summary", texts, tiles=_counts(search))
    verb = "won" if search.status == "completed" else "leads"
    texts.append(
        f"Trial {winner.number} {verb} with {search.objective.name} {winner.score:.4f} at epoch "
        f"{winner.best_epoch}. Positive is the class {search.class_names[1]!r}."
    )
    if read := search.ended.get("test_readings"):
        texts += filter(None, [str(Readings(**read))])
    rows = tuple((name, short(value)) for name, value in winner.hyperparameters.items())
    tables = [
        Table("The winner's hyperparameters", ("hyperparameter", "value"), rows, (False,) * 2)
    ]
    if draws := members.of_event(search.ended):
        texts.append(f"The final classifier is {members.told(draws)}.")
        tables.append(members.table(draws, objective=search.objective.name))
    return Section(
        "summary",
        "Summary",
        texts,
        tiles=[*_score_tiles(search, evaluated), *_counts(search)],
        tables=tables,
        commands=commands,
    )


def _score_tiles(search: SearchRecord, evaluated: Evaluated) -> list[Tile]:
    known: Mapping[str, Estimate] = recorded(search)
    label = f"at {STANDARD:g}"
    if test := evaluated.get("test"):
        label, threshold = list(thresholds(search).items())[-1]
        known = test[threshold].estimates()
    tiles = []
    for name in ("auc", "sensitivity", "specificity", "balanced_accuracy", "brier"):
        if one := known.get(name):
            note = "" if name in ("auc", "brier") else f", {label}"
            interval = f"{one.low:.3f} to {one.high:.3f}{note}"
            tiles.append(Tile(f"{score_name(name)} on test", f"{one.value:.3f}", interval))
    return tiles


def _counts(search: SearchRecord) -> tuple[Tile, ...]:
    scored, failed = len(search.ranked()), len(search.with_status("failed"))
    epochs, seconds = sum(len(one.points) for one in search.trials.values()), search.seconds
    return (
        Tile("trials", f"{len(search.trials):,}", f"{scored:,} with a score, {failed:,} failed"),
        Tile("epochs", f"{epochs:,}", "in all the trials"),
        Tile("time", clock_time(seconds), "min:s" if seconds < 3600 else "h:min:s"),
    )


def data_card(search: SearchRecord) -> Section:
    """Return the part on the data: numbers, digests, duplicates, sizes, source."""
    datasets: list[Mapping[str, Any]] = search.first.get("datasets") or []
    if not datasets:
        return Section("data", "Data", ["The journal does not tell of the data."])
    negative, positive = search.class_names
    rows = []
    for row in datasets:
        size, positives = row["size"], row["positives"]
        counts = (f"{size:,}", f"{size - positives:,}", f"{positives:,}")
        share, shapes = f"{positives / max(1, size):.1%}", _shapes(row.get("shapes"))
        rows.append((str(row["split"]), *counts, share, shapes, str(row["digest"])))
    header = ("split", "images", negative, positive, "share positive", "pixels", "sha256")
    is_number = (False, True, True, True, True, False, False)
    name = datasets[0].get("name")
    sources = sorted({str(row.get("source")) for row in datasets})
    note = "Pixels: height, width and channels of some images across the split."
    texts = [f"{name}: {'; '.join(sources)}", _duplicates(search.first.get("duplicates") or {})]
    texts += [f"Note: {note}." for note in search.first.get("notes") or ()]
    tables = [Table("Splits", header, tuple(rows), is_number, (note,))]
    return Section("data", "Data", texts, tables=tables)


def _duplicates(found: Mapping[str, int]) -> str:
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


def export(search: SearchRecord) -> list[Section]:
    """Return the part on what `pneumonia export` has written, if it has."""
    facts = search.export
    try:
        height, width = facts["timed_shape"][1:3]
        sizes = {"classifier": facts["classifier_bytes"], "export": facts["bytes"]}
        names = {"classifier": facts["model"], "export": facts["file"]}
        rows = tuple(
            (str(name), f"{sizes[key] / 1e6:.1f}", f"{facts['latency_ms'][key]:.1f}")
            for key, name in names.items()
        )
        text = (
            f"As {facts['format']}: on {facts['images']:,} images its probabilities differ from "
            f"the classifier's by at most {facts['largest_difference']:.1g}."
        )
        note = f"Median of one image of {width} by {height} pixels at a time, on {facts['machine']}"
    except (KeyError, TypeError, ValueError):  # there is none, or another version's
        return []
    header, is_number = ("file", "megabytes", "milliseconds per image"), (False, True, True)
    tables = [Table("Sizes and latencies", header, rows, is_number, (f"{note}.",))]
    return [Section("export", "Export", [text], tables=tables)]


def provenance(search: SearchRecord) -> Section:
    """Return the part on the configuration, the versions and the machine."""
    began = datetime.fromtimestamp(search.first["time"] / 1000).astimezone()
    known = {
        "search": search.first.get("search_id"),
        "began": f"{began:%Y-%m-%d %H:%M %Z}",
        "folder": search.folder,
        **{name: value for name, value in search.tags.items() if name != "class_names"},
    }
    ranges = tuple((item.path, str(item)) for item in search.ranges)
    facts = tuple((name.removeprefix("version."), str(value)) for name, value in known.items())
    details = [("The configuration, with its ranges: config.yaml", search.config)]
    return Section(
        "provenance",
        "Configuration and versions",
        tables=[
            Table("What was searched", ("hyperparameter", "range"), ranges, (False, False)),
            Table("Where it comes from", ("what", "value"), facts, (False, False)),
        ],
        details=details if search.config else [],
    )

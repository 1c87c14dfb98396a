"""What a search left, read without the program: its journal, its classifier, MLflow's database."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FINAL = ("FINISHED", "FAILED", "KILLED")


def differences(found: Path, whole: Path) -> Iterator[str]:
    """Yield how a project whose search was killed differs from one whose search was not.

    Args:
        found: The folder of the project with the killed search.
        whole: The folder of the other.
    """
    if len(searches(found)) != 1:
        yield f"there are {len(searches(found))} searches"
        return
    one, other = (searches(project)[0] for project in (found, whole))
    yield from journals(events(one), events(other))
    yield from files(one, other)
    yield from _store(found, whole)


def searches(project: Path) -> list[Path]:
    """Return the folders of a project's searches."""
    return sorted(path.parent for path in project.glob("outputs/*/*/journal.jsonl"))


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    # nan is not equal to itself, its text is.
    return [json.loads(line, parse_constant=str) for line in lines]


def journals(found: list[dict[str, Any]], whole: list[dict[str, Any]]) -> Iterator[str]:
    if [event["n"] for event in found] != list(range(len(found))):
        yield "the journal's events are not numbered one after the other"
    for kind, keys in (
        ("search_started", ("name", "choices", "params", "datasets")),
        ("trial_started", ("trial_id", "number", "values", "tags")),
        ("epoch_ended", ("trial_id", "fold", "execution", "epoch", "metrics")),
        ("trial_ended", ("trial_id", "status", "score", "metrics", "reason", "classifier")),
    ):
        one, other = ([_kept(e, keys) for e in events if e["kind"] == kind]
                      for events in (found, whole))  # fmt: skip
        if _by_trial(one) != _by_trial(other):  # trials at once take turns as it comes
            yield f"{kind}: {len(one)} events are not the {len(other)} of the other search"
    one, other = found[-1], whole[-1]
    if one["kind"] != "search_ended" or one["status"] != "completed":
        yield f"the last event is {one['kind']} {one.get('status', '')}"
        return
    if one["winner"] != other["winner"]:
        yield f"the winner is {one['winner']}, not {other['winner']}"
    metrics = [{k: v for k, v in end["metrics"].items() if not k.startswith("seconds")}
               for end in (one, other)]  # fmt: skip
    if metrics[0] != metrics[1]:
        yield f"the final metrics are {metrics[0]}, not {metrics[1]}"


def files(found: Path, whole: Path) -> Iterator[str]:
    one, other = (_weights(folder / events(folder)[-1]["classifier"]) for folder in (found, whole))
    if one.keys() != other.keys() or any(not np.array_equal(one[k], other[k]) for k in one):
        yield "the final classifier has other weights"
    names, others = (
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (found, whole)
    )
    if names != others:
        yield f"the files differ: {sorted(names ^ others)}"


def _weights(path: Path) -> dict[str, Any]:
    """Return the arrays in a `.keras` file by their names in it."""
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    arrays: dict[str, Any] = {}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(content) as file:
        file.visititems(add)
    return arrays


def _store(found: Path, whole: Path) -> Iterator[str]:
    one, other = (_runs(project) for project in (found, whole))
    for run in one:
        if run["status"] not in FINAL:
            yield f"a run is {run['status']}"
    kinds = Counter(run["tags"].get("kind") for run in one)
    if kinds["search"] != 1:
        yield f"MLflow has {kinds['search']} runs of the search"
    names = Counter(run["tags"].get("trial_id") for run in one)
    if repeated := [name for name, count in names.items() if count > 1]:
        yield f"MLflow has several runs of the trials {repeated}"
    for run in one:
        points = Counter((key, step) for key, step, _ in run["points"])
        if repeated := [point for point, count in points.items() if count > 1]:
            yield f"MLflow has points of a metric more than once: {repeated[:3]}"
    if _table(one) != _table(other):
        yield "MLflow's runs differ in status, params or metrics"
    counts = [_count_models(project) for project in (found, whole)]
    if counts[0] != counts[1]:
        yield f"MLflow has {counts[0]} (models, versions, champions), not {counts[1]}"


def _runs(project: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as base:
        rows = base.execute("select run_uuid, status from runs where lifecycle_stage = 'active'")
        return [
            {
                "status": status,
                "tags": dict(_select(base, "key, value from tags", run)),
                "params": dict(_select(base, "key, value from params", run)),
                "points": _select(base, "key, step, value from metrics", run),
            }
            for run, status in rows.fetchall()
        ]


def _select(base: sqlite3.Connection, what: str, run: str) -> list[Any]:
    return base.execute(f"select {what} where run_uuid = ?", [run]).fetchall()


def _table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is to be the same of every run, by trial; `best_score` depends on no clock."""
    return {
        str(run["tags"].get("trial_id")): (
            run["status"],
            run["params"],
            sorted(point for point in run["points"] if not point[0].startswith("seconds")),
        )
        for run in runs
    }


def _count_models(project: Path) -> tuple[int, ...]:
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as base:
        return tuple(
            base.execute(f"select count(*) from {table}").fetchone()[0]
            for table in (
                "logged_models where lifecycle_stage = 'active'",
                "model_versions",
                "registered_model_aliases",
            )
        )


def _by_trial(events: list[Any]) -> list[Any]:
    return sorted(events, key=lambda event: str(event.get("trial_id")))


def _kept(event: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: event[key] for key in keys}

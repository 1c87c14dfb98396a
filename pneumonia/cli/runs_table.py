"""Searches and trials as rows: named values that are filtered, sorted and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from pneumonia import files
from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError
from pneumonia.formatting import clock_time, short
from pneumonia.tables import Table
from pneumonia.tracking.runs import Run

Record: TypeAlias = dict[str, Any]

_OURS = ("mlflow.", "pneumonia.")
_CONDITION = re.compile(r"\s*(?P<name>[^=!<>~]+?)\s*(?P<sign>!=|<=|>=|=|<|>|~)\s*(?P<value>.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    ">": lambda one, other: one > other,
    "<=": lambda one, other: one <= other,
    ">=": lambda one, other: one >= other,
}
_SEARCH_COLUMNS = ("search", "started", "name", "status", "trials", "score", "test_auc")
_TRIAL_COLUMNS = ("trial", "score", "best_epoch", "seconds")


def search_record(run: Run) -> Record:
    """Return what there is to say of a search, by name: its params and metrics beside our own."""
    objective = run.params.get("objective.name", "")
    own = {
        "search": run.run_id[:8],
        "run_id": run.run_id,
        "name": run.name,
        "status": run.tags.get("status", run.status.lower()),
        "started": _time(run),
        "seconds": run.seconds,
        "objective": objective,
        "score": run.metrics.get(objective, run.metrics.get("best_score")),
    }
    return own | _others(run, own, dict(run.metrics))


def trial_record(run: Run, search: Run) -> Record:
    """Return what there is to say of a trial, by name; metrics are those at its best epoch."""
    own = {
        "search": search.run_id[:8],
        "trial": run.number,
        "run_id": run.run_id,
        "status": {"FINISHED": "completed"}.get(run.status, run.status.lower()),
        "started": _time(run),
        "seconds": run.seconds,
        "score": run.metrics.get("score"),
        "is_winner": run.tags.get("trial_id") == search.tags.get("winner"),
    }
    at_best = {
        re.sub("^(best_)+", "", name): value
        for name, value in run.metrics.items()
        if name.startswith("best_")
    }
    if "epoch" in at_best:
        at_best["best_epoch"] = int(at_best.pop("epoch"))
    return own | _others(run, own, at_best)


def columns_of_searches(records: Sequence[Record]) -> list[str]:
    """Return the columns to show of searches where none are asked for."""
    return [name for name in _SEARCH_COLUMNS if _is_known(name, records)]


def columns_of_trials(records: Sequence[Record], names: Iterable[str]) -> list[str]:
    """Return the columns to show of trials where none are asked for.

    Args:
        records: The trials.
        names: Their params, of which those are shown that differ.
    """
    columns = [name for name in _TRIAL_COLUMNS if _is_known(name, records)]
    if len({record["search"] for record in records}) > 1:
        columns.insert(0, "search")
    if any(record["status"] != "completed" for record in records):
        columns.append("status")
    varying = [name for name in names if len({repr(one.get(name)) for one in records}) > 1]
    return columns + [name for name in varying if name != "epochs"]


def chosen(text: str, usual: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Return the columns that a user asks for: names, `all`, or with a `+` more than the usual.

    Raises:
        ConfigError: No row has one of them.
    """
    every = list(dict.fromkeys(name for record in records for name in record))
    if text == "all":
        return every
    names = [name.strip() for name in text.lstrip("+").split(",") if name.strip()]
    for name in names:
        check_name("columns", name, records)
    return list(dict.fromkeys([*usual, *names])) if text.startswith("+") else names


def filtered(records: Sequence[Record], text: str) -> list[Record]:
    """Return the rows that meet all the conditions, such as `val_auc>0.97,dense.units=512`.

    A row without the value meets none but `!=`. `~` means that the text contains another.

    Raises:
        ConfigError: For what is no condition, or a name that no row has.
    """
    kept = list(records)
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _CONDITION.fullmatch(part)
        if match is None:
            expected = "conditions such as val_auc>0.97,dense.units=512 (= != < > <= >= ~)"
            raise ConfigError("filter", expected, part)
        check_name("filter", match["name"], records)
        wanted = value_of(match["value"])
        kept = [one for one in kept if _meets(one.get(match["name"]), match["sign"], wanted)]
    return kept


def ordered(records: Sequence[Record], text: str) -> list[Record]:
    """Return the rows by some columns, the first of them first; `-` before one turns it around.

    Numbers come before texts, and what is missing comes last either way.

    Raises:
        ConfigError: No row has one of the columns.
    """
    result = list(records)
    for part in reversed([part.strip() for part in text.split(",") if part.strip()]):
        name, is_reversed = part.lstrip("-"), part.startswith("-")
        check_name("sort", name, records)
        known = [one for one in result if not _is_missing(one.get(name))]
        missing = [one for one in result if _is_missing(one.get(name))]
        known.sort(key=lambda one: _rank(one[name]), reverse=is_reversed)
        result = known + missing
    return result


def check_name(key: str, name: str, records: Sequence[Record]) -> None:
    """Raise a ConfigError where no row has a value of that name."""
    every = {name for record in records for name in record}
    if records and name not in every:
        hint = nearest(name, every) or "columns=all format=json shows all there is"
        raise ConfigError(key, "the name of a column", name, hint)


def as_table(
    records: Sequence[Record], columns: Sequence[str], *, title: str, notes: Sequence[str] = ()
) -> Table:
    """Return rows as a table for people: few digits, short times."""
    rows = tuple(tuple(_cell(name, one.get(name)) for name in columns) for one in records)
    numbers = tuple(
        all(isinstance(one.get(name), int | float | None) for one in records) for name in columns
    )
    return Table(title=title, header=tuple(columns), rows=rows, is_number=numbers, notes=(*notes,))


def as_csv(records: Sequence[Record], columns: Sequence[str]) -> str:
    """Return rows as CSV, with all digits; what is missing is empty."""
    rows: list[Sequence[object]] = [columns]
    for record in records:
        values = (record.get(name) for name in columns)
        rows.append(["" if _is_missing(value) else _csv(value) for value in values])
    return files.as_csv(rows)


def as_json(records: Sequence[Record], columns: Sequence[str]) -> str:
    """Return rows as a JSON list of objects, with all digits; what is missing is null."""
    rows = [
        {name: None if _is_missing(one.get(name)) else one.get(name) for name in columns}
        for one in records
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def value_of(text: str) -> Any:
    """Return the value that a param's text or a condition stands for: a number, true, a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _others(run: Run, own: Mapping[str, Any], metrics: Mapping[str, Any]) -> Record:
    params = {name: value_of(text) for name, text in run.params.items()}
    tags = {name: text for name, text in run.tags.items() if not name.startswith(_OURS)}
    return {name: value for name, value in {**tags, **params, **metrics}.items() if name not in own}


def _meets(value: Any, sign: str, wanted: Any) -> bool:
    if sign == "~":
        return not _is_missing(value) and str(wanted).lower() in _plain(value).lower()
    if _is_missing(value) or isinstance(value, bool) != isinstance(wanted, bool):
        return sign == "!="
    if isinstance(value, int | float) != isinstance(wanted, int | float):
        value, wanted = _plain(value), _plain(wanted)
    try:
        return _COMPARE[sign](value, wanted)
    except TypeError:  # lists and such
        return sign == "!="


def _rank(value: Any) -> tuple[bool, Any]:
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else _plain(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_known(name: str, records: Sequence[Record]) -> bool:
    return any(not _is_missing(record.get(name)) for record in records)


def _csv(value: Any) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else _plain(value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(name: str, value: Any) -> str:
    if _is_missing(value):
        return "-"
    if name == "started":
        return str(value)[:16].replace("T", " ")
    if name == "seconds":
        return clock_time(value)
    if isinstance(value, list | dict):
        value = _plain(value)
    if isinstance(value, float) and "." not in name and not value.is_integer():  # a metric
        return f"{value:.4f}"
    return "".join(c if c.isprintable() else " " for c in short(value))


def _time(run: Run) -> str:
    return datetime.fromtimestamp(run.started / 1000).astimezone().isoformat(timespec="seconds")

"""Searches and trials as rows: named values that are filtered, sorted and written."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from pneumonia import files
from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError
from pneumonia.evaluation.objective import Objective
from pneumonia.formatting import clock_time, short
from pneumonia.storage.trial_record import varying
from pneumonia.tables import Table
from pneumonia.tracking.runs import Run

Record: TypeAlias = dict[str, Any]
"""Values by name; None, nan or no entry where one is missing."""

_OURS = ("mlflow.", "pneumonia.")
_CONDITION = re.compile(r"\s*(?P<name>[^=!<>~]+?)\s*(?P<sign>!=|<=|>=|=|<|>|~)\s*(?P<value>.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    **{"=": operator.eq, "!=": operator.ne, "<": operator.lt},
    **{">": operator.gt, "<=": operator.le, ">=": operator.ge},
}
SEARCH_COLUMNS = ("search", "started", "name", "status", "trials", "score", "test_auc")


def objective(run: Run) -> str:
    """Say what ranks the trials of a search: scores of other folds do not compare."""
    name, folds = (run.params.get(f"objective.{key}", "") for key in ("name", "folds"))
    return str(Objective(name, "max", int(folds) if folds.isdecimal() else None))


def search_record(run: Run) -> Record:
    """Return what there is to say of a search, by name: its params and metrics beside our own."""
    name = run.params.get("objective.name", "")
    own = {
        "search": run.run_id[:8],
        "run_id": run.run_id,
        "name": run.name,
        "status": run.tags.get("status", run.status.lower()),
        "started": _time(run),
        "seconds": run.seconds,
        "objective": objective(run),
        "score": run.metrics.get(name, run.metrics.get("best_score")),
    }
    return _with_others(own, run, run.metrics)


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
    bests = {name: value for name, value in run.metrics.items() if name.startswith("best_")}
    at_best = {re.sub("^(best_)+", "", name): value for name, value in bests.items()}
    if "epoch" in at_best:
        at_best["best_epoch"] = int(at_best.pop("epoch"))
    return _with_others(own, run, at_best)


def columns_of_trials(records: Sequence[Record], names: Collection[str]) -> list[str]:
    """Return the usual columns of trials; of the names of their params, those that differ."""
    columns = filled(("trial", "score", "best_epoch", "seconds"), records)
    if len({record["search"] for record in records}) > 1:
        columns.insert(0, "search")
    if any(record["status"] != "completed" for record in records):
        columns.append("status")
    params = [{name: one.get(name) for name in names} for one in records]
    return [*columns, *(name for name in varying(params) if name != "epochs")]


def chosen(text: str, usual: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Return the columns that a user asks for: names, `all`, or with a `+` more than the usual.

    Raises:
        ConfigError: No row has one of them.
    """
    if text == "all":
        return list(dict.fromkeys(name for record in records for name in record))
    names = [name.strip() for name in text.lstrip("+").split(",") if name.strip()]
    for name in names:
        _check_name("columns", name, records)
    return list(dict.fromkeys([*usual, *names])) if text.startswith("+") else names


def filtered(records: Sequence[Record], text: str) -> list[Record]:
    """Return the rows that meet all the conditions, such as `val_auc>0.97,dense.units=512`.

    A row without the value meets none but `=null` and `!=` of all else. `~` means that the text
    contains another.

    Raises:
        ConfigError: For what is no condition, or a name that no row has.
    """
    kept = list(records)
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _CONDITION.fullmatch(part)
        if match is None:
            expected = "conditions such as val_auc>0.97,dense.units=512 (= != < > <= >= ~)"
            raise ConfigError("filter", expected, part)
        name, sign, text = match["name"], match["sign"], match["value"]
        _check_name("filter", name, records)
        kept = [one for one in kept if _meets(_known(one.get(name)), sign, text)]
    return kept


def ordered(records: Sequence[Record], text: str) -> list[Record]:
    """Return the rows by some columns, the first of them first; `-` before one turns it around.

    Numbers come before texts, and what is missing comes last either way.

    Raises:
        ConfigError: No row has one of the columns.
    """
    result = list(records)
    for part in reversed([part.strip() for part in text.split(",") if part.strip()]):
        name = part.lstrip("-")
        _check_name("sort", name, records)
        known = [one for one in result if _known(one.get(name)) is not None]
        missing = [one for one in result if _known(one.get(name)) is None]
        known.sort(key=lambda one: _rank(one[name]), reverse=part.startswith("-"))
        result = known + missing
    return result


def render(
    records: Sequence[Record],
    columns: Sequence[str],
    kind: str,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> Table | str:
    """Return rows as a table for people, with few digits, or as CSV or a JSON list, with all.

    What is missing is `-`, empty or null.
    """
    rows = [[_known(one.get(name)) for name in columns] for one in records]
    if kind == "csv":
        return files.as_csv([columns, *(map(_csv, row) for row in rows)])
    if kind == "json":
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        return json.dumps(objects, indent=2, ensure_ascii=False) + "\n"
    cells = tuple(tuple(map(_cell, columns, row)) for row in rows)
    numbers = [all(isinstance(value, int | float | None) for value in column)
               for column in zip(*rows, strict=True)] or [True] * len(columns)  # fmt: skip
    return Table(title, tuple(columns), cells, tuple(numbers), tuple(notes))


def _check_name(key: str, name: str, records: Sequence[Record]) -> None:
    """Raise a ConfigError where no row has a value of that name."""
    every = {name for record in records for name in record}
    if records and name not in every:
        hint = nearest(name, every) or "columns=all format=json shows all there is"
        raise ConfigError(key, "the name of a column", name, hint)


def _with_others(own: Record, run: Run, metrics: Mapping[str, float]) -> Record:
    """Return values with the tags, params and metrics of a run that have other names."""
    tags = {name: text for name, text in run.tags.items() if not name.startswith(_OURS)}
    params = {name: _value_of(text) for name, text in run.params.items()}
    others = {**tags, **params, **metrics}
    return own | {name: value for name, value in others.items() if name not in own}


def filled(names: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Return the names that some row has a value of."""
    return [name for name in names if any(_known(one.get(name)) is not None for one in records)]


def _value_of(text: str) -> Any:
    """Return what a param's text or a condition stands for: a number, true, a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _known(value: Any) -> Any:
    """Return a value, None for one that is not a number."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _meets(value: Any, sign: str, text: str) -> bool:
    if sign == "~":
        return value is not None and text.lower() in _plain(value).lower()
    wanted = _value_of(text)
    if isinstance(value, str) and not isinstance(wanted, str):
        wanted = text  # an id such as 1e234567 and a version such as 2.20 are no numbers
    if value is None or wanted is None:
        return sign == ("=" if value is wanted else "!=")
    if isinstance(value, bool) != isinstance(wanted, bool):
        return sign == "!="
    if isinstance(value, int | float) != isinstance(wanted, int | float):
        value, wanted = _plain(value), _plain(wanted)
    try:
        return bool(_COMPARE[sign](value, wanted))
    except TypeError:  # lists and such
        return sign == "!="


def _rank(value: Any) -> tuple[bool, Any]:
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else _plain(value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _csv(value: Any) -> object:
    is_plain = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return value if is_plain else _plain(value)


def _cell(name: str, value: Any) -> str:
    if value is None:
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

"""What the folder of a search tells of it: the trials with their times, the end, the predictions.

The journal is the record; this reads it as a report needs it. A search may still run, may have been
broken off or may come from an older version: what is not there is None or empty.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia import files
from pneumonia.config import search_space
from pneumonia.config.ranges import Range
from pneumonia.errors import UserError
from pneumonia.evaluation.objective import Metrics
from pneumonia.storage import history, journal

Array = np.ndarray[Any, Any]

EXPORT = "export.json"
JOBS = "jobs.jsonl"
_MILLISECONDS = 1000.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        trial_id: Its name within the search.
        number: Its number within the search, from 1.
        values: Its hyperparameters, by dotted path: what was searched, not what was fixed.
        epochs: The epoch up to which it was to be trained.
        status: `completed`, `failed`, or `unfinished` where the journal does not tell its end.
        bracket: Hyperband's bracket, or None.
        round: Hyperband's round within the bracket, or None.
        parent: The trial that it goes on from, or None.
        score: Its objective, or None.
        best_epoch: The epoch at which it had that score; 0 if unknown.
        reason: Why it failed.
        traceback: Where it failed.
        began: Seconds from the beginning of the search.
        seconds: How long it took; nan if unknown.
        waited: Of those, the seconds before its first epoch ended.
        points: What it measured itself, in the order of time: seconds from the beginning of the
            search, and metrics; all the executions.
        curve: The metrics of all the epochs of its first execution, its parents' first.
    """

    trial_id: str
    number: int
    values: Mapping[str, Any]
    epochs: int
    status: str
    bracket: int | None = None
    round: int | None = None
    parent: str | None = None
    score: float | None = None
    best_epoch: int = 0
    reason: str = ""
    traceback: str = ""
    began: float = 0.0
    seconds: float = float("nan")
    waited: float = 0.0
    points: tuple[tuple[float, Metrics], ...] = ()
    curve: tuple[Metrics, ...] = ()


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the final classifier gave for the images of one split.

    Attributes:
        names: What the images are called.
        labels: int64 (N,), 0 or 1.
        probabilities: float64 (N,), of the positive class.
    """

    names: tuple[str, ...]
    labels: Array
    probabilities: Array


@dataclass(frozen=True, slots=True)
class Chronicle:
    """One search.

    Attributes:
        folder: Where it is.
        started: The event that began it; empty where there is no journal.
        ended: The event that ended it; empty where it runs, or was broken off without a word.
        objective: Name of the metric that ranks the trials.
        direction: `max` or `min`.
        ranges: What was searched, in the order of the config.
        trials: All the trials, in the order in which they started.
        config: The text of the composed config, with its ranges; empty where it is missing.
        predictions: By split, where the file is there.
        seconds: How long it took, pauses before it was resumed left out.
        export: What `pneumonia export` measured last of a classifier of this search, if anything.
    """

    folder: Path
    started: Mapping[str, Any]
    ended: Mapping[str, Any]
    objective: str
    direction: str
    ranges: tuple[Range, ...]
    trials: tuple[Trial, ...]
    config: str = ""
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    seconds: float = 0.0
    export: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called: tuner, model and dataset."""
        return str(self.started.get("name", self.folder.name))

    @property
    def status(self) -> str:
        """`completed`, `interrupted`, `failed` or `unfinished`."""
        return str(self.ended.get("status", "unfinished"))

    @property
    def cfg(self) -> DictConfig | None:
        """The composed config, None where it is missing or cannot be read."""
        return _parse(self.config)

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the end says was measured: scores, counts, seconds by phase."""
        found: Mapping[str, float] = self.ended.get("metrics") or {}
        return found

    @property
    def class_names(self) -> tuple[str, str]:
        """The negative class, the positive class."""
        try:
            negative, positive = json.loads(self.tags.get("class_names", ""))
        except ValueError:
            return "negative", "positive"
        return str(negative), str(positive)

    @property
    def tags(self) -> Mapping[str, str]:
        """What the search says of where it ran and of what it is made."""
        found: Mapping[str, str] = self.started.get("tags") or {}
        return found

    def ranked(self) -> list[Trial]:
        """Return the trials that have a score, the best first, the earlier of equals first."""
        sign = -1.0 if self.direction == "max" else 1.0
        scored = [trial for trial in self.trials if trial.score is not None]
        return sorted(scored, key=lambda trial: sign * (trial.score or 0.0))

    def winner(self) -> Trial | None:
        """Return the trial that won, or leads where the search has not come to its end."""
        named = [one for one in self.trials if one.trial_id == self.ended.get("winner")]
        return next(iter(named or self.ranked()), None)


@dataclass(frozen=True, slots=True)
class Job:
    """What came of a job of a multirun.

    Attributes:
        number: Hydra's, from 0.
        overrides: What it was run with.
        folder: The name of its folder within that of the multirun.
        status: The exit status that it would have alone: 0 where a search came to its end.
        reason: Why it failed.
    """

    number: int
    overrides: str
    folder: str
    status: int
    reason: str

    @property
    def name(self) -> str:
        """What to call it."""
        return f"job {self.number} ({self.overrides})"


def note(job: Job, folder: Path) -> None:
    """Add a job to those noted in the folder of its multirun; several processes may."""
    folder.mkdir(
        parents=True, exist_ok=True
    )  # a sweeper need not make it; a failed job leaves none
    with (folder / JOBS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(job)) + "\n")


def jobs(folder: Path) -> list[Job]:
    """Return the jobs noted in the folder of a multirun, by their numbers."""
    found = []
    for line in _text(folder / JOBS).splitlines():
        with contextlib.suppress(ValueError, TypeError):  # one that is damaged
            found.append(Job(**json.loads(line)))
    return sorted(found, key=lambda job: job.number)


def read(folder: Path, *, ending: Mapping[str, Any] | None = None) -> Chronicle:
    """Read the folder of a search.

    Args:
        folder: The folder.
        ending: The event that is about to end the search, where the journal does not have it yet.

    Raises:
        UserError: Where the folder holds no journal, or one that does not begin with the search;
            where it or the predictions are damaged.
    """
    past = history.read(folder)
    if past.started is None:
        raise UserError(f"{folder}: expected the folder of a search, with a {journal.NAME} in it.")
    clock = _Clock(past.started["time"])
    for event in journal.read(folder):
        clock.see(event)
    params = past.started.get("params", {})
    file = folder / history.PREDICTIONS
    predictions = read_predictions(file)
    _check_sizes(predictions, past.started.get("datasets"), file)
    text, end = _text(folder / history.CONFIG), clock.ended if ending is None else ending
    ranges = _ranges(text, [one.values for one in past.trials.values()])
    search = Chronicle(
        folder=folder,
        started=past.started,
        ended=end,
        objective=str(params.get("objective.name", "val_auc")),
        direction=str(past.started.get("direction", "max")),
        ranges=ranges,
        trials=tuple(_trial(name, past, clock, ranges) for name in past.trials),
        config=text,
        predictions=predictions,
        seconds=clock.now,
        export=_object(folder / EXPORT),
    )
    return replace(search, trials=tuple(_so_far(trial, search) for trial in search.trials))


def _so_far(trial: Trial, search: Chronicle) -> Trial:
    """Give a winner that the budget has stopped before its end the score that it won with."""
    score = search.metrics.get(search.objective)
    if trial.trial_id != search.ended.get("winner") or trial.score is not None or score is None:
        return trial
    sign = 1 if search.direction == "max" else -1
    values = [sign * metrics.get(search.objective, -math.inf * sign) for metrics in trial.curve]
    return replace(trial, score=float(score), best_epoch=values.index(max(values)) + 1)


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Read what the final classifier gave: columns `split,name,label,probability`.

    Returns:
        Predictions by split; none where the file is missing.

    Raises:
        UserError: Where it is damaged, with the line.
    """
    rows: dict[str, list[tuple[str, int, float]]] = {}
    if not path.exists():
        return {}
    # Names of files may be no text: Python keeps their bytes as surrogates.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                name = files.csv_text(row["name"])
                values = (name, int(row["label"]), float(row["probability"]))
                if values[1] not in (0, 1) or not 0 <= values[2] <= 1 or None in row:
                    raise ValueError
                rows.setdefault(row["split"], []).append(values)
            if not rows:
                raise ValueError
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise _damaged(path, f"in line {max(1, reader.line_num)}") from error
    found = {}
    for split, members in rows.items():
        names, labels, probabilities = zip(*members, strict=True)
        found[split] = Predictions(names, np.array(labels), np.array(probabilities))
    return found


def _damaged(path: Path, where: str) -> UserError:
    text = "Without the file, a report of this search leaves out what depends on it."
    return UserError(f"{path}: damaged {where}. {text}")


def _check_sizes(predictions: Mapping[str, Predictions], datasets: Any, path: Path) -> None:
    """Notice rows that are missing: the search says how many images each split has."""
    sizes = {row.get("split"): row.get("size") for row in datasets or ()}
    for split, one in predictions.items():
        if sizes.get(split, len(one.names)) != len(one.names):
            raise _damaged(path, f"({len(one.names)} rows of {split} instead of {sizes[split]})")


class _Clock:
    """Follows the times of a journal; a pause between an end and going on does not count."""

    def __init__(self, began: int) -> None:
        self._last, self.now = began, 0.0
        self.ended: dict[str, Any] = {}
        self.started: dict[str, tuple[dict[str, Any], float]] = {}
        self.points: dict[str, list[tuple[float, Metrics]]] = {}

    def see(self, event: Mapping[str, Any]) -> None:
        """Take an event, the next of the journal."""
        kind, trial_id = event["kind"], event.get("trial_id", "")
        if not self.ended:
            self.now += max(0, event["time"] - self._last) / _MILLISECONDS
        self._last = event["time"]
        self.ended = dict(event) if kind == "search_ended" else {}
        if kind == "trial_started":
            self.started.setdefault(trial_id, (dict(event), self.now))
        elif kind == "epoch_ended":
            self.points.setdefault(trial_id, []).append((self.now, event["metrics"]))


def _trial(trial_id: str, past: history.History, clock: _Clock, ranges: Sequence[Range]) -> Trial:
    known, (event, began) = past.trials[trial_id], clock.started[trial_id]
    ended, points = known.ended or {}, clock.points.get(trial_id, [])
    tags, score = event.get("tags") or {}, ended.get("score")
    last = points[-1][0] - began if points else float("nan")
    return Trial(
        trial_id=trial_id,
        number=int(event["number"]),
        values={one.path: known.values[one.path] for one in ranges if one.path in known.values},
        epochs=int(known.values.get("epochs", 0)),
        status=str(ended.get("status", "unfinished")).lower(),
        bracket=_integer(tags.get("bracket")),
        round=_integer(tags.get("round")),
        parent=known.parent,
        score=float(score) if score is not None and np.isfinite(score) else None,
        best_epoch=int((ended.get("metrics") or {}).get("best_epoch", 0)),
        reason=str(ended.get("reason", "")),
        traceback=str(ended.get("traceback", "")),
        began=began,
        seconds=float(ended.get("seconds") or last),
        waited=points[0][0] - began if points else 0.0,
        points=tuple(points),
        curve=past.curve(trial_id),
    )


def _ranges(text: str, values: Sequence[Mapping[str, Any]]) -> tuple[Range, ...]:
    """Return what was searched by the config, or else whatever differs between the trials."""
    # Of a config that cannot be read, such as another version's, the trials tell what differs.
    if (cfg := _parse(text)) is not None:
        with contextlib.suppress(UserError):
            return search_space.find(cfg).ranges
    found = []
    for path in dict.fromkeys(path for one in values for path in one if path != "epochs"):
        given = list({repr(one[path]): one[path] for one in values if path in one}.values())
        if len(given) > 1:
            found.append(Range(path, "choice", values=tuple(given)))
    return tuple(found)


def _parse(text: str) -> DictConfig | None:
    try:
        cfg = OmegaConf.create(text)
    except (OmegaConfBaseException, ValueError, yaml.YAMLError):
        return None
    return cfg if text and isinstance(cfg, DictConfig) else None


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where there is none."""
    try:
        found = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _integer(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() else None

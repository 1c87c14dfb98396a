"""What a search's journal says of it and of its trials, while it runs and afterwards.

`from_journal` reads what the search itself needs to go on, `read` all that is in its folder. A
search may still run, may have been broken off or may come from an older version: what is not there
is None or empty.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia.config import search_space
from pneumonia.config.ranges import Range
from pneumonia.errors import UserError
from pneumonia.evaluation.objective import FIRST, Fit, Metrics, Objective
from pneumonia.storage import journal, members, predictions
from pneumonia.storage.journal import Event
from pneumonia.storage.predictions import Predictions
from pneumonia.storage.search_folder import SearchFolder
from pneumonia.storage.trial_record import TrialRecord, fit_of, varying


@dataclass(slots=True)
class SearchRecord:
    """What is known of a search.

    Attributes:
        folder: Where it is.
        ranges: What was searched, in the order of the config; empty where that is not known.
        started: The first event, or None where there is none yet.
        ended: The event that ended it; empty where it runs, or was broken off without a word.
        params: Its configuration by dotted path, with the budget that it was given last.
        trials: The trials by their id, in the order in which they started.
        is_completed: Whether the search has come to its end, and was given no more budget since.
        completions: How often it has come to its end.
        elapsed: The seconds it took so far, pauses before it was resumed left out.
        config: The text of the composed config, with its ranges; empty where it was not read.
        predictions: By split, where they were read.
        export: What `pneumonia export` measured last of a classifier of this search, if anything.
    """

    folder: Path
    ranges: tuple[Range, ...] = ()
    started: Event | None = None
    ended: Event = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    is_completed: bool = False
    completions: int = 0
    elapsed: float = 0.0
    config: str = ""
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)
    _time: int = 0
    _untold: float = 0.0  # seconds of events that do not tell them

    def apply(self, event: Event) -> None:
        """Take in the next event of the journal."""
        self._count(event)
        self.ended = {}
        match event["kind"]:
            case "search_started":
                self.started = self.started or event
                self.params = {**event.get("params", {}), **self.params}
            case "search_extended":
                self.params |= event["params"]
                self.is_completed = False
            case "trial_started":
                self.trials.setdefault(event["trial_id"], self._begun(event))
            case "epoch_ended":
                trial, metrics = self.trials[event["trial_id"]], event["metrics"]
                trial.add(fit_of(event), event["epoch"], metrics)
                trial.points.append((self.elapsed, metrics))
            case "worker_lost":
                self.trials[event["trial_id"]].losses.append(str(event["reason"]))
            case "trial_ended":
                trial, score = self.trials[event["trial_id"]], event.get("score")
                trial.ended = event
                trial.score = None if score is None or not math.isfinite(score) else float(score)
                trial.spread = event.get("spread")
                trial.best_epoch = int((event.get("metrics") or {}).get("best_epoch", 0))
            case "search_ended":
                self.is_completed = event["status"] == "completed"
                self.completions += self.is_completed
                self.ended = event

    def _count(self, event: Event) -> None:
        """Count the seconds up to an event, without those in which the search did not run.

        Events of earlier versions have the time alone, which does not tell a pause after a kill.
        """
        if "seconds_elapsed" in event:
            self.elapsed = self._untold + event["seconds_elapsed"]
        elif self.started is not None and not self.ended:
            self.elapsed += max(0, event["time"] - self._time) / 1000
            self._untold = self.elapsed
        self._time = event["time"]

    def curve(self, trial_id: str, fit: Fit = FIRST) -> tuple[Metrics, ...]:
        """Return the metrics of all the epochs of a trial, those before its promotions first."""
        trial = self.trials[trial_id]
        before = self.curve(trial.parent, fit) if trial.parent else ()
        return (*before, *trial.curves.get(fit, ()))

    def best_curve(self, trial_id: str) -> tuple[Metrics, ...]:
        """Return the metrics of the epochs of a trial's best fit, the earlier of equals.

        Only those fits count that its score is of, not one that the budget has cut off.
        """
        trial, name, best = self.trials[trial_id], self.objective.name, self.objective.best_epoch
        curves = [self.curve(trial_id, fit) for fit in sorted(trial.reached)]
        values = [curve[best(curve) - 1].get(name, math.nan) for curve in curves]
        if trial.score is not None and len(curves) > 1:
            is_of_all = math.isclose(sum(values) / len(values), trial.score)
            curves = curves if is_of_all else curves[:-1]
        ranked = self.objective.rank(curves, lambda curve: curve[best(curve) - 1].get(name))
        return ranked[0] if ranked else ()

    def _begun(self, event: Event) -> TrialRecord:
        tags, values = event["tags"], event["values"]
        parent = tags.get("promoted_from")
        return TrialRecord(
            event["trial_id"],
            values,
            {path: value for path, value in values.items() if path != "epochs"},
            number=int(event.get("number", 0)),
            parent=parent,
            source=tags.get("taken_over_from"),
            bracket=_integer(tags.get("bracket")),
            round=_integer(tags.get("round")),
            reached=dict(self.trials[parent].reached) if parent in self.trials else {},
            began=self.elapsed,
        )

    @property
    def first(self) -> Event:
        """The event that began it; empty where there is none yet."""
        return self.started or {}

    @property
    def objective(self) -> Objective:
        """What ranks its trials."""
        name = str(self.params.get("objective.name", "val_auc"))
        folds = self.params.get("objective.folds")
        return Objective(name, str(self.first.get("direction", "max")), folds)

    @property
    def fits(self) -> int:
        """How many trainings a trial's score is the mean of; 0 where trials differ in it."""
        executions = self.params.get("training.executions_per_trial", 1)
        folds = self.params.get("objective.folds") or 1
        return executions * folds if isinstance(executions, int) else 0

    @property
    def score(self) -> float:
        """What it has reached by its objective; nan where it has no winner."""
        return float(self.metrics.get(self.objective.name, math.nan))

    @property
    def status(self) -> str:
        """`completed`, `interrupted`, `failed` or `unfinished`."""
        return str(self.ended.get("status", "unfinished"))

    @property
    def cfg(self) -> DictConfig | None:
        """The composed config, None where it is missing or cannot be read."""
        try:
            cfg = OmegaConf.create(self.config)
        except (OmegaConfBaseException, ValueError, yaml.YAMLError):
            return None
        return cfg if self.config and isinstance(cfg, DictConfig) else None

    @property
    def metrics(self) -> dict[str, float]:
        """What the end says was measured: scores, counts, seconds by phase."""
        return self.ended.get("metrics") or {}

    @property
    def seconds(self) -> float:
        """How long it took, by its own account where it has come to its end."""
        return float(self.metrics.get("seconds") or self.elapsed)

    @property
    def tags(self) -> dict[str, str]:
        """What the search says of where it ran and of what it is made."""
        return self.first.get("tags") or {}

    @property
    def class_names(self) -> tuple[str, str]:
        """The negative class, the positive class."""
        try:
            negative, positive = json.loads(self.tags.get("class_names", ""))
        except ValueError:
            return "negative", "positive"
        return str(negative), str(positive)

    def with_status(self, status: str) -> list[TrialRecord]:
        """Return the trials of a status, in the order in which they started."""
        return [trial for trial in self.trials.values() if trial.status == status]

    def ranked(self) -> list[TrialRecord]:
        """Return the trials that have a score, the best first, the earlier of equals first."""
        return self.objective.rank(self.trials.values(), lambda trial: trial.score)

    def winner(self) -> TrialRecord | None:
        """Return the trial that won, or leads where the search has not come to its end."""
        named = self.trials.get(str(self.ended.get("winner")))
        return named or next(iter(self.ranked()), None)


def from_journal(folder: Path, *, last: float = math.inf) -> SearchRecord:
    """Return what the journal in a search's folder says, however little that is.

    Args:
        folder: The folder.
        last: The number of the last event to read.

    Raises:
        UserError: Where it is damaged.
    """
    search = SearchRecord(folder)
    for event in itertools.takewhile(lambda event: event["n"] <= last, journal.read(folder)):
        try:
            search.apply(event)
        except LookupError as error:
            place = f"{folder / journal.NAME}: damaged in line {event['n'] + 1}"
            raise UserError(f"{place}: {error} did not begin before.") from error
    return search


def read(folder: Path, *, ending: Mapping[str, Any] | None = None) -> SearchRecord:
    """Read the folder of a search; `ending` is the event that is about to end it, if any.

    Raises:
        UserError: Where no search has begun in it; where the journal or the predictions are
            damaged.
    """
    own, search = SearchFolder(folder), from_journal(folder)
    if search.started is None:
        raise UserError(f"{folder}: expected the folder of a search, with a {journal.NAME} in it.")
    search.ended = dict(search.ended if ending is None else ending)
    search.config = _text(own.config)
    with contextlib.suppress(ValueError):
        found = json.loads(_text(own.export))
        search.export = found if isinstance(found, dict) else {}
    sizes = {row.get("split"): row.get("size") for row in search.started.get("datasets") or ()}
    search.predictions = predictions.read(own.predictions, sizes=sizes)
    search.ranges = _ranges(search)
    for trial in search.trials.values():
        given = trial.values
        trial.hyperparameters = {r.path: given[r.path] for r in search.ranges if r.path in given}
    score_stopped(search)
    return search


def score_stopped(search: SearchRecord) -> TrialRecord | None:
    """Give a winner that the budget has stopped before its end the score that it won with.

    Returns:
        The winner; None where there is none, or where it has come to its end.
    """
    trial = search.trials.get(str(search.ended.get("winner")))
    score = float(search.metrics.get(members.BEST_TRIAL, search.score))
    if trial is None or trial.score is not None or math.isnan(score):
        return None
    trial.score = score
    trial.best_epoch = search.objective.best_epoch(search.best_curve(trial.trial_id))
    return trial


def _ranges(search: SearchRecord) -> tuple[Range, ...]:
    """Return what was searched by the config, or else whatever differs between the trials."""
    # Of a config that cannot be read, such as another version's, the trials tell what differs.
    if (cfg := search.cfg) is not None:
        with contextlib.suppress(UserError):
            return search_space.find(cfg).ranges
    rows = [trial.hyperparameters for trial in search.trials.values()]
    found = []
    for path in varying(rows):
        given = {repr(row[path]): row[path] for row in rows if path in row}
        found.append(Range(path, "choice", values=tuple(given.values())))
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _integer(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() else None

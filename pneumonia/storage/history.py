"""What a journal says of a search and its trials, kept up with while the search runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pneumonia.errors import UserError
from pneumonia.evaluation.objective import Metrics
from pneumonia.storage import journal, offset
from pneumonia.storage.journal import Event
from pneumonia.storage.offset import Cursor

CONFIG = "config.yaml"
PREDICTIONS = "predictions.csv"
FORKED = "forked_from.json"
BUDGET = (
    *("tuner.max_trials", "tuner.hyperband_iterations"),
    *("budget.seconds", "budget.trials", "budget.epochs"),
)
"""What may grow while all else of a search stays the same."""


@dataclass(slots=True)
class Past:
    """What is known of one trial.

    Attributes:
        values: Its arguments, as they were recorded.
        number: Its number within the search, from 1.
        parent: The trial that it goes on from, or None.
        source: The trial of another search that it was taken over from, or None.
        epochs: The metrics of its own epochs, by execution.
        reached: The epoch that an execution has come to, counted from the very beginning; of a
            promoted trial at first that of the trial it goes on from.
        ended: The event that ended it, or None.
    """

    values: dict[str, Any]
    number: int = 0
    parent: str | None = None
    source: str | None = None
    epochs: dict[int, list[Metrics]] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    ended: Event | None = None

    def count(self, execution: int) -> int:
        """Return how many epochs of an execution are recorded."""
        return len(self.epochs.get(execution, ()))

    def lacks(self, execution: int, epoch: int) -> bool:
        """Tell whether an epoch is the trial's own and not recorded yet."""
        return epoch > self.reached.get(execution, 0)

    def add(self, execution: int, epoch: int, metrics: Metrics) -> None:
        """Add an epoch; one that a crash made the trial repeat counts once."""
        if self.lacks(execution, epoch):
            self.reached[execution] = epoch
            self.epochs.setdefault(execution, []).append(metrics)


@dataclass(slots=True)
class History:
    """What is known of a search.

    Attributes:
        started: The first event, or None where there is none yet.
        trials: The trials by their id, in the order in which they started.
        params: Its configuration by dotted path, with the budget that it was given last.
        is_completed: Whether the search has come to its end, and was given no more budget since.
        completions: How often it has come to its end.
    """

    started: Event | None = None
    params: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, Past] = field(default_factory=dict)
    is_completed: bool = False
    completions: int = 0

    def apply(self, event: Event) -> None:
        """Take in the next event of the journal."""
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
                past = self.trials[event["trial_id"]]
                past.add(event["execution"], event["epoch"], event["metrics"])
            case "trial_ended":
                self.trials[event["trial_id"]].ended = event
            case "search_ended":
                self.is_completed = event["status"] == "completed"
                self.completions += self.is_completed

    def curve(self, trial_id: str, execution: int = 0) -> tuple[Metrics, ...]:
        """Return the metrics of all the epochs of a trial, those before its promotions first."""
        past = self.trials[trial_id]
        before = self.curve(past.parent, execution) if past.parent else ()
        return (*before, *past.epochs.get(execution, ()))

    def _begun(self, event: Event) -> Past:
        tags = event["tags"]
        parent = tags.get("promoted_from")
        start = dict(self.trials[parent].reached) if parent in self.trials else {}
        number, source = event.get("number", 0), tags.get("taken_over_from")
        return Past(event["values"], number, parent, source, reached=start)


def read(folder: Path) -> History:
    """Return what the journal in a search's folder says.

    Raises:
        UserError: Where it is damaged.
    """
    history = History()
    for event in journal.read(folder):
        try:
            history.apply(event)
        except LookupError as error:
            line = event["n"] + 1
            text = f"{folder / journal.NAME}: damaged in line {line}: {error} did not begin before."
            raise UserError(text) from error
    return history


def objective(folder: Path) -> float:
    """Return what a search has reached by its objective; nan where it has no winner."""
    ended: Event = {}
    name = ""
    for event in journal.read(folder):
        if event["kind"] == "search_started":
            name = event.get("params", {}).get("objective.name", "")
        elif event["kind"] == "search_ended":
            ended = event
    return float(ended.get("metrics", {}).get(name, math.nan))


def find(name: str, outputs: Path, *, overrides: Sequence[str] = ()) -> Path:
    """Return the folder of a search.

    Args:
        name: The id of the search or of its run, its folder, or `last`: the last one that has
            something left to do, be it only to send to MLflow; the last one of all where none has.
        outputs: Where searches are.
        overrides: What is given beside it. For a fork, or with more budget, any search has
            something left to do.

    Raises:
        FileNotFoundError: Where there is none.
        UserError: Where there is none among those that can be read.
    """
    if "/" in name and (Path(name) / journal.NAME).exists():
        return Path(name)
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    is_any = not keys.isdisjoint((*BUDGET, "resume.fork"))
    folders = (path.parent for path in outputs.glob(f"**/{journal.NAME}"))
    # One that was killed while it was made has neither, and nothing to go on with.
    known = [one for one in folders if (one / CONFIG).exists() or first_event(one) is not None]
    known.sort(key=_time, reverse=True)
    if name != "last":
        found = next((folder for folder in known if name in _names(folder)), None)
    else:
        unfinished = (folder for folder in known if is_any or not is_over(folder))
        found = next(unfinished, known[0] if known else None)
    if found is None:
        for folder in known:
            next(journal.read(folder), None)  # it may be one whose id cannot be read
        raise FileNotFoundError(name)
    return found


def choices(folder: Path) -> dict[str, str]:
    """Return the option of each config group; Hydra knows them before the search has begun."""
    first = next(journal.read(folder), None)
    if first is not None:
        return dict(first.get("choices", {}))
    file = folder / ".hydra" / "hydra.yaml"
    try:
        chosen = yaml.safe_load(file.read_text())["hydra"]["runtime"]["choices"]
        return {str(group): str(option) for group, option in chosen.items() if option is not None}
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        # Without the options, neither its name nor its winner's preset would be right.
        raise UserError(
            f"{file}: missing or damaged. The search in {folder} had not begun: nothing is lost by "
            "typing its command again."
        ) from error


def is_over(folder: Path) -> bool:
    """Tell whether a search has come to its end, and MLflow has taken all of it.

    One whose journal is damaged is not: that is told where it is gone on with.
    """
    path = folder / offset.NAME
    try:
        count = sum(1 for _ in journal.read(folder))
        if not path.exists() or not read(folder).is_completed:
            return False
    except UserError:
        return False
    sent = Cursor.read(path)
    return sent.next >= count and not sent.is_open and not sent.refused


def first_event(folder: Path) -> Event | None:
    """Return the event that a journal begins with, None where there is none or it is damaged.

    For those who look for one search among others: a damaged one must not keep them from it.
    """
    try:
        return next(journal.read(folder), None)
    except (UserError, OSError):
        return None


def _time(folder: Path) -> int:
    """Return when a search began, in milliseconds since 1970."""
    first = first_event(folder)
    return int(first["time"] if first else (folder / journal.NAME).stat().st_mtime_ns // 10**6)


def _names(folder: Path) -> Iterator[str]:
    first = first_event(folder)
    if first is not None:
        yield first["search_id"]
        path = folder / offset.NAME
        yield (Cursor.read(path).run_id or "") if path.exists() else ""

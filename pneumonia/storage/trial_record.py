"""What a search's journal says of one trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pneumonia.evaluation.objective import Fit, Metrics
from pneumonia.storage.journal import Event

T = TypeVar("T")


def fit_of(event: Event) -> Fit:
    """Return which fit of a trial an epoch of the journal is of."""
    return Fit(event.get("fold", 0), event.get("execution", 0))


def identity(values: Mapping[str, Any]) -> str:
    """Return what hyperparameters with the same values have in common, in whatever order."""
    return repr(sorted(values.items()))


def distinct(items: Iterable[T], values: Callable[[T], Mapping[str, Any]]) -> list[T]:
    """Return the first of all the items with the same hyperparameters, in their order."""
    found: dict[str, T] = {}
    for item in items:
        found.setdefault(identity(values(item)), item)
    return list(found.values())


def varying(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names whose values differ between rows; not to be there is a value too."""
    given = list(rows)
    names = dict.fromkeys(name for row in given for name in row)
    return [name for name in names if len({repr(row.get(name, ...)) for row in given}) > 1]


@dataclass(slots=True)
class TrialRecord:
    """What is known of one trial; times are in seconds from the beginning of the search.

    Attributes:
        trial_id: Its name within the search.
        values: Its arguments, as they were recorded.
        hyperparameters: Those of them that were searched; with `from_journal` all but `epochs`.
        number: Within the search, from 1.
        parent: The trial that it goes on from, or None.
        source: The trial of another search that it was taken over from, or None.
        bracket: Where trials are promoted; else None.
        round: Its round within the bracket, or None.
        curves: The metrics of its own epochs, by fit.
        reached: The epoch that a fit has come to, counted from the very beginning; of a promoted
            trial at first that of the trial it goes on from.
        points: When each of its epochs ended, repeated ones too, and the metrics.
        began: When it began.
        score: Its objective, or None; the mean over its fits.
        spread: The standard deviation between them; None of a single one, or where it is not known.
        best_epoch: The epoch at which it had that score; 0 if unknown.
        losses: Why it has lost the workers that it has lost.
        ended: The event that ended it, or None.
    """

    trial_id: str
    values: dict[str, Any]
    hyperparameters: dict[str, Any]
    number: int = 0
    parent: str | None = None
    source: str | None = None
    bracket: int | None = None
    round: int | None = None
    curves: dict[Fit, list[Metrics]] = field(default_factory=dict)
    reached: dict[Fit, int] = field(default_factory=dict)
    points: list[tuple[float, Metrics]] = field(default_factory=list)
    began: float = 0.0
    score: float | None = None
    spread: float | None = None
    best_epoch: int = 0
    losses: list[str] = field(default_factory=list)
    ended: Event | None = None

    @property
    def key(self) -> str:
        """What trials with the same hyperparameters have in common."""
        return identity(self.hyperparameters)

    @property
    def epochs(self) -> int:
        """The epoch up to which it was to be trained."""
        return int(self.values.get("epochs", 0))

    @property
    def status(self) -> str:
        """`completed`, `failed`, or `unfinished` where the journal does not tell its end."""
        return str((self.ended or {}).get("status", "unfinished")).lower()

    @property
    def reason(self) -> str:
        """Why it failed."""
        return str((self.ended or {}).get("reason", ""))

    @property
    def seconds(self) -> float:
        """How long it took; nan if unknown."""
        last = self.points[-1][0] - self.began if self.points else math.nan
        return float((self.ended or {}).get("seconds") or last)

    def lacks(self, fit: Fit, epoch: int) -> bool:
        """Tell whether an epoch is the trial's own and not recorded yet."""
        return epoch > self.reached.get(fit, 0)

    def add(self, fit: Fit, epoch: int, metrics: Metrics) -> None:
        """Add an epoch; one that a crash made the trial repeat counts once."""
        if self.lacks(fit, epoch):
            self.reached[fit] = epoch
            self.curves.setdefault(fit, []).append(metrics)

"""What trials are ranked by, and the trainings that a trial's score is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

Metrics = dict[str, float]

T = TypeVar("T")


class Fit(NamedTuple):
    """One training within a trial.

    Attributes:
        fold: Of cross-validation, from 0; 0 where there is none.
        execution: The repetition, from 0: each has initial weights of its own.
    """

    fold: int = 0
    execution: int = 0

    @property
    def name(self) -> str:
        """What one of several is called, such as `fold_2/execution_3`; empty for the first."""
        numbers = {"fold": self.fold, "execution": self.execution}
        return "/".join(f"{what}_{number + 1}" for what, number in numbers.items() if number)


FIRST = Fit()
"""The only training of a trial, where there are no folds and no repetitions."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric, and which of its values are better.

    Attributes:
        name: Of the metric, such as `val_auc`.
        direction: `max` or `min`.
        folds: Of train and val joined, by each of which a trial is measured in turn; None: by val.
    """

    name: str
    direction: str
    folds: int | None = None

    def __str__(self) -> str:
        return f"{self.name} over {self.folds} folds" if self.folds else self.name

    @property
    def where(self) -> str:
        """What images it is measured on, in words."""
        return f"{self.folds} folds of train and val" if self.folds else "val"

    @property
    def sign(self) -> float:
        """What a value is multiplied by for more to be better: 1 or -1."""
        return 1.0 if self.direction == "max" else -1.0

    @property
    def worst(self) -> float:
        """A value that every other is better than."""
        return -math.inf * self.sign

    def better(self, value: float, other: float) -> bool:
        """Tell whether a value is better than another, not equal."""
        return self.sign * value > self.sign * other

    def rank(self, items: Iterable[T], score: Callable[[T], float | None]) -> list[T]:
        """Return the items that have a score, the best first, the earlier of equals first."""
        scored = [(item, value) for item in items if (value := score(item)) is not None]
        return [item for item, _ in sorted(scored, key=lambda one: -self.sign * one[1])]

    def best_epoch(self, history: Sequence[Metrics]) -> int:
        """Return the epoch, from 1, at which a training was best: the first of equals.

        A value that is not finite is worse than any; 0 where there is no epoch.
        """
        values = [self.sign * metrics.get(self.name, self.worst) for metrics in history]
        values = [value if math.isfinite(value) else -math.inf for value in values]
        return values.index(max(values)) + 1 if values else 0

    def fits(self, executions: int) -> list[Fit]:
        """Return the trainings of a trial in their order, fold by fold; its score is their mean."""
        return [Fit(fold, one) for fold in range(self.folds or 1) for one in range(executions)]

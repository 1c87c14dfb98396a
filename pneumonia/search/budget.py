"""What a search may spend: seconds, trials, epochs; counted over all its processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Limits = Mapping[str, Any]


class BudgetSpent(BaseException):
    """A training that stops between two epochs, because the search has spent its budget."""


class Budget:
    """Owns the limits of a search and what it has spent of them.

    It must not stop anything but a training between two epochs: what ends a search, and what
    becomes of its trials, is the search's.

    Args:
        limits: `seconds`, `trials` and `epochs`; None is no limit.
        clock: Returns for how many seconds the search has run, in all its processes.
        epochs: How many it has trained in earlier processes, in all executions of all trials.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float], epochs: int = 0) -> None:
        self._limits, self._clock = limits, clock
        self.trials, self.epochs = 0, epochs

    def spent(self, names: Sequence[str] = ("seconds", "trials", "epochs")) -> str:
        """Say which of some limits is reached, as '`budget.epochs=40`', or nothing."""
        # However little time there is, one epoch is trained: without it there is no winner.
        seconds = self._clock() if self.epochs else 0.0
        used = {"seconds": seconds, "trials": self.trials, "epochs": self.epochs}
        for name in names:
            limit = self._limits.get(name)
            if limit is not None and used[name] >= limit:
                return f"`budget.{name}={limit:g}`"
        return ""

    def check(self) -> None:
        """Stop a training here where the budget is spent: a trial counts from its start.

        Raises:
            BudgetSpent: Where it is.
        """
        if self.spent(("seconds", "epochs")):
            raise BudgetSpent

"""What ends a search before its plan does: a signal, its budget, failures in a row, a disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pneumonia import files, shell
from pneumonia.errors import UserError
from pneumonia.signals import Interrupted, Interruption
from pneumonia.storage.journal import Journal
from pneumonia.storage.search_record import SearchRecord
from pneumonia.training.trial import Outcome, StopTrial


class Budget:
    """Owns the limits of a search and what it has spent of them, in all its processes.

    The trials of another search that it has taken over count, and their epochs.

    Args:
        limits: `seconds`, `trials` and `epochs`; None is no limit.
        clock: Returns for how many seconds the search has run.
        epochs: How many it has in earlier processes, in all fits of all trials.
    """

    def __init__(
        self, limits: Mapping[str, Any], *, clock: Callable[[], float], epochs: int = 0
    ) -> None:
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


class StopRule:
    """Owns the reasons for which a search ends early, and how it may go on.

    It must not end anything itself: it raises where what runs asks it.

    Args:
        limits: The section `budget` of the configuration.
        most_failures: After how many trials that failed one after the other a search stops.
        journal: The search's journal, which knows for how long it has run.
        past: What is known of the search; kept up with by the search.
    """

    def __init__(
        self, limits: Mapping[str, Any], *, most_failures: int, journal: Journal, past: SearchRecord
    ) -> None:
        self.interruption = Interruption()
        self.note = ""  # what the budget has ended, and how to go on with more
        self._most_failures, self._past = most_failures, past
        self._folder = journal.path.parent
        curves = (curve for trial in past.trials.values() for curve in trial.curves.values())
        epochs = sum(map(len, curves))
        self.budget = Budget(limits, clock=lambda: journal.elapsed, epochs=epochs)

    def between_epochs(self) -> None:
        """Stop a training here where the search has to stop; a trial counts from its start.

        Raises:
            Interrupted: After a signal.
            StopTrial: Where the budget is spent.
        """
        self.interruption.check()
        if self.budget.spent(("seconds", "epochs")):
            raise StopTrial

    def is_spent(self, trial_ids: Iterable[str]) -> bool:
        """Tell whether the budget allows for no further trial.

        Args:
            trial_ids: All the trials so far, those that run included.

        Raises:
            Interrupted: After a signal.
        """
        self.interruption.check()
        self.budget.trials = len(list(trial_ids))
        if spent := self.budget.spent():
            key, _, limit = spent.strip("`").partition("=")
            more = self._command(f"{key}={2 * float(limit):.15g}")
            self.note = f"{spent} has ended the search. With more of it, it goes on: {more}"
        return bool(spent)

    def check_failures(self, outcomes: Sequence[Outcome]) -> None:
        """Stop, before another trial begins, where too many failed one after the other.

        Raises:
            UserError: With what they failed with.
        """
        last = outcomes[-self._most_failures :]
        reasons = [f"  {one.reason}" for one in last if one.status == "FAILED"]
        if len(reasons) == self._most_failures:
            more = self._command(f"tuner.max_consecutive_failures={2 * self._most_failures}")
            raise UserError(
                f"{len(reasons)} trials failed one after the other, so the search has stopped "
                "(`tuner.max_consecutive_failures`). They failed with:\n"
                + "\n".join(reasons)
                + f"\nWith a higher number it goes on: {more}"
            )

    def explain(self, error: BaseException) -> BaseException:
        """Return what to raise instead of an error: it says how to go on where one can."""
        if isinstance(error, KeyboardInterrupt):
            return Interrupted(f"Interrupted. To go on: {self._command()}")
        fault = files.explain(error)
        if fault is None or isinstance(fault, files.GoneError) or self._past.started is None:
            return fault or error
        text = "What has finished is kept. When that is mended, the search goes on"
        return files.StorageError(f"{fault} {text}: {self._command()}")

    def _command(self, *more: str) -> str:
        search_id = self._past.first.get("search_id", "last")
        return shell.resume(self._folder, search_id, *more)

"""What ends a search before its plan does: a signal, its budget, failures in a row, a disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pneumonia import files, shell
from pneumonia.errors import UserError
from pneumonia.search.budget import Budget
from pneumonia.search.executors import Failure
from pneumonia.search.trials import Ended
from pneumonia.signals import Interrupted, Interruption
from pneumonia.storage.history import History
from pneumonia.storage.journal import Journal


class Bounds:
    """Owns the reasons for which a search ends early, and how it may go on.

    It must not end anything itself: it raises where what runs asks it.

    Args:
        limits: The section `budget` of the configuration.
        most_failures: After how many trials that failed one after the other a search stops.
        journal: The search's journal, which knows for how long it has run.
        past: What is known of the search; kept up with by the search.
    """

    def __init__(
        self, limits: Mapping[str, Any], *, most_failures: int, journal: Journal, past: History
    ) -> None:
        self.interruption = Interruption()
        self._most_failures, self._past = most_failures, past
        self._folder = journal.path.parent
        own = [trial for trial in past.trials.values() if trial.source is None]
        epochs = sum(len(curve) for trial in own for curve in trial.curves.values())
        self._budget = Budget(limits, clock=lambda: journal.elapsed, epochs=epochs)
        self._note = ""

    @property
    def note(self) -> str:
        """What the budget has ended, and how to go on with more; empty where it has not."""
        return self._note

    def count_epoch(self) -> None:
        """Count an epoch that was trained for the first time."""
        self._budget.epochs += 1

    def between_epochs(self) -> None:
        """Stop a training here where the search has to stop.

        Raises:
            Interrupted: After a signal.
            BudgetSpent: Where the budget is spent.
        """
        self.interruption.check()
        self._budget.check()

    def is_spent(self, trial_ids: Iterable[str]) -> bool:
        """Tell whether the budget allows for no further trial.

        Args:
            trial_ids: All the trials so far, those that run included; what was taken over from
                another search costs nothing.

        Raises:
            Interrupted: After a signal.
        """
        self.interruption.check()
        trials = [self._past.trials[trial_id] for trial_id in trial_ids]
        self._budget.trials = sum(trial.source is None for trial in trials)
        if spent := self._budget.spent():
            key, _, limit = spent.strip("`").partition("=")
            more = self._command(f"{key}={2 * float(limit):.15g}")
            self._note = f"{spent} has ended the search. With more of it, it goes on: {more}"
        return bool(spent)

    def check_failures(self, ended: Sequence[Ended]) -> None:
        """Stop, before another trial begins, where too many failed one after the other.

        Raises:
            UserError: With what they failed with.
        """
        last = ended[-self._most_failures :]
        failures = [one.outcome for one in last if isinstance(one.outcome, Failure)]
        if len(failures) == self._most_failures:
            more = self._command(f"tuner.max_consecutive_failures={2 * self._most_failures}")
            reasons = "\n".join(f"  {failure.reason}" for failure in failures)
            raise UserError(
                f"{len(failures)} trials failed one after the other, so the search has stopped "
                f"(`tuner.max_consecutive_failures`). They failed with:\n{reasons}\n"
                f"With a higher number it goes on: {more}"
            )

    def explain(self, error: BaseException) -> BaseException:
        """Return what to raise instead of an error: it says how to go on where one can."""
        if isinstance(error, KeyboardInterrupt):
            return Interrupted(f"Interrupted. To go on: {self._command()}")
        fault = files.explain(error)
        if fault is None or isinstance(fault, files.GoneError):
            return fault or error
        text = "What has finished is kept. When that is mended, the search goes on"
        return files.StorageError(f"{fault} {text}: {self._command()}")

    def _command(self, *more: str) -> str:
        search_id = (self._past.started or {}).get("search_id", "last")
        return shell.resume(self._folder, search_id, *more)

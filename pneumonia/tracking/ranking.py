"""Which trial of a search leads, as far as it was sent, and which classifiers are still kept."""

from __future__ import annotations

from pathlib import Path

from pneumonia.evaluation.objective import Objective
from pneumonia.storage.offset import Cursor, TrialRun
from pneumonia.tracking.mlflow_store import Store


class Ranking:
    """Owns which trial leads, and drops what the others have left.

    Args:
        store: Where the trials' models are.
        folder: The folder of the search, with the files of its trials' classifiers.
        log_models: Which models to keep: `all`, `best` or `none`.
        cursor: What was sent so far; kept up to date here.
    """

    def __init__(self, store: Store, folder: Path, log_models: str, cursor: Cursor) -> None:
        self._store, self._folder = store, folder
        self._log_models, self._cursor = log_models, cursor

    def wants_model(self, trial_id: str) -> bool:
        """Tell whether the model of a trial that has just ended is to be sent."""
        if self._cursor.trials[trial_id].classifier is None:
            return False
        leads = self._cursor.best == trial_id or self._leads(trial_id)
        return self._log_models == "all" or (self._log_models == "best" and leads)

    def add(self, trial_id: str) -> None:
        """Note the best trial so far, and drop what a worse one has left."""
        cursor = self._cursor
        if self._leads(trial_id):
            cursor.best = trial_id
        if cursor.best is None:
            return
        best = cursor.trials[cursor.best]
        for row in cursor.trials.values():
            if not row.ended or row is best:
                continue
            if self._log_models == "best" and row.model_id:
                self._store.delete_model(row.model_id)
                row.model_id = None
            if row.score != best.score:
                self._drop_file(row)

    def unsent(self, *, is_over: bool) -> list[tuple[TrialRun, float, int]]:
        """Return the trials whose best score so far is still to be sent, with it and its time.

        They go by the numbers of the trials, up to the first that has not ended: so they are the
        same whichever of those that run at once ends first. After one that never ends, a budget's
        say, they go on when the search is over.
        """
        best, time, found = None, 0, []
        for row in sorted(self._cursor.trials.values(), key=lambda row: row.number):
            if not row.ended:
                if not is_over:
                    break
                continue
            time = max(time, row.ended)
            best = row if self._is_better(row, best) else best
            if best is not None and best.score is not None and not row.is_ranked:
                found.append((row, best.score, time))
        return found

    def drop_files(self, *, but: str) -> None:
        """Remove the files of all trials, but for the one that the search ended with."""
        for row in self._cursor.trials.values():
            if row.classifier != but:
                self._drop_file(row)

    def _drop_file(self, row: TrialRun) -> None:
        """Remove a trial's file from beside the journal, unless it is still to be sent."""
        is_sent = row.model_id is not None or self._log_models != "all"
        if row.is_kept and row.classifier and is_sent:
            (self._folder / row.classifier).unlink(missing_ok=True)
            row.is_kept = False

    def _leads(self, trial_id: str) -> bool:
        trials, best = self._cursor.trials, self._cursor.best
        return self._is_better(trials[trial_id], trials[best] if best else None)

    def _is_better(self, row: TrialRun, other: TrialRun | None) -> bool:
        """Tell whether a trial is better than another: of equal scores, the earlier trial is."""
        if row.score is None or other is None or other.score is None:
            return row.score is not None
        if row.score == other.score:
            return row.number < other.number
        return Objective("score", self._cursor.direction).better(row.score, other.score)

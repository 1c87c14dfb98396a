"""Which trials of a search lead, while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pneumonia.console.eta import RunningTrial
from pneumonia.console.summary import Row
from pneumonia.evaluation.objective import Objective
from pneumonia.storage.trial_record import identity, varying


class Leaderboard:
    """Owns the scores of a search as far as it is; it knows neither time nor how they are shown.

    Of trials with the same hyperparameters, such as a Hyperband trial and what it was promoted to,
    the best counts. A trial's score is the mean over its fits, so a value of one of several fits is
    never the best of the search.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.best = objective.worst
        self.running: dict[int, RunningTrial] = {}
        self._rows: dict[str, Row] = {}
        self._curves: dict[str, list[float]] = {}

    def begin(
        self, number: int, values: Mapping[str, object], *, of: int, fits: int, now: float
    ) -> None:
        """Note that a trial begins; it may go on from one with the same hyperparameters."""
        curve = list(self._curves.get(identity(values), ()))
        self.running[number] = RunningTrial(values, of, fits, now, curve=curve)

    def epoch(self, trial: RunningTrial, epoch: int, value: float) -> None:
        """Note the objective after an epoch."""
        curve = trial.curve
        del curve[epoch - 1 :]
        curve += [math.nan] * (epoch - 1 - len(curve)) + [value]
        best = self._best_of(curve)
        if not trial.best[1] or self._objective.better(best[0], trial.best[0]):
            trial.best = best
        if trial.fits == 1 and self._objective.better(value, self.best):
            self.best = value

    def end(
        self, number: int, score: float | None, *, now: float, spread: float | None = None
    ) -> RunningTrial:
        """Note what a trial came to; return how it ran."""
        trial = self.running.pop(number, RunningTrial())
        seconds = now - trial.began
        row = Row(number, math.nan, trial.values, trial.best[1], seconds, spread)
        self._add(row, score, trial.curve)
        return trial

    def replay(
        self,
        number: int,
        values: Mapping[str, object],
        *,
        score: float | None,
        curve: Sequence[float],
        seconds: float,
        spread: float | None = None,
    ) -> None:
        """Note what a trial came to that ran earlier."""
        row = Row(number, math.nan, values, self._best_of(curve)[1], seconds, spread)
        self._add(row, score, list(curve))

    def top(self, count: int) -> list[Row]:
        """Return the best trials, the best first, the earlier of equals first."""
        return self._objective.rank(self._rows.values(), lambda row: row.score)[:count]

    def varying(self) -> list[str]:
        """Return the hyperparameters in which the trials differ; all, of a single trial."""
        rows = list(self._rows.values())
        return list(rows[0].values) if len(rows) == 1 else varying(row.values for row in rows)

    def _add(self, row: Row, score: float | None, curve: list[float]) -> None:
        key = identity(row.values)
        self._curves[key] = curve
        if score is None or math.isnan(score):
            return
        if key not in self._rows or self._objective.better(score, self._rows[key].score):
            self._rows[key] = replace(row, score=score)
        if self._objective.better(score, self.best):
            self.best = score

    def _best_of(self, curve: Sequence[float]) -> tuple[float, int]:
        """Return the best value of a curve and its epoch, from 1; 0 without one."""
        best = (self._objective.worst, 0)
        for epoch, value in enumerate(curve, start=1):
            if self._objective.better(value, best[0]):
                best = (value, epoch)
        return best

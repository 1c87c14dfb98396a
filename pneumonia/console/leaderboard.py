"""Which trials of a search lead, while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Place:
    """A trial that came to a score.

    Attributes:
        number: Its number within the search, from 1.
        score: Its objective.
        epoch: The epoch at which it had that score, of its best execution; 0 if unknown.
        seconds: How long it took; nan if unknown.
        values: Its hyperparameters, by dotted path.
    """

    number: int
    score: float
    epoch: int
    seconds: float
    values: Values


@dataclass(slots=True)
class Runner:
    """A trial that runs.

    Attributes:
        values: Its hyperparameters, by dotted path.
        executions: How often it is trained.
        began: When, in seconds.
        curve: The objective of the execution that runs, an epoch each, from the very beginning.
        best: Its best value in any execution.
        epoch: The epoch of that value; 0 as long as there is none.
    """

    values: Values = field(default_factory=dict)
    executions: int = 1
    began: float = 0.0
    curve: list[float] = field(default_factory=list)
    best: float = math.nan
    epoch: int = 0


class Standings:
    """Owns the scores of a search as far as it is; it knows neither time nor how they are shown.

    Of trials with the same hyperparameters, such as a Hyperband trial and what it was promoted to,
    the best counts. A trial's score is the mean over its executions, so a value of one of several
    executions is never the best of the search.

    Args:
        direction: Of the objective, `max` or `min`.
    """

    def __init__(self, direction: str = "max") -> None:
        self._sign = 1.0 if direction == "max" else -1.0
        self.best = math.nan
        self.running: dict[int, Runner] = {}
        self._places: dict[str, Place] = {}
        self._curves: dict[str, list[float]] = {}

    def begin(self, number: int, values: Values, *, executions: int, now: float) -> None:
        """Note that a trial begins; it may go on from one with the same hyperparameters."""
        curve = list(self._curves.get(repr(values), ()))
        self.running[number] = Runner(values, executions, now, curve)

    def epoch(self, number: int, epoch: int, value: float) -> None:
        """Note the objective after an epoch."""
        runner = self.running.setdefault(number, Runner())
        curve = runner.curve
        del curve[epoch - 1 :]
        curve += [math.nan] * (epoch - 1 - len(curve)) + [value]
        best, at = self._best_of(curve)
        if self._is_better(best, runner.best):
            runner.best, runner.epoch = best, at
        if runner.executions == 1 and self._is_better(value, self.best):
            self.best = value

    def end(self, number: int, score: float | None, *, now: float) -> Runner:
        """Note what a trial came to; return how it ran."""
        runner = self.running.pop(number, Runner())
        place = Place(number, math.nan if score is None else score, runner.epoch,
                      now - runner.began, runner.values)  # fmt: skip
        self._add(place, runner.curve)
        return runner

    def replay(
        self, number: int, values: Values, *, score: float | None, curve: Sequence[float],
        seconds: float,
    ) -> None:  # fmt: skip
        """Note what a trial came to that ran earlier."""
        epoch = self._best_of(curve)[1]
        place = Place(number, math.nan if score is None else score, epoch, seconds, values)
        self._add(place, list(curve))

    def top(self, count: int) -> list[Place]:
        """Return the best trials, the best first, the earlier of equals first."""
        ranked = sorted(self._places.values(), key=lambda one: -self._sign * one.score)
        return ranked[:count]

    def varying(self) -> list[str]:
        """Return the hyperparameters in which the trials differ; all, of a single trial."""
        tried = [place.values for place in self._places.values()]
        names = dict.fromkeys(name for values in tried for name in values)
        if len(tried) == 1:
            return list(names)
        return [name for name in names if len({repr(values.get(name)) for values in tried}) > 1]

    def _add(self, place: Place, curve: list[float]) -> None:
        key = repr(place.values)
        self._curves[key] = curve
        if math.isnan(place.score):
            return
        known = self._places.get(key)
        if known is None or self._is_better(place.score, known.score):
            self._places[key] = place
        if self._is_better(place.score, self.best):
            self.best = place.score

    def _is_better(self, value: float, other: float) -> bool:
        if math.isnan(value) or math.isnan(other):
            return not math.isnan(value)
        return self._sign * value > self._sign * other

    def _best_of(self, curve: Sequence[float]) -> tuple[float, int]:
        """Return the best value of a curve and its epoch, from 1; nan and 0 without one."""
        best, at = math.nan, 0
        for epoch, value in enumerate(curve, start=1):
            if self._is_better(value, best):
                best, at = value, epoch
        return best, at

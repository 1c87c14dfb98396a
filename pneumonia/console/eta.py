"""How long the rest of a search will take: the epochs that are left, each as long as usual."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median

from pneumonia.storage.trial_record import identity


@dataclass(slots=True)
class RunningTrial:
    """A trial that runs, or did.

    Attributes:
        values: Its hyperparameters, by dotted path.
        of: The epoch at which it ends if nothing stops it; 0 if unknown.
        fits: How often it is trained.
        began: When, in seconds.
        epoch: The epoch that it trained last, counted from the trial's very beginning.
        trained: How many epochs it has trained, all fits together.
        seconds: What each of them took that had another before it.
        curve: The objective of the fit that runs, an epoch each, from the very beginning.
        best: Its best value in any fit, and the epoch of that; 0 as long as there is none.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    of: int = 0
    fits: int = 1
    began: float = 0.0
    epoch: int = 0
    trained: int = 0
    seconds: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    best: tuple[float, int] = (math.nan, 0)


class Eta:
    """Owns the account of epochs and of their time.

    An epoch takes what is usual of the trial that runs, or the median of the trials. Phases, such
    as computing features, and what a trial begins with count for nothing.

    Attributes:
        expected: How many epochs the search trains in all, as far as is known; 0 if unknown.
        trained: How many of them it has trained.
    """

    def __init__(self) -> None:
        self.expected = self.trained = 0
        self._usual: list[float] = []  # of the trials that ended
        self._first: list[float] = []  # first epochs of fits
        self._planned: dict[str, set[int]] = {}
        self._in_phase = False
        self._last = 0.0

    def start(self, epochs: int, now: float) -> None:
        """Note how many epochs there are to come; 0 where unknown."""
        self.expected, self._last = epochs, now

    def phase(self, now: float) -> None:
        """Note that something else than training begins, or goes on."""
        self._in_phase, self._last = True, now

    def begin(self, now: float) -> None:
        """Note that a trial begins."""
        self._in_phase, self._last = False, now

    def skip(self, values: Mapping[str, object], of: int, fits: int) -> None:
        """Note a trial of the plan that need not run: it ended before this search went on."""
        self.expected -= (of - self._start(values, of)) * fits
        self._planned.setdefault(identity(values), set()).add(of)

    def epoch(self, trial: RunningTrial, epoch: int, of: int, now: float) -> None:
        """Note that an epoch of a trial has ended; an earlier one begins another fit."""
        is_first = not trial.trained or epoch <= trial.epoch
        if trial.trained and is_first:
            self.expected -= trial.of - trial.epoch
        elif is_first:  # it goes on with a trial that was broken off
            self.expected -= max(0, epoch - 1 - self._start(trial.values, of))
        (self._first if is_first or self._in_phase else trial.seconds).append(now - self._last)
        trial.epoch, trial.of, trial.trained = epoch, of, trial.trained + 1
        self.trained += 1
        self._in_phase, self._last = False, now

    def end(self, trial: RunningTrial, now: float) -> None:
        """Note that a trial has ended."""
        self._in_phase, self._last = False, now
        self.expected -= self._left(trial)
        self._planned.setdefault(identity(trial.values), set()).add(trial.of)
        if trial.seconds:
            self._usual.append(fmean(trial.seconds))

    def remaining(self, running: Iterable[RunningTrial], now: float) -> float | None:
        """Return the seconds that the rest of the search will take; None while unknown."""
        if not self.trained or self.expected <= 0:
            return None
        own = [(trial, fmean(trial.seconds) if trial.seconds else None) for trial in running]
        usual = [*self._usual, *(seconds for _, seconds in own if seconds is not None)]
        # The first epoch of a process tells nothing: it pays for what is done once.
        usual = usual or self._first[1:]
        if not usual:
            return None
        left, seconds, current = max(0, self.expected - self.trained), 0.0, median(usual)
        every = current
        for trial, its in own:
            current = every if its is None else its
            epochs = min(left, max(0, self._left(trial)))
            seconds += epochs * current
            left -= epochs
        seconds += left * every
        # Since the last event a part of the next epoch has passed.
        return seconds - min(seconds, current, 0.0 if self._in_phase else now - self._last)

    def _left(self, trial: RunningTrial) -> int:
        return trial.of - (trial.epoch or self._start(trial.values, trial.of))

    def _start(self, values: Mapping[str, object], of: int) -> int:
        """Return the epoch that a trial goes on from: where an earlier one like it was to end."""
        planned = self._planned.get(identity(values), ())
        return max((epoch for epoch in planned if epoch < of), default=0)

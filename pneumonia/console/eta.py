"""How long the rest of a search will take, by the seconds that its epochs have taken so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean


@dataclass(slots=True)
class Course:
    """How far one trial has come, and what took how long.

    Attributes:
        values: Its hyperparameters.
        epoch: The epoch that it trained last, counted from the trial's very beginning.
        of: The epoch at which it ends if nothing stops it; 0 if unknown.
        trained: How many epochs it has trained, all executions together.
        timed: How many of them had another before them, so that their seconds are their own.
        seconds: What those took, together.
        first: How many were the first of an execution.
        start_up: Seconds of everything else: building, tracing, first epochs, writing.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    epoch: int = 0
    of: int = 0
    trained: int = 0
    timed: int = 0
    seconds: float = 0.0
    first: int = 0
    start_up: float = 0.0

    @property
    def seconds_per_epoch(self) -> float | None:
        """Seconds of an epoch, without what a trial begins and ends with; None while unknown."""
        return self.seconds / self.timed if self.timed else None


class Pace:
    """Owns the account of time of a search; it knows neither its scores nor how it is shown.

    The rest takes the epochs that are left in the plan, each as long as those of comparable trials,
    and a start-up for every trial that is left. Hyperband's short first rounds thus tell nothing
    wrong of its long last ones, as the mean time of a trial would. Phases, such as computing
    features, count for neither.
    """

    def __init__(self) -> None:
        self.courses: dict[int, Course] = {}
        self.trials = 0
        self.epochs_expected = self.epochs_trained = 0
        self._ended: list[Course] = []
        self._planned: dict[str, set[int]] = {}
        self._in_phase = False
        self._last = 0.0

    def begin(self, trials: int, epochs: int, now: float) -> None:
        """Note how many trials and epochs there are to come; 0 where unknown."""
        self.trials, self.epochs_expected = trials, epochs
        self._last = now

    def phase(self, number: int, now: float) -> None:
        """Note that something else than training begins, or goes on, in a trial or before it."""
        seconds = self._pass(now)
        if not self._in_phase and number in self.courses:
            self.courses[number].start_up += seconds
        self._in_phase = True

    def trial(self, number: int, values: Mapping[str, object], now: float, *, of: int = 0) -> None:
        """Note that a trial begins."""
        seconds = self._pass(now)
        course = self.courses[number] = Course(values, of=of)
        if self._ended and not self._in_phase:
            course.start_up = seconds
        self._in_phase = False

    def skip(self, values: Mapping[str, object], of: int, executions: int) -> None:
        """Note a trial of the plan that need not run: it ended before this search went on."""
        self.epochs_expected -= (of - self._start(values, of)) * executions
        self._planned.setdefault(repr(values), set()).add(of)

    def epoch(self, number: int, epoch: int, of: int, now: float) -> None:
        """Note that an epoch of a trial has ended; an earlier one begins another execution."""
        seconds = self._pass(now)
        course = self.courses.setdefault(number, Course())
        is_first = not course.trained or epoch <= course.epoch
        if course.trained and is_first:
            self.epochs_expected -= course.of - course.epoch
        elif is_first:  # it goes on with a trial that was broken off
            self.epochs_expected -= max(0, epoch - 1 - self._start(course.values, of))
        if is_first or self._in_phase:
            course.first += 1
            course.start_up += seconds
        else:
            course.timed += 1
            course.seconds += seconds
        course.epoch, course.of, course.trained = epoch, of, course.trained + 1
        self.epochs_trained += 1
        self._in_phase = False

    def end(self, number: int, now: float) -> Course:
        """Note that a trial has ended; return what it came to."""
        seconds = self._pass(now)
        course = self.courses.pop(number, Course())
        if not self._in_phase:
            course.start_up += seconds
        self._in_phase = False
        self.epochs_expected -= course.of - (course.epoch or self._start(course.values, course.of))
        self._planned.setdefault(repr(course.values), set()).add(course.of)
        self._ended.append(course)
        return course

    def remaining(self, now: float) -> float | None:
        """Return the seconds that the rest of the search will take; None while unknown."""
        if not self.epochs_trained or self.epochs_expected <= 0:
            return None
        every = self._per_epoch([*self._ended, *self.courses.values()])
        if every is None:
            return None
        left = max(0, self.epochs_expected - self.epochs_trained)
        seconds, current = 0.0, every
        for course in self.courses.values():
            start = course.epoch or self._start(course.values, course.of)
            own = min(left, max(0, course.of - start))
            current = self._of(course, every)
            seconds += own * current
            left -= own
        seconds += left * every
        # Since the last event a part of the next epoch has passed.
        seconds -= min(seconds, current, 0.0 if self._in_phase else now - self._last)
        unbegun = max(0, self.trials - len(self._ended) - len(self.courses)) if left else 0
        return seconds + unbegun * self._start_up(every)

    def _pass(self, now: float) -> float:
        seconds, self._last = now - self._last, now
        return seconds

    def _start(self, values: Mapping[str, object], of: int) -> int:
        """Return the epoch that a trial goes on from: where an earlier one like it was to end."""
        planned = self._planned.get(repr(values), ())
        return max((epoch for epoch in planned if epoch < of), default=0)

    def _of(self, course: Course, every: float) -> float:
        """Return a trial's seconds per epoch: its own, or those of the trials most like it."""
        if course.seconds_per_epoch is not None:
            return course.seconds_per_epoch
        timed = [one for one in self._ended if one.timed]
        if not timed:
            return every
        alike = [_shared(one.values, course.values) for one in timed]
        nearest = [one for one, count in zip(timed, alike, strict=True) if count == max(alike)]
        return self._per_epoch(nearest) or every

    def _per_epoch(self, known: Sequence[Course]) -> float | None:
        """Return the mean seconds per epoch, every set of hyperparameters counting once.

        Trials that are promoted have more epochs, and those to come need not be like them. The
        first epoch of a process tells nothing: it pays for what is done once.
        """
        latest = {repr(one.values): one for one in known if one.timed}
        if latest:
            return fmean(one.seconds / one.timed for one in latest.values())
        later = [one for one in known[1:] if one.trained]
        if not later:
            return None
        return sum(one.start_up for one in later) / sum(one.trained for one in later)

    def _start_up(self, every: float) -> float:
        """Return the mean seconds that a trial takes beside its epochs.

        The first trial of a process pays for what is done once, and does not count.
        """
        courses = [one for one in self._ended[1:] if one.trained]
        if not courses:
            return 0.0
        own = [one.start_up - one.first * (one.seconds_per_epoch or every) for one in courses]
        return max(0.0, fmean(own))


def _shared(one: Mapping[str, object], other: Mapping[str, object]) -> int:
    return sum(name in other and other[name] == value for name, value in one.items())

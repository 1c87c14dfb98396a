"""The line that shows how far a search is."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from pneumonia import terminal

_SECONDS_BETWEEN_DRAWS = 0.1
_SECONDS_BETWEEN_LINES = 10.0
_COUNT = " 0123456789/"  # at the end of a phase's text: how far it is


@dataclass(slots=True)
class _Course:
    """How far one trial is: the epoch it trained last, of how many, and how many it trained."""

    epoch: int = 0
    of: int = 0
    trained: int = 0


class Progress:
    """Owns the progress line of one search; it must never fail the search, nor slow it down.

    On a terminal it is one line, updated in place. Elsewhere it is one line for each trial that
    ended, and one now and then for a long phase. It goes to standard error, so that standard output
    holds results only. A stream that is closed or cannot encode a character is no error.

    The remaining time is that of the epochs still expected, at the mean time of an epoch so far.
    Phases do not count as training; epochs that early stopping saved are no longer expected.

    Args:
        objective: Name of the metric that ranks the trials.
        direction: `max` or `min`.
        stream: Where to; standard error if it is None.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        objective: str = "val_auc",
        direction: str = "max",
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objective, self._sign = objective, 1 if direction == "max" else -1
        self._stream = sys.stderr if stream is None else stream
        self._in_place = terminal.is_terminal(self._stream)
        self._clock = clock
        self._trials = 0
        self._epochs_expected = self._epochs_trained = 0
        self._best = self._current = math.nan
        self._number = 0
        self._courses: dict[int, _Course] = {}
        self._labels: dict[int, str] = {}
        self._phase = ""
        self._began = self._last_call = clock()
        self._training = 0.0
        self._drawn, self._drawn_at = "", -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, total_trials: int, total_epochs: int, *, best: float = math.nan) -> None:
        """Begin to count time.

        Args:
            total_trials: How many trials the search has; 0 if unknown.
            total_epochs: How many epochs are still to be trained in all of them; 0 if unknown.
            best: The best objective so far, of a search that is resumed.
        """
        self._trials, self._epochs_expected, self._best = total_trials, total_epochs, best
        self._began = self._last_call = self._clock()
        self._draw()

    def phase(self, text: str) -> None:
        """Show what goes on instead of training, as 'computing features 1200/4708'."""
        self._pass(training=False)
        is_new = text.rstrip(_COUNT) != self._phase.rstrip(_COUNT)
        self._phase = text
        if self._in_place:
            self._draw(at_once=is_new)
        elif is_new or self._clock() - self._drawn_at > _SECONDS_BETWEEN_LINES:
            self._drawn_at = self._clock()
            self._write(f"{text}\n")

    def trial(self, number: int, total: int, values: Mapping[str, object]) -> None:
        """Begin a trial.

        Args:
            number: Its number, from 1.
            total: How many trials are expected now.
            values: The hyperparameters to show with it.
        """
        self._pass(training=bool(self._epochs_trained))
        self._number, self._trials = number, total
        self._courses[number] = _Course()
        self._labels[number] = " ".join(f"{name}={short(value)}" for name, value in values.items())
        self._phase, self._current = "", math.nan
        self._draw(at_once=True)

    def epoch(
        self,
        epoch: int,
        of: int,
        metrics: Mapping[str, float],
        objective: str | None = None,
        *,
        number: int | None = None,
    ) -> None:
        """Count an epoch that ended.

        Args:
            epoch: Its number, absolute, from 1.
            of: The epoch at which the trial ends if nothing stops it.
            metrics: What was measured.
            objective: Name of the metric to show, if not the one given at the beginning.
            number: The trial's number, if it is not the one that began last.
        """
        self._pass(training=True)
        self._number = self._number if number is None else number
        course = self._courses.setdefault(self._number, _Course())
        if epoch <= course.epoch:  # another execution of the same trial
            self._epochs_expected -= course.of - course.epoch
        course.epoch, course.of, course.trained = epoch, of, course.trained + 1
        self._epochs_trained += 1
        self._phase = ""
        self._current = float(metrics.get(objective or self._objective, math.nan))
        self._best = self._better(self._best, self._current)
        self._draw()

    def trial_end(
        self,
        score: float | None = None,
        *,
        number: int | None = None,
        failure: str = "",
    ) -> None:
        """End a trial.

        Args:
            score: Its objective; None if it has none.
            number: Its number, if it is not the one that began last.
            failure: Why it failed, in one line; shown on a line of its own.
        """
        self._pass(training=True)
        number = self._number if number is None else number
        course = self._courses.pop(number, _Course())
        label = self._labels.pop(number, "")
        self._epochs_expected -= course.of - course.epoch
        self._best = self._better(self._best, math.nan if score is None else score)
        self._current = math.nan if score is None else score
        ended = f"{course.trained} {'epoch' if course.trained == 1 else 'epochs'}"
        if failure:
            self.message(_join(self._trial_text(number), f"failed: {failure}", label))
        elif not self._in_place:
            self._write(_join(self._trial_text(number), ended, *self._state(), label) + "\n")
        self._draw(at_once=True)

    def message(self, text: str) -> None:
        """Write a line that stays, above the progress line."""
        self._clear()
        self._write(f"{text}\n")
        self._draw(at_once=True)

    def stop(self) -> None:
        """Take the line away. What follows starts on a clean line; further calls do no harm."""
        self._clear()
        self._in_place = False

    def remaining(self) -> float | None:
        """Return the seconds that the rest of the search will take; None while unknown."""
        if not self._epochs_trained or self._epochs_expected <= 0:
            return None
        epochs = max(0, self._epochs_expected - self._epochs_trained)
        return epochs * self._training / self._epochs_trained

    def _pass(self, *, training: bool) -> None:
        """Account for the time since the last call."""
        now = self._clock()
        if training or (self._number and not self._phase):
            self._training += now - self._last_call
        self._last_call = now

    def _better(self, one: float, other: float) -> float:
        if math.isnan(one) or math.isnan(other):
            return other if math.isnan(one) else one
        return max(one, other, key=lambda value: self._sign * value)

    def _trial_text(self, number: int) -> str:
        return f"trial {number} of {self._trials}" if self._trials else f"trial {number}"

    def _state(self) -> list[str]:
        """Return the parts that both forms of the line share."""
        parts = []
        if not math.isnan(self._current):
            parts.append(f"{self._objective} {self._current:.4f}")
        if not math.isnan(self._best):
            parts.append(f"best {self._best:.4f}")
        parts.append(f"{clock_time(self._clock() - self._began)} elapsed")
        remaining = self.remaining()
        if remaining is not None:
            parts.append(f"about {clock_time(remaining)} left")
        return parts

    def _line(self, room: int) -> str:
        """Return the line, made to fit: the elapsed time goes first, then the end."""
        course = self._courses.get(self._number, _Course())
        parts = [self._trial_text(self._number)] if self._number else []
        if self._phase:
            parts.append(self._phase)
        elif course.epoch:
            parts.append(f"epoch {course.epoch}/{course.of}")
        parts += self._state()
        if len(_join(*parts)) > room:
            parts = [part for part in parts if not part.endswith("elapsed")]
        line = _join(*parts)
        return line if len(line) <= room else line[: room - 1] + "…"

    def _draw(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if not self._in_place or (not at_once and now - self._drawn_at < _SECONDS_BETWEEN_DRAWS):
            return
        room = max(1, terminal.width(self._stream) - 1)
        line = self._line(room)
        self._write(f"\r{line.ljust(min(len(self._drawn), room))}")
        self._drawn, self._drawn_at = line, now

    def _clear(self) -> None:
        if self._in_place and self._drawn:
            self._write(f"\r{' ' * len(self._drawn)}\r")
            self._drawn = ""

    def _write(self, text: str) -> None:
        if not terminal.write(text, self._stream):
            self._stream, self._in_place = None, False


def clock_time(seconds: float) -> str:
    """Return a duration as minutes and seconds, 0:41, or hours, 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _join(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def short(value: object) -> str:
    """Return a value with the digits that matter: four of a float, all of anything else."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)

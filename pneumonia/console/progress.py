"""How far a search is: lines for a file, or a picture that a terminal shows in place."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event, RLock, Thread
from typing import Literal, Self, TextIO, TypeAlias

from pneumonia import terminal
from pneumonia.console.eta import Eta, RunningTrial
from pneumonia.console.leaderboard import Leaderboard
from pneumonia.console.live import Cells, Scene, Screen
from pneumonia.evaluation.objective import Objective
from pneumonia.formatting import clock_time, short

Form: TypeAlias = Literal["auto", "live", "plain"] | bool

_SECONDS_BETWEEN_DRAWS = 0.25
_SECONDS_BETWEEN_LINES = 10.0
_COUNT = " 0123456789/"  # at the end of a phase's text: how far it is
_BEST = 5
_WARNING = "warning:"


class Progress:
    """Owns what a user sees of one search while it runs; it must never fail the search.

    On a terminal a thread shows it, four times a second at most. Elsewhere there is one line for
    each trial that ended, and one now and then for a long phase. All goes to standard error, so
    that standard output holds results only. A stream that is closed or cannot encode a character
    is no error.

    Args:
        objective: Name of the metric that ranks the trials.
        direction: `max` or `min`.
        form: `live`, `plain`, or false for warnings and failures only; `auto` and true are live
            where somebody is likely to watch a terminal, and plain elsewhere.
        stream: Where to; standard error if it is None.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        objective: str = "val_auc",
        direction: str = "max",
        *,
        form: Form = "auto",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objective = objective
        self._stream = sys.stderr if stream is None else stream
        self._is_silent = form is False
        is_live = form == "live" or (form in ("auto", True) and terminal.is_watched(self._stream))
        self._screen = Screen(self._stream) if is_live and self._stream is not None else None
        self._thread: Thread | None = None
        self._is_over, self._lock = Event(), RLock()
        self._clock = clock
        self._eta, self._board = Eta(), Leaderboard(Objective(objective, direction))
        self._trials = self._number = 0
        self._current = math.nan
        self._phase = ""
        self._told_at = -math.inf
        self._began = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, total_trials: int, total_epochs: int) -> None:
        """Begin to count time, with how many trials and epochs there are; 0 if unknown.

        The epochs are those of all trials, every fit counted.
        """
        with self._lock:
            self._trials, self._began = total_trials, self._clock()
            self._eta.start(total_epochs, self._began)

    def phase(self, text: str) -> None:
        """Show what goes on instead of training, as 'computing features 1200/4708'."""
        with self._lock:
            now = self._clock()
            self._eta.phase(now)
            is_new = text.rstrip(_COUNT) != self._phase.rstrip(_COUNT)
            self._phase = text
            is_due = is_new or now - self._told_at > _SECONDS_BETWEEN_LINES
            if self._screen is None and is_due and not self._is_silent:
                self._told_at = now
                self._write(text)
        self._watch()

    def trial(
        self,
        number: int,
        total: int,
        values: Mapping[str, object],
        *,
        epochs: int = 0,
        fits: int = 1,
    ) -> None:
        """Begin a trial.

        Args:
            number: Its number, from 1.
            total: How many trials are expected now.
            values: The hyperparameters to show with it.
            epochs: The epoch at which it ends if nothing stops it; 0 if unknown.
            fits: How often it is trained; its score is the mean over them.
        """
        with self._lock:
            now = self._clock()
            self._number, self._trials = number, total
            self._eta.begin(now)
            self._board.begin(number, values, of=epochs, fits=fits, now=now)
            self._phase, self._current = "", math.nan
        self._watch()

    def epoch(
        self,
        epoch: int,
        of: int,
        metrics: Mapping[str, float],
        *,
        number: int | None = None,
    ) -> None:
        """Count an epoch that ended.

        Args:
            epoch: Its number, absolute, from 1; one that was there already begins another fit.
            of: The epoch at which the trial ends if nothing stops it.
            metrics: What was measured.
            number: The trial's number, if it is not the one that began last.
        """
        value = float(metrics.get(self._objective, math.nan))
        with self._lock:
            self._number = self._number if number is None else number
            trial = self._board.running.setdefault(self._number, RunningTrial())
            self._eta.epoch(trial, epoch, of, self._clock())
            self._board.epoch(trial, epoch, value)
            self._phase, self._current = "", value

    def trial_end(
        self,
        score: float | None = None,
        *,
        spread: float | None = None,
        number: int | None = None,
        failure: str = "",
    ) -> None:
        """End a trial, the one that began last or that of a number.

        Its score is None if it has none, and so is the standard deviation between its fits; why
        it failed is shown on a line of its own.
        """
        with self._lock:
            number, now = self._number if number is None else number, self._clock()
            trial = self._board.end(number, score, now=now, spread=spread)
            self._eta.end(trial, now)
            label = " ".join(_pairs(trial.values))
            value = math.nan if score is None else score
            self._current = math.nan if self._board.running else value
            name, parts = self._trial_text(number), [*self._scores(value), *self._times()]
        if failure:
            text = _join(name, f"failed: {failure}", label)
            self.message(f"{_WARNING} {text}" if self._is_silent else text)
        elif self._screen is None and not self._is_silent:
            ended = f"{trial.trained} {'epoch' if trial.trained == 1 else 'epochs'}"
            self._write(_join(name, ended, *parts, label))

    def replayed(
        self,
        number: int,
        values: Mapping[str, object],
        score: float | None,
        *,
        epochs: int,
        fits: int = 1,
        curve: Sequence[float] = (),
        seconds: float = math.nan,
        spread: float | None = None,
    ) -> None:
        """Note a trial that had ended before this search was gone on with.

        Args:
            number: Its number, from 1.
            values: Its hyperparameters.
            score: Its objective; None if it has none.
            epochs: The epoch at which it was to end.
            fits: How often it was trained.
            curve: The objective of each epoch, from the very beginning.
            seconds: How long it took; nan if unknown.
            spread: The standard deviation between its fits; None of a single one.
        """
        with self._lock:
            self._eta.skip(values, epochs, fits)
            self._board.replay(
                number, values, score=score, curve=curve, seconds=seconds, spread=spread
            )

    def message(self, text: str) -> None:
        """Write lines that stay, above what is shown in place."""
        if self._is_silent:
            text = "\n".join(line for line in text.splitlines() if line.startswith(_WARNING))
        if text:
            self._write(text)

    def stop(self) -> None:
        """Take the display away. What follows starts on a clean line; further calls do no harm."""
        self._is_over.set()
        screen, self._screen = self._screen, None
        try:
            if self._thread is not None:
                self._thread.join()
        finally:  # an impatient user may interrupt even this
            if screen is not None:
                screen.close()

    def remaining(self) -> float | None:
        """Return the seconds that the rest of the search will take; None while unknown."""
        return self._eta.remaining(self._board.running.values(), self._clock())

    def scene(self) -> Scene:
        """Return what there is to see now."""
        with self._lock:
            expected, trained = self._eta.expected, self._eta.trained
            # Of several that run, the one that began first.
            number, *others = sorted(self._board.running) or [self._number]
            runs = self._board.running.get(number)
            beside = f", with {', '.join(map(str, others))}" if others else ""
            trial = f"{self._trial_text(number)}{beside}" if number else ""
            value = runs.curve[-1] if others and runs and runs.curve else self._current
            doing, scores, times = self._doing(runs), self._scores(value), self._times()[::-1]
            if 0 < expected <= trained:
                del times[:-1]  # what is left is not training, and nobody knows how long it takes
            epochs = [f"{trained} of {expected} epochs"] if expected > 0 else []
            header, rows = self._table()
            return Scene(
                line=_join(trial, doing, *scores, *times),
                trial=trial,
                share=trained / expected if expected > 0 else None,
                times=(*times, *epochs),
                state=tuple(filter(None, [doing, *scores])),
                curve=tuple(runs.curve) if runs and not self._phase else (),
                values=tuple(_pairs(runs.values)) if runs else (),
                header=header,
                rows=rows,
            )

    def _watch(self) -> None:
        """Begin the live display, where there is one and nobody has begun."""
        if self._screen is None or self._thread is not None:
            return
        self._screen.open()
        self._thread = Thread(target=self._show, args=(self._screen,), name="progress", daemon=True)
        self._thread.start()

    def _show(self, screen: Screen) -> None:
        while not self._is_over.is_set() and not screen.is_gone:
            screen.draw(self.scene())
            self._is_over.wait(_SECONDS_BETWEEN_DRAWS)

    def _write(self, text: str) -> None:
        if self._screen is not None:
            self._screen.write(f"{text}\n")
        elif not terminal.write(f"{text}\n", self._stream):
            self._stream = None

    def _trial_text(self, number: int) -> str:
        return f"trial {number} of {self._trials}" if self._trials else f"trial {number}"

    def _doing(self, trial: RunningTrial | None) -> str:
        if self._phase or trial is None:
            return self._phase
        return f"epoch {trial.epoch}/{trial.of}" if trial.epoch else "starting"

    def _scores(self, value: float) -> list[str]:
        best = self._board.best
        own = [] if math.isnan(value) else [f"{self._objective} {value:.4f}"]
        return [*own, f"best {best:.4f}"] if math.isfinite(best) else own

    def _times(self) -> list[str]:
        remaining = self.remaining()
        left = [] if remaining is None else [f"about {clock_time(remaining)} left"]
        return [f"{clock_time(self._clock() - self._began)} elapsed", *left]

    def _table(self) -> tuple[Cells, tuple[Cells, ...]]:
        """Return the header and the rows of the best trials so far."""
        names = self._board.varying()
        rows = tuple(row.cells(names) for row in self._board.top(_BEST))
        return ("trial", self._objective, "epoch", "time", *names) if rows else (), rows


def _pairs(values: Mapping[str, object]) -> list[str]:
    return [f"{name}={short(value)}" for name, value in values.items()]


def _join(*parts: str) -> str:
    return " · ".join(part for part in parts if part)

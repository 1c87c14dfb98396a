"""Trials that run at once, each in a thread; what came of them is given back in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

Outcome = TypeVar("Outcome")

# How many trials there may be for each worker, those included that wait for an earlier one to end.
_AHEAD = 8


class Dismissed(BaseException):
    """A training that stops between two epochs, because the search has stopped elsewhere."""


@dataclass(frozen=True, slots=True)
class _Slot(Generic[Outcome]):
    trial_id: str
    future: Future[Outcome] = field(default_factory=Future)


class Crew(Generic[Outcome]):
    """Owns the trials of a search that run, and those that wait for an earlier one to end.

    It must not know what a trial is, nor choose one.

    When it is left, nothing runs any more: after an error the trials stop before their next epoch.

    Args:
        workers: How many trials may run at once.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._slots: deque[_Slot[Outcome]] = deque()
        self._pool = ThreadPoolExecutor(workers, "trial") if workers > 1 else None
        self._is_over = threading.Event()
        # One for every trial that has ended, of those that `wait` has not heard of.
        self._news, self._unheard = threading.Semaphore(0), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.dismiss()
        while self._pool is not None:
            try:
                self._pool.shutdown()
            except KeyboardInterrupt:
                continue  # who cannot wait for the end of an epoch ends the process
            break

    @property
    def has_room(self) -> bool:
        """Whether another trial may be started."""
        running = sum(not slot.future.done() for slot in self._slots)
        is_near = len(self._slots) < _AHEAD * self._workers
        return running < self._workers and is_near and not self._is_over.is_set()

    @property
    def trial_ids(self) -> list[str]:
        """The trials that were not given back yet, in the order in which they were started."""
        return [slot.trial_id for slot in self._slots]

    def start(self, trial_id: str, run: Callable[[], Outcome]) -> None:
        """Run a trial beside others."""
        assert self._pool is not None
        slot = _Slot(trial_id, self._pool.submit(run))
        slot.future.add_done_callback(lambda _: self._news.release())
        self._unheard += 1
        self._slots.append(slot)

    def finish(self) -> None:
        """Wait until nothing runs.

        Raises:
            BaseException: What a trial raised that has come to no end.
        """
        while self._unheard:
            self.wait()
            if fault := self._fault():
                raise fault

    def add(self, trial_id: str, outcome: Outcome) -> None:
        """Take in what came of a trial that did not run in a thread."""
        slot: _Slot[Outcome] = _Slot(trial_id)
        slot.future.set_result(outcome)
        self._slots.append(slot)

    def take(self) -> Iterator[Outcome]:
        """Yield what came of the trials, in their order, up to the first one that runs.

        Raises:
            BaseException: What a trial raised that has come to no end, wherever it stands.
        """
        while True:
            if fault := self._fault():
                raise fault
            if not self._slots or not self._has_outcome(self._slots[0]):
                return
            yield self._slots.popleft().future.result()

    def wait(self) -> bool:
        """Wait until a trial ends that it has not heard of; return whether any was left."""
        if self._unheard:
            self._news.acquire()
            self._unheard -= 1
        return bool(self._slots)

    def dismiss(self) -> None:
        """Let every training stop before its next epoch."""
        self._is_over.set()

    def check(self) -> None:
        """Stop a training here where the search has stopped elsewhere.

        Raises:
            Dismissed: Where it has.
        """
        if self._is_over.is_set():
            raise Dismissed

    def _has_outcome(self, slot: _Slot[Outcome]) -> bool:
        return slot.future.done() and slot.future.exception() is None

    def _fault(self) -> BaseException | None:
        """Return what a trial raised, if anything: the reason rather than what came of it.

        A trial that was dismissed may be quicker than the one with the reason for it.
        """
        ended = (slot.future for slot in self._slots if slot.future.done())
        errors = [error for future in ended if (error := future.exception()) is not None]
        reasons = [error for error in errors if not isinstance(error, Dismissed)]
        return next(iter(reasons or ([] if self._unheard else errors)), None)

"""Which trials run at once, and in which order a search hears what came of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from pneumonia.search.executors import Executor
from pneumonia.training.trial import Outcome, Task

# How many trials there may be for each worker, those included that wait for an earlier one to end.
_AHEAD = 8


class Scheduler:
    """Owns the trials that run, and the outcomes that the search has not heard of.

    In order, the search hears of them in the order of their proposals, and is the same however many
    run at once. As completed, nobody waits for a slow trial, and the search depends on how long
    each takes; it is gone on with exactly, as the journal tells what was heard before a proposal.

    Args:
        executor: Where they run; its `in_order` decides.
        most: How many may run at once, if fewer than the executor can run.
        record: Called with what came of each, before the search hears of it.
    """

    def __init__(
        self, executor: Executor, *, most: int | None, record: Callable[[Outcome], None]
    ) -> None:
        self._executor, self._record = executor, record
        self._most = min(executor.workers, most or executor.workers)
        self._running = 0
        # In the order of their proposals: when each ended, by the journal, and what came of it.
        self._trials: dict[str, tuple[float, Outcome | None]] = {}

    @property
    def has_room(self) -> bool:
        """Whether another trial may be started."""
        is_near = not self._executor.in_order or len(self._trials) < _AHEAD * self._most
        return self._running < self._most and is_near

    @property
    def is_running(self) -> bool:
        """Whether any trial runs."""
        return self._running > 0

    @property
    def trial_ids(self) -> list[str]:
        """The trials that the search has not heard of, in the order of their proposals."""
        return list(self._trials)

    def make_room(self, task: Task) -> None:
        """Wait until a task can run."""
        while self._running >= min(self._most, self._executor.capacity(task)):
            self._hear()

    def submit(self, task: Task) -> None:
        """Run a task, for which there is room."""
        self._trials[task.trial_id] = (math.inf, None)
        self._executor.submit(task)
        self._running += 1
        if self._executor.capacity(task) == 1:
            self._hear()  # nothing else can run meanwhile

    def add(self, outcome: Outcome, *, at: float = 0) -> None:
        """Take in what is known without running it.

        Args:
            outcome: What is known, and recorded.
            at: The number of the event that recorded it, of an earlier process.
        """
        self._trials[outcome.trial_id] = (at, outcome)

    def take(self, before: float = math.inf) -> Iterator[Outcome]:
        """Yield the outcomes that the search may hear of.

        Args:
            before: As completed, only of those that ended before the event of this number.
        """
        if self._executor.in_order:
            while (first := next(iter(self._trials), None)) and self._trials[first][1]:
                _, outcome = self._trials.pop(first)
                assert outcome is not None
                yield outcome
            return
        ended = [(at, outcome) for at, outcome in self._trials.values() if outcome and at <= before]
        for at, outcome in sorted(ended, key=lambda one: one[0]):
            del self._trials[outcome.trial_id]
            if math.isinf(at):
                self._record(outcome)
            yield outcome

    def wait(self) -> bool:
        """Wait until a trial ends; return whether there is any that the search has not heard of."""
        if self._running:
            self._hear()
        return bool(self._trials)

    def _hear(self) -> None:
        outcome = self._executor.wait()
        self._running -= 1
        self._trials[outcome.trial_id] = (math.inf, outcome)
        if self._executor.in_order:
            self._record(outcome)

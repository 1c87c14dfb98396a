"""Trials at once: their order, what they raise, and how they end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from pneumonia.artifacts import FolderStore
from pneumonia.search.executors import Cancelled, LocalExecutor
from pneumonia.search.scheduling import Scheduler
from pneumonia.training.trial import Hooks, Outcome, Task

SECONDS = 20  # until a test that hangs fails

Run = Callable[[], object]


class Threads(LocalExecutor):
    """Runs functions in the place of trials: those in the tasks' configs."""

    def capacity(self, task: Task) -> int:
        return 1 if task.config.get("alone") else self.workers

    def _run(self, task: Task) -> Outcome:
        task.config["run"]()
        return Outcome(task.trial_id)

    def check(self) -> None:
        """Stop here, as a trial does between two epochs, where the search has stopped."""
        self._hooks.between_epochs()


class Trials:
    """A scheduler with its executor, and the outcomes that were recorded."""

    def __init__(self, workers: int, *, in_order: bool = True, most: int | None = None) -> None:
        self.recorded: list[str] = []
        self.executor = Threads(workers, in_order=in_order)
        self.executor.open(FolderStore(Path()), Hooks(), DictConfig({}))
        self.scheduler = Scheduler(self.executor, most=most, record=self.record)

    def record(self, outcome: Outcome) -> None:
        self.recorded.append(outcome.trial_id)

    def start(self, name: str, run: Run = lambda: None, **more: Any) -> None:
        task = Task(name, {"run": run, **more}, 1)
        self.scheduler.make_room(task)
        self.scheduler.submit(task)

    def take(self, before: float = math.inf) -> list[str]:
        return [outcome.trial_id for outcome in self.scheduler.take(before)]


@contextmanager
def trials(workers: int, **options: Any) -> Iterator[Trials]:
    made = Trials(workers, **options)
    try:
        yield made
    except BaseException:
        made.executor.cancel()
        raise
    finally:
        made.executor.close()


def after(event: threading.Event) -> Run:
    def run() -> None:
        assert event.wait(SECONDS)

    return run


def test_in_order_outcomes_come_in_the_order_of_the_starts() -> None:
    gate = threading.Event()
    with trials(2) as made:
        made.start("a", after(gate))
        made.start("b")
        made.scheduler.add(Outcome("c"))
        assert made.scheduler.wait()
        assert made.scheduler.has_room
        assert made.take() == []
        assert made.recorded == ["b"]
        assert made.scheduler.trial_ids == ["a", "b", "c"]
        gate.set()
        assert made.scheduler.wait()
        assert made.take() == ["a", "b", "c"]
        assert not made.scheduler.wait()
    assert made.recorded == ["b", "a"]  # what is added is recorded already


def test_as_completed_outcomes_come_as_they_end() -> None:
    gate = threading.Event()
    with trials(2, in_order=False) as made:
        made.start("a", after(gate))
        made.start("b")
        assert made.scheduler.wait()
        assert made.recorded == []
        assert made.take() == made.recorded == ["b"]
        made.start("c")
        assert made.scheduler.wait()
        assert made.take() == ["c"]
        gate.set()
        assert made.scheduler.wait()
        assert made.take() == ["a"]
        assert not made.scheduler.is_running


def test_as_completed_a_search_that_goes_on_hears_what_it_had_heard() -> None:
    with trials(2, in_order=False) as made:
        made.scheduler.add(Outcome("a"), at=9)
        made.scheduler.add(Outcome("b"), at=4)
        made.start("c")
        assert made.scheduler.wait()
        assert made.take(before=3) == []
        assert made.take(before=6) == ["b"]
        assert made.take(before=12) == ["a"]
        assert made.recorded == []
        assert made.take() == made.recorded == ["c"]


def test_nobody_runs_far_ahead_of_a_slow_trial() -> None:
    gate = threading.Event()
    with trials(2) as made:
        made.start("slow", after(gate))
        count = 1
        while made.scheduler.has_room:
            made.scheduler.add(Outcome(str(count)))
            count += 1
        assert count == 16
        gate.set()
        assert made.scheduler.wait()
        assert len(made.take()) == 16
        assert made.scheduler.has_room


@pytest.mark.parametrize(("most", "expected"), [(None, 3), (1, 1)])
def test_as_many_run_at_once_as_there_are_workers_or_as_are_allowed(
    most: int | None, expected: int
) -> None:
    gate, running = threading.Event(), threading.Barrier(expected, timeout=SECONDS)

    def run() -> None:
        running.wait()
        assert gate.wait(SECONDS)

    with trials(3, most=most) as made:
        for name in "abc"[:expected]:
            assert made.scheduler.has_room
            made.start(name, run)
        assert not made.scheduler.has_room
        gate.set()


def test_a_trial_that_runs_alone_waits_for_all_and_others_for_it() -> None:
    done: list[str] = []

    def work(name: str, seconds: float = 0.0) -> Run:
        def run() -> None:
            time.sleep(seconds)
            done.append(name)

        return run

    with trials(2) as made:
        made.start("a", work("a", 0.1))
        made.start("b", work("b", 0.01))
        made.start("c", work("c", 0.05), alone=True)
        made.start("d", work("d"))
        while made.scheduler.is_running:
            made.scheduler.wait()
    assert done == ["b", "a", "c", "d"]
    assert made.take() == ["a", "b", "c", "d"]


def test_who_waits_hears_what_went_wrong() -> None:
    with trials(2) as made:
        made.start("a", lambda: {}["a"])
        with pytest.raises(KeyError):
            made.start("b", alone=True)


def test_an_error_is_raised_at_once_and_the_others_stop_before_their_next_epoch() -> None:
    stopped = threading.Event()

    def train() -> None:
        try:
            while True:
                made.executor.check()
                time.sleep(0.001)
        except Cancelled:
            stopped.set()
            raise

    def fail() -> None:
        raise KeyboardInterrupt

    def work() -> None:
        nonlocal made
        with trials(2) as made:
            made.start("a", train)
            made.start("b", fail)
            while made.scheduler.wait():
                assert made.take() == []

    made: Trials
    with pytest.raises(KeyboardInterrupt):
        work()
    assert stopped.is_set()
    with pytest.raises(Cancelled):
        made.executor.check()


def test_the_reason_is_raised_and_not_what_came_of_it() -> None:
    gate = threading.Event()

    def cancelled() -> None:
        try:
            while True:
                made.executor.check()
                time.sleep(0.001)
        finally:
            gate.set()

    def fail() -> None:
        made.executor.cancel()
        assert gate.wait(SECONDS)
        time.sleep(0.05)
        raise KeyboardInterrupt

    with trials(2) as made:
        made.start("a", cancelled)
        made.start("b", fail)
        with pytest.raises(KeyboardInterrupt):
            made.scheduler.wait()

"""Trials in threads: their order, what they raise, and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pneumonia.search.worker_pool import Crew, Dismissed

SECONDS = 20  # until a test that hangs fails


def after(event: threading.Event, value: str) -> Callable[[], str]:
    def run() -> str:
        assert event.wait(SECONDS)
        return value

    return run


def test_outcomes_come_in_the_order_of_the_starts() -> None:
    gate = threading.Event()
    with Crew[str](2) as crew:
        crew.start("a", after(gate, "one"))
        crew.start("b", lambda: "two")
        crew.add("c", "three")
        assert crew.wait()
        assert crew.has_room
        assert list(crew.take()) == []
        assert crew.trial_ids == ["a", "b", "c"]
        gate.set()
        assert crew.wait()
        assert list(crew.take()) == ["one", "two", "three"]
        assert not crew.wait()


def test_nobody_runs_far_ahead_of_a_slow_trial() -> None:
    gate = threading.Event()
    with Crew[str](2) as crew:
        crew.start("slow", after(gate, ""))
        count = 1
        while crew.has_room:
            crew.add(str(count), "")
            count += 1
        assert count == 16
        gate.set()
        crew.finish()
        assert len(list(crew.take())) == 16
        assert crew.has_room


def test_as_many_run_at_once_as_there_are_workers() -> None:
    gate, running = threading.Event(), threading.Barrier(3, timeout=SECONDS)

    def run() -> str:
        running.wait()
        assert gate.wait(SECONDS)
        return ""

    with Crew[str](3) as crew:
        for name in "abc":
            assert crew.has_room
            crew.start(name, run)
        assert not crew.has_room
        gate.set()


def test_who_finishes_waits_for_all_and_hears_what_went_wrong() -> None:
    done: list[str] = []

    def work(seconds: float, name: str) -> str:
        time.sleep(seconds)
        done.append(name)
        return name

    with Crew[str](2) as crew:
        crew.start("a", lambda: work(0.1, "a"))
        crew.start("b", lambda: work(0.01, "b"))
        crew.finish()
        assert done == ["b", "a"]
        crew.start("c", lambda: work(0.01, {}["c"]))
        with pytest.raises(KeyError):
            crew.finish()


def test_an_error_is_raised_at_once_and_the_others_stop_before_their_next_epoch() -> None:
    stopped = threading.Event()
    crew = Crew[str](2)

    def train() -> str:
        try:
            while True:
                crew.check()
                time.sleep(0.001)
        except Dismissed:
            stopped.set()
            raise

    def fail() -> str:
        raise KeyboardInterrupt

    def work() -> None:
        with crew:
            crew.start("a", train)
            crew.start("b", fail)
            while crew.wait():
                assert list(crew.take()) == []

    with pytest.raises(KeyboardInterrupt):
        work()
    assert stopped.is_set()
    with pytest.raises(Dismissed):
        crew.check()


def test_the_reason_is_raised_and_not_what_came_of_it() -> None:
    gate = threading.Event()
    crew = Crew[str](2)

    def dismissed() -> str:
        while True:
            crew.check()
            time.sleep(0.001)

    def fail() -> str:
        crew.dismiss()
        assert gate.wait(SECONDS)
        raise KeyboardInterrupt

    def work() -> None:
        with crew:
            crew.start("a", dismissed)
            crew.start("b", fail)
            assert crew.wait()
            assert list(crew.take()) == []
            assert not crew.has_room
            gate.set()
            assert crew.wait()
            list(crew.take())

    with pytest.raises(KeyboardInterrupt):
        work()

"""How long the rest takes, with seconds that pass only when told to."""

from __future__ import annotations

import pytest

from pneumonia.console.eta import Eta, RunningTrial


class Course:
    """A search whose trials take the seconds they are told to."""

    def __init__(self, epochs: int) -> None:
        self.eta, self.now = Eta(), 0.0
        self.running: list[RunningTrial] = []
        self.eta.start(epochs, self.now)

    @property
    def remaining(self) -> float | None:
        return self.eta.remaining(self.running, self.now)

    def begin(self, values: dict[str, object], of: int) -> None:
        self.running.append(RunningTrial(values, of))
        self.eta.begin(self.now)

    def epochs(self, first: int, last: int, of: int, *, seconds: float, start: float = 0.0) -> None:
        self.now += start
        for epoch in range(first, last + 1):
            self.now += seconds
            self.eta.epoch(self.running[-1], epoch, of, self.now)

    def end(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.eta.end(self.running.pop(), self.now)

    def phase(self, seconds: float) -> None:
        for _ in range(5):
            self.eta.phase(self.now)
            self.now += seconds / 5
        self.eta.phase(self.now)


def test_short_trials_with_a_long_start_tell_how_long_an_epoch_takes() -> None:
    """Hyperband: nine short trials with a long start-up, then a long one."""
    course = Course(9 * 2 + 50)
    for number in range(9):
        course.begin({"a": number}, of=2)
        # Of the first, what a process does once takes 20 seconds more.
        course.epochs(1, 2, 2, seconds=0.1, start=1.0 if number else 21.0)
        course.end(0.5)
    # The mean over all would be 50 * 36.3 / 18 = 101 seconds.
    assert course.remaining == pytest.approx(50 * 0.1)
    course.begin({"a": 0}, of=52)
    course.epochs(3, 12, 52, seconds=0.1)
    assert course.remaining == pytest.approx(40 * 0.1)


def test_the_trial_that_runs_counts_by_its_own_epochs_and_others_by_the_usual() -> None:
    course = Course(40)
    for size, seconds in ((96, 1.0), (224, 9.0)):
        course.begin({"size": size, "units": 1}, of=10)
        course.epochs(1, 10, 10, seconds=seconds)
        course.end()
    assert course.remaining == pytest.approx(20 * 5.0)
    course.begin({"size": 96, "units": 2}, of=10)
    assert course.remaining == pytest.approx(20 * 5.0)
    course.epochs(1, 5, 10, seconds=2.0)
    assert course.remaining == pytest.approx(5 * 2.0 + 10 * 2.0)


def test_phases_and_epochs_that_are_saved_do_not_count() -> None:
    course = Course(20)
    assert course.remaining is None
    course.phase(500)
    course.begin({"a": 1}, of=10)
    course.phase(300)
    course.epochs(1, 4, 10, seconds=3)
    assert course.remaining == pytest.approx(16 * 3)
    course.end()  # early stopping
    assert course.remaining == pytest.approx(10 * 3)
    course.begin({"a": 2}, of=10)
    course.end()  # it failed at once
    assert course.remaining == pytest.approx(0)


def test_between_two_epochs_the_time_goes_on() -> None:
    course = Course(10)
    course.begin({}, of=10)
    course.epochs(1, 4, 10, seconds=60)
    course.now += 20
    assert course.remaining == pytest.approx(6 * 60 - 20)
    course.now += 1000
    assert course.remaining == pytest.approx(5 * 60)


def test_promotions_executions_and_what_is_gone_on_with() -> None:
    course = Course(12)
    course.begin({"a": 1}, of=2)
    course.epochs(1, 2, 2, seconds=1)
    course.end()
    course.begin({"a": 1}, of=4)  # promoted
    course.epochs(3, 4, 4, seconds=1)
    course.end()
    assert course.remaining == pytest.approx(8)
    course.begin({"a": 2}, of=4)
    course.epochs(1, 2, 4, seconds=1)  # the first execution stops early
    course.epochs(1, 4, 4, seconds=1)
    course.end()
    assert course.remaining == pytest.approx(0)

    again = Course(20)
    again.eta.skip({"a": 1}, 10, 1)
    again.begin({"a": 2}, of=10)
    again.epochs(6, 8, 10, seconds=1)  # broken off after its fifth
    assert again.remaining == pytest.approx(2)


def test_trials_side_by_side() -> None:
    course = Course(6)
    course.begin({"a": 1}, of=3)
    course.begin({"a": 2}, of=3)
    for epoch in (1, 2, 3):
        for trial in course.running:
            course.now += 1.0
            course.eta.epoch(trial, epoch, 3, course.now)
        assert course.remaining == pytest.approx(2 * (3 - epoch), abs=1.1)

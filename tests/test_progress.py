"""The progress line, on a pseudo-terminal and off it."""

from __future__ import annotations

import fcntl
import io
import os
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest

from pneumonia.progress import Progress, clock_time, short


@pytest.fixture(autouse=True)
def _term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def pseudo_terminal(columns: int = 120) -> Iterator[tuple[TextIO, int]]:
    near, far = os.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        with os.fdopen(far, "w", encoding="utf-8") as stream:
            yield stream, near
    finally:
        os.close(near)


def seen(near: int) -> list[str]:
    """Return each state of the line that a terminal showed, in order."""
    data = b""
    while select.select([near], [], [], 0.05)[0]:
        data += os.read(near, 100_000)
    return data.decode().replace("\r\n", "\r").split("\r")


def train(progress: Progress, clock: Clock, *, number: int, epochs: int, of: int) -> None:
    progress.trial(number, 3, {"dense.units": 512, "optimizer.learning_rate": 0.00123456})
    for epoch in range(1, epochs + 1):
        clock.now += 10
        progress.epoch(epoch, of, {"val_auc": 0.9 + epoch / 100 + number / 1000, "loss": 1.0})
    progress.trial_end(0.9 + epochs / 100 + number / 1000)


def test_off_a_terminal_there_is_one_line_for_each_trial() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream=stream, clock=clock) as progress:
        progress.start(3, 12)
        train(progress, clock, number=1, epochs=4, of=4)
        train(progress, clock, number=2, epochs=1, of=4)
        train(progress, clock, number=3, epochs=4, of=4)
    values = "dense.units=512 optimizer.learning_rate=0.001235"
    assert stream.getvalue().splitlines() == [
        "trial 1 of 3 · 4 epochs · val_auc 0.9410 · best 0.9410 · 0:40 elapsed · about 1:20 left · "
        + values,
        "trial 2 of 3 · 1 epoch · val_auc 0.9120 · best 0.9410 · 0:50 elapsed · about 0:40 left · "
        + values,
        "trial 3 of 3 · 4 epochs · val_auc 0.9430 · best 0.9430 · 1:30 elapsed · about 0:00 left · "
        + values,
    ]


def test_on_a_terminal_one_line_is_updated_in_place() -> None:
    clock = Clock()
    with pseudo_terminal() as (stream, near):
        with Progress(stream=stream, clock=clock) as progress:
            progress.start(30, 28)
            progress.phase("computing features 1200/4708")
            clock.now += 5
            progress.trial(3, 30, {"dense.units": 512})
            clock.now += 10
            progress.epoch(4, 7, {"val_auc": 0.97312})
        states = seen(near)
    assert "computing features 1200/4708 · 0:00 elapsed" in states
    line = (
        "trial 3 of 30 · epoch 4/7 · val_auc 0.9731 · best 0.9731 · 0:15 elapsed · about 4:30 left"
    )
    assert line in states
    assert states[-2].strip() == states[-1] == ""
    assert len(states[-2]) == len(line)


def test_a_shorter_line_leaves_nothing_of_a_longer_one() -> None:
    clock = Clock()
    with pseudo_terminal() as (stream, near):
        progress = Progress(stream=stream, clock=clock)
        progress.phase("a long text 1/2")
        clock.now += 1
        progress.phase("b")
        states = seen(near)
    assert states[-1].rstrip() == "b · 0:01 elapsed"
    assert len(states[-1]) == len("a long text 1/2 · 0:00 elapsed")


@pytest.mark.parametrize("columns", [1, 2, 10, 40, 79, 80, 200])
def test_the_line_never_fills_the_terminal(columns: int) -> None:
    clock = Clock()
    with pseudo_terminal(columns) as (stream, near):
        progress = Progress(stream=stream, clock=clock)
        progress.start(30, 100, best=0.98221)
        progress.trial(3, 30, {})
        clock.now += 41
        progress.epoch(4, 7, {"val_auc": 0.97312})
        states = seen(near)
    assert all(len(state) < max(2, columns) for state in states)
    if columns == 80:
        left = "trial 3 of 30 · epoch 4/7 · val_auc 0.9731 · best 0.9822 · about 1:07:39 left"
        assert states[-1].rstrip() == left


def test_the_line_is_redrawn_ten_times_a_second_at_most() -> None:
    clock = Clock()
    with pseudo_terminal() as (stream, near):
        progress = Progress(stream=stream, clock=clock)
        progress.trial(1, 1, {})
        for epoch in range(1, 1001):
            clock.now += 0.001
            progress.epoch(epoch, 1000, {"val_auc": 0.9})
        states = seen(near)
    assert 8 <= len(states) <= 13


def test_a_failure_and_a_message_get_lines_of_their_own() -> None:
    clock = Clock()
    with pseudo_terminal() as (stream, near):
        with Progress(stream=stream, clock=clock) as progress:
            progress.trial(1, 2, {"dense.units": 64})
            progress.trial_end(failure="out of memory")
            progress.message("The cache is off.")
        states = seen(near)
    assert "trial 1 of 2 · failed: out of memory · dense.units=64" in states
    assert "The cache is off." in states


def test_a_failure_off_a_terminal_is_one_line() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    progress.trial(1, 2, {})
    progress.trial_end(failure="out of memory")
    assert stream.getvalue() == "trial 1 of 2 · failed: out of memory\n"


def test_a_long_phase_off_a_terminal_is_told_every_ten_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, clock=clock)
    for done in range(0, 31):
        progress.phase(f"computing features {done}/30")
        clock.now += 1
    progress.phase("computing scores 0/1")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["computing features 0/30", "computing features 11/30"]
    assert lines[-1] == "computing scores 0/1"
    assert len(lines) == 4


def test_the_remaining_time_leaves_out_phases_and_epochs_that_are_saved() -> None:
    clock = Clock()
    progress = Progress(stream=io.StringIO(), clock=clock)
    progress.start(2, 20)
    assert progress.remaining() is None
    for done in range(5):
        progress.phase(f"computing features {done}/5")
        clock.now += 100
    progress.trial(1, 2, {})
    for epoch in (1, 2):
        clock.now += 3
        progress.epoch(epoch, 10, {})
    assert progress.remaining() == pytest.approx(18 * 3)
    progress.trial_end(0.5)
    assert progress.remaining() == pytest.approx(10 * 3)
    progress.trial(2, 2, {})
    clock.now += 1
    for done in range(5):
        progress.phase(f"computing features {done}/5")
        clock.now += 50
    progress.trial_end(0.5)
    assert progress.remaining() < 10 * 30


def test_epochs_of_a_promoted_trial_and_of_more_executions_are_counted() -> None:
    clock = Clock()
    progress = Progress(stream=io.StringIO(), clock=clock)
    progress.start(2, 10)
    progress.trial(1, 2, {})
    for epoch in (3, 4):  # goes on from epoch 2, up to 4
        clock.now += 1
        progress.epoch(epoch, 4, {})
    progress.trial_end(0.5)
    assert progress.remaining() == pytest.approx(8)
    progress.trial(2, 2, {})
    for epoch in (1, 2, 1, 2, 3, 4):  # the first execution stopped early
        clock.now += 1
        progress.epoch(epoch, 4, {})
    progress.trial_end(0.5)
    assert progress.remaining() == pytest.approx(0)


def test_trials_side_by_side_are_told_apart_by_their_number() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, clock=clock)
    progress.start(2, 6)
    progress.trial(1, 2, {"a": 1})
    progress.trial(2, 2, {"a": 2})
    for epoch in (1, 2, 3):
        clock.now += 1
        progress.epoch(epoch, 3, {"val_auc": 0.8}, number=1)
        progress.epoch(epoch, 3, {"val_auc": 0.9}, number=2)
    assert progress.remaining() == pytest.approx(0)
    progress.trial_end(0.8, number=1)
    progress.trial_end(0.9, number=2)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("trial 1 of 2 · 3 epochs · val_auc 0.8000 · best 0.9000")
    assert lines[1].startswith("trial 2 of 2 · 3 epochs · val_auc 0.9000 · best 0.9000")
    assert lines[0].endswith("a=1")


@pytest.mark.parametrize(("direction", "best"), [("max", "0.9000"), ("min", "0.2000")])
def test_the_best_follows_the_direction_and_ignores_nan(direction: str, best: str) -> None:
    stream = io.StringIO()
    progress = Progress("val_loss", direction, stream=stream)
    progress.trial(1, 1, {})
    for epoch, value in enumerate((0.5, float("nan"), 0.9, 0.2, 0.4), start=1):
        progress.epoch(epoch, 5, {"val_loss": value})
    progress.trial_end(0.4)
    assert f"val_loss 0.4000 · best {best}" in stream.getvalue()


def test_a_stream_that_is_closed_or_ascii_or_missing_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = io.StringIO()
    closed.close()
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    for stream in (closed, plain):
        train(Progress(stream=stream), Clock(), number=1, epochs=2, of=2)
    assert plain.buffer.getvalue().startswith(b"trial 1 of 3 - 2 epochs")  # type: ignore[attr-defined]
    monkeypatch.setattr("sys.stderr", None)
    train(Progress(), Clock(), number=1, epochs=2, of=2)


def test_a_terminal_that_goes_away_is_no_error() -> None:
    near, far = os.openpty()
    stream = os.fdopen(far, "w", encoding="utf-8")
    progress = Progress(stream=stream)
    os.close(near)
    train(progress, Clock(), number=1, epochs=2, of=2)
    progress.stop()
    with suppress(OSError):
        stream.close()


def test_a_call_takes_less_than_a_millisecond() -> None:
    with pseudo_terminal() as (stream, _):
        progress = Progress(stream=stream)
        progress.start(1, 1000)
        progress.trial(1, 1, {})
        began = time.perf_counter()
        for epoch in range(1, 1001):
            progress.epoch(epoch, 1000, {"val_auc": 0.9})
        assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0:00"), (0.4, "0:00"), (41, "0:41"), (59.6, "1:00"), (725, "12:05"), (3723, "1:02:03")],
)
def test_clock_time(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (123456, "123456"),
        (0.1, "0.1"),
        (0.000123456, "0.0001235"),
        (True, "true"),
        (None, "null"),
        ("relu", "relu"),
        ([64, 32], "[64, 32]"),
    ],
)
def test_numbers_have_the_digits_that_matter(value: object, text: str) -> None:
    assert short(value) == text

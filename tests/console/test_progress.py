"""What a user sees of a search, as lines: off a terminal, in silence, in one line."""

from __future__ import annotations

import io

import pytest

from pneumonia.console.progress import Progress
from pneumonia.formatting import clock_time, short


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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


def test_false_is_silence_but_for_warnings_and_failures() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(form=False, stream=stream, clock=clock) as progress:
        progress.phase("reading the images")
        progress.message("phantom: 10 images\nwarning: 2 images of val are also in train")
        progress.message("a line")
        progress.start(2, 8)
        train(progress, clock, number=1, epochs=4, of=4)
        progress.trial(2, 2, {"dense.units": 64})
        progress.trial_end(failure="out of memory")
    assert stream.getvalue().splitlines() == [
        "warning: 2 images of val are also in train",
        "warning: trial 2 of 2 · failed: out of memory · dense.units=64",
    ]


def test_the_best_is_never_that_of_one_execution_of_several() -> None:
    progress = Progress(stream=io.StringIO())
    progress.trial(1, 2, {"a": 1}, epochs=2, fits=2)
    for epoch, value in ((1, 0.99), (2, 0.5), (1, 0.6), (2, 0.7)):
        progress.epoch(epoch, 2, {"val_auc": value})
        assert not any("best" in part for part in progress.scene().state)
    progress.trial_end(0.845)
    assert progress.scene().state == ("val_auc 0.8450", "best 0.8450")
    progress.trial(2, 2, {"a": 2}, epochs=1, fits=1)
    progress.epoch(1, 1, {"val_auc": 0.9})
    assert progress.scene().state == ("epoch 1/1", "val_auc 0.9000", "best 0.9000")


def test_the_scene_tells_what_runs_and_who_leads() -> None:
    clock = Clock()
    progress = Progress(stream=io.StringIO(), clock=clock)
    progress.start(3, 12)
    train(progress, clock, number=1, epochs=4, of=4)
    train(progress, clock, number=2, epochs=2, of=4)
    progress.trial(3, 3, {"dense.units": 64, "optimizer.learning_rate": 0.01}, epochs=4)
    progress.epoch(1, 4, {"val_auc": 0.5})
    scene = progress.scene()
    assert scene.trial == "trial 3 of 3"
    assert scene.state == ("epoch 1/4", "val_auc 0.5000", "best 0.9410")
    assert scene.share == pytest.approx(7 / 10)
    assert scene.times == ("about 0:30 left", "1:00 elapsed", "7 of 10 epochs")
    assert scene.values == ("dense.units=64", "optimizer.learning_rate=0.01")
    assert scene.curve == (0.5,)
    assert scene.header[:4] == ("trial", "val_auc", "epoch", "time")
    assert [row[:4] for row in scene.rows] == [("1", "0.9410", "4", "0:40")]  # 2 had its values
    progress.phase("computing features 1/2")
    assert progress.scene().state[0] == "computing features 1/2"
    assert progress.scene().line.startswith("trial 3 of 3 · computing features 1/2 · val_auc")


def test_a_promoted_trial_goes_on_with_the_curve_of_its_parent() -> None:
    progress = Progress(stream=io.StringIO())
    progress.trial(1, 2, {"a": 1}, epochs=2)
    for epoch, value in ((1, 0.6), (2, 0.7)):
        progress.epoch(epoch, 2, {"val_auc": value})
    progress.trial_end(0.7)
    progress.trial(2, 2, {"a": 1}, epochs=4)
    assert progress.scene().curve == (0.6, 0.7)
    progress.epoch(3, 4, {"val_auc": 0.65})
    assert progress.scene().curve == (0.6, 0.7, 0.65)
    progress.trial_end(0.7)
    assert progress.scene().rows[0][:3] == ("1", "0.7000", "2")


def test_a_search_that_goes_on_knows_what_it_has_behind_it() -> None:
    clock = Clock()
    progress = Progress(stream=io.StringIO(), clock=clock)
    progress.start(3, 10)
    curve = [0.7, 0.9]
    progress.replayed(1, {"a": 1}, 0.9, epochs=2, curve=curve, seconds=5.0)
    progress.replayed(2, {"a": 2}, None, epochs=2)
    progress.trial(3, 3, {"a": 1}, epochs=4)
    for epoch in (3, 4):
        clock.now += 1
        progress.epoch(epoch, 4, {"val_auc": 0.8})
    scene = progress.scene()
    assert scene.rows == (("1", "0.9000", "2", "0:05", "1"),)
    assert scene.times[-1] == "2 of 6 epochs"
    assert scene.curve == (0.7, 0.9, 0.8, 0.8)


def test_nothing_known_yet_is_a_scene_too() -> None:
    scene = Progress(stream=io.StringIO()).scene()
    assert (scene.trial, scene.share, scene.state, scene.rows) == ("", None, (), ())

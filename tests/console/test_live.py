"""The live display: at all sizes, and on a pseudo-terminal, in the middle and at the end."""

from __future__ import annotations

import fcntl
import io
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from families import slow
from rich.cells import cell_len
from screens import Terminal, terminal

from pneumonia.console.live import Scene, Screen, draw_lines, head, make_console, sparkline, table
from pneumonia.console.progress import Form, Progress

SEARCH = """
import signal, sys, time, warnings
from pneumonia.console.progress import Progress
# What runs in a shell's background is not interrupted, nor are its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with Progress() as progress:
        progress.start(1, 1000)
        progress.trial(1, 1, {"dense.units": 8})
        for epoch in range(1, 1001):
            progress.epoch(epoch, 1000, {"val_auc": 0.9})
            if epoch == 5:
                warnings.warn("a warning in the middle")
                print("a line of output")
            time.sleep(0.02)
except KeyboardInterrupt:
    print("Interrupted.", file=sys.stderr)
"""


POLITE = """
import sys, time
from pneumonia.signals import Interruption, Interrupted
from pneumonia.console.progress import Progress
try:
    with Interruption() as interruption, Progress() as progress:
        progress.start(1, 1000)
        progress.trial(1, 1, {"dense.units": 8})
        for epoch in range(1, 1001):
            progress.epoch(epoch, 1000, {"val_auc": 0.9})
            time.sleep(0.8)
            interruption.check()
except Interrupted as error:
    print(error, file=sys.stderr)
"""


def start(screen: Terminal, code: str, folder: Path) -> subprocess.Popen[bytes]:
    """Run a program whose terminal this is, so that Ctrl-C reaches it."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=screen.far, stdout=screen.far, stderr=screen.far, cwd=folder,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def until(screen: Terminal, holds: Callable[[list[str]], bool]) -> list[str]:
    """Return what is shown as soon as it is so; fail after some seconds."""
    deadline = time.monotonic() + 5
    while not holds(lines := screen.lines(0.02)):
        assert time.monotonic() < deadline, "\n".join(lines)
    return lines


def begin(screen: Terminal, form: Form = "auto") -> Progress:
    progress = Progress(form=form, stream=screen.stream)
    progress.message("two trials")
    progress.start(2, 8)
    progress.trial(1, 2, {"dense.units": 512}, epochs=4)
    for epoch in range(1, 5):
        progress.epoch(epoch, 4, {"val_auc": 0.9 + epoch / 100})
    progress.trial_end(0.94)
    progress.trial(2, 2, {"dense.units": 64}, epochs=4)
    progress.epoch(1, 4, {"val_auc": 0.5})
    return progress


def is_whole(lines: list[str]) -> bool:
    """Tell whether the picture of `begin` is there, once."""
    text = "\n".join(lines)
    return (
        text.count("trial 2 of 2 ━") == 1
        and text.count("epoch 1/4 · val_auc 0.5000 · best 0.9400  ▄") == 1
        and text.count("\ndense.units=64") == 1
        and text.count("trial  val_auc  epoch  time  dense.units\n    1   0.9400") == 1
    )


def is_once(lines: list[str], columns: int) -> bool:
    text = "\n".join(lines)
    counts = [text.count(part) for part in ("trial 2 of 2", "epoch 1/4", "1   0.9400")]
    return counts == [1, 1, 1] and all(len(line) < columns for line in lines)


def test_the_picture_is_there_and_then_it_is_gone() -> None:
    with terminal() as screen:
        with begin(screen):
            lines = until(screen, is_whole)
            assert lines[:2] == ["two trials", ""]
            assert screen.cursor == (0, 1)
        assert screen.lines() == ["two trials"]
        assert screen.cursor == (0, 1)


def test_lines_that_stay_go_above_it_even_where_the_screen_is_full() -> None:
    with terminal(80, 16) as screen:
        with begin(screen) as progress:
            for number in range(20):
                progress.message(f"message {number}")
            lines = until(screen, is_whole)
            # As many as the picture leaves room for, one after the other.
            kept = lines[: lines.index("")]
            assert kept == [f"message {number}" for number in range(20)][-len(kept) :]
            progress.trial_end(failure="out of memory")
            failed = "trial 2 of 2 · failed: out of memory · dense.units=64"
            lines = until(screen, lambda lines: failed in lines and "" in lines)
        assert screen.lines()[-1] == failed


def test_what_others_write_meanwhile_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as screen:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, screen.stream)
        with begin(screen):
            until(screen, is_whole)
            sys.stderr.write("a.py:1: UserWarning: beware\n")
            print("begun, ", end="")
            assert "begun" not in "".join(screen.lines())
            print("and ended", file=sys.stderr)
            os.write(screen.far, b"a library in C\n")  # past Python
            lines = until(screen, lambda lines: is_whole(lines) and "a library in C" in lines)
            assert lines[0] == "two trials"
            assert lines[1:4] == [
                "a.py:1: UserWarning: beware",
                "begun, and ended",
                "a library in C",
            ]
            print("no newline", end="")
        assert sys.stdout is sys.stderr is screen.stream
        print(" before the end")
        assert screen.lines()[1:] == [*lines[1:4], "no newline before the end"]


@pytest.mark.parametrize("sizes", [[(60, 24), (100, 24), (61, 12), (200, 50)], [(41, 8), (80, 24)]])
def test_a_new_size_leaves_nothing_behind(sizes: list[tuple[int, int]]) -> None:
    with terminal(120) as screen, begin(screen):
        until(screen, is_whole)
        for columns, rows in sizes:
            screen.resize(columns, rows)
            until(screen, lambda lines: is_once(lines, columns))  # noqa: B023


def test_a_tiny_terminal_gets_one_line() -> None:
    with terminal(30, 24) as screen:
        with begin(screen):
            shown = ["two trials", "trial 2 of 2 · epoch 1/4 · v…"]
            until(screen, lambda lines: lines == shown)
        assert screen.lines() == ["two trials"]


@pytest.mark.parametrize(
    ("environment", "form", "is_live"),
    [
        ({}, "auto", True),
        ({}, True, True),
        ({"CI": "false"}, "auto", True),
        ({"CI": "true"}, "auto", False),
        ({"CI": "1"}, "live", True),
        ({"TERM": "dumb"}, "auto", False),
        ({}, "plain", False),
        ({}, False, False),
    ],
)
def test_who_gets_a_picture(
    environment: dict[str, str], form: Form, is_live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with terminal() as screen:
        with begin(screen, form):
            if is_live:
                until(screen, is_whole)
            screen.read()
        screen.read()
        assert (b"\x1b" in screen.data) == is_live
        told = b"trial 1 of 2 \xc2\xb7 4 epochs" in screen.data
        assert told == (not is_live and form is not False)


def test_off_a_terminal_there_are_no_escapes_unless_asked_for(tmp_path: Path) -> None:
    for form, has_escapes in (("auto", False), ("live", True)):
        with (tmp_path / "file").open("w", encoding="utf-8") as stream:
            with Progress(form=form, stream=stream) as progress:  # type: ignore[arg-type]
                progress.trial(1, 1, {})
                progress.trial_end(0.5)
            stream.flush()
        assert ("\x1b" in (tmp_path / "file").read_text()) == has_escapes


def test_a_terminal_without_unicode_gets_ascii() -> None:
    with terminal(encoding="ascii") as screen, begin(screen):
        lines = until(screen, lambda lines: "epoch 1/4 - val_auc" in "\n".join(lines))
        assert screen.data.isascii()
        assert any("trial 2 of 2 ====" in line for line in lines)


def test_a_terminal_that_goes_away_is_no_error() -> None:
    screen = Terminal()
    progress = begin(screen)
    until(screen, is_whole)
    os.close(screen.near)
    progress.trial_end(0.5)
    progress.message("nobody reads this")
    time.sleep(0.3)
    progress.stop()
    progress.stop()
    with pytest.raises(OSError, match="Input/output error"):
        screen.stream.close()


def is_running(lines: list[str]) -> bool:
    return "a line of output" in lines and lines[-1] == "dense.units=8" and "━" in lines[-3]


@pytest.mark.slow
def test_what_is_said_of_ctrl_c_stands_above_the_picture(tmp_path: Path) -> None:
    with terminal() as screen:
        process = start(screen, POLITE, tmp_path)
        until(screen, lambda lines: len(lines) > 2 and lines[-1] == "dense.units=8")
        os.write(screen.near, b"\x03")
        asked = "Stopping after this epoch. A second signal (Ctrl-C) stops at once."
        lines = until(screen, lambda lines: asked in lines and lines[-1] == "dense.units=8")
        assert lines[0] == asked
        assert "\n".join(lines).count("trial 1 of 1 ─") == 1
        assert process.wait(10) == 0
        assert screen.lines() == [asked, "Interrupted."]


@pytest.mark.parametrize("key", [slow(b"\x03"), b""])
def test_ctrl_c_leaves_a_clean_screen(key: bytes, tmp_path: Path) -> None:
    """As a user presses it, and as `kill -INT` sends it."""
    with terminal() as screen:
        process = start(screen, SEARCH, tmp_path)
        lines = until(screen, lambda lines: is_running(lines))
        if key:
            os.write(screen.near, key)
        else:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        lines = screen.lines()
        assert lines[-1] in ("Interrupted.", "^CInterrupted.")
        assert lines[-2] == "a line of output"
        assert "a warning in the middle" in "\n".join(lines)
        assert not any("━" in line for line in lines)


def test_it_costs_less_than_a_hundredth_of_a_search() -> None:
    """Of 20 s of one processor for 226 epochs in 23 trials: 200 ms, 80 refreshes included."""
    progress = Progress(stream=io.StringIO())
    progress.start(23, 230)
    with Path(os.devnull).open("w", encoding="utf-8") as stream:
        screen = Screen(stream)
        began = time.process_time()
        for number in range(1, 24):
            values = {"dense.units": number, "dense.dropout": 0.3, "optimizer.learning_rate": 0.01}
            progress.trial(number, 23, values, epochs=10)
            for epoch in range(1, 11):
                progress.epoch(epoch, 10, {"val_auc": epoch / 100 + number / 1000})
                if epoch % 3 == 0:
                    screen.draw(progress.scene())
            progress.trial_end(0.1 + number / 1000)
        spent = time.process_time() - began
    assert spent < 0.2


NAMES = ("dense.units", "dense.dropout", "optimizer.learning_rate")
SCENE = Scene(
    line="trial 14 of 23 · epoch 7/20 · val_auc 0.9731 · best 0.9822 · about 0:08 left",
    trial="trial 14 of 23",
    share=138 / 226,
    times=("about 0:08 left", "0:12 elapsed", "138 of 226 epochs"),
    state=("epoch 7/20", "val_auc 0.9731", "best 0.9822"),
    curve=(0.8, 0.9, 0.95, 0.94, 0.96, 0.97, 0.9731),
    values=("dense.units=512", "dense.dropout=0.3", "optimizer.learning_rate=0.001235"),
    header=("trial", "val_auc", "epoch", "time", *NAMES),
    rows=tuple(
        (str(n), f"0.98{9 - n}0", "12", "0:03", "512", "0.3", "0.001235") for n in range(1, 6)
    ),
)


def drawn(scene: Scene, columns: int, rows: int) -> list[str]:
    return draw_lines(scene, columns, rows, make_console())


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_at_eighty_columns() -> None:
    assert plain(drawn(SCENE, 80, 24)) == [
        "",
        "trial 14 of 23 ━━━━━━━━━━━━━━━╸──────────  61% · about 0:08 left · 0:12 elapsed",
        "epoch 7/20 · val_auc 0.9731 · best 0.9822  ▁▅▇▇███",
        "dense.units=512 dense.dropout=0.3 optimizer.learning_rate=0.001235",
        "",
        "                             dense.   dense.     optimizer.",
        "trial  val_auc  epoch  time   units  dropout  learning_rate",
        "    1   0.9880     12  0:03     512      0.3       0.001235",
        "    2   0.9870     12  0:03     512      0.3       0.001235",
        "    3   0.9860     12  0:03     512      0.3       0.001235",
        "    4   0.9850     12  0:03     512      0.3       0.001235",
        "    5   0.9840     12  0:03     512      0.3       0.001235",
    ]


def test_at_sixty_columns_nothing_that_matters_is_lost() -> None:
    lines = plain(drawn(SCENE, 60, 24))
    assert lines[1] == "trial 14 of 23 ━━━━━━━━━━━━╸────────  61% · about 0:08 left"
    assert lines[3].endswith("optimizer.learning_rate=…")
    assert lines[6] == "trial  val_auc  epoch  time   units  dropout  learning_rate"


def test_a_wide_terminal_has_room_for_whole_names_and_the_epochs() -> None:
    lines = plain(drawn(SCENE, 140, 24))
    assert lines[1].endswith("0:12 elapsed · 138 of 226 epochs")
    assert lines[5].endswith("dense.units  dense.dropout  optimizer.learning_rate")


@pytest.mark.parametrize("columns", [1, 2, 10, 39, 40, 47, 60, 80, 81, 200])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 11, 12, 13, 50])
def test_it_never_fills_the_terminal(columns: int, rows: int) -> None:
    wide = replace(SCENE, values=("model.name=肺炎" * 40,), rows=(("肺" * 30,) * 7,))
    for scene in (SCENE, wide, Scene(), replace(SCENE, share=None), replace(SCENE, share=1.7)):
        lines = plain(drawn(scene, columns, rows))
        assert all(cell_len(line) < max(2, columns) for line in lines)
        assert len(lines) < max(2, rows)


def test_colors_are_left_out_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    colored = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    assert colored.search("".join(drawn(SCENE, 80, 24)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored.search("".join(drawn(SCENE, 80, 24)))


def test_what_would_move_the_cursor_is_replaced() -> None:
    scene = replace(SCENE, state=("a\x1b[2Jb\nc\td",), line="a\x1b[2J")
    assert [text.plain for text in head(scene, 200)][1].startswith("a?[2Jb?c?d")
    assert plain(drawn(scene, 20, 5)) == ["a?[2J"]


def test_columns_that_have_no_room_are_left_out_from_the_end() -> None:
    lines = [text.plain for text in table(SCENE.header, SCENE.rows, 45, 10)]
    assert lines[1] == "trial  val_auc  epoch  time   units  dropout"
    assert [text.plain for text in table(SCENE.header, SCENE.rows, 10, 10)][1] == "trial  va…"


@pytest.mark.parametrize(
    ("values", "most", "expected"),
    [
        ([], 5, ""),
        ([0.5], 5, "▄"),
        ([0.5, 0.5], 5, "▄▄"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([1, float("nan"), 0, float("inf")], 5, "█ ▁ "),
        ([float("nan")], 5, ""),
        (list(range(100)), 4, "▁▃▆█"),
        ([3, 1], 1, "▄"),
        ([3, 1], 0, ""),
        ([3, 1], -1, ""),
    ],
)
def test_sparkline(values: list[float], most: int, expected: str) -> None:
    assert sparkline(values, most) == expected

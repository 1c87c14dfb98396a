"""Writing where it may not work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumonia import terminal


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "a · b … é 肺"), ("ascii", "a - b ~ ? ?"), ("latin-1", "a - b ~ é ?")],
)
def test_what_cannot_be_encoded_is_replaced(encoding: str, expected: str) -> None:
    out = stream(encoding)
    assert terminal.write("a · b … é 肺", out)
    assert out.buffer.getvalue().decode(encoding) == expected  # type: ignore[attr-defined]


def test_no_stream_and_a_closed_one_are_no_error() -> None:
    out = stream("utf-8")
    out.close()
    assert not terminal.write("text", out)
    assert not terminal.write("text", None)
    assert not terminal.is_terminal(out)
    assert not terminal.is_terminal(None)
    assert terminal.width(out) == terminal.width(None) == 80


def test_a_full_disk_is_no_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    out = full.open("w", encoding="utf-8")
    assert not terminal.write("text", out)
    with pytest.raises(OSError, match="No space"):
        out.close()


def test_a_reader_that_went_away_is_no_error_even_at_the_end_of_the_process() -> None:
    code = (
        "import sys, pneumonia.terminal as t; sys.stdin.read(); "
        "sys.exit(t.write('a' * 100_000, sys.stdout) or t.write('b', sys.stdout) * 2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()  # type: ignore[union-attr]
    process.stdin.close()  # type: ignore[union-attr]
    with process.stderr as error:  # type: ignore[union-attr]
        assert error.read() == b""
    # The first write fails; the second goes nowhere, and says it was written.
    assert process.wait() == 2


def test_a_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = os.openpty()
    with os.fdopen(far, "w", encoding="utf-8") as out:
        monkeypatch.setenv("TERM", "xterm")
        assert terminal.is_terminal(out)
        monkeypatch.setenv("TERM", "dumb")
        assert not terminal.is_terminal(out)
    os.close(near)

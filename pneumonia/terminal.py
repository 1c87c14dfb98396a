"""Text for a stream that may be a terminal, a file, closed, or unable to encode it."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_PLAIN = str.maketrans("·…━╸╺─▁▂▃▄▅▆▇█", "-~==--.:-=+*#@")
_DEFAULT_SIZE = (80, 24)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal that can go back to the start of a line."""
    try:
        is_tty = stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
    return is_tty and os.environ.get("TERM") not in ("dumb", "unknown")


def is_watched(stream: TextIO | None) -> bool:
    """Return whether somebody is likely to look at the stream while it is written.

    Not in a continuous integration, nor where several processes share it.
    """
    if not is_terminal(stream) or os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    from multiprocessing import parent_process

    return parent_process() is None


def width(stream: TextIO | None) -> int:
    """Return the width of the terminal behind the stream, in characters; 80 where unknown."""
    return size(stream)[0]


def size(stream: TextIO | None) -> tuple[int, int]:
    """Return the columns and rows of the terminal behind the stream; 80 x 24 where unknown."""
    try:
        found = os.get_terminal_size(stream.fileno()) if stream is not None else (0, 0)
    except (OSError, ValueError):
        found = (0, 0)
    return found[0] or _DEFAULT_SIZE[0], found[1] or _DEFAULT_SIZE[1]


def encodable(text: str, stream: TextIO) -> str:
    """Return the text with what the stream cannot encode replaced, by something alike if known."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def write(text: str, stream: TextIO | None) -> bool:
    """Write and flush the text as it is; return False where nobody can read the stream."""
    if stream is None:
        return False
    try:
        stream.write(encodable(text, stream))
        stream.flush()
    except BrokenPipeError:
        abandon(stream)
        return False
    except (OSError, ValueError):  # a full disk; a closed stream
        return False
    return True


def say(text: str) -> None:
    """Write a text as one line to standard error."""
    write(" ".join(text.split("\n")) + "\n", sys.stderr)


def abandon(stream: TextIO) -> None:
    """Lead a standard stream nowhere: Python would fail again when it flushes it at the end.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    if stream in (sys.stdout, sys.stderr):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

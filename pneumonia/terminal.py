"""Text for a stream that may be a terminal, a file, closed, or unable to encode it."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_PLAIN = str.maketrans({"·": "-", "…": "~"})
_DEFAULT_WIDTH = 80


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal that can go back to the start of a line."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def width(stream: TextIO | None) -> int:
    """Return the width of the terminal behind the stream, in characters; 80 where unknown."""
    if stream is None:
        return _DEFAULT_WIDTH
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_WIDTH
    except (OSError, ValueError):
        return _DEFAULT_WIDTH


def encodable(text: str, stream: TextIO) -> str:
    """Return the text with what the stream cannot encode replaced, by something alike if known."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def write(text: str, stream: TextIO | None) -> bool:
    """Write and flush the text as it is, without a newline added.

    Returns:
        Whether it was written; not, where the stream is missing, closed, or nobody reads it.
    """
    if stream is None:
        return False
    try:
        stream.write(encodable(text, stream))
        stream.flush()
    except BrokenPipeError:
        _abandon(stream)
        return False
    except (OSError, ValueError):  # a full disk; a closed stream
        return False
    return True


def _abandon(stream: TextIO) -> None:
    """Lead a standard stream nowhere: Python would fail again when it flushes it at the end.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    if stream in (sys.stdout, sys.stderr):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

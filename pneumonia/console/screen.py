"""A region of lines on a terminal that is drawn again in place, and what is written meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from threading import RLock
from typing import Any, TextIO

from pneumonia import terminal

_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"


class Screen:
    """Owns what a terminal shows from the cursor on, and the standard streams that lead to it.

    Between drawings the cursor stands on the first line of the region, which is best left empty.
    So all that is ours is below the cursor: a terminal that was made narrower, and has wrapped our
    lines or cut them, is put right by erasing from there; and what comes past us, from a library
    in C, a stopped job or the echo of Ctrl-C, stands above the next drawing.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = RLock()
        self._kept: list[tuple[str, Any, _Above]] = []
        self._partial = ""
        self.is_gone = False

    def size(self) -> tuple[int, int]:
        """Return the columns and rows of the terminal as it is now; 80 x 24 where unknown."""
        return terminal.size(self._stream)

    def open(self) -> None:
        """Lead the standard streams that end at a terminal through `write`."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if terminal.is_terminal(stream):
                above = _Above(self, stream)
                self._kept.append((name, stream, above))
                setattr(sys, name, above)

    def close(self) -> None:
        """Erase the region and give the streams back; what follows starts on a clean line."""
        with self._lock:
            for name, stream, above in self._kept:
                if getattr(sys, name) is above:  # somebody else's is not ours to take away
                    setattr(sys, name, stream)
            self._kept.clear()
            text, self._partial = self._partial, ""
            self._put(f"\r{_ERASE_BELOW}{text}")

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines in place of those shown before. They must be narrower than the terminal."""
        body = "\r\n".join(line + _ERASE_LINE for line in lines)
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        # A terminal that has just become narrower cuts the lines, rather than to wrap them.
        self._put(f"\r{_WRAP_OFF}{body}{_ERASE_BELOW}{up}\r{_WRAP_ON}")

    def write(self, text: str) -> None:
        """Write text that stays, above the region; the beginning of a line waits for its end."""
        with self._lock:
            whole, newline, partial = (self._partial + text).rpartition("\n")
            self._partial = partial.rpartition("\r")[2]  # a line of another's, drawn in place
            if newline:
                self._put(f"\r{_ERASE_BELOW}{whole}\n")

    def _put(self, text: str) -> None:
        with self._lock:
            self.is_gone = not terminal.write(text, self._stream)


class _Above:
    """A standard stream whose text comes out above the region of a screen."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen, self._stream, self._process = screen, stream, os.getpid()

    def write(self, text: str) -> int:
        if os.getpid() == self._process:
            self._screen.write(text)
            return len(text)
        return self._stream.write(text)  # a fork has no screen

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

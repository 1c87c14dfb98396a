"""Pseudo-terminals, and what a terminal emulator shows of what was written to them."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pyte


class Terminal:
    """A pseudo-terminal with an emulator at its other end.

    Attributes:
        near: The end that the emulator reads.
        stream: The end that a program writes.
    """

    def __init__(self, columns: int = 80, rows: int = 24, *, encoding: str = "utf-8") -> None:
        self.near, self.far = os.openpty()
        self.stream: TextIO = os.fdopen(self.far, "w", encoding=encoding)
        self._screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._feed = pyte.ByteStream(self._screen)
        self.data = b""
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a user who drags a window's corner."""
        fcntl.ioctl(self.far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def read(self, seconds: float = 0.05) -> None:
        """Take in what was written, until nothing comes for some seconds."""
        while select.select([self.near], [], [], seconds)[0]:
            try:
                data = os.read(self.near, 100_000)
            except OSError:  # Linux: nobody has the other end open any more
                return
            if not data:
                return
            self.data += data
            self._feed.feed(data)

    def lines(self, seconds: float = 0.05) -> list[str]:
        """Return what the screen shows now, without the empty lines at its end."""
        self.read(seconds)
        shown = [line.rstrip() for line in self._screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and row of the cursor."""
        return self._screen.cursor.x, self._screen.cursor.y


@contextmanager
def terminal(columns: int = 80, rows: int = 24, *, encoding: str = "utf-8") -> Iterator[Terminal]:
    """Open a pseudo-terminal, and close it at the end."""
    made = Terminal(columns, rows, encoding=encoding)
    try:
        yield made
    finally:
        made.stream.close()
        os.close(made.near)

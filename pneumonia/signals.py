"""End a search politely: the first signal asks, a second one does not wait.

TensorFlow trains an epoch, or several, in one call, and Python runs no signal handler meanwhile. So
a thread of its own hears of signals, which the system writes to a pipe, and counts them. What runs
asks `check` wherever it may stop: between two epochs, after a batch of features.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from pneumonia import terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
# How long the main thread has to close its runs when it is told to stop at once.
GRACE_SECONDS = 3.0

_END = b"\0"
_FROM_HERE = "\r\x1b[J"  # from the start of the line, with all below it erased
_ASKED = "Stopping after this epoch. A second signal (Ctrl-C) stops at once."
_asked = threading.Event()


def ask() -> None:
    """Ask what runs in this process, and all that will, to stop, as a first signal does."""
    _asked.set()


class Interrupted(KeyboardInterrupt):
    """A search that has stopped where nothing is lost; its text says how to go on."""


class Interruption:
    """Owns the signals SIGINT and SIGTERM while it is entered, and what has come of them.

    Where the main thread does not come to its end in time after a second signal, the process ends
    at once; the sidecar then closes the runs. Outside the main thread, where signals cannot be
    taken, it does nothing.
    """

    def __init__(self) -> None:
        self._count = 0
        self._is_asked = self._has_asked = self._has_forced = False
        self._is_over = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
            self._thread.start()
            self._before_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        self._is_over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        os.write(self._writer, _END)
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)
        if error is None and (self._count or self._is_asked):
            raise Interrupted("Interrupted; the search had come to its end before.")

    def check(self) -> None:
        """Stop here if a signal has come, or somebody has asked.

        Raises:
            Interrupted: Once.
        """
        if (self._count or self._is_asked or _asked.is_set()) and not self._has_asked:
            self._has_asked = True
            raise Interrupted("Interrupted.")

    def _watch(self) -> None:
        while (byte := os.read(self._reader, 1)) != _END:
            if byte[0] not in SIGNALS:
                continue
            self._count += 1
            if self._count == 1:
                say(_ASKED)
            elif self._count == 2:
                # Where the signal came before it was counted, its handler has not raised.
                _thread.interrupt_main()
                if not self._is_over.wait(GRACE_SECONDS):
                    os._exit(STATUS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True  # the other thread may not have had its turn yet
        if self._count > 1 and not self._has_forced:
            self._has_forced = True
            raise KeyboardInterrupt


def say(text: str) -> None:
    """Write a line past Python's streams, which the main thread may be writing to.

    On a terminal it takes the place of the echo of Ctrl-C, and of the live display, which is drawn
    again below it.
    """
    start = _FROM_HERE if terminal.is_terminal(sys.stderr) else ""
    try:
        os.write(2, f"{start}{text}\n".encode())
    except OSError:
        return  # nobody reads it

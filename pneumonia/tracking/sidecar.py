"""The process that talks to MLflow beside a search: its handle, and what runs in it.

The two exchange lines of JSON: a request with its number, and the answer to it. The end of the
requests is the end of the search's process, however it came about.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from pneumonia import startup
from pneumonia.errors import UserError, without_passwords
from pneumonia.tracking.consumer import Consumer
from pneumonia.tracking.mlflow_store import make_ready
from pneumonia.tracking.settings import TrackingSettings, prepare_environment

CLOSING_SECONDS = 30.0
NICENESS = 15
_MAIN = """
import sys
sys.path.append(sys.argv[1])
from pneumonia.tracking.sidecar import serve
serve()
"""

_log = logging.getLogger(__name__)
_current: Sidecar | None = None


def current() -> Sidecar:
    """Return the sidecar of this process; start one if there is none alive."""
    global _current
    if _current is None or not _current.is_alive:
        _current = Sidecar()
    return _current


class Sidecar:
    """Owns the other process, and what it was asked to do.

    It serves the searches of this process one after the other, so that MLflow is imported once.
    It is out of reach of the terminal's Ctrl-C, and ends by itself after this process.
    """

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _MAIN, str(Path(__file__).resolve().parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            encoding="utf-8",
        )
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._followed: set[Path] = set()
        self._count = 0
        self._has_ended, self._last = False, ""
        threading.Thread(target=self._listen, name="sidecar", daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process still takes requests."""
        return self._process.poll() is None

    def check(self, settings: TrackingSettings) -> Future[None]:
        """Have a store made ready for a search; a `ConfigError` is in the answer."""
        return self._ask("check", settings=asdict(settings.resolved()))

    def follow(self, folder: Path, settings: TrackingSettings) -> None:
        """Have a journal followed, unless it is already."""
        folder = folder.resolve()
        if folder not in self._followed:
            self._followed.add(folder)
            self._ask("follow", folder=str(folder), settings=asdict(settings.resolved()))

    def close(self, folder: Path, timeout: float) -> int:
        """Wait until a journal is sent, or the time is up; return how many events are left.

        Raises:
            ChildProcessError: The process has died.
        """
        folder = folder.resolve()
        left: int = self._ask("close", folder=str(folder), timeout=timeout).result()
        self._followed.discard(folder)
        return left

    def _ask(self, request: str, **fields: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        with self._lock:
            self._count += 1
            self._waiting[self._count] = answer
            line = json.dumps([self._count, request, fields])
            # Where it has died, `_listen` answers, now or when it gets the lock.
            with suppress(OSError, ValueError):
                print(line, file=self._process.stdin, flush=True)
            if self._has_ended:
                self._give_up()
        return answer

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            kind, value, *rest = json.loads(line)
            if kind == "warning":
                _log.warning("%s", value)
                continue
            with self._lock:
                answer = self._waiting.pop(value)
            if kind == "error":
                answer.set_exception(UserError(rest[0]))
            else:
                answer.set_result(rest[0])
        status = self._process.wait()
        self._errors.seek(0)
        self._last = self._errors.read().strip().rpartition("\n")[2] or f"exit status {status}"
        with self._lock:
            self._has_ended = True
            self._give_up()
            for file in (self._process.stdin, self._process.stdout, self._errors):
                with suppress(OSError):
                    file.close()  # type: ignore[union-attr]

    def _give_up(self) -> None:
        for answer in self._waiting.values():
            text = f"The process that talks to MLflow has died: {self._last}."
            answer.set_exception(ChildProcessError(without_passwords(text)))
        self._waiting.clear()


def serve() -> None:
    """Answer requests from standard input until its end; what runs in the other process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends after the search, whatever ends that
    os.nice(NICENESS)
    answers, sys.stdout = sys.stdout, sys.stderr
    startup.prepare()
    prepare_environment()
    # The seconds that it takes pass while the search starts.
    import mlflow.store.db.utils  # noqa: F401

    startup.settle()

    desk = _Desk(answers)
    for line in sys.stdin:
        desk.take(line)
    desk.close_all()


class _Desk:
    """Owns the consumers in this process, and answers requests."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._consumers: dict[str, Consumer] = {}

    def take(self, line: str) -> None:
        number, request, fields = json.loads(line)
        try:
            found = getattr(self, f"_{request}")(**fields)
        except UserError as error:
            self._send("error", number, str(error))
        else:
            self._send("done", number, found)

    def close_all(self) -> None:
        for folder in list(self._consumers):
            self._close(folder, CLOSING_SECONDS)

    def _check(self, settings: dict[str, Any]) -> None:
        make_ready(TrackingSettings(**settings))

    def _follow(self, folder: str, settings: dict[str, Any]) -> None:
        self._consumers[folder] = Consumer(Path(folder), TrackingSettings(**settings), self._warn)

    def _close(self, folder: str, timeout: float) -> int:
        return self._consumers.pop(folder).close(timeout)

    def _warn(self, text: str) -> None:
        self._send("warning", text)

    def _send(self, *answer: object) -> None:
        with self._lock, suppress(OSError):  # nobody may be left to read it
            print(json.dumps(answer), file=self._answers, flush=True)

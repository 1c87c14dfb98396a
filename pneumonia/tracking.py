"""The tracking: a thread that follows the journal of a search and mirrors it to MLflow.

The search never waits for MLflow and does not know it. What was sent is noted in `tracking.json`
beside the journal; what a killed process or a fallen server has left unsent is sent by the next
tracker of the same folder, and nothing is sent twice.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from pneumonia import cursor, journal
from pneumonia.cursor import Cursor
from pneumonia.errors import ConfigError, UserError
from pneumonia.journal import Event
from pneumonia.mirror import Mirror
from pneumonia.mlflow_model import CLASSIFIER, DATA
from pneumonia.mlflow_setup import (
    Settings,
    prepare_environment,
    probe,
    redact,
    sqlite_path,
    unreachable,
)
from pneumonia.mlflow_store import Store, is_final

__all__ = [
    "Settings",
    "Tracker",
    "check",
    "disk_estimate",
    "fetch_classifier",
    "redact",
    "search_run_id",
    "serve_ui",
]

BATCH = 500
PAUSE = 1.0
LONGEST_WAIT = 30.0
ATTEMPTS = 3
SIDE_FILES = 20_000
REASON_LENGTH = 160

_log = logging.getLogger(__name__)


class Tracker:
    """Owns the thread that sends the journal of one search to MLflow.

    It must not write to the journal, nor keep the search waiting before `close`.

    Args:
        folder: The folder of the search, with its journal.
        settings: Where and what to track.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings
        self._path = folder / cursor.NAME
        self._identity = f"{redact(settings.store_uri)}#{settings.experiment}"
        self._cursor = Cursor.load(self._path, self._identity)
        # Whatever is in the journal already, an earlier tracker may have sent without noting it.
        self._doubtful_until = sum(1 for _ in journal.read(folder))
        self._batch = BATCH
        self._attempts = 0
        self._warned: set[str] = set()
        self._mirror: Mirror | None = None
        self._deadline = 0.0
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def __enter__(self) -> Tracker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start to follow the journal. Returns at once."""
        self._thread.start()

    def notify(self) -> None:
        """Say that there are new events; they are sent within about a second."""
        self._news.set()

    def close(self, timeout: float = 30.0) -> int:
        """Wait until all is sent, but no longer than some seconds.

        A search that the journal does not end is marked as killed.

        Returns:
            How many events are left unsent. A warning says what will send them.
        """
        if self._thread.is_alive():
            self._deadline = time.monotonic() + timeout
            self._closing.set()
            self._news.set()
            self._thread.join(timeout)
        left = sum(1 for _ in journal.read(self._folder, start=self._cursor.next))
        if left:
            self._warn(
                "left",
                f"MLflow at {redact(self._settings.store_uri)} has not taken {left} events of "
                f"this search. They are kept: `pneumonia resume={self._name()}` sends them.",
            )
        return left

    def _run(self) -> None:
        wait = PAUSE
        while True:
            is_closing = self._closing.is_set()
            try:
                while self._send_batch():
                    wait = PAUSE
                if is_closing:
                    self._connect().close(time.time_ns() // 1_000_000)
                    self._cursor.save(self._path)
                    return
                self._await_news()
            except UserError as error:
                self._warn("stopped", f"The tracking has stopped. {error}")
                return
            except Exception as error:  # the thread outlives whatever a store does
                if self._mirror is not None and is_final(error):
                    self._single_out(error)
                elif self._has_given_up(wait, error):
                    return
                wait = min(2 * wait, LONGEST_WAIT)

    def _connect(self) -> Mirror:
        if self._mirror is None:
            store = Store(self._settings)
            run_id = self._cursor.run_id
            if run_id is not None and not store.has_run(run_id):
                self._cursor = Cursor(self._identity)
            self._mirror = Mirror(store, self._folder, self._settings, self._cursor)
        return self._mirror

    def _send_batch(self) -> bool:
        """Send the events that wait, at most a batch; return whether there were any."""
        mirror = self._connect()
        events, offset = _read(self._folder, self._cursor.offset, self._batch)
        if not events:
            return False
        first, last = int(events[0]["n"]), int(events[-1]["n"])
        look_up = first < self._doubtful_until
        self._doubtful_until = max(self._doubtful_until, last + 1)
        mirror.apply(events, look_up=look_up)
        self._advance(last + 1, offset)
        return True

    def _advance(self, number: int, offset: int) -> None:
        self._cursor.next, self._cursor.offset = number, offset
        self._cursor.save(self._path)
        self._attempts = 0
        if number >= self._doubtful_until:
            self._batch = BATCH

    def _await_news(self) -> None:
        """Wait for events, then a moment more: together they cost less than one by one."""
        self._news.wait(PAUSE)
        self._news.clear()
        self._closing.wait(PAUSE)

    def _has_given_up(self, wait: float, error: Exception) -> bool:
        """Wait before the next attempt; return whether there is no time left for one."""
        reason = str(error).partition("\n")[0][:REASON_LENGTH]
        text = "MLflow cannot be reached or written to; the search goes on without it."
        self._warn("away", f"{text} {reason}")
        if not self._closing.is_set():
            self._closing.wait(wait)
            return False
        left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(wait, left)))
        return left <= 0

    def _single_out(self, error: Exception) -> None:
        """Find the event that the store refuses, and leave it out after some attempts."""
        if self._batch > 1:
            self._batch = 1
            return
        self._attempts += 1
        if self._attempts < ATTEMPTS:
            return
        events, offset = _read(self._folder, self._cursor.offset, 1)
        event = events[0]
        reason = str(error).partition("\n")[0][:REASON_LENGTH]
        text = f"MLflow has refused a part of this search ({event['kind']}). {reason}"
        self._warn(f"refused {event['kind']}", text)
        self._advance(int(event["n"]) + 1, offset)

    def _name(self) -> str:
        events, _ = _read(self._folder, 0, 1)
        return str(events[0].get("search_id", self._folder)) if events else str(self._folder)

    def _warn(self, cause: str, text: str) -> None:
        """Warn once of each cause."""
        if cause not in self._warned:
            self._warned.add(cause)
            _log.warning("%s", text)


def check(settings: Settings) -> None:
    """Make sure, before a search, that its results can be tracked.

    Builds the store and the experiment if they are missing, and marks as killed the runs that a
    process of this host left running when it died.

    Raises:
        ConfigError: The store cannot be reached or used; within about ten seconds.
    """
    uri = settings.store_uri
    probe(uri)
    prepare_environment()
    from mlflow.exceptions import MlflowException

    try:
        Store(settings).end_orphans()
    except (MlflowException, OSError) as error:
        raise unreachable(uri, error) from error


def search_run_id(folder: Path) -> str | None:
    """Return the id of a search's run, or None if the tracking has not sent it yet."""
    path = folder / cursor.NAME
    return Cursor.read(path).run_id if path.exists() else None


def disk_estimate(trials: int, bytes_per_classifier: int, *, log_models: str) -> int:
    """Return how many bytes a search's models take at most, beside the journal and in the store.

    A local store shares the disk blocks of the files beside the journal: each counts once.
    """
    kept = {"all": trials + 1, "best": 3, "none": 2}[log_models]
    return min(kept, trials + 1) * (bytes_per_classifier + SIDE_FILES)


def fetch_classifier(model_uri: str, settings: Settings) -> Path:
    """Return the local path of the `.keras` file of a model in MLflow.

    Args:
        model_uri: Such as `models:/pneumonia@champion`, `models:/pneumonia/3` or `models:/m-...`.
        settings: Where the store is. Files of a local store are not copied.

    Raises:
        ConfigError: There is no such model.
    """
    uri = settings.store_uri
    probe(uri)
    prepare_environment()
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri))
    except (MlflowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError("model", "the URI of a model in MLflow", model_uri, reason) from error
    return folder / DATA / CLASSIFIER


def serve_ui(arguments: Sequence[str] | None = None) -> int:
    """Show the results in MLflow's UI, on this machine only, until interrupted.

    Returns:
        An exit status: 2 where there is nothing to show; otherwise the server takes this
        process over.
    """
    parser = argparse.ArgumentParser(prog="make ui", description="The MLflow UI on the results.")
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args(arguments).port
    settings = Settings()
    path = sqlite_path(settings.store_uri)
    if path is None:
        print(f"The results are at {redact(settings.store_uri)}.")
        return 0
    if not path.exists():
        print(f"Nothing to show yet: there is no {path}. Run `make demo` first.", file=sys.stderr)
        return 2
    if _is_taken(port):
        print(f"Port {port} is taken. Choose another: make ui PORT=5001", file=sys.stderr)
        return 2
    experiment = Store(settings).experiment_id
    print(f"MLflow UI: http://127.0.0.1:{port}/#/experiments/{experiment} (Ctrl-C ends it)")
    sys.stdout.flush()
    return _become_server(settings, port)


def _become_server(settings: Settings, port: int) -> NoReturn:
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # more processes, for other uses
    place = ["--backend-store-uri", settings.store_uri, "--no-serve-artifacts"]
    if settings.artifact_location:
        place += ["--default-artifact-root", settings.artifact_location]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options = [*place, *address, "--uvicorn-opts", "--log-level warning"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *options])


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _read(folder: Path, offset: int, limit: int) -> tuple[list[Event], int]:
    """Read whole events of the journal from a byte on; return them and the byte after them.

    Reading on from where one left off costs the same however long the journal is.
    """
    events: list[Event] = []
    path = folder / journal.NAME
    if not path.exists():
        return events, offset
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n") or len(events) == limit:
                break
            events.append(json.loads(line))
            offset += len(line)
    return events, offset


if __name__ == "__main__":
    sys.exit(serve_ui())

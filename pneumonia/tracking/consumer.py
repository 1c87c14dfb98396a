"""A thread that follows the journal of a search and mirrors it to MLflow.

It reads the journal's file and needs nothing of the search itself, so it runs in another process.
What was sent is noted in `tracking.json` beside the journal; what a killed process or a fallen
server has left unsent is sent by the next consumer of the same folder, and nothing is sent twice.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pneumonia import shell
from pneumonia.errors import UserError, without_passwords
from pneumonia.storage import journal, offset
from pneumonia.storage.journal import Event, Place
from pneumonia.storage.offset import Cursor
from pneumonia.tracking.faults import RefusedError, is_final
from pneumonia.tracking.mlflow_store import Store
from pneumonia.tracking.registry import SEARCH_ID
from pneumonia.tracking.settings import TrackingSettings, redact
from pneumonia.tracking.sink import Sink
from pneumonia.tracking.sqlite_store import sqlite_path

BATCH = 500
PAUSE = 4.0
LONGEST_WAIT = 30.0
ATTEMPTS = 3
LOCK_PAUSE = 0.1
REASON_LENGTH = 160

_log = logging.getLogger(__name__)


class Consumer:
    """Owns the thread that sends the journal of one search to MLflow, from now on.

    It must not write to the journal. Of several consumers of one folder, in any processes, one
    works at a time and the next goes on where it ended. `warn` takes what a user should know, each
    cause once.
    """

    def __init__(
        self, folder: Path, settings: TrackingSettings, warn: Callable[[str], None] = _log.warning
    ) -> None:
        self._folder, self._settings = folder, settings
        self._tell = warn
        self._path = folder / offset.NAME
        self._identity = f"{_place(settings.store_uri, folder)}#{settings.experiment}"
        self._cursor = Cursor.load(self._path, self._identity)
        self._doubtful_until = 0
        self._sending = Place()  # after the batch that is being sent
        self._batch = BATCH
        self._attempts = 0
        self._warned: set[str] = set()
        self._sink: Sink | None = None
        self._deadline = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 30.0) -> int:
        """Wait until all is sent, but no longer than some seconds.

        A search that the journal does not end is marked as killed. A warning says what will send
        the events that are left, wholly or in part; returns how many.
        """
        if self._thread.is_alive():
            self._deadline = time.monotonic() + timeout
            self._closing.set()
            self._thread.join(timeout)
        try:
            left = sum(1 for _ in journal.read(self._folder, start=self._cursor.next))
        except UserError as error:
            self._stop(error)
            return 0
        if left:
            self._warn(
                "left",
                f"MLflow at {redact(self._settings.store_uri)} has not taken {left} events of "
                "this search. They are kept: "
                f"`{shell.resume(self._folder, self._name())}` sends them.",
            )
        return left + len(self._cursor.refused)

    def _run(self) -> None:
        while not (self._folder / journal.NAME).exists():
            if self._closing.wait(LOCK_PAUSE):
                return
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            if self._has_lock(folder):
                self._resume()
                self._follow()
        except UserError as error:
            self._stop(error)
        finally:
            os.close(folder)

    def _resume(self) -> None:
        """Find where the consumer before this one ended."""
        self._cursor = Cursor.load(self._path, self._identity)
        places = [Place(), *(place for _, place in journal.walk(self._folder))]
        has_lost_its_end = self._cursor.place not in places
        if has_lost_its_end:
            text = "The journal of this search has lost events that it had. They come again."
            self._warn("lost", text)
        if has_lost_its_end or self._cursor.refused:
            self._begin_anew()
        # An earlier consumer may have sent what is there already without noting it.
        self._doubtful_until = len(places) - 1

    def _stop(self, error: UserError) -> None:
        self._warn("stopped", f"The tracking has stopped. {error}")

    def _has_lock(self, folder: int) -> bool:
        """Wait until no other process sends this journal: one that was killed is still closing."""
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._closing.is_set() and time.monotonic() > self._deadline:
                    return False
                time.sleep(LOCK_PAUSE)
            else:
                return True

    def _follow(self) -> None:
        wait = PAUSE
        while True:
            is_closing = self._closing.is_set()
            try:
                while self._send_batch():
                    wait = PAUSE
                if is_closing:
                    self._connect().close(self._now())
                    self._cursor.save(self._path)
                    return
                # A moment's events together cost less than one by one.
                self._closing.wait(PAUSE)
            except UserError:
                raise
            except Exception as error:  # the thread outlives whatever a store does
                if self._sink is not None and is_final(error):
                    if self._single_out(error):
                        return
                else:
                    self._start_over()
                    if self._has_given_up(wait, error):
                        return
                wait = min(2 * wait, LONGEST_WAIT)

    def _start_over(self) -> None:
        """Go on from what is noted on the disk, as another process would, with a new connection."""
        if self._sink is not None:
            self._sink = None
            self._cursor = Cursor.load(self._path, self._identity)

    def _now(self) -> int:
        """Return the time in milliseconds since 1970, not before what is told: clocks jump."""
        told = max((int(event["time"]) for event in journal.read(self._folder)), default=0)
        return max(told, time.time_ns() // 1_000_000)

    def _connect(self) -> Sink:
        if self._sink is None:
            store = Store(self._settings)
            self._make_whole(store)
            self._sink = Sink(store, self._folder, self._settings, self._cursor)
        return self._sink

    def _make_whole(self, store: Store) -> None:
        """Restore the runs of this search that were deleted; send anew what is gone for good."""
        cursor = self._cursor
        if cursor.run_id is None:
            return
        known, restored = store.restore_runs({SEARCH_ID: cursor.search_id})
        if restored:
            text = f"{restored} runs of this search were deleted in MLflow. They are restored."
            self._warn("restored", text)
        if not known.issuperset([cursor.run_id, *(row.run_id for row in cursor.trials.values())]):
            self._warn("gone", "Runs of this search are gone from MLflow. They are sent anew.")
            self._doubtful_until = max(self._doubtful_until, cursor.next)
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Send the journal from its beginning; what the store has already is found there."""
        self._cursor = Cursor(self._identity)
        self._cursor.save(self._path)

    def _send_batch(self) -> bool:
        """Send the events that wait, at most a batch; return whether there were any."""
        sink = self._connect()
        events, place = _read(self._folder, self._cursor.place, self._batch)
        if not events:
            return False
        look_up = self._cursor.next < self._doubtful_until
        self._doubtful_until = max(self._doubtful_until, place.number)
        self._sending = place
        sink.apply(events, look_up=look_up)
        self._advance()
        return True

    def _advance(self) -> None:
        sent, place = self._cursor, self._sending
        sent.next, sent.offset, sent.crc = place.number, place.offset, place.crc
        sent.save(self._path)
        self._attempts = 0
        if place.number >= self._doubtful_until:
            self._batch = BATCH

    def _has_given_up(self, wait: float, error: Exception) -> bool:
        """Wait before the next attempt; return whether there is no time left for one."""
        text = "MLflow cannot be reached or written to; the search goes on without it."
        self._warn("away", f"{text} {_short(error)}")
        if not self._closing.is_set():
            self._closing.wait(wait)
            return False
        left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(wait, left)))
        return left <= 0

    def _single_out(self, error: Exception) -> bool:
        """Find what the store refuses, note it, and go on without it after some attempts.

        Returns whether there is nothing to go on with.
        """
        has_rest = isinstance(error, RefusedError)
        self._attempts += has_rest or self._batch == 1
        if self._attempts < ATTEMPTS:
            self._start_over()  # what was deleted meanwhile is restored
            self._batch = self._batch if has_rest else 1
            return False
        again = f"`{shell.resume(self._folder, self._name())}` tries again."
        if isinstance(error, RefusedError):
            for number, what, reason in error.parts:
                self._cursor.refused = sorted({*self._cursor.refused, number})
                self._warn(what, f"MLflow has refused {what}. {_short(reason)} {again}")
            self._advance()
            return False
        self._start_over()
        events, place = _read(self._folder, self._cursor.place, 1)
        if not events:
            self._warn("end", f"MLflow has refused to end the runs. {_short(error)} {again}")
            return True
        kind, number = events[0]["kind"], int(events[0]["n"])
        text = f"MLflow has refused a part of this search ({kind}). {_short(error)}"
        if not isinstance(error, LookupError):  # what makes no sense never will
            self._cursor.refused.append(number)
            text = f"{text} {again}"
        self._warn(f"refused {kind}", text)
        self._sending = place
        self._advance()
        return False

    def _name(self) -> str:
        return str(next(journal.read(self._folder), {}).get("search_id", self._folder))

    def _warn(self, cause: str, text: str) -> None:
        """Warn once of each cause."""
        if cause not in self._warned:
            self._warned.add(cause)
            self._tell(without_passwords(text))  # MLflow names the address it called


def _short(error: Exception) -> str:
    """Return the first line of what an error says, as a sentence."""
    text = str(error).strip().partition("\n")[0][:REASON_LENGTH].rstrip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _read(folder: Path, place: Place, limit: int) -> tuple[list[Event], Place]:
    """Read events of the journal from a place on; return them and the place after them."""
    found = list(itertools.islice(journal.walk(folder, place), limit))
    return [event for event, _ in found], found[-1][1] if found else place


def _place(uri: str, folder: Path) -> str:
    """Return where a store is; of a file, as seen from a search, with which it may be moved."""
    path = sqlite_path(uri)
    return redact(uri) if path is None else os.path.relpath(path, folder.resolve())

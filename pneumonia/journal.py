"""What happened in a search, on disk: an append-only file of JSON lines.

The journal is the single record of a search. A resumed search replays it, the tracking follows
it, the report reads it. Every event has a `kind`, a number `n` that counts up from 0, the `time` at
which it was written, in milliseconds since 1970, and `seconds_elapsed`: for how long the search had
run by then, in all its processes. Neither goes back, whatever becomes of the system's clock.

Kinds of events and their fields, beside those four:

`search_started`
    `search_id`, `name`, `direction` of the objective (`max` or `min`), `tags` and `params` (flat
    mappings), `datasets` (a list of `name`, `split`, `digest`, `size`, `source`, `positives`,
    `shapes` of some images), `duplicates` (images of the second split that are also in the first,
    by `first/second`), `notes` (lines on what is odd about the images), `artifacts` (names of
    files beside the journal), `forked_from` (`search_id` and `folder` of the search whose finished
    trials this one takes over, or null).
`search_extended`
    `params` (those that give the search more budget).
`trial_started`
    `trial_id`, `number` (from 1), `name`, `values` (every hyperparameter, pinned ones too),
    `tags` (for Hyperband `bracket`, `round`, `promoted_from`; for a trial that another search has
    trained `taken_over_from`).
`epoch_ended`
    `trial_id`, `execution` (from 0), `epoch` (absolute, from 1), `metrics`.
`trial_ended`
    `trial_id`, `status` (`COMPLETED` or `FAILED`), `score`, `metrics` (at the best epoch), `reason`
    (of a failure, a line), `traceback`, `classifier` (a file beside the journal, or null),
    `seconds`.
`search_ended`
    `status` (`completed`, `interrupted`, `failed`), `metrics`, `artifacts`, `classifier` (a file
    beside the journal, or null), `winner` (trial_id or null), `reason`, `description` (Markdown),
    `extension` (how often it has been completed before: more than 0 after more budget).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pneumonia import storage
from pneumonia.errors import UserError

Event = dict[str, Any]

NAME = "journal.jsonl"


class Journal:
    """Owns the journal file of one search; the only one that writes to it.

    A line that a crash left half-written at the end is dropped when the journal is opened.

    Args:
        folder: The folder of the search.

    Raises:
        UserError: Where another process has the journal open: its search still runs.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: BinaryIO | None = self._open() if self.path.exists() else None
        self._count, last = _mend(self.path)
        self._time: int = last.get("time", 0)
        self._elapsed: float = last.get("seconds_elapsed", 0.0)
        self._opened = time.monotonic()

    @property
    def count(self) -> int:
        """The number of events in the journal."""
        return self._count

    @property
    def elapsed(self) -> float:
        """For how many seconds the search has run, in all its processes."""
        return self._elapsed + time.monotonic() - self._opened

    def claim(self) -> BinaryIO:
        """Make the file if it is not there, keep other processes away from it, and return it."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        return self._file

    def append(self, kind: str, /, **fields: Any) -> Event:
        """Write one event, flushed to the disk before this returns.

        Raises:
            StorageError: Where it cannot be written. The journal then ends before it.
        """
        file = self.claim()
        self._time = max(self._time, time.time_ns() // 1_000_000)
        times = {"time": self._time, "seconds_elapsed": round(self.elapsed, 3)}
        event = {"n": self._count, "kind": kind, **times, **fields}
        self._write(file, json.dumps(event).encode() + b"\n")
        self._count += 1
        return event

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, file: BinaryIO, line: bytes) -> None:
        size = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError as error:
            # What has been written of the line would spoil the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise (storage.explain(error, self.path) or error) from error

    def _open(self) -> BinaryIO:
        file = self.path.open("ab", buffering=0)
        try:
            # Ends with the process, however that ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise UserError(
                f"The search in {self.path.parent} still runs, in another process."
            ) from error
        return file


def read(folder: Path, *, start: int = 0) -> Iterator[Event]:
    """Yield the events of a search's journal from number `start` on.

    Only whole lines count, so this may run while the search writes.

    Raises:
        UserError: Where a whole line is no event, as a disk may leave it that lost its power.
    """
    path = folder / NAME
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                event: Event = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}: damaged in line {number}.") from error
            if event["n"] >= start:
                yield event


def _mend(path: Path) -> tuple[int, Event]:
    """Cut off a half-written last line; return the number of events, and the last one."""
    if not path.exists():
        return 0, {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    lines = data[:whole].splitlines()
    return len(lines), json.loads(lines[-1]) if lines else {}

"""What happened in a search, on disk: an append-only file of JSON lines.

The journal is the single record of a search. A resumed search replays it, the tracking follows
it, the report reads it. Every event has a `kind`, a number `n` that counts up from 0, and the
`time` at which it was written, in milliseconds since 1970.

Kinds of events and their fields, beside those three:

`search_started`
    `search_id`, `name`, `direction` of the objective (`max` or `min`), `tags` and `params` (flat
    mappings), `datasets` (a list of `name`, `split`, `digest`, `size`, `source`, `positives`),
    `artifacts` (names of files beside the journal).
`trial_started`
    `trial_id`, `number` (from 1), `name`, `values` (every hyperparameter, pinned ones too),
    `tags` (for Hyperband `bracket`, `round`, `promoted_from`).
`epoch_ended`
    `trial_id`, `execution` (from 0), `epoch` (absolute, from 1), `metrics`.
`trial_ended`
    `trial_id`, `status` (`COMPLETED` or `FAILED`), `score`, `metrics` (at the best epoch), `reason`
    (of a failure, a line), `traceback`, `classifier` (a file beside the journal, or null),
    `seconds`.
`search_ended`
    `status` (`completed`, `interrupted`, `failed`), `metrics`, `artifacts`, `classifier` (a file
    beside the journal, or null), `winner` (trial_id or null), `reason`, `description` (Markdown).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

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
        self._count = _mend(self.path)

    @property
    def count(self) -> int:
        """The number of events in the journal."""
        return self._count

    def append(self, kind: str, /, **fields: Any) -> Event:
        """Write one event, flushed to the disk before this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        event = {"n": self._count, "kind": kind, "time": time.time_ns() // 1_000_000, **fields}
        self._file.write(json.dumps(event).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._count += 1
        return event

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        file = self.path.open("ab")
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
    """
    path = folder / NAME
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            event: Event = json.loads(line)
            if event["n"] >= start:
                yield event


def _mend(path: Path) -> int:
    """Cut off a half-written last line; return the number of events."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return data[:whole].count(b"\n")

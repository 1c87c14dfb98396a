"""What happened in a search, on disk: an append-only file of JSON lines.

The journal is the single record of a search. A resumed search replays it, the tracking follows
it, the report reads it. Every event has a `kind`, a number `n` that counts up from 0, the `time` at
which it was written, in milliseconds since 1970, and `seconds_elapsed`: for how long the search had
run by then, in all its processes. Neither goes back, whatever becomes of the system's clock. Last
in a line is `crc`, the CRC-32 of what is before it, begun with that of the line before: no line is
changed, moved, taken out or put in without notice. What a crash leaves at the end, a line without
its end or with zero bytes in it, is no event, and is cut off when the search goes on, which then
comes to the same again.

Kinds of events and their fields, beside those five:

`search_started`
    `search_id`, `name`, `direction` of the objective (`max` or `min`), `tags` and `params` (flat
    mappings), `datasets` (a list of `name`, `split`, `digest`, `size`, `source`, `positives`,
    `shapes` of some images), `further_images` (where `dataset.path`, say, is a range, the `split`,
    `place`, `size` and `digest` at each value but the first), `duplicates` (images of the second
    split that are also in the first, by `first/second`), `notes` (lines on what is odd about the
    images), `artifacts` (names of files beside the journal), `forked_from` (`search_id` and
    `folder` of the search whose finished trials this one takes over, or null).
`search_extended`
    `params` (those that give the search more budget).
`trial_started`
    `trial_id`, `number` (from 1), `name`, `values` (every hyperparameter, pinned ones too),
    `tags` (where trials are promoted `bracket`, `round`, `promoted_from`; for a trial that
    another search has trained `taken_over_from`).
`epoch_ended`
    `trial_id`, `fold` (0 without cross-validation), `execution` (from 0), `epoch` (absolute, from
    1), `metrics`.
`training_repeated`
    `trial_id`, `reason`: a state that this trial needed was missing or damaged, so that it is
    trained again from its beginning, to the same; the winner, too, whose weights are wanted.
`worker_lost`
    `trial_id`, `reason`: the process or the machine that ran this trial is gone; the trial goes on
    elsewhere from where it was kept last, or fails, as `executor.retries` says.
`trial_ended`
    `trial_id`, `status` (`COMPLETED` or `FAILED`), `score`, `metrics` (at the best epoch), `reason`
    (of a failure, a line), `traceback`, `classifier` (a file beside the journal, or null),
    `seconds`.
`search_ended`
    `status` (`completed`, `interrupted`, `failed`), `metrics`, `artifacts`, `classifier` (a file
    beside the journal, or null), `winner` (trial_id or null), `reason`, `description` (Markdown),
    `extension` (how often it has been completed before: more than 0 after more budget),
    `test_readings` (`times` that the test split was read by then, by how many `searches`),
    `members` (what the classifier is the mean of, as `members.Draw`; none where it is one trial's).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pneumonia import files
from pneumonia.errors import UserError

Event = dict[str, Any]

NAME = "journal.jsonl"

_SEALED = re.compile(rb'(\{.*), "crc": (\d+)\}\n', re.DOTALL)
# What is read of a line that has no checksum, as earlier versions wrote them.
_FIELDS: dict[str, dict[str, type]] = {
    "search_started": {"search_id": str, "tags": dict, "params": dict, "datasets": list},
    "search_extended": {"params": dict},
    "trial_started": {"trial_id": str, "values": dict, "tags": dict},
    "epoch_ended": {"trial_id": str, "execution": int, "epoch": int, "metrics": dict},
    "worker_lost": {"trial_id": str, "reason": str},
    "trial_ended": {"trial_id": str, "status": str, "metrics": dict},
    "search_ended": {"status": str, "metrics": dict},
}


@dataclass(frozen=True, slots=True)
class Place:
    """Between two lines of a journal.

    Attributes:
        number: The `n` of the next event.
        offset: Its first byte.
        crc: The checksum of the event before; 0 where it has none.
    """

    number: int = 0
    offset: int = 0
    crc: int = 0


_START = Place()


class Journal:
    """Owns the journal file of one search; the only one that writes to it.

    A line that a crash left half-written at the end is dropped when the journal is opened.

    Args:
        folder: The folder of the search.

    Raises:
        UserError: Where another process has the journal open: its search still runs. Where it is
            damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: BinaryIO | None = self._open() if self.path.exists() else None
        try:
            self._place, last = _mend(folder)
        except UserError:
            self.close()
            raise
        self._time: int = last.get("time", 0)
        self._elapsed: float = last.get("seconds_elapsed", 0.0)
        self._opened = time.monotonic()

    @property
    def count(self) -> int:
        """The number of events in the journal."""
        return self._place.number

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
        if os.fstat(file.fileno()).st_nlink == 0:
            raise files.GoneError(f"{self.path} was removed while the search ran.")
        self._time = max(self._time, time.time_ns() // 1_000_000)
        times = {"time": self._time, "seconds_elapsed": round(self.elapsed, 3)}
        event = {"n": self.count, "kind": kind, **times, **fields}
        line, place = seal(event, self._place)
        self._write(file, line)
        self._place = place
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
            raise (files.explain(error, self.path) or error) from error

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
    """Yield the events of a search's journal from number `start` on; see `walk`."""
    return (event for event, _ in walk(folder) if event["n"] >= start)


def walk(folder: Path, place: Place = _START) -> Iterator[tuple[Event, Place]]:
    """Yield the events of a search's journal from a place on, each with the place after it.

    Only whole lines count, so this may run while the search writes. Reading on from a place costs
    the same however long the journal is.

    Raises:
        UserError: Where a whole line is not the event that was written there.
    """
    path = folder / NAME
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return
    with file:
        file.seek(place.offset)
        for line in file:
            # Power that fails may leave zeros instead of the last line.
            if not line.endswith(b"\n") or (b"\0" in line and not file.peek(1)):
                return
            event, crc = _parse(line, place, path)
            place = Place(place.number + 1, place.offset + len(line), crc)
            yield event, place


def seal(event: Event, place: Place) -> tuple[bytes, Place]:
    """Return the line of an event at a place, with its checksum, and the place after it."""
    body = json.dumps(event).encode()[:-1]
    crc = zlib.crc32(body, place.crc)
    line = body + f', "crc": {crc}}}\n'.encode()
    return line, Place(place.number + 1, place.offset + len(line), crc)


def _parse(line: bytes, place: Place, path: Path) -> tuple[Event, int]:
    """Return the event of a line and its checksum, 0 where it has none."""
    sealed = _SEALED.fullmatch(line)
    crc = zlib.crc32(sealed[1], place.crc) if sealed else 0
    try:
        event = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        event = None
    fault = ""
    if not _is_event(event):
        fault = "it is no event"
    elif event["n"] != place.number:
        fault = f"expected event {place.number}. Received: event {event['n']}"
    elif sealed and int(sealed[2]) != crc:
        fault = "it is not as it was written"
    elif not sealed and (place.crc or "crc" in event or line.endswith(b"\r\n")):
        fault = "it is not as it was written: it does not end in its checksum"
    elif not sealed and (missing := _missing(event)):
        fault = f"it has no {missing}, or of another type"
    if fault:
        raise UserError(
            f"{path}: damaged in line {place.number + 1}: {fault}. What is damaged cannot be made "
            "again: put a copy in its place, or begin the search anew."
        )
    event.pop("crc", None)
    return event, crc


def _is_event(event: object) -> bool:
    return (
        isinstance(event, dict)
        and type(event.get("n")) is int
        and isinstance(event.get("kind"), str)
        and type(event.get("time")) is int
    )


def _missing(event: Event) -> str:
    """Return a field of its kind that an event lacks, or has with another type."""
    fields = _FIELDS.get(event["kind"], {})
    wrong = (name for name, kind in fields.items() if not isinstance(event.get(name), kind))
    return next(wrong, "")


def _mend(folder: Path) -> tuple[Place, Event]:
    """Cut off what a crash has left of a last line; return the end, and the last event."""
    last: Event = {}
    place = _START
    for last, place in walk(folder):  # noqa: B007 - the last ones are wanted
        pass
    path = folder / NAME
    if path.exists() and path.stat().st_size > place.offset:
        with path.open("r+b") as file:
            file.truncate(place.offset)
    return place, last

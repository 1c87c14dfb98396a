"""The folder of a multirun, a sweep: what it was asked for, what came of its jobs, who runs it."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pneumonia import files
from pneumonia.errors import UserError

NAME, SWEEP, STOP = "jobs.jsonl", "sweep.json", "stop"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What came of a job of a multirun; its status is the exit status that it would have alone.

    Hydra's numbers begin with 0; the folder is the name of one within that of the multirun.
    """

    number: int
    overrides: str
    folder: str
    status: int
    reason: str

    @property
    def name(self) -> str:
        """What to call it."""
        return f"job {self.number} ({self.overrides})"


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """What a sweep was asked for.

    Attributes:
        arguments: Those of the command line, without passwords.
        jobs: Of each job that was known before, the params that its result depends on, and the name
            of its folder. Where a sweeper makes the jobs as it goes, one stands for them all.
        time: When it began, in milliseconds since 1970.
        is_over: Whether all its jobs have come to their end, and none has failed.
    """

    arguments: Sequence[str]
    jobs: Sequence[Mapping[str, Any]]
    time: int
    is_over: bool = False


def note(job: JobRecord, folder: Path) -> None:
    """Add a job to those noted in the folder of its multirun; several processes may."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+b", buffering=0) as file:
        files.add_line(file, json.dumps(asdict(job)))


def noted(folder: Path) -> list[JobRecord]:
    """Return all that was noted in the folder of a multirun; a job may have run several times."""
    found, path = [], folder / NAME
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError):  # one that is damaged
            found.append(JobRecord(**json.loads(line)))
    return found


def read(folder: Path) -> list[JobRecord]:
    """Return what came of each job last, by their numbers."""
    last = {job.number: job for job in noted(folder)}
    return [last[number] for number in sorted(last)]


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep other processes from launching the same sweep, and take back that it was to stop.

    Raises:
        UserError: Where another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed
        except BlockingIOError as error:
            raise UserError(f"The sweep in {folder} still runs, in another process.") from error
        (folder / STOP).unlink(missing_ok=True)
        yield


def stop(folder: Path) -> None:
    """Ask the jobs of a sweep to stop, in whatever processes and on whatever machines they run."""
    (folder / STOP).touch()


def is_stopping(folder: Path) -> bool:
    """Tell whether the jobs of a sweep are asked to stop."""
    return (folder / STOP).exists()


def write_sweep(record: SweepRecord, folder: Path) -> None:
    """Write what a sweep was asked for, whole or not at all."""
    files.write_text(folder / SWEEP, json.dumps(asdict(record)))


def forget(before: SweepRecord | None, folder: Path) -> None:
    """Leave of a sweep what was there before it was asked for."""
    if before is not None:
        write_sweep(before, folder)
        return
    for name in (SWEEP, NAME):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what else is in it is the user's
        folder.rmdir()
        folder.parent.rmdir()


def read_sweep(folder: Path) -> SweepRecord | None:
    """Return what the sweep of a folder was asked for, None where there is none.

    Raises:
        UserError: Where it is damaged.
    """
    path = folder / SWEEP
    if not path.is_file():
        return None
    try:
        record = SweepRecord(**json.loads(path.read_bytes()))
        int(record.time), [dict(job) for job in record.jobs], [*map(str.strip, record.arguments)]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: damaged. Its searches can be gone on with each: resume=<their folder>."
        ) from error
    return record


def last_sweep(outputs: Path) -> Path | None:
    """Return the folder of the last sweep that is not over, or the last of all where all are."""
    found = []
    for path in files.below(outputs, SWEEP):
        if (record := read_sweep(path.parent)) is not None:
            found.append((not record.is_over, record.time, path.parent))
    return max(found)[2] if found else None

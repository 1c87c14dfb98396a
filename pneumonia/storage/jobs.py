"""What came of the jobs of a multirun, in a file in its folder."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "jobs.jsonl"


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


def note(job: JobRecord, folder: Path) -> None:
    """Add a job to those noted in the folder of its multirun; several processes may."""
    folder.mkdir(parents=True, exist_ok=True)  # a sweeper need not; a failed job leaves none
    with (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(job)) + "\n")


def read(folder: Path) -> list[JobRecord]:
    """Return the jobs noted in the folder of a multirun, by their numbers."""
    found, path = [], folder / NAME
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError):  # one that is damaged
            found.append(JobRecord(**json.loads(line)))
    return sorted(found, key=lambda job: job.number)

"""How often the test split of a dataset was read, by all searches in the `outputs` of a project.

Who has seen the scores of several searches on one test split, and goes on with the best, has chosen
by it, and its scores then say too much (Dwork et al., The reusable holdout, Science 349:636, 2015).
Counted is each evaluation of a winner, by a line in a file that all searches share.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumonia import files
from pneumonia.storage.search_folder import OUTPUTS

NAME = "test_readings.jsonl"


@dataclass(frozen=True, slots=True)
class Readings:
    """How often a test split was read, this time included; as a text what that means, if anything.

    Attributes:
        searches: By how many searches; 0 where this could not be counted.
        times: How often; more often where a search was gone on with after it had read it.
    """

    searches: int = 0
    times: int = 0

    def __str__(self) -> str:
        if not self.times:
            return f"That the test split was read could not be counted in {OUTPUTS / NAME}."
        if self.searches == 1:
            return ""
        by = f"{self.searches:,} searches"
        by += f" ({self.times:,} times)" if self.times > self.searches else ""
        return f"The test split has been read by {by}: its scores flatter what is chosen by them."


def note(dataset: str, digest: str, search_id: str, *, outputs: Path = OUTPUTS) -> Readings:
    """Note that a search is about to read a test split; return how often it was read by then.

    Args:
        dataset: What the dataset is called, for people.
        digest: That of its test split, by which it is known.
        search_id: That of the search.
        outputs: Where searches are.
    """
    told = {"time": time.time_ns() // 1_000_000, "dataset": dataset, "digest": digest}
    line = json.dumps({**told, "search_id": search_id})
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        with (outputs / NAME).open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            file.seek(0)
            before = file.read()
            files.add_line(file, line)
            os.fsync(file.fileno())
    except OSError:  # no search fails for it
        return Readings()
    found = [
        row["search_id"] for row in _rows(before + b"\n" + line.encode()) if row["digest"] == digest
    ]
    return Readings(len(set(found)), len(found))


def _rows(text: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines that are whole."""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"digest", "search_id"} <= set(row):
            yield row

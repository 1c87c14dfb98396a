"""The names that this module had, until all have those of `search_folder` and `search_record`."""

from __future__ import annotations

from pathlib import Path

from pneumonia.storage.journal import Event
from pneumonia.storage.search_folder import BUDGET, SearchFolder, find
from pneumonia.storage.search_record import SearchRecord as History
from pneumonia.storage.search_record import TrialRecord as Past
from pneumonia.storage.search_record import from_journal as read

__all__ = ["BUDGET", "CONFIG", "FORKED", "PREDICTIONS", "History", "Past", "find", "read"]

CONFIG, PREDICTIONS, FORKED = "config.yaml", "predictions.csv", "forked_from.json"


def objective(folder: Path) -> float:
    """See `SearchRecord.score`."""
    return read(folder).score


def choices(folder: Path) -> dict[str, str]:
    """See `SearchFolder.choices`."""
    return SearchFolder(folder).choices()


def is_over(folder: Path) -> bool:
    """See `SearchFolder.is_over`."""
    return SearchFolder(folder).is_over()


def first_event(folder: Path) -> Event | None:
    """See `SearchFolder.first_event`."""
    return SearchFolder(folder).first_event()

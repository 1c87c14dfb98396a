"""How far a journal was sent to MLflow, on disk: what lets a killed process go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pneumonia import files
from pneumonia.storage.journal import Place

NAME = "tracking.json"

_TYPES: dict[str, Any] = {
    **{"str": str, "int": int, "bool": bool, "list[int]": list},
    **{"str | None": str | None, "float | None": float | int | None},
}


@dataclass(slots=True)
class TrialRun:
    """What was sent of one trial.

    `ended` is when it ended, in milliseconds since 1970, and 0 while it has not; `is_ranked` says
    whether the best score after it was sent. `epochs` holds the last epoch sent of each fit;
    `classifier` is the file's name beside the journal, and `is_kept` says whether it still lies
    there. `score_step` is the step of the scores that it ends with: more than 0 where it has some
    already, as a winner that the budget had stopped.
    """

    run_id: str
    number: int = 0
    is_open: bool = True
    ended: int = 0
    is_ranked: bool = False
    score: float | None = None
    classifier: str | None = None
    is_kept: bool = False
    model_id: str | None = None
    epochs: dict[str, int] = field(default_factory=dict)
    score_step: int = 0


@dataclass(slots=True)
class Cursor:
    """How far a journal was sent, and what became of it in the store.

    `next` is the number of the first event not yet sent, at byte `offset` of the journal; `crc` is
    the checksum of the event before it. Of those in `refused`, before it, the store has refused a
    part: the next process tries again. `decision` tells in words
    whether the search made the champion, and `takes` whether it did.
    """

    store: str
    next: int = 0
    offset: int = 0
    crc: int = 0
    search_id: str = ""
    name: str = ""
    dataset: str = ""
    direction: str = "max"
    run_id: str | None = None
    is_open: bool = False
    best: str | None = None
    final_model: str | None = None
    decision: str = ""
    takes: bool = True
    trials: dict[str, TrialRun] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    @property
    def place(self) -> Place:
        """How far the journal was sent."""
        return Place(self.next, self.offset, self.crc)

    @classmethod
    def load(cls, path: Path, store: str) -> Cursor:
        """Read the cursor from a file; start anew if there is none, or for another store."""
        saved = cls.read(path)
        return saved if saved.store == store else cls(store)

    @classmethod
    def read(cls, path: Path) -> Cursor:
        """Read the cursor from a file; nothing was noted in one that is missing or damaged.

        What the store has already is then found there.
        """
        try:
            saved = json.loads(path.read_text())
            trials = {key: TrialRun(**row) for key, row in saved.pop("trials").items()}
            found = cls(**saved, trials=trials)
        except (FileNotFoundError, IsADirectoryError):
            return cls(store="")
        except (ValueError, TypeError, LookupError, AttributeError):  # it is damaged
            return cls(store="")
        records: list[Cursor | TrialRun] = [found, *trials.values()]
        return found if all(map(_is_sound, records)) else cls(store="")

    def save(self, path: Path) -> None:
        """Write the cursor to a file, whole or not at all."""
        files.write_text(path, json.dumps(asdict(self)))


def _is_sound(record: Cursor | TrialRun) -> bool:
    """Tell whether every field is of its type."""
    return all(
        isinstance(getattr(record, one.name), _TYPES.get(str(one.type), dict))
        for one in fields(record)
    )

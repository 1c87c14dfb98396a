"""A search's folder: what its files are called, and how it is found among others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from pneumonia import artifacts, files
from pneumonia.errors import UserError
from pneumonia.storage import journal, offset
from pneumonia.storage.journal import Event
from pneumonia.storage.offset import Cursor

OUTPUTS = Path("outputs")
CONFIG, PREDICTIONS, FORKED = "config.yaml", "predictions.csv", "forked_from.json"
PRESET = "best.yaml"


class SearchFolder:
    """The paths of all that a search keeps, whether it is there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / journal.NAME
        self.config = path / CONFIG  # composed, with its ranges
        self.hydra = path / ".hydra"  # Hydra's copies of the command line
        self.forked_from = path / FORKED  # the search whose trials it takes over
        self.tracking = path / offset.NAME  # how far the journal was sent
        self.states = path / artifacts.STATES  # what a trial goes on from
        self.classifier = path / "classifier.keras"  # the final one
        self.preset = path / PRESET
        self.predictions = path / PREDICTIONS  # of the final classifier
        self.report = path / "report.html"
        self.export = path / "export.json"  # what `pneumonia export` measured last

    def first_event(self) -> Event:
        """Return the event that the journal begins with; empty where it has none or is damaged.

        For those who look for one search among others: a damaged one must not keep them from it.
        """
        try:
            return next(journal.read(self.path), {})
        except (UserError, OSError):
            return {}

    def choices(self) -> dict[str, str]:
        """Return the option of each config group; Hydra knows them before the search has begun."""
        first = next(journal.read(self.path), None)
        if first is not None:
            return dict(first.get("choices", {}))
        file = self.hydra / "hydra.yaml"
        try:
            chosen = yaml.safe_load(file.read_text())["hydra"]["runtime"]["choices"]
            return {str(group): str(one) for group, one in chosen.items() if one is not None}
        except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as e:
            # Without the options, neither its name nor its winner's preset would be right.
            raise UserError(
                f"{file}: missing or damaged. The search in {self.path} had not begun: nothing is "
                "lost by typing its command again."
            ) from e

    def is_over(self) -> bool:
        """Tell whether a search has come to its end, and MLflow has taken all of it.

        One whose journal is damaged is not: that is told where it is gone on with.
        """
        count, is_completed = 0, False
        try:
            for event in journal.read(self.path):
                count += 1
                if event["kind"] in ("search_ended", "search_extended"):
                    is_completed = event.get("status") == "completed"
        except UserError:
            return False
        if not is_completed:
            return False
        sent = Cursor.read(self.tracking)
        return sent.next >= count and not sent.is_open and not sent.refused

    def _time(self) -> int:
        """Return when the search began, in milliseconds since 1970."""
        if first := self.first_event():
            return int(first["time"])
        return int(1000 * files.written(self.journal))

    def _names(self) -> Iterator[str]:
        if first := self.first_event():
            yield first["search_id"]
            if run_id := Cursor.read(self.tracking).run_id:
                yield run_id


def find(name: str, outputs: Path = OUTPUTS, *, is_any: bool = False) -> Path:
    """Return the folder of a search.

    Args:
        name: The id of the search or of its run, its folder, or `last`: the last one that has
            something left to do, be it only to send to MLflow; the last one of all where none has.
        outputs: Where searches are.
        is_any: Whether `last` is the last one of all at once.

    Raises:
        FileNotFoundError: Where there is none.
        UserError: Where there is none among those that can be read.
    """
    if "/" in name and SearchFolder(Path(name)).journal.exists():
        return Path(name)
    # One that was killed while it was made has neither, and nothing to go on with.
    known = [one for one in _folders(outputs) if one.config.exists() or one.first_event()]
    known.sort(key=SearchFolder._time, reverse=True)
    if name != "last":
        found = next((folder for folder in known if name in folder._names()), None)
    else:
        unfinished = (folder for folder in known if is_any or not folder.is_over())
        found = next(unfinished, known[0] if known else None)
    if found is None:
        for folder in known:
            next(journal.read(folder.path), None)  # it may be one whose id cannot be read
        raise FileNotFoundError(name)
    return found.path


def find_all(folder: Path) -> list[Path]:
    """Return the folders of the searches in or below a folder that have begun, in their order.

    Raises:
        UserError: Where a journal begins with what is damaged.
    """
    began = {
        one.path: int(first["time"])
        for one in _folders(folder)
        if (first := next(journal.read(one.path), None)) is not None
    }
    return sorted(began, key=lambda path: (began[path], str(path)))


def _folders(folder: Path) -> Iterator[SearchFolder]:
    return (SearchFolder(path.parent) for path in files.below(folder, journal.NAME))

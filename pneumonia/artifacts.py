"""What has to be kept between trials, by key: states of trainings, classifiers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class ArtifactStore(Protocol):
    """Keeps files by key, such as `trials/0003.zip`, wherever the trials run."""

    def put(self, key: str, write: Callable[[Path], object]) -> None:
        """Keep what `write` makes at the path it is given, whole or not at all."""

    def get(self, key: str) -> Path:
        """Return a path to read from.

        Raises:
            FileNotFoundError: Nothing is kept by that key.
        """

    def drop(self, key: str) -> None:
        """Keep nothing by that key any more."""


class FolderStore:
    """Keeps artifacts as files of a folder, named by their keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, key: str, write: Callable[[Path], object]) -> None:
        """Keep what `write` makes."""
        path = self.folder / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(
                errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename
            ) from error
        write(path)

    def get(self, key: str) -> Path:
        """Return the path of the file."""
        path = self.folder / key
        if not path.exists():
            raise FileNotFoundError(key)
        return path

    def drop(self, key: str) -> None:
        """Remove the file."""
        (self.folder / key).unlink(missing_ok=True)


STATES, CLASSIFIERS = "trials", "classifiers"


def state_key(trial_id: str, over: int | None = None) -> str:
    """Return the key of how far a trial has been trained, or of a fit that is over, from 0."""
    return f"{STATES}/{trial_id}.zip" if over is None else f"{STATES}/{trial_id}-{over + 1}.zip"


def state_keys(trial_id: str, fits: int) -> list[str]:
    """Return all the keys of how far a trial of so many fits has been trained, its own last."""
    return [*(state_key(trial_id, place) for place in range(fits - 1)), state_key(trial_id)]


def classifier_key(trial_id: str) -> str:
    """Return the key of a trial's classifier."""
    return f"{CLASSIFIERS}/{trial_id}.keras"

"""What has to be kept between trials, by key: states of trainings, classifiers."""

from __future__ import annotations

import contextlib
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


class SharedStore:
    """Keeps states of trainings where all machines reach them, and all else in another store.

    Args:
        address: Of a folder, as fsspec takes it (https://filesystem-spec.readthedocs.io).
        folder: Where copies are read from.
        others: Keeps what is no state; has states of a time without this address, or of another
            search.
    """

    def __init__(self, address: str, *, folder: Path, others: ArtifactStore) -> None:
        import fsspec

        self.address, self._others = address, others
        self._files, self._root = fsspec.core.url_to_fs(address)
        self._copies = FolderStore(folder)

    def put(self, key: str, write: Callable[[Path], object]) -> None:
        """Keep what `write` makes."""
        if not _is_state(key):
            self._others.put(key, write)
            return
        self._copies.put(key, write)
        target, part = self._path(key), self._path(f"{key}.part")
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(self._copies.get(key)), part)
        self._files.mv(part, target)
        self._copies.drop(key)

    def get(self, key: str) -> Path:
        """Return the path of a copy."""
        if not _is_state(key):
            return self._others.get(key)
        try:
            self._copies.put(key, lambda path: self._files.get_file(self._path(key), str(path)))
        except FileNotFoundError:
            return self._others.get(key)
        return self._copies.get(key)

    def drop(self, key: str) -> None:
        """Remove the file."""
        self._others.drop(key)
        if not _is_state(key):
            return
        self._copies.drop(key)
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


def _is_state(key: str) -> bool:
    return key.startswith(f"{STATES}/")


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

"""What has to be kept between trials, by key: states of trainings, classifiers."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pneumonia import files
from pneumonia.errors import named, without_passwords
from pneumonia.files import StorageError

_PAUSES = (0.5, 1.0, 2.0)  # seconds, before another try


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

    What fails there is tried again for some seconds; then it stops the search, as a full disk does.

    Args:
        address: Of a folder, as fsspec takes it (https://filesystem-spec.readthedocs.io).
        folder: Where copies are read from.
        others: Keeps what is no state; has states of a time without this address, or of another
            search.
    """

    def __init__(self, address: str, *, folder: Path, others: ArtifactStore) -> None:
        import fsspec

        self.address, self._others = address, others
        self._copies = FolderStore(folder)
        self._files, self._root = self._insist(fsspec.core.url_to_fs, address)

    def put(self, key: str, write: Callable[[Path], object]) -> None:
        """Keep what `write` makes."""
        if not _is_state(key):
            self._others.put(key, write)
            return
        copy = _copy(key)
        try:
            self._copies.put(copy, write)
            self._insist(self._send, key)
        finally:
            self._copies.drop(copy)

    def get(self, key: str) -> Path:
        """Return the path of a copy."""
        if _is_state(key) and self._insist(self._fetch, key):
            return self._copies.get(_copy(key))
        return self._others.get(key)

    def drop(self, key: str) -> None:
        """Remove the file."""
        self._others.drop(key)
        if _is_state(key):
            self._copies.drop(_copy(key))
            self._insist(self._remove, key)

    def has(self, key: str) -> bool:
        """Tell whether a state is where all machines reach it."""
        return bool(self._insist(lambda key: self._files.exists(self._path(key)), key))

    def fetch(self, key: str, path: Path) -> bool:
        """Write a state from there to a file, if there is one; return whether there is."""

        def write(key: str) -> bool:
            with contextlib.suppress(FileNotFoundError), files.atomic(path) as part:
                self._files.get_file(self._path(key), str(part))
                return True
            return False

        path.parent.mkdir(parents=True, exist_ok=True)
        return bool(self._insist(write, key))

    def _insist(self, call: Callable[[str], Any], argument: str) -> Any:
        """Call what a network may break, and again after each pause.

        Raises:
            StorageError: It fails every time, whatever it is that fsspec raises.
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                return call(argument)
            except Exception as error:
                if (pause := next(pauses, None)) is None:
                    reason = without_passwords(
                        f"{self.address} cannot be used: {named(error)}"
                    ).rstrip(".")
                    raise StorageError(f"`executor.store`: {reason}.") from error
            time.sleep(pause)

    def _send(self, key: str) -> None:
        target, part = self._path(key), self._path(f"{key}.part")
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(self._copies.get(_copy(key))), part)
        self._files.mv(part, target)

    def _fetch(self, key: str) -> bool:
        """Make a copy; return whether there is something to copy."""
        try:
            self._copies.put(
                _copy(key), lambda path: self._files.get_file(self._path(key), str(path))
            )
        except FileNotFoundError:
            return False
        return True

    def _remove(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


def _is_state(key: str) -> bool:
    return key.startswith(f"{STATES}/")


def _copy(key: str) -> str:
    """Return the key of a copy: beside it, the same folder may have a state of the other store."""
    return f"{key}.copy"


STATES, CLASSIFIERS = "trials", "classifiers"


def shared_address(store: str, search_id: str) -> str:
    """Return the address of what a search keeps in a store that several may use."""
    return f"{store.rstrip('/')}/{search_id}"


def state_key(trial_id: str, over: int | None = None) -> str:
    """Return the key of how far a trial has been trained, or of a fit that is over, from 0."""
    return f"{STATES}/{trial_id}.zip" if over is None else f"{STATES}/{trial_id}-{over + 1}.zip"


def state_keys(trial_id: str, fits: int) -> list[str]:
    """Return all the keys of how far a trial of so many fits has been trained, its own last."""
    return [*(state_key(trial_id, place) for place in range(fits - 1)), state_key(trial_id)]


def classifier_key(trial_id: str) -> str:
    """Return the key of a trial's classifier."""
    return f"{CLASSIFIERS}/{trial_id}.keras"

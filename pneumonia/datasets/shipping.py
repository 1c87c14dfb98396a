"""Datasets on their way to another machine, which has none of the files they were read from.

Arrays go as they are. Image files are decoded when they are asked for, there too: of them the
machine gets its own copies, once.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from pneumonia.datasets.base import ImageData
from pneumonia.datasets.decode import FileSource, unreadable

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Packed:
    """A dataset in plain values.

    Attributes:
        text: All of it but large arrays and files, pickled by this program.
        arrays: The large arrays' bytes, uint8 (n,) each.
        files: Of each source of files the paths where it was packed, and the channels.
        digest: Of the whole dataset, and of what its files are called.
    """

    text: bytes
    arrays: list[Array]
    files: list[tuple[list[str], int]]
    digest: str


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, **options: Any) -> None:
        super().__init__(file, protocol=5, **options)
        self.sources: list[FileSource] = []

    def persistent_id(self, obj: object) -> int | None:
        """Take sources of files out."""
        if not isinstance(obj, FileSource):
            return None
        self.sources.append(obj)
        return len(self.sources) - 1


class _Restorer(pickle.Unpickler):
    def __init__(self, packed: Packed, sources: Sequence[FileSource]) -> None:
        super().__init__(io.BytesIO(packed.text), buffers=packed.arrays)
        self._sources = sources

    def persistent_load(self, pid: int) -> FileSource:
        """Put sources of files in."""
        return self._sources[pid]


def pack(data: ImageData) -> Packed:
    """Make a dataset ready to go; its files stay where they are."""
    file, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    pickler = _Packer(file, buffer_callback=buffers.append)
    pickler.dump(data)
    # A file that is left out of all splits still has its place among the others.
    told = [[split.digest, *split.names] for split in (data.train, data.val, data.test)]
    told += [[path.name for path in one.paths] for one in pickler.sources]
    return Packed(
        file.getvalue(),
        [np.frombuffer(one.raw(), np.uint8) for one in buffers],
        [([str(path.absolute()) for path in one.paths], one.channels) for one in pickler.sources],
        hashlib.sha256(json.dumps(told).encode()).hexdigest(),
    )


def unpack(
    packed: Packed, folder: Path, *, fetch: Callable[[int], Sequence[Array]] | None
) -> ImageData:
    """Return a dataset; its arrays are read-only.

    Args:
        packed: The dataset.
        folder: Where copies of image files are kept; processes that share it copy each once.
        fetch: Returns the bytes of the files of a source, uint8 (n,) each, by its number; None on
            the machine where they are.
    """
    sources = []
    for number, (names, channels) in enumerate(packed.files):
        paths = [Path(name) for name in names]
        if fetch is not None:
            own = folder / f"images-{packed.digest[:32]}-{number}"
            paths = _copy(own, paths, lambda number=number: fetch(number))  # type: ignore[misc]
        sources.append(FileSource(paths, channels=channels))
    data: ImageData = _Restorer(packed, sources).load()
    return data


def read_files(packed: Packed, number: int) -> list[Array]:
    """Return what `unpack` fetches.

    Raises:
        ConfigError: Where a file has gone or cannot be read.
    """
    return [_content(name) for name in packed.files[number][0]]


def _content(name: str) -> Array:
    try:
        return np.fromfile(name, np.uint8)
    except OSError as error:
        raise unreadable(name, error.strerror or str(error)) from error


def _copy(folder: Path, paths: Sequence[Path], fetch: Callable[[], Sequence[Array]]) -> list[Path]:
    """Return copies of files, which are made unless they are there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{index}{path.suffix}" for index, path in enumerate(paths)]
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for name, content in zip(names, fetch(), strict=True):
                content.tofile(part / name)
            part.rename(folder)
    return [folder / name for name in names]

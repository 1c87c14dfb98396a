"""Reading `.npz` files that somebody else made: plain arrays only, and none larger than it says.

An `.npz` file is a zip archive of `.npy` files. Nothing of it is unpacked to the disk, so the names
of its members cannot lead anywhere; no pickle in it is loaded; and every array's header is compared
with the member's size and with the memory of this machine before memory is taken for it.
"""

from __future__ import annotations

import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pneumonia.errors import DataError

Array = npt.NDArray[Any]

# Images do not shrink to a hundredth; what does, and is large, is made to fill the memory.
MOST_SHRUNK = 100
SUSPECT_BYTES = 10**9
# What is read beside the arrays has to fit as well.
MEMORY_SHARE = 0.8

_FAULTS = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
_BEGINNINGS = {
    b"\x93NUMPY": "a single array (.npy); np.savez writes several by name",
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` fetches the file",
    b"\x80": "a pickle, which is never loaded",
    b"\x89HDF": "an HDF5 file",
    b"<": "a web page or XML",
    b"\x1f\x8b": "a gzip file",
}


def read(file: Path, names: Sequence[str]) -> dict[str, Array]:
    """Read arrays from an `.npz` file by their names.

    Raises:
        DataError: Where it is not such a file, lacks an array, or is damaged or dangerous. The text
            says what is wrong, without the name of the file.
    """
    try:
        if file.is_dir():
            raise DataError("It is a folder; dataset=image_folder reads image files")
        if file.exists() and not file.is_file():  # a pipe or a device, which may never end
            raise DataError("It is no file of a certain size")
        if not zipfile.is_zipfile(file):
            raise DataError(f"It is {_describe(file)}")
        with zipfile.ZipFile(file) as archive:
            members = _find(archive, names)
            _check_sizes(file, archive, members)
            return {name: _read_member(archive, item) for name, item in members.items()}
    except FileNotFoundError as error:
        raise DataError("There is no such file") from error
    except _FAULTS as error:
        raise DataError(f"It is damaged: {' '.join(str(error).split())}") from error


def _describe(file: Path) -> str:
    """Say what a file is that is no zip archive."""
    with file.open("rb") as stream:
        start = stream.read(64)
    if not start:
        return "an empty file"
    if start.startswith(b"PK"):
        return "a zip archive that is cut off or damaged"
    kinds = (kind for begun, kind in _BEGINNINGS.items() if start.lstrip().startswith(begun))
    return next(kinds, "no zip archive, as .npz files are")


def _find(archive: zipfile.ZipFile, names: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    found = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
    missing = [name for name in names if name not in found]
    if missing:
        held = ", ".join(sorted(found)[:8]) or "nothing"
        raise DataError(f"It lacks {', '.join(missing)}; it holds {held}")
    return {name: found[name] for name in names}


def _check_sizes(file: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
    """Refuse arrays that are no plain ones, or larger than what there is of them or room for."""
    total = 0
    for name, item in members.items():
        with archive.open(item) as stream:
            size = _claimed(name, stream) + stream.tell()
        if size != item.file_size:
            raise DataError(f"It is damaged: {name} claims {size:,} bytes, not {item.file_size:,}")
        total += size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total > MEMORY_SHARE * memory:
        here = f"this machine has {memory / 1e9:.1f} GB of memory"
        raise DataError(f"Its arrays take {total / 1e9:,.1f} GB; {here}")
    if total > max(SUSPECT_BYTES, MOST_SHRUNK * file.stat().st_size):
        raise DataError(f"It unpacks to {total / 1e9:,.1f} GB, as no images do: a zip bomb")


def _claimed(name: str, stream: IO[bytes]) -> int:
    """Return how many bytes an array takes, by its header, which is read."""
    form = np.lib.format
    readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    read_header = readers.get(form.read_magic(stream))
    if read_header is None:
        raise DataError(f"Its array {name} is no plain one")
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise DataError(f"Its array {name} holds objects, a pickle, which is never loaded")
    return math.prod(shape) * dtype.itemsize


def _read_member(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Array:
    with archive.open(item) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)

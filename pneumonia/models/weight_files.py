"""Files of weights that somebody else made: data only, from the file itself, of a sane size.

HDF5 files hold arrays and no code, but may point at other files of this machine, whose bytes would
become weights, and may claim arrays that fill its memory. A `.keras` file is a zip archive of which
Keras reads the one member with the weights; nothing of it is unpacked or built.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py

from pneumonia.errors import DataError

MOST_BYTES = 4 * 10**9
_MEMBER = "model.weights.h5"


def check(file: Path) -> None:
    """Make sure that a `.h5` or `.keras` file of weights is safe to load.

    Raises:
        DataError: Where it is not such a file, leads out of it, or is too large.
    """
    try:
        source: Path | io.BytesIO = file
        if file.suffix == ".keras":
            with zipfile.ZipFile(file) as archive:
                source = io.BytesIO(_member(archive))
        with h5py.File(source, "r") as content:
            if _size(content) > MOST_BYTES:
                raise DataError(f"It claims more than {MOST_BYTES / 1e9:g} GB")
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"It is damaged, or no such file: {reason}") from error


def _member(archive: zipfile.ZipFile) -> bytes:
    if _MEMBER not in archive.namelist():
        raise DataError(f"It holds no {_MEMBER}")
    if archive.getinfo(_MEMBER).file_size > MOST_BYTES:
        raise DataError(f"Its weights are larger than {MOST_BYTES / 1e9:g} GB")
    return archive.read(_MEMBER)


def _size(group: h5py.Group) -> int:
    """Return how many bytes the arrays of a group take; what lies elsewhere is refused."""
    size = 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{group.name}/{name} is a link; weights are in the file itself")
        item = group[name]
        if isinstance(item, h5py.Group):
            size += _size(item)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise DataError(f"{item.name} lies in another file")
            size += item.nbytes
    return size

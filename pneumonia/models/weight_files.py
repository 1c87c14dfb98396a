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
    """Make sure that a file of weights is safe to load.

    Args:
        file: A `.h5` or `.keras` file.

    Raises:
        DataError: Where it is not such a file, leads out of it, or is too large.
    """
    try:
        if file.suffix == ".keras":
            with zipfile.ZipFile(file) as archive:
                _check_hdf5(io.BytesIO(_member(archive)))
        else:
            _check_hdf5(file)
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"It is damaged, or no such file: {reason}") from error


def _member(archive: zipfile.ZipFile) -> bytes:
    if _MEMBER not in archive.namelist():
        raise DataError(f"It holds no {_MEMBER}")
    if archive.getinfo(_MEMBER).file_size > MOST_BYTES:
        raise DataError(f"Its weights are larger than {MOST_BYTES / 1e9:g} GB")
    return archive.read(_MEMBER)


def _check_hdf5(source: Path | io.BytesIO) -> None:
    with h5py.File(source, "r") as file:
        if _check_group(file) > MOST_BYTES:
            raise DataError(f"It claims more than {MOST_BYTES / 1e9:g} GB")


def _check_group(group: h5py.Group) -> int:
    """Return how many bytes the arrays of a group take.

    Raises:
        DataError: Where something in it lies elsewhere.
    """
    size = 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{group.name}/{name} is a link; weights are in the file itself")
        item = group[name]
        if isinstance(item, h5py.Group):
            size += _check_group(item)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise DataError(f"{item.name} lies in another file")
            size += item.nbytes
    return size

"""Images in files of all kinds: found, checked and decoded, DICOM beside the others."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pneumonia import terminal
from pneumonia.datasets import dicom, image_files
from pneumonia.datasets.base import Images, Indices
from pneumonia.datasets.image_files import Header
from pneumonia.errors import ConfigError, DataError, UserError
from pneumonia.shell import as_path

_WILDCARDS = frozenset("*?[")
_WORKERS = min(4, os.cpu_count() or 1)
# A batch ends where its images have so many values together: 64 MB as floats.
_BATCH_VALUES = 16_000_000


class FileSource:
    """Images that are decoded each time they are read, so that memory holds only those asked for.

    Args:
        paths: The files, checked by `read_header`.
        channels: 1 for grey, 3 for RGB.
    """

    __slots__ = ("channels", "paths")

    def __init__(self, paths: Sequence[Path], *, channels: int) -> None:
        self.paths, self.channels = tuple(paths), channels
        image_files.quieten()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Indices) -> Sequence[Images] | Images:
        """Decode images, as an `ImageSource` does.

        Raises:
            ConfigError: Where a file has gone or its content is damaged.
        """
        paths = [self.paths[index] for index in indices]
        try:
            # Pillow decodes without holding the interpreter's lock.
            with ThreadPoolExecutor(_WORKERS) as pool:
                images = list(pool.map(lambda path: decode(path, self.channels), paths))
        except DataError as error:
            path, _, reason = str(error).partition(": ")
            raise unreadable(path, reason.rstrip(".")) from error
        is_uniform = len({image.shape for image in images}) == 1
        return np.stack(images) if is_uniform else images


def unreadable(path: str, reason: str) -> ConfigError:
    """Return the error for an image file of a dataset that has gone or cannot be decoded."""
    return ConfigError("dataset.path", "image files that can be decoded", path, reason)


def read_header(path: Path) -> Header:
    """Check a file; what counts is its content, not its name.

    Raises:
        DataError: Where it cannot be decoded; its text starts with the path.
    """
    if dicom.kind_of(path) == dicom.DICOM:
        return dicom.read_header(path)
    try:
        return image_files.read_header(path)
    except DataError:
        if not dicom.is_dicom(path):
            raise
        return dicom.read_header(path)


def decode(path: Path, channels: int | None = None) -> Images:
    """Decode a file.

    Returns:
        uint8 of shape (H, W, C), C being `channels` where it is given: 1, or 3 for a file with
        colours.

    Raises:
        DataError: Where it cannot be; its text starts with the path.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a file.")
    if not dicom.is_dicom(path):
        return image_files.decode(path, channels=channels or 3)
    pixels = dicom.decode(path)
    return np.repeat(pixels, (channels or pixels.shape[-1]) // pixels.shape[-1], axis=-1)


def decode_batches(
    paths: Sequence[Path], *, batch_size: int
) -> Iterator[list[tuple[Path, Images | DataError]]]:
    """Yield files with their images, or the reason why there is none, in their order.

    Batches are decoded as they are asked for; large images make smaller ones.
    """
    batch: list[tuple[Path, Images | DataError]] = []
    values = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(paths), _WORKERS):
            chunk = paths[start : start + _WORKERS]
            for path, image in zip(chunk, pool.map(_try_decode, chunk), strict=True):
                size = image.size if isinstance(image, np.ndarray) else 0
                if batch and (len(batch) == batch_size or values + size > _BATCH_VALUES):
                    yield batch
                    batch, values = [], 0
                batch.append((path, image))
                values += size
    if batch:
        yield batch


def find_files(names: Sequence[str], *, without: tuple[str, ...] = ()) -> list[Path]:
    """Find the files that names stand for, each once, in the order of the names.

    Args:
        names: Files; folders, with all the images below them; or patterns with `*`, `?`, `[...]`
            and `**`. In folders a file counts by its suffix or, where it has none, its being
            DICOM. In folders and patterns, names that begin with a dot do not count.
        without: Endings of names that do not count there either.

    Raises:
        UserError: Where a name stands for nothing, or DICOM files are among those found and
            pydicom is not installed.
    """
    found: dict[Path, None] = {}
    for name in names:
        for path in _match(name, without):
            paths = _images_below(path, without) if path.is_dir() else [path]
            found.update(dict.fromkeys(paths))
    if not dicom.is_supported() and (needing := next(filter(dicom.is_dicom, found), None)):
        raise UserError(dicom.NEEDED.format(needing))
    return list(found)


def _match(name: str, without: tuple[str, ...]) -> list[Path]:
    path = as_path(name)
    try:
        if path.exists():
            return [path]
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}.") from error
    if not _WILDCARDS & set(name):
        raise UserError(f"{name}: no such file or folder.")
    try:
        pattern = str(path.relative_to(path.anchor))
        found = sorted(Path(path.anchor).glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{name}: not a pattern ({error}).") from error
    visible = [one for one in found if not _is_hidden(one.name, without)]
    if not visible:
        raise UserError(f"{name}: the pattern matches no file.")
    return visible


def _images_below(folder: Path, without: tuple[str, ...]) -> list[Path]:
    """Return a folder's images, and those of its sub-folders, in the order of their paths."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not _is_hidden(name, without)]
    kinds = {path: dicom.kind_of(path) for path in found}
    images = [path for path, kind in kinds.items() if kind in (dicom.IMAGE, dicom.DICOM)]
    # Notes and tables beside images are not meant; pictures of other formats are.
    types = ((kind, mimetypes.guess_type(f"x{kind}")[0] or "") for kind in kinds.values())
    others = Counter(kind for kind, type_ in types if type_.startswith("image/"))
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    if not images:
        told = f", only {listed}, which is not read" if listed else ""
        raise UserError(f"{folder}: no image in this folder{told}.")
    if listed:
        terminal.say(f"{folder}: left out, as it is not read: {listed}.")
    return sorted(images)


def _is_hidden(name: str, without: tuple[str, ...]) -> bool:
    return name.startswith(".") or name.endswith(without)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: {error.strerror}.") from error


def _try_decode(path: Path) -> Images | DataError:
    try:
        return decode(path)
    except DataError as error:
        return error
    except OSError as error:  # a folder that one may list but not enter
        return DataError(f"{path}: {error.strerror}.")

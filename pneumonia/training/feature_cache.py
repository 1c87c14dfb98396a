"""What a frozen part of a model makes of the images, computed once and kept on disk.

A frozen backbone is a pure function, so its outputs are stored under a digest of all that they
depend on: images, image size, backbone, weights, view and code. An entry is one `.npy` file, which
trials read memory-mapped, and one `.json` file with its shape and checksum, written last: an entry
without it does not exist. Processes that share the folder compute each entry once; the others
wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from filelock import FileLock

from pneumonia import files
from pneumonia.datasets.base import Split
from pneumonia.errors import ConfigError
from pneumonia.process import process_start
from pneumonia.training.augment import View
from pneumonia.training.frozen_graph import Frozen

Array = np.ndarray[Any, Any]
Report = Callable[[str, int, int], None]
Section = Mapping[str, Any]

# Part of every key: raise it when the same key would come to other features.
_CODE = 2
_BATCH = 128
_BLOCK = 2**24
_ONCE = "once-"
# What reading an entry may raise, by where it is damaged.
_DAMAGES = (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError)


def compute(
    split: Split, frozen: Frozen, *, view: View | None, section: Section, report: Report
) -> Array:
    """Return the features of a split, from the cache where they are there.

    Args:
        split: The N images.
        frozen: What makes the features.
        view: How the images are augmented first, if at all.
        section: The configuration's section `features`: folder, max_gb, dtype, precision, cache.
        report: Called with a text, the images done and N.

    Returns:
        A read-only memory-mapped array (N, ...).

    Raises:
        ConfigError: Where the features alone are larger than the cache may be, or the folder can
            neither be found nor made.
    """
    folder = Path(section["folder"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        expected = "a folder that is there or can be made"
        raise ConfigError("features.folder", expected, str(folder)) from error
    batches = _batches(split, frozen, view, section, report)
    if not section["cache"]:
        return _compute_once(folder, split, batches)
    path = folder / f"{_key(split, frozen, view, section)}.npy"
    with FileLock(path.with_suffix(".lock")):
        found = _open(path)
        if found is None:
            _check_size(split, frozen, section)
            _write(path, split, batches)
            found = _open(path, trusted=True)
            _evict(folder, section["max_gb"], keep=path)
    if found is None:
        raise OSError(f"The features just written to {path} cannot be read back.")
    return found


def _compute_once(folder: Path, split: Split, batches: Iterator[Array]) -> Array:
    """Return features in a file without a name, which goes when the array goes."""
    _drop_abandoned(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{_ONCE}{os.getpid()}-") as own:
        path = Path(own) / "features.npy"
        _write(path, split, batches)
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _drop_abandoned(folder: Path) -> None:
    """Remove what processes that were killed have left of features that were to be used once."""
    for path in folder.glob(f"{_ONCE}*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and process_start(int(pid)) is None:
            shutil.rmtree(path, ignore_errors=True)


def digest(model: keras.Model | None, section: Any) -> str:
    """Return a digest of a model by its weights and the section that it was built from."""
    result = hashlib.sha256(json.dumps(section, sort_keys=True, default=str).encode())
    for weight in [] if model is None else model.weights:
        result.update(np.ascontiguousarray(weight).tobytes())
    return result.hexdigest()


def _key(split: Split, frozen: Frozen, view: View | None, section: Section) -> str:
    parts = [
        _CODE,
        tf.__version__,
        split.digest,
        frozen.digest,
        frozen.image_size,
        section["dtype"],
        section["precision"],
        view and [view.digest, view.index, view.seed],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _batches(
    split: Split, frozen: Frozen, view: View | None, section: Section, report: Report
) -> Iterator[Array]:
    text = f"features of {split.name}" + (f", view {view.index + 1}" if view else "")
    for start in range(0, len(split), _BATCH):
        indices = np.arange(start, min(start + _BATCH, len(split)))
        yield frozen.read(split, indices, view, section["precision"]).astype(section["dtype"])
        report(text, int(indices[-1]) + 1, len(split))


def _write(path: Path, split: Split, batches: Iterator[Array]) -> None:
    checksum, shape, dtype = 0, (), ""
    with files.atomic(path) as part, part.open("wb") as file:
        for batch in batches:
            if not shape:
                shape, dtype = (len(split), *batch.shape[1:]), batch.dtype.str
                header = {"descr": dtype, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            data = np.ascontiguousarray(batch).tobytes()
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    about = {"shape": shape, "dtype": dtype, "crc32": checksum, "split": split.name}
    with files.atomic(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(about))


def _open(path: Path, *, trusted: bool = False) -> Array | None:
    """Return an entry, or None where it is missing or not what its description says."""
    note = path.with_suffix(".json")
    try:
        about = json.loads(note.read_text())
        expected = [about[name] for name in ("shape", "dtype", "crc32")]
        array = np.lib.format.open_memmap(path, mode="r")
        # The checksum is of the bytes, whose order is a row after the other.
        if not array.flags.c_contiguous:
            return None
        found = [list(array.shape), array.dtype.str, expected[2]]
        if not trusted:
            found[2] = _crc32(path, path.stat().st_size - array.nbytes)
    except _DAMAGES:
        return None
    if found != expected:
        return None
    os.utime(note)
    return array


def _crc32(path: Path, offset: int) -> int:
    checksum = 0
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _check_size(split: Split, frozen: Frozen, section: Section) -> None:
    if frozen.model is None:
        return
    width = int(np.prod(frozen.model.output.shape[1:]))
    needed = len(split) * width * np.dtype(section["dtype"]).itemsize / 1e9
    if needed > section["max_gb"]:
        raise ConfigError(
            "features.max_gb",
            f"at least {needed:.3g}, the size of the features of {split.name}",
            section["max_gb"],
            "Raise it, or make the features smaller with model.pooling=avg, a smaller "
            "model.image_size or features.dtype=float16",
        )


def _evict(folder: Path, max_gb: float, *, keep: Path) -> None:
    entries = []
    for note in folder.glob("*.json"):
        path = note.with_suffix(".npy")
        if path.exists():
            entries.append((note.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_gb * 1e9:
            return
        if path != keep:
            # The description goes first: what is left of an interrupted removal is no entry.
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            total -= size

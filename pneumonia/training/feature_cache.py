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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from filelock import FileLock

from pneumonia import files
from pneumonia.datasets.base import Split
from pneumonia.errors import ConfigError
from pneumonia.models.classifier import resize
from pneumonia.process import process_start
from pneumonia.seeding import RENDER, integer
from pneumonia.training import frozen_graph
from pneumonia.training.augment import render

Array = np.ndarray[Any, Any]
Report = Callable[[str, int, int], None]

# Part of every key: raise it when the same key would come to other features.
_CODE = 2
_BATCH = 128
_BLOCK = 2**24
_ONCE = "once-"
# What reading an entry may raise, by where it is damaged.
_DAMAGES = (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where features are kept.

    Attributes:
        folder: The folder of the entries, shared by all searches of a project.
        max_gb: The space that they may take, in 10^9 bytes; least recently used entries go first.
        dtype: `float32`, or `float16` for half the space at three digits.
        precision: What the backbone computes in: `float32`, or `bfloat16` for up to twice the
            speed at two digits, on a processor that has it.
        is_kept: Whether there is a cache; without one, everything is computed anew.
    """

    folder: Path
    max_gb: float
    dtype: str
    precision: str = "float32"
    is_kept: bool = True


@dataclass(frozen=True, slots=True)
class Frozen:
    """The part of a model that no trial trains.

    Attributes:
        model: From images (n, size, size, 3), 0 to 255, to features; None where all is trained.
        image_size: The side that images are resized to, in pixels.
        digest: Of the configuration of the model and its weights.
    """

    model: keras.Model | None
    image_size: int
    digest: str

    def __call__(self, images: Array, precision: str = "float32") -> Array:
        """Return the features of images."""
        if self.model is None:
            return images
        return np.asarray(frozen_graph.call(self.model, images, precision))


@dataclass(frozen=True, slots=True)
class View:
    """One augmented rendering of all the images of a split.

    Attributes:
        pipeline: The augmentation.
        digest: Of the configuration of the augmentation.
        index: Which of the views this is.
        seed: The seed of the training.
    """

    pipeline: keras.Sequential
    digest: str
    index: int
    seed: int

    def render(self, images: Array, position: int) -> Array:
        """Return the images augmented; `position` tells the parts of a split apart."""
        return render(self.pipeline, images, integer(self.seed, RENDER, self.index, position))


def compute(
    split: Split, frozen: Frozen, *, view: View | None, settings: Settings, report: Report
) -> Array:
    """Return the features of a split, from the cache where they are there.

    Args:
        split: The N images.
        frozen: What makes the features.
        view: How the images are augmented first, if at all.
        settings: The cache.
        report: Called with a text, the images done and N.

    Returns:
        A read-only memory-mapped array (N, ...).

    Raises:
        ConfigError: Where the features alone are larger than the cache may be, or the folder can
            neither be found nor made.
    """
    key = _key(split, frozen, view, settings)
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        expected = "a folder that is there or can be made"
        raise ConfigError("features.folder", expected, str(settings.folder)) from error
    path = settings.folder / f"{key}.npy"
    if not settings.is_kept:
        return _compute_once(split, frozen, view, settings=settings, report=report)
    with FileLock(path.with_suffix(".lock")):
        found = _open(path)
        if found is None:
            _check_size(split, frozen, settings)
            _write(path, split, _batches(split, frozen, view, settings, report))
            found = _open(path, trusted=True)
            _evict(settings, keep=path)
    if found is None:
        raise OSError(f"The features just written to {path} cannot be read back.")
    return found


def _compute_once(
    split: Split, frozen: Frozen, view: View | None, *, settings: Settings, report: Report
) -> Array:
    """Return features in a file without a name, which goes when the array goes."""
    _drop_abandoned(settings.folder)
    with tempfile.TemporaryDirectory(
        dir=settings.folder, prefix=f"{_ONCE}{os.getpid()}-"
    ) as folder:
        path = Path(folder) / "features.npy"
        _write(path, split, _batches(split, frozen, view, settings, report))
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


def _key(split: Split, frozen: Frozen, view: View | None, settings: Settings) -> str:
    parts = [
        _CODE,
        tf.__version__,
        split.digest,
        frozen.digest,
        frozen.image_size,
        settings.dtype,
        settings.precision,
        view and [view.digest, view.index, view.seed],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _batches(
    split: Split, frozen: Frozen, view: View | None, settings: Settings, report: Report
) -> Iterator[Array]:
    text = f"features of {split.name}" + (f", view {view.index + 1}" if view else "")
    for start in range(0, len(split), _BATCH):
        indices = np.arange(start, min(start + _BATCH, len(split)))
        images = resize(split.images.read(indices), frozen.image_size)
        if view is not None:
            images = view.render(images, start)
        yield frozen(images, settings.precision).astype(settings.dtype)
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


def _check_size(split: Split, frozen: Frozen, settings: Settings) -> None:
    if frozen.model is None:
        return
    width = int(np.prod(frozen.model.output.shape[1:]))
    needed = len(split) * width * np.dtype(settings.dtype).itemsize / 1e9
    if needed > settings.max_gb:
        raise ConfigError(
            "features.max_gb",
            f"at least {needed:.3g}, the size of the features of {split.name}",
            settings.max_gb,
            "Raise it, or make the features smaller with model.pooling=avg, a smaller "
            "model.image_size or features.dtype=float16",
        )


def _evict(settings: Settings, *, keep: Path) -> None:
    entries = []
    for note in settings.folder.glob("*.json"):
        path = note.with_suffix(".npy")
        if path.exists():
            entries.append((note.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= settings.max_gb * 1e9:
            return
        if path != keep:
            # The description goes first: what is left of an interrupted removal is no entry.
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            total -= size

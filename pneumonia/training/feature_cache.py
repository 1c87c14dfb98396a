"""What a frozen part of a model makes of the images, computed once and kept on disk.

A frozen backbone is a pure function, so its outputs are stored under a digest of all that they
depend on: images, image size, backbone, weights, view and code. An entry is one `.npy` file, which
trials read memory-mapped, and one `.json` file with its shape and checksum, written last: an entry
without it does not exist. Processes that share the folder compute each entry once; the others
wait. All that one reading of the images can give is computed in it: every view, and what other
cuts of the same network make of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from filelock import FileLock

from pneumonia import files
from pneumonia.config import sources
from pneumonia.datasets.base import Split
from pneumonia.errors import ConfigError
from pneumonia.models.mirror import Mirrored
from pneumonia.process import process_start
from pneumonia.shell import as_path
from pneumonia.training import frozen_graph
from pneumonia.training.augment import View
from pneumonia.training.frozen_graph import Frozen

Array = np.ndarray[Any, Any]
Report = Callable[[str, int, int], None]
Section = Mapping[str, Any]

# Part of every key: raise it when the same key would come to other features.
_CODE = 3
_BATCH = 128
# Images on which it is tried whether models that run together give the same bits as alone.
_TRIED = 16
# Other models that run with one at the most, as each is in memory.
_MOST = 5
_BLOCK = 2**24
_ONCE = "once-"
# What reading an entry may raise, by where it is damaged.
_DAMAGES = (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is to be computed: a frozen part's features of a view, and their file."""

    frozen: Frozen
    view: View | Mirrored | None
    path: Path


def compute(
    split: Split,
    frozen: Frozen,
    *,
    views: Sequence[View | Mirrored | None],
    section: Section,
    report: Report,
    others: Callable[[], Iterable[Frozen]] = tuple,
) -> list[Array]:
    """Return the features of a split, from the cache where they are there.

    Args:
        split: The N images.
        frozen: What makes the features.
        views: How the images are augmented first, if at all.
        section: The configuration's section `features`: folder, max_gb, dtype, precision, cache.
        report: Called with a text, the images done and N.
        others: Returns what else may be asked for later. Where features are missing, those of
            others that are cuts of the same network are computed with them.

    Returns:
        Read-only memory-mapped arrays (N, ...), one for each view.

    Raises:
        ConfigError: Where the features alone are larger than the cache may be, or the folder can
            neither be found nor made.
    """
    folder = as_path(section["folder"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        expected = "a folder that is there or can be made"
        raise ConfigError("features.folder", expected, str(folder)) from error
    if not section["cache"]:
        return _compute_once(folder, split, frozen, views, section, report)

    own = _entries(split, frozen, views, section)
    found = [_open(entry.path) for entry in own]
    if any(array is None for array in found):
        _check_size(split, frozen, section)
        joined = _joined(split, frozen, others(), len(views), section)
        more = [_entries(split, part, views, section) for part in joined]
        wanted = [*own, *itertools.chain(*more)]
        found = _settle(split, wanted, section, report)[: len(own)]
        _evict(folder, section["max_gb"], keep={entry.path for entry in wanted})
    if any(array is None for array in found):
        raise OSError(f"The features just written to {folder} cannot be read back.")
    return found  # type: ignore[return-value]


def _entries(
    split: Split, frozen: Frozen, views: Sequence[View | Mirrored | None], section: Section
) -> list[_Entry]:
    folder = as_path(section["folder"])
    return [
        _Entry(frozen, view, folder / f"{_key(split, frozen, view, section)}.npy") for view in views
    ]


def _settle(
    split: Split, wanted: Sequence[_Entry], section: Section, report: Report
) -> list[Array | None]:
    """Return entries; what is missing of them is computed, while no other process does."""
    with ExitStack() as locks:
        for path in sorted(entry.path for entry in wanted):  # in one order: nobody waits for ever
            locks.enter_context(FileLock(path.with_suffix(".lock")))
        missing = [entry for entry in wanted if _open(entry.path) is None]
        _write(split, missing, section, report)
        return [_open(entry.path, trusted=True) for entry in wanted]


def _joined(
    split: Split, frozen: Frozen, others: Iterable[Frozen], views: int, section: Section
) -> list[Frozen]:
    """Return what is worth computing with `frozen`: it costs little more, and need not go soon."""
    # Half of the cache stays for other splits, and for other cuts of them.
    room = section["max_gb"] * 1e9 / 2 - views * _size(split, frozen, section)
    joined: list[Frozen] = []
    for other in itertools.islice(others, _MOST):
        room -= views * _size(split, other, section)
        if room < 0:
            break
        if other.image_size == frozen.image_size and frozen_graph.is_nested(
            frozen.model, other.model
        ):
            joined.append(other)
    if not joined:
        return []
    models = tuple(part.model for part in (frozen, *joined))
    images = frozen.images(split, np.arange(min(_TRIED, len(split))))
    try:
        return joined if frozen_graph.agree(models, images, section["precision"]) else []
    except Exception:  # it shows again, and whose it is, where each is computed alone
        return []


def _compute_once(
    folder: Path,
    split: Split,
    frozen: Frozen,
    views: Sequence[View | Mirrored | None],
    section: Section,
    report: Report,
) -> list[Array]:
    """Return features in files without a name, which go when the arrays go."""
    _drop_abandoned(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{_ONCE}{os.getpid()}-") as own:
        paths = [Path(own) / f"features{number}.npy" for number in range(len(views))]
        entries = [_Entry(frozen, view, path) for view, path in zip(views, paths, strict=True)]
        _write(split, entries, section, report)
        return [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]


def _drop_abandoned(folder: Path) -> None:
    """Remove what processes that were killed have left of features that were to be used once."""
    for path in folder.glob(f"{_ONCE}*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and process_start(int(pid)) is None:
            shutil.rmtree(path, ignore_errors=True)


def digest(model: keras.Model | None, section: Any) -> str:
    """Return a digest of a model by its weights, and the section and code that it is built from."""
    about = [section, sources.plugins(sources.targets(section))]
    result = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for weight in [] if model is None else model.weights:
        result.update(np.ascontiguousarray(weight).tobytes())
    return result.hexdigest()


def _key(split: Split, frozen: Frozen, view: View | Mirrored | None, section: Section) -> str:
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


def _write(split: Split, entries: Sequence[_Entry], section: Section, report: Report) -> None:
    """Compute entries in one reading of the images; all of them appear at its end."""
    by_view: dict[int | None, list[_Entry]] = {}
    for entry in entries:
        by_view.setdefault(entry.view.index if entry.view else None, []).append(entry)
    text = _text(split, list(by_view.values()))
    with ExitStack() as written:
        add = {entry.path: written.enter_context(_writing(entry.path, split)) for entry in entries}
        for start in range(0, len(split), _BATCH) if entries else ():
            indices = np.arange(start, min(start + _BATCH, len(split)))
            images = entries[0].frozen.images(split, indices)
            for same in by_view.values():
                view = same[0].view
                shown = images if view is None else view.render(images, start)
                models = tuple(entry.frozen.model for entry in same)
                outputs = frozen_graph.call(models, shown, section["precision"])
                for entry, output in zip(same, outputs, strict=True):
                    add[entry.path](np.asarray(output).astype(section["dtype"]))
            report(text, int(indices[-1]) + 1, len(split))


def _text(split: Split, by_view: Sequence[Sequence[_Entry]]) -> str:
    """Say what is computed."""
    cuts = max((len(same) for same in by_view), default=1)
    views = [same[0].view.index + 1 for same in by_view if same[0].view is not None]
    text = f"features of {split.name}" + (f" at {cuts} layers" if cuts > 1 else "")
    if len(views) > 1:
        return f"{text}, views {', '.join(map(str, views))}"
    return f"{text}, view {views[0]}" if views else text


@contextmanager
def _writing(path: Path, split: Split) -> Iterator[Callable[[Array], None]]:
    """Give a function that takes one batch of an entry after the other."""
    checksum, shape, dtype = 0, (), ""
    with files.atomic(path) as part, part.open("wb") as file:

        def add(batch: Array) -> None:
            nonlocal checksum, shape, dtype
            if not shape:
                shape, dtype = (len(split), *batch.shape[1:]), batch.dtype.str
                header = {"descr": dtype, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            data = np.ascontiguousarray(batch).tobytes()
            checksum = zlib.crc32(data, checksum)
            file.write(data)

        yield add
        file.flush()
        os.fsync(file.fileno())
    about = {"shape": shape, "dtype": dtype, "crc32": checksum, "split": split.name}
    files.write_text(path.with_suffix(".json"), json.dumps(about))


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
    now = time.time_ns()  # the system's own stamps may be the same for what follows at once
    os.utime(note, ns=(now, now))
    return array


def _crc32(path: Path, offset: int) -> int:
    checksum = 0
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _size(split: Split, frozen: Frozen, section: Section) -> int:
    """Return the bytes of the features of one view."""
    assert frozen.model is not None
    width = int(np.prod(frozen.model.output.shape[1:]))
    return len(split) * width * np.dtype(section["dtype"]).itemsize


def _check_size(split: Split, frozen: Frozen, section: Section) -> None:
    needed = _size(split, frozen, section) / 1e9
    if needed > section["max_gb"]:
        raise ConfigError(
            "features.max_gb",
            f"at least {needed:.3g}, the size of the features of {split.name}",
            section["max_gb"],
            "Raise it, or make the features smaller with model.pooling=avg, a smaller "
            "model.image_size or features.dtype=float16",
        )


def _evict(folder: Path, max_gb: float, *, keep: Set[Path]) -> None:
    entries = []
    for note in folder.glob("*.json"):
        path = note.with_suffix(".npy")
        if path.exists():
            entries.append((note.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_gb * 1e9:
            return
        if path not in keep:
            # The description goes first: what is left of an interrupted removal is no entry.
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            total -= size

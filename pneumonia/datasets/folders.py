"""Folders of image files: the files and classes that are found in them."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pneumonia.datasets import dicom
from pneumonia.datasets.base import SPLITS
from pneumonia.datasets.dicom import DICOM, IMAGE, kind_of
from pneumonia.datasets.image_files import NAMES
from pneumonia.errors import ConfigError, DataError
from pneumonia.shell import shown

NEGATIVE_NAMES = frozenset(
    {"normal", "negative", "healthy", "control", "controls", "benign", "absent", "none", "no", "0"}
)
# How the names of other negative classes begin, such as No Finding or non-COVID.
_NEGATION = re.compile("(no|non|not|without)[ _-]", re.IGNORECASE)
# What others call splits, and nobody a class.
_SPLIT_NAMES = {
    **dict.fromkeys(("training", "trn"), "train"),
    **dict.fromkeys(("valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("testing", "tst"), "test"),
    **{name: name for name in SPLITS},
}
_NAMED = 5
# What systems and archives leave behind, beside what begins with a dot.
_LEFTOVERS = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
    | {"@eadir", "$recycle.bin", "lost+found", "system volume information"}
)
# How far below a folder a dataset is looked for, and among how many others.
_DEPTH, _MOST = 3, 200


class LabeledFile(NamedTuple):
    """An image file, the name of its class folder, and its path below the dataset's folder."""

    path: Path
    class_name: str
    name: str


Files: TypeAlias = dict[str, list[LabeledFile]]
Found: TypeAlias = tuple[Files, Counter[str]]


def find_files(root: Path) -> Found:
    """Find the image files of a folder, in the order of their paths.

    It has two class folders, or `train` and perhaps `val` and `test`, which have two each. They
    come by split, all as `train` where the folder is not divided, with how many other files there
    are of each kind.

    Raises:
        DataError: For another layout, or a symbolic link that leads out of it. It names the folder
            that would do, if there is one nearby.
    """
    if not root.is_dir():
        if not root.exists():
            raise DataError("There is no such folder")
        hints = {".npz": "; dataset=npz reads it", ".zip": "; unpack it first"}
        raise DataError(f"It is a file, no folder{hints.get(root.suffix.lower(), '')}")
    root = root.resolve()
    try:
        return _find(root)
    except DataError as error:
        if (meant := next(_find_others(root), None)) is None:
            raise
        command = shlex.quote(f"dataset.path={shown(meant)}")
        raise DataError(f"{str(error).rstrip('.')}; those are in `{command}`") from error


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFTOVERS


def _find(root: Path) -> Found:
    found = _list_folders(root)
    left_out: Counter[str] = Counter()
    if all(folder.name.lower() not in _SPLIT_NAMES for folder in found):
        return {"train": _find_labeled(root, root, left_out)}, left_out
    _check_splits(root, found)
    return {one.name.lower(): _find_labeled(one, root, left_out) for one in found}, left_out


def _find_others(root: Path) -> Iterator[Path]:
    """Yield the folders nearby that hold a dataset, the likeliest first.

    Those are divided ones below, one below that has none beside it, and those above where the
    folder holds the images of one class.
    """
    level = [root]
    for _ in range(_DEPTH):
        level = [inner for folder in level[:_MOST] for inner in _list_folders(folder, strict=False)]
        divided = [one for one in level if _is_divided(one, strict=False)]
        yield from filter(_is_dataset, level if len(level) == 1 else divided)
    if any(kind_of(path) == IMAGE for path in root.iterdir()):
        above = (one for one in root.parents[:2] if one.name.lower() not in _SPLIT_NAMES)
        yield from filter(_is_dataset, above)


def _is_dataset(folder: Path) -> bool:
    try:
        return bool(_find(folder))
    except (DataError, OSError):
        return False


def _is_divided(folder: Path, *, strict: bool = True) -> bool:
    return any(one.name.lower() == "train" for one in _list_folders(folder, strict=strict))


def _check_splits(root: Path, found: Sequence[Path]) -> None:
    """Refuse a divided folder whose parts are not train, val and test; say what to rename."""
    names = [folder.name for folder in found]
    for name in names:
        if name.lower() not in SPLITS:
            meant = _SPLIT_NAMES.get(name.lower())
            hint = f"; rename it to {meant}" if meant else ""
            expected = "no folders besides train, val and test"
            raise DataError(f"{root}: expected {expected}. Received: {name!r}{hint}.")
    if len({name.lower() for name in names}) < len(names) or "train" not in map(str.lower, names):
        raise DataError(
            f"{root}: expected a folder train, and at most one of a kind. Received: {names}."
        )


def order_classes(files: Mapping[str, Sequence[LabeledFile]], positive: str | None) -> list[str]:
    """Return the two class names, the negative one first.

    The negative class is the one that is not `positive`; without that, the one called `normal`,
    `negative` or alike (`NEGATIVE_NAMES`); without such a name, the one that begins with `no`,
    `non`, `not` or `without`, as a word; else the first in the alphabet.
    """
    found = {split: sorted({file.class_name for file in part}) for split, part in files.items()}
    names = found["train"]
    for split, others in found.items():
        if others != names:
            raise DataError(
                f"Class folders: expected the same in all splits, {names} as in 'train'. "
                f"Received: {others} in {split!r}."
            )
    if positive is None:
        negatives = [name for name in names if name.lower() in NEGATIVE_NAMES]
        negatives = negatives or [name for name in names if _NEGATION.match(name)]
        positive = names[1] if len(negatives) != 1 or negatives[0] == names[0] else names[0]
    elif positive not in names:
        expected = f"the name of a class folder, {names[0]!r} or {names[1]!r}"
        near = {name.lower(): name for name in names}.get(positive.lower())
        hint = f"Did you mean {near}?" if near else ""
        raise ConfigError("dataset.positive", expected, positive, hint)
    return sorted(names, key=lambda name: name == positive)


def _find_labeled(folder: Path, root: Path, left_out: Counter[str]) -> list[LabeledFile]:
    """Return the images of two class folders, and count the other files into `left_out`."""
    classes = _list_folders(folder)
    if len(classes) != 2:
        names = [one.name for one in classes]
        hint = "; classifiers are for two classes, so merge or leave out some"
        if len(classes) < 2:
            has_images = not classes and any(kind_of(path) == IMAGE for path in folder.iterdir())
            hint = "; the images lie in this very folder" if has_images else ""
        raise DataError(f"{folder}: expected two class folders. Received: {names or 'none'}{hint}.")
    if divided := [one.name for one in classes if _is_divided(one)]:
        expected = "two class folders, which are in train, val and test and not around them"
        raise DataError(f"{folder}: expected {expected}. Received: {divided}, with a train in it.")
    files = []
    for one in classes:
        others: Counter[str] = Counter()
        paths = _walk(one, root, others)
        if not paths:
            kinds = list_some(sorted(others))
            told = f", but files of the kind {kinds}" if kinds else ""
            told += f"; {dicom.EXTRA} reads DICOM" if others[DICOM] else ""
            raise DataError(f"{one}: expected {NAMES} images. Received: no images{told}.")
        files += [LabeledFile(path, one.name, path.relative_to(root).as_posix()) for path in paths]
        left_out += others
    return files


def _list_folders(folder: Path, *, strict: bool = True) -> list[Path]:
    if not strict and not os.access(folder, os.R_OK | os.X_OK):
        return []
    entries = sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not _is_leftover(entry.name) and not entry.name.startswith("__")
    )
    if strict:
        _refuse([entry for entry in entries if entry.is_symlink()])
    return entries


def _walk(folder: Path, root: Path, left_out: Counter[str]) -> list[Path]:
    """Return the image files below a folder, sorted; DICOM files where pydicom is installed."""
    admitted = {IMAGE, DICOM} if dicom.is_supported() else {IMAGE}
    paths, links = [], []
    for place, names, file_names in os.walk(folder):
        names[:] = [name for name in names if not _is_leftover(name)]
        links += [Path(place, name) for name in names if Path(place, name).is_symlink()]
        for path in (Path(place, name) for name in file_names if not _is_leftover(name)):
            if (kind := kind_of(path)) not in admitted:
                left_out[kind] += 1
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                links.append(path)
            paths.append(path)
    _refuse(links)
    return sorted(paths)


def _refuse(links: Sequence[Path]) -> None:
    if links:
        raise DataError(
            "Symbolic links: expected none to a folder, and none that leads out of dataset.path. "
            f"Received: {list_some([str(link) for link in sorted(links)])}."
        )


def list_some(lines: Sequence[str], *, separator: str = ", ") -> str:
    """Return the first few lines, and how many more there are."""
    rest = len(lines) - _NAMED
    more = [f"and {rest} more"] if rest > 0 else []
    return separator.join([*lines[:_NAMED], *more])

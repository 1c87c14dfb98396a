"""Folders of image files: finding them, and dividing them into train, val and test."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumonia.data import SPLITS
from pneumonia.errors import ConfigError, DataError
from pneumonia.image_files import SUFFIXES

NEGATIVE_NAMES = frozenset(
    {"normal", "negative", "healthy", "control", "controls", "benign", "absent", "none", "no", "0"}
)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class LabeledFile:
    """An image file and the name of its class folder."""

    path: Path
    class_name: str


def find_files(root: Path) -> dict[str, list[LabeledFile]]:
    """Find the image files of a folder, in the order of their paths.

    Args:
        root: A folder with two class folders, or with `train` and perhaps `val` and `test`, which
            have two class folders each.

    Returns:
        The files by split; all of them under `train` where the folder is not divided.

    Raises:
        DataError: Where the folder has another layout, or a symbolic link leads out of it.
    """
    if not root.is_dir():
        raise DataError(f"dataset.path: expected a folder. Received: {root}.")
    root = root.resolve()
    folders = {folder.name: folder for folder in _list_folders(root)}
    if "train" not in {name.lower() for name in folders}:
        return {"train": _find_labeled(root, root)}
    unknown = sorted(name for name in folders if name.lower() not in SPLITS)
    if unknown:
        raise DataError(
            f"{root}: expected no folders besides train, val and test. Received: {unknown}."
        )
    return {name.lower(): _find_labeled(folder, root) for name, folder in folders.items()}


def order_classes(files: Mapping[str, Sequence[LabeledFile]], positive: str | None) -> list[str]:
    """Return the two class names, the negative one first.

    The negative class is the one that is not `positive`; without that, the one called `normal`,
    `negative` or alike (`NEGATIVE_NAMES`); without such a name, the first in the alphabet.

    Raises:
        DataError: Where the splits have different classes.
        ConfigError: Where `positive` is not one of them.
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
        positive = names[1] if len(negatives) != 1 or negatives[0] == names[0] else names[0]
    elif positive not in names:
        expected = f"the name of a class folder, {names[0]!r} or {names[1]!r}"
        raise ConfigError("dataset.positive", expected, positive)
    return sorted(names, key=lambda name: name == positive)


def divide(
    files: Sequence[LabeledFile], fractions: Mapping[str, float], *, seed: int, pattern: str | None
) -> dict[str, list[LabeledFile]]:
    """Split parts off the files, stratified by class, a patient's images staying together.

    Patients are ordered by a hash of the seed and their name, so that the parts do not depend on
    the platform and change little where images are added.

    Args:
        files: What to divide.
        fractions: Fraction (0 to 1) of the files by the name of the part; the rest is `train`.
        seed: Another seed gives other parts.
        pattern: A regular expression whose first group, searched in a file's name, is the
            patient. A file without a match counts as a patient of its own.

    Returns:
        The files by part, `train` included, each in the order of `files`.

    Raises:
        ConfigError: For a pattern that is no regular expression, has no group or never matches.
    """
    patients = _find_patients(files, pattern)
    by_class: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for file, patient in zip(files, patients, strict=True):
        # A patient with images of both classes belongs to the class that is seen first.
        if patient not in sizes:
            by_class[file.class_name].append(patient)
        sizes[patient] += 1
    part_of: dict[str, str] = {}
    for members in by_class.values():
        members.sort(key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
        part_of |= _deal(members, sizes, fractions)
    parts: dict[str, list[LabeledFile]] = {name: [] for name in ("train", *fractions)}
    for file, patient in zip(files, patients, strict=True):
        parts[part_of[patient]].append(file)
    return parts


def _deal(
    members: Sequence[str], sizes: Mapping[str, int], fractions: Mapping[str, float]
) -> dict[str, str]:
    """Give each patient of one class, in order, to the first part that still lacks images."""
    total = sum(sizes[member] for member in members)
    lacking = {name: max(1, round(fraction * total)) for name, fraction in fractions.items()}
    part_of = {}
    for member in members:
        part = next((name for name, count in lacking.items() if count > 0), "train")
        part_of[member] = part
        if part in lacking:
            lacking[part] -= sizes[member]
    return part_of


def _find_patients(files: Sequence[LabeledFile], pattern: str | None) -> list[str]:
    own = [f"file {file.class_name}/{file.path.name} {n}" for n, file in enumerate(files)]
    if pattern is None:
        return own
    key, expected = "dataset.patient_pattern", "a regular expression with a group, as person(\\d+)_"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(key, expected, pattern, f"It does not compile: {error}") from error
    if compiled.groups < 1:
        raise ConfigError(key, expected, pattern, "It has no group")
    matches = [compiled.search(file.path.name) for file in files]
    if files and not any(matches):
        example = f"No file name matches, such as {files[0].path.name}"
        raise ConfigError(key, expected, pattern, example)
    return [
        f"patient {match[1]}" if match and match[1] is not None else alone
        for match, alone in zip(matches, own, strict=True)
    ]


def _find_labeled(folder: Path, root: Path) -> list[LabeledFile]:
    classes = _list_folders(folder)
    if len(classes) != 2:
        names = [one.name for one in classes]
        raise DataError(f"{folder}: expected two class folders. Received: {names or 'none'}.")
    files = {one: _walk(one, root) for one in classes}
    for one, paths in files.items():
        if not paths:
            raise DataError(f"{one}: expected PNG, JPEG, BMP or TIFF images. Received: no images.")
    return [LabeledFile(path, one.name) for one, paths in files.items() for path in paths]


def _list_folders(folder: Path) -> list[Path]:
    entries = sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith((".", "__"))
    )
    links = [entry for entry in entries if entry.is_symlink()]
    if links:
        _refuse(links)
    return entries


def _walk(folder: Path, root: Path) -> list[Path]:
    """Return the image files below a folder, sorted; refuse links that lead out of `root`."""
    paths, links = [], []
    for place, names, file_names in os.walk(folder):
        links += [Path(place, name) for name in names if Path(place, name).is_symlink()]
        for name in file_names:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                links.append(path)
            paths.append(path)
    if links:
        _refuse(links)
    return sorted(paths)


def _refuse(links: Sequence[Path]) -> None:
    raise DataError(
        "Symbolic links: expected none to a folder, and none that leads out of dataset.path. "
        f"Received: {list_some([str(link) for link in sorted(links)])}."
    )


def list_some(lines: Sequence[str], *, separator: str = ", ") -> str:
    """Return the first few lines, and how many more there are."""
    rest = len(lines) - _NAMED
    more = [f"and {rest} more"] if rest > 0 else []
    return separator.join([*lines[:_NAMED], *more])

"""Folders of image files: finding them, and dividing them into train, val and test."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
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
    `negative` or alike (`NEGATIVE_NAMES`); without such a name, the first in the alphabet.
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
        near = {name.lower(): name for name in names}.get(positive.lower())
        hint = f"Did you mean {near}?" if near else ""
        raise ConfigError("dataset.positive", expected, positive, hint)
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
    for class_name, members in by_class.items():
        if len(members) <= len(fractions):
            kind = "images" if pattern is None else "patients"
            raise DataError(
                f"Class {class_name!r}: expected at least {len(fractions) + 1} {kind} to divide "
                f"into train, {' and '.join(fractions)}. Received: {len(members)}."
            )
        members.sort(key=lambda patient: _hash(f"{seed}:{patient}"))
        part_of |= _deal(members, sizes, fractions)
    parts: dict[str, list[LabeledFile]] = {name: [] for name in ("train", *fractions)}
    for file, patient in zip(files, patients, strict=True):
        parts[part_of[patient]].append(file)
    return parts


def count_shared(patients: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Count, for each pair of splits, `<first>/<second>`, the patients with images in both."""
    known = {name: set(found) for name, found in patients.items()}
    return {f"{a}/{b}": len(known[a] & known[b]) for a, b in combinations(known, 2)}


def find_patients(
    files: Mapping[str, Sequence[LabeledFile]], pattern: str | None
) -> dict[str, list[str]]:
    """Return the patient of every file, by split; none without the pattern, as of `divide`."""
    if pattern is None:
        return {}
    patients = iter(_find_patients([file for name in SPLITS for file in files[name]], pattern))
    return {name: [next(patients) for _ in files[name]] for name in SPLITS}


def _deal(
    members: Sequence[str], sizes: Mapping[str, int], fractions: Mapping[str, float]
) -> dict[str, str]:
    """Give each patient of one class, in order, to the first part that it brings nearer its share.

    The others are train's. A part without a patient gets the one nearest its share from a part
    that has several.
    """
    total = sum(sizes[member] for member in members)
    shares = {name: max(1, round(fraction * total)) for name, fraction in fractions.items()}
    shares["train"] = total - sum(shares.values())
    lacking = {name: shares[name] for name in fractions}
    part_of = {}
    for member in members:
        nearer = (name for name, count in lacking.items() if sizes[member] < 2 * count)
        part_of[member] = part = next(nearer, "train")
        if part in lacking:
            lacking[part] -= sizes[member]
    for name, share in shares.items():
        held = Counter(part_of.values())
        if not held[name]:
            spare = [member for member in members if held[part_of[member]] > 1]
            distances = [abs(sizes[member] - share) for member in spare]
            part_of[spare[distances.index(min(distances))]] = name
    return part_of


def _hash(text: str) -> bytes:
    # Names of files may be no text: Python keeps their bytes as surrogates.
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _find_patients(files: Sequence[LabeledFile], pattern: str | None) -> list[str]:
    # Names that no other file has, in all splits, and that stay when files come and go.
    own = [f"file {file.name}" for file in files]
    if pattern is None:
        return own
    key, expected = "dataset.patient_pattern", "a regular expression with a group, as person(\\d+)_"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(key, expected, pattern, f"It does not compile: {error}") from error
    matches = [compiled.search(file.path.name) for file in files]
    reason = "" if compiled.groups else "It has no group"
    if files and not any(matches):
        reason = reason or f"No file name matches, such as {files[0].path.name}"
    if reason:
        raise ConfigError(key, expected, pattern, reason)
    return [
        f"patient {match[1]}" if match and match[1] is not None else alone
        for match, alone in zip(matches, own, strict=True)
    ]


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

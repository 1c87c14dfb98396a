"""Files of a folder divided into train, val and test, a patient's images staying together."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from pneumonia.datasets.base import SPLITS
from pneumonia.datasets.folders import LabeledFile
from pneumonia.errors import ConfigError, DataError


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
        pattern: A regular expression whose group, searched in a file's name, is the patient; of
            several the first that matches. A file without a match counts as a patient of its own.
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


def find_unmatched(
    files: Mapping[str, Sequence[LabeledFile]], patients: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the names of the files that no patient is known of, as of `find_patients`."""
    return [
        file.name
        for name, found in patients.items()
        for file, patient in zip(files[name], found, strict=True)
        if patient == _alone(file)
    ]


def _alone(file: LabeledFile) -> str:
    # A name that no other file has, in all splits, and that stays when files come and go.
    return f"file {file.name}"


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
    own = [_alone(file) for file in files]
    if pattern is None:
        return own
    key = "dataset.patient_pattern"
    expected = "a regular expression with a group, as (person\\d+|IM-\\d+)"
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
    groups = [match.groups() if match else () for match in matches]
    found = [next((one for one in some if one is not None), None) for some in groups]
    pairs = zip(found, own, strict=True)
    return [alone if one is None else f"patient {one}" for one, alone in pairs]

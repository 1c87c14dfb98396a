"""What about the images of a dataset people should know, a line for each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pneumonia.datasets.base import Split

_NAMED = 10


def find(splits: Sequence[Split], class_names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each kind of images that are seldom meant to be there."""
    copies = [len(split.hashes) - len(set(split.hashes)) for split in splits]
    for what, counts in (
        ("blank images, of one value all over", [split.blank for split in splits]),
        ("images that repeat another of the same split", copies),
    ):
        found = [f"{n:,} in {split.name}" for n, split in zip(counts, splits, strict=True) if n]
        if found:
            yield f"{what}: {', '.join(found)}"
    yield from _find_twins(splits)
    seen: list[dict[bytes, str]] = [{}, {}]
    for split in splits:
        for one, label, name in zip(split.hashes, split.labels.tolist(), split.names, strict=False):
            seen[label].setdefault(one, name)
    if both := [one for one in seen[0] if one in seen[1]]:
        example = f"{seen[0][both[0]]!r} and {seen[1][both[0]]!r}"
        yield f"images that are in both classes: {len(both):,}, such as {example}"
    for label, class_name in enumerate(class_names):
        single = [split.name for split in splits if (split.labels == label).sum() == 1]
        if single:
            yield f"class {class_name!r} has a single image in {' and in '.join(single)}"


def _find_twins(splits: Sequence[Split]) -> Iterator[str]:
    """Yield a line that names the images that are in two splits, if any."""
    twins = []
    for first, second in combinations(splits, 2):
        names = dict(zip(reversed(first.hashes), reversed(first.names), strict=False))
        found = zip(second.hashes, second.names, strict=False)
        twins += [f"{names[one]!r} is {name!r}" for one, name in found if one in names]
    if twins:
        more = [f"and {len(twins) - _NAMED:,} more"] if len(twins) > _NAMED else []
        yield f"images that are in two splits: {', '.join([*twins[:_NAMED], *more])}"

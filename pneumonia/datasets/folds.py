"""Train and val joined and divided into folds, each of which is held out of a training in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pneumonia.datasets.base import ImageData, Split
from pneumonia.errors import ConfigError
from pneumonia.seeding import FOLDS, generator


def divide(data: ImageData, folds: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold (n,), from 0, of the images of train, then of val.

    Folds are stratified by class. Images of one patient are in one fold, where patients are known,
    and so are images that are the same byte for byte.

    Raises:
        ConfigError: For more folds than there are images of a class, so held together.
    """
    labels = np.concatenate([data.train.labels, data.val.labels])
    groups = _group((data.train, data.val))
    counts = np.zeros((groups.max() + 1, 2), dtype=np.int64)
    np.add.at(counts, (groups, labels), 1)
    order = generator(seed, FOLDS).permutation(len(counts))
    # The largest first, while there is room to make up for them.
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    totals, filled = counts.sum(axis=0).tolist(), [[0, 0] for _ in range(folds)]
    fold_of = np.empty(len(counts), dtype=np.int64)

    def fullness(fold: int) -> tuple[float, int]:
        """Say how much a fold has already of the classes of a group, and how much of all."""
        negatives, positives = filled[fold]
        share = own[0] * negatives / totals[0] + own[1] * positives / totals[1]
        return share, negatives + positives

    for group in order:
        own = counts[group].tolist()
        fold_of[group] = chosen = min(range(folds), key=fullness)
        filled[chosen] = [have + more for have, more in zip(filled[chosen], own, strict=True)]
    if min(map(min, filled)) == 0:
        apart = (counts > 0).sum(axis=0)
        rarer = int(apart.argmin())
        what = "patients or images" if data.train.patients else "different images"
        hint = f"There are {apart[rarer]} {what} of class {data.class_names[rarer]!r}"
        expected = "so few folds that train and val have images of both classes for each"
        raise ConfigError("objective.folds", expected, folds, hint)
    return fold_of[groups]


def _group(splits: Sequence[Split]) -> npt.NDArray[np.int64]:
    """Return a number (n,) for each image of some splits, the same for those held together."""
    root = list(range(sum(map(len, splits))))
    first: dict[str | bytes, int] = {}

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = index = root[root[index]]
        return index

    start = 0
    for split in splits:
        keys: tuple[Iterable[str | bytes], ...] = (split.hashes, split.patients)
        for index, key in itertools.chain.from_iterable(enumerate(one, start) for one in keys):
            root[find(index)] = find(first.setdefault(key, index))
        start += len(split)
    return np.unique([*map(find, root)], return_inverse=True)[1]

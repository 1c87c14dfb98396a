"""Images of train that val or test has too: what they teach is asked there.

Copies have the same pixels, or in folders the same bytes: a file that was saved again, in another
format or with another compression, is none.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pneumonia.datasets import oddities
from pneumonia.datasets.base import ImageData, build_data, choose
from pneumonia.errors import ConfigError, DataError


def drop(data: ImageData) -> ImageData:
    """Leave out of train what val or test has too; copies within train stay.

    Raises:
        ConfigError: Where none of a class is left.
    """
    train, val, test = splits = data.train, data.val, data.test
    held = {
        one: (split, index)
        for split in (test, val)  # what both have counts for val
        for index, one in enumerate(split.hashes)
    }
    found = {index: held[one] for index, one in enumerate(train.hashes) if one in held}
    if not found:
        return data
    try:
        smaller = choose(train, np.setdiff1d(np.arange(len(train)), list(found)))
    except DataError as error:
        key, reason = "dataset.drop_duplicates", str(error).rstrip(".")
        raise ConfigError(key, "false, as too little would be left", True, reason) from error
    counts = Counter(split.name for split, _ in found.values())
    told = ", ".join(f"{counts[split.name]:,} of {split.name}" for split in (val, test))
    contrary = [
        f"{train.names[index]!r} and {split.names[twin]!r}"
        for index, (split, twin) in found.items()
        if train.labels[index] != split.labels[twin]
    ]
    if contrary:
        told += f"; {len(contrary):,} of them with another label there, such as {contrary[0]}"
    before = set(oddities.find(splits, data.class_names))
    own = [note for note in data.notes if note not in before]
    return build_data(
        data.name,
        (smaller, val, test),
        class_names=data.class_names,
        source=data.source,
        notes=[*own, f"left out of train, as another split has them: {told}"],
        shared_patients=data.shared_patients,
    )

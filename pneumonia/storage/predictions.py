"""What the final classifier of a search gave for each image, as a file beside the journal."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia import files
from pneumonia.errors import UserError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the final classifier gave for the images of one split.

    Attributes:
        names: What the images are called.
        labels: int64 (N,), 0 or 1.
        probabilities: float64 (N,), of the positive class.
    """

    names: tuple[str, ...]
    labels: Array
    probabilities: Array


def read(path: Path, *, sizes: Mapping[str, int] | None = None) -> dict[str, Predictions]:
    """Read a file with the columns `split,name,label,probability`.

    Args:
        path: The file.
        sizes: How many images the splits have, where that is known.

    Returns:
        Predictions by split; none where the file is missing.

    Raises:
        UserError: Where it is damaged, with the line, or lacks rows.
    """
    rows: dict[str, list[tuple[str, int, float]]] = {}
    if not path.exists():
        return {}
    # Names of files may be no text: Python keeps their bytes as surrogates.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                name = files.csv_text(row["name"])
                values = (name, int(row["label"]), float(row["probability"]))
                if values[1] not in (0, 1) or not 0 <= values[2] <= 1 or None in row:
                    raise ValueError
                rows.setdefault(row["split"], []).append(values)
            if not rows:
                raise ValueError
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise _damaged(path, f"in line {max(1, reader.line_num)}") from error
    found = {}
    for split, members in rows.items():
        expected = (sizes or {}).get(split, len(members))
        if expected != len(members):
            raise _damaged(path, f"({len(members)} rows of {split} instead of {expected})")
        names, labels, probabilities = zip(*members, strict=True)
        found[split] = Predictions(names, np.array(labels), np.array(probabilities))
    return found


def _damaged(path: Path, where: str) -> UserError:
    text = "Without the file, a report of this search leaves out what depends on it."
    return UserError(f"{path}: damaged {where}. {text}")

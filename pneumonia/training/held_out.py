"""What the fits of a trial give for the images that they were not trained on.

For a search by val those are the images of val. With folds they are those of train, then of val,
each by the fit that it was held out of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pneumonia.datasets.cache import load_data
from pneumonia.datasets.folds import divide

Array = np.ndarray[Any, Any]
Config = dict[str, Any]


def labels(config: Config) -> Array:
    """Return the labels, int64 (n,), of the images that `gather` has predictions for."""
    data = load_data(config)
    if config["objective"].get("folds") is None:
        return data.val.labels
    return np.concatenate([data.train.labels, data.val.labels])


def parts(config: Config) -> list[Array]:
    """Return the rows, int64 (k,), of `labels` that are measured together: by fold, or all."""
    folds, data = config["objective"].get("folds"), load_data(config)
    if folds is None:
        return [np.arange(len(data.val))]
    fold_of = divide(data, folds, seed=config["seed"])
    return [np.flatnonzero(fold_of == fold) for fold in range(folds)]


def gather(config: Config, predicted: Sequence[Array]) -> Array:
    """Return what all fits of a trial give for the images of `labels`, float32 (executions, n).

    Args:
        config: The whole configuration of the trial.
        predicted: What each gives for those of its part, in the order of `Objective.fits`.
    """
    rows = parts(config)
    executions = len(predicted) // len(rows)
    found = np.empty((executions, sum(map(len, rows))), np.float32)
    for place, given in enumerate(predicted):
        found[place % executions, rows[place // executions]] = given
    return found

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
from pneumonia.training.checkpoint import FitState

Array = np.ndarray[Any, Any]
Config = dict[str, Any]


def labels(config: Config) -> Array:
    """Return the labels, int64 (n,), of the images that `gather` has predictions for."""
    data = load_data(config)
    if config["objective"].get("folds") is None:
        return data.val.labels
    return np.concatenate([data.train.labels, data.val.labels])


def gather(config: Config, fits: Sequence[FitState]) -> Array:
    """Return the probabilities at the best epochs of all fits of a trial, float32 (executions, n).

    Args:
        config: The whole configuration of the trial.
        fits: In the order of `Objective.fits`.
    """
    folds = config["objective"].get("folds")
    if folds is None:
        return np.stack([fit.predicted for fit in fits])
    executions = len(fits) // folds
    fold_of = divide(load_data(config), folds, seed=config["seed"])
    found = np.empty((executions, len(fold_of)), np.float32)
    for place, fit in enumerate(fits):
        found[place % executions, fold_of == place // executions] = fit.predicted
    return found

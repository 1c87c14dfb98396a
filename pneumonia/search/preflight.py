"""What every trial would fail at, found before the first one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from omegaconf import DictConfig

from pneumonia.config.search_space import Space, collapse
from pneumonia.errors import ConfigError
from pneumonia.training import inputs, network

Config = dict[str, Any]


def rehearse(cfg: DictConfig, space: Space, *, report: inputs.Report) -> Config:
    """Build all that a trial needs, and compute the features of the first one, without training.

    Where a value of a range is what is wrong, another value of it may do: then it is a mistake of
    some trials, which fail alone.

    Args:
        cfg: The configuration with its ranges.
        space: The ranges.
        report: Called with a text, how much is done and how much there is to do.

    Returns:
        The configuration of a trial that can be built.

    Raises:
        UserError: For a mistake that every trial would hit.
    """
    config = collapse(cfg, space.start())
    try:
        _try(config, report)
    except ConfigError as error:
        for other in _alternatives(cfg, space, error.key):
            if _works(other, report):
                return other
        raise
    return config


def _works(config: Config, report: inputs.Report) -> bool:
    try:
        _try(config, report)
    except ConfigError:
        return False
    return True


def _try(config: Config, report: inputs.Report) -> None:
    prepared = inputs.prepare_folds(config, report=report)[0]
    guesses = np.random.default_rng(0).random(len(prepared.val_labels), dtype=np.float32)
    try:
        network.rehearse(config, prepared.val_labels, guesses)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        return  # the trial fails at it, others may be smaller


def _alternatives(cfg: DictConfig, space: Space, key: str) -> Iterator[Config]:
    """Yield the start with other values, of one range at a time, that an error may be about."""
    start, section = space.start(), key.split(".")[0]
    for item in space:
        if item.path.split(".")[0] != section or item.path not in start:
            continue
        for value in item.values or (item.low, item.high):
            try:
                yield collapse(cfg, {**start, item.path: value})
            except ConfigError:
                continue  # other hyperparameters exist with this value

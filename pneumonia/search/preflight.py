"""What every trial would fail at, found before the first one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from omegaconf import DictConfig

from pneumonia.config.search_space import Space, collapse
from pneumonia.errors import ConfigError
from pneumonia.search.executors import Executor, LocalExecutor
from pneumonia.search.trials import cuts
from pneumonia.training import ensemble, inputs, network

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
    try:
        return _try(cfg, space, space.start(), report)
    except ConfigError as error:
        for values in _alternatives(space, error.key):
            # Other hyperparameters may exist with a value, or it may be wrong as well.
            with contextlib.suppress(ConfigError):
                return _try(cfg, space, values, report)
        raise


def _try(cfg: DictConfig, space: Space, values: Mapping[str, Any], report: inputs.Report) -> Config:
    config = collapse(cfg, values)
    together = cuts(cfg, space, values, config["model"])
    prepared = inputs.prepare_folds(config, report=report, together=together)[0]
    guesses = np.random.default_rng(0).random(len(prepared.val_labels), dtype=np.float32)
    # The trial fails where memory does not do, others may be smaller.
    with contextlib.suppress(MemoryError, tf.errors.ResourceExhaustedError):
        network.rehearse(config, prepared.val_labels, guesses)
    if config["winner"]["image_size"]:
        _try_size(config)
    return config


def _try_size(config: Config) -> None:
    """Build the backbone for the images that the final classifier is shown.

    Raises:
        ConfigError: It does not take them, or would be another one.
    """
    own, last = inputs.parts(config).backbone, ensemble.final_parts(config).backbone
    # Keras has other weights of MobileNet for other sizes.
    shapes = [[tuple(one.shape) for one in (*net.weights, net.output)] for net in (own, last)]
    if shapes[0] != shapes[1] or not _agree(own, last):
        expected = f"null, as {own.name} is another network for images of another size"
        raise ConfigError("winner.image_size", expected, config["winner"]["image_size"])


def _agree(one: keras.Model, other: keras.Model) -> bool:
    """Tell whether two networks have the same values where no training changes them."""
    layers = (pair for pair in zip(one.layers, other.layers, strict=True) if not pair[0].trainable)
    pairs = (zip(*(layer.get_weights() for layer in pair), strict=True) for pair in layers)
    return all(np.array_equal(*values) for values in itertools.chain.from_iterable(pairs))


def _alternatives(space: Space, key: str) -> Iterator[dict[str, Any]]:
    """Yield the start with other values, of one range at a time, that an error may be about."""
    start, section = space.start(), key.split(".")[0]
    for item in space:
        if item.path.split(".")[0] != section or item.path not in start:
            continue
        for value in item.values or (item.low, item.high):
            yield {**start, item.path: value}


def sharing(executor: Executor, *, reserved: float | None = None) -> str:
    """Say how trials share GPUs where not each has one; nothing where there is nothing to say.

    TensorFlow computes on the first that a process sees, in all its threads.

    Args:
        executor: Where the trials run.
        reserved: GPUs that Ray reserves for each worker; None of another executor.
    """
    count = len(tf.config.list_physical_devices("GPU"))
    if reserved == 0 and count * executor.workers > 1:  # Ray then hides none of them
        return (
            "warning: executor.gpus=0: all the workers on a machine compute on its first GPU; "
            "executor.gpus=1 gives each one of its own"
        )
    if not isinstance(executor, LocalExecutor) or reserved is not None or not count:
        return ""
    if count > 1:
        return (
            f"warning: executor=local computes on the first of {count} GPUs: executor=ray "
            f"executor.workers={count} executor.gpus=1 gives each trial one of its own"
        )
    shared = f"warning: {executor.workers} trials at a time share one GPU, and its memory"
    return shared if executor.workers > 1 else ""

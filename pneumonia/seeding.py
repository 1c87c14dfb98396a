"""Random numbers that depend on what they are for, and on nothing else."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np

# The purposes are part of every result: a number, once given, keeps its meaning.
SHUFFLE, VIEW, RENDER, BOOTSTRAP, MIX, PHASE, FOLDS = range(7)

_layers = random.Random()


def seed_python(seed: int) -> None:
    """Seed Python's generator, and the one that Keras draws the seeds of layers from."""
    random.seed(seed)
    _layers.seed(seed)


def separate_layers() -> None:
    """Have Keras draw the seeds of layers from a generator of their own, with the same numbers.

    From Python's, other threads may draw while a network is built: urllib3 before it tries again,
    scikit-learn as it is imported.
    """
    from keras.src.random import seed_generator
    from keras.src.utils import rng_utils

    seed_generator.python_random = _layers
    rng_utils.random = SimpleNamespace(seed=seed_python)  # what `keras.utils.set_random_seed` calls


def generator(seed: int, *purpose: int) -> np.random.Generator:
    """Return a generator for one purpose, such as `(SHUFFLE, epoch)`.

    Two calls with the same numbers give the same stream, whatever was drawn in between: so a
    trial that goes on after a promotion or a crash draws what it would have drawn.

    Args:
        seed: The seed of the training, 0 or more.
        *purpose: Whole numbers, 0 or more, that tell the purposes apart.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def integer(seed: int, *purpose: int) -> int:
    """Return a seed of 31 bits for one purpose."""
    return int(generator(seed, *purpose).integers(2**31 - 1))

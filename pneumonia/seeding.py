"""Random numbers that depend on what they are for, and on nothing else."""

from __future__ import annotations

import numpy as np

# The purposes are part of every result: a number, once given, keeps its meaning.
SHUFFLE, VIEW, RENDER, BOOTSTRAP, MIX, PHASE, FOLDS = range(7)


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

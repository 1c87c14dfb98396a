"""Which classifiers are averaged: forward selection with replacement, on val.

It goes by the log loss, whatever ranks the trials: near the top, AUC and accuracy of a few hundred
images are the same for many sets of trials, and then say nothing, while the log loss still tells
how sure the mean is of what is right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

# What Keras keeps probabilities away from 0 and 1 by: one sure mistake is not all that counts.
_EPSILON = 1e-7


def log_loss(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike) -> float:
    """Return the mean log loss; all arguments are (n,), the weights are those of the images."""
    p, w = (np.asarray(values, np.float64) for values in (probabilities, weights))
    right = np.where(np.asarray(labels) > 0, p, 1 - p)
    return float(-np.average(np.log(np.clip(right, _EPSILON, 1)), weights=w))


def select(
    labels: ArrayLike,
    probabilities: Sequence[ArrayLike],
    *,
    most: int,
    weights: ArrayLike,
) -> list[int]:
    """Select classifiers greedily, each as often as it helps.

    The first so many of the list by log loss whose mean is best begin (sorted initialisation); then
    the one that helps most, or harms least, is drawn again and again, and of all the sets on the
    way the best one is kept (Caruana et al. 2004, doi:10.1145/1015330.1015432, section 2).

    Args:
        labels: Of the images of val, 0 or 1, (n,).
        probabilities: Of each classifier, (n,); of equals, the earlier is preferred.
        most: How many draws there are at the most, from 1.
        weights: Of the images, (n,).

    Returns:
        The places of those drawn, in their order.
    """
    given = np.asarray(probabilities, np.float64)

    def loss(drawn: list[int]) -> float:
        return log_loss(labels, given[drawn].mean(axis=0), weights)

    order = sorted(range(len(given)), key=lambda place: loss([place]))
    drawn = min((order[:count] for count in range(1, min(most, len(order)) + 1)), key=loss)
    sets = [drawn]
    while len(sets[-1]) < most:
        sets.append(min(([*sets[-1], place] for place in order), key=loss))
    return min(sets, key=loss)

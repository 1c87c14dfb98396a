"""Heads: what is trained on the features of a backbone. One function each, named by `_target_`."""

from __future__ import annotations

from typing import Annotated

import keras

from pneumonia.config.constraints import ACTIVATION, Bounds
from pneumonia.errors import ConfigError


def dense(
    input_shape: tuple[int, ...],
    *,
    units: Annotated[int, Bounds(1)],
    dropout: Annotated[float, Bounds(0, below=1)],
    activation: Annotated[str, ACTIVATION] = "relu",
) -> keras.Model:
    """Build a hidden layer, dropout, and one sigmoid unit.

    Args:
        input_shape: Shape of the features of one image, `(F,)`.
        units: Size of the hidden layer, at least 1.
        dropout: Share of its outputs that is dropped in training, in [0, 1).
        activation: Name of a function in `keras.activations`.

    Returns:
        Features `(N, F)` to the probability of the positive class `(N, 1)`; its layers are named
        `dense`, `dropout` and `probability`.

    Raises:
        ConfigError: A value is out of its range.
    """
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise ConfigError("dense.units", "a positive integer", units)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError("dense.dropout", "a number from 0 up to, not including, 1", dropout)
    try:
        function = keras.activations.get(activation)
    except ValueError as error:
        raise ConfigError(
            "dense.activation", "the name of a function in keras.activations", activation
        ) from error
    features = keras.Input(input_shape, name="features")
    x = keras.layers.Dense(units, activation=function, name="dense")(features)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(1, activation="sigmoid", name="probability")(x)
    return keras.Model(features, x, name="head")

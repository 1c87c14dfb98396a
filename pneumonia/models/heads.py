"""Heads: what is trained on the features of a backbone. One function each, named by `_target_`."""

from __future__ import annotations

from typing import Annotated

import keras

from pneumonia.config.constraints import ACTIVATION, Bounds


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
        units: Size of the hidden layer.
        dropout: Share of its outputs that is dropped in training.
        activation: Name of a function in `keras.activations`.

    Returns:
        Features `(N, F)` to the probability of the positive class `(N, 1)`; its layers are named
        `dense`, `dropout` and `probability`.
    """
    features = keras.Input(input_shape, name="features")
    x = keras.layers.Dense(units, activation=activation, name="dense")(features)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(1, activation="sigmoid", name="probability")(x)
    return keras.Model(features, x, name="head")

"""Optimizers by name, for a search over them. A single one is named by `_target_` in its YAML."""

from __future__ import annotations

import inspect
from typing import Annotated

import keras

from pneumonia.config.constraints import OPTIMIZER, Bounds
from pneumonia.errors import ConfigError


def by_name(
    *,
    name: Annotated[str, OPTIMIZER],
    learning_rate: Annotated[float, Bounds(above=0)],
    momentum: Annotated[float, Bounds(0, 1)] | None = None,
) -> keras.optimizers.Optimizer:
    """Build an optimizer of `keras.optimizers`.

    Args:
        name: Its name in any case, such as `adam` or `RMSprop`.
        learning_rate: How far a step goes.
        momentum: None where the optimizer has none, or is to keep its default.

    Raises:
        ConfigError: It takes no momentum.
    """
    kinds = {key.lower(): kind for key, kind in vars(keras.optimizers).items() if key[0].isupper()}
    build = kinds[name.lower()]
    if momentum is None:
        return build(learning_rate=learning_rate, name=name.lower())
    if "momentum" not in inspect.signature(build).parameters:
        raise ConfigError("optimizer.momentum", f"null, as {name} has none", momentum)
    return build(learning_rate=learning_rate, momentum=momentum, name=name.lower())

"""Optimizers by name, for a search over them. A single one is named by `_target_` in its YAML."""

from __future__ import annotations

import inspect
from typing import Annotated

import keras

from pneumonia.config.constraints import OPTIMIZER, Bounds
from pneumonia.config.suggestions import nearest
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
        learning_rate: Above 0.
        momentum: None where the optimizer has none, or is to keep its default.

    Returns:
        The optimizer.

    Raises:
        ConfigError: There is no such optimizer, or it takes no momentum.
    """
    classes = _classes()
    if str(name).lower() not in classes:
        hint = nearest(str(name), classes) or f"There are {', '.join(classes)}"
        raise ConfigError("optimizer.name", "the name of an optimizer of Keras", name, hint)
    build = classes[name.lower()]
    if momentum is None:
        return build(learning_rate=learning_rate, name=name.lower())
    if "momentum" not in inspect.signature(build).parameters:
        raise ConfigError("optimizer.momentum", f"null, as {name} has none", momentum)
    return build(learning_rate=learning_rate, momentum=momentum, name=name.lower())


def _classes() -> dict[str, type[keras.optimizers.Optimizer]]:
    """Name in lower case to class, of what can be built from a learning rate alone."""
    found = (value for value in vars(keras.optimizers).values() if inspect.isclass(value))
    return {
        kind.__name__.lower(): kind
        for kind in found
        if "learning_rate" in inspect.signature(kind).parameters
        and issubclass(kind, keras.optimizers.Optimizer)
        and kind is not keras.optimizers.Optimizer
    }

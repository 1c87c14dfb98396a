"""Call what a section of the configuration names by `_target_`, with plain arguments."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object

from pneumonia.config import signatures, sources
from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError

LOCK = threading.RLock()
"""Layers draw their first weights from generators that all threads share: one builds at a time."""


def is_ours(section: Mapping[str, Any]) -> bool:
    """Tell whether what a section names is a part of this package, whose ways are known."""
    return str(section.get("_target_")).startswith("pneumonia.")


def build(section: Mapping[str, Any], key: str, *args: Any, **extra: Any) -> Any:
    """Call the target of a section.

    Args:
        section: The arguments, with `_target_`: the dotted path of a function or class. With
            `_partial_: true` the result is the target with its arguments bound.
        key: The dotted path of the section, for messages.
        *args: Arguments that come before those of the section.
        **extra: Arguments beside those of the section.

    Raises:
        ConfigError: Where the target does not exist, or does not take an argument.
    """
    target = locate(section.get("_target_"), key)
    arguments = {name: value for name, value in section.items() if not name.startswith("_")}
    _check_arguments(section["_target_"], target, arguments, key)
    call = functools.partial(target, *args, **arguments, **extra)
    if section.get("_partial_"):
        return call
    try:
        return call()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            key, f"arguments that `{section['_target_']}` takes ({error})", arguments
        ) from error


def locate(path: Any, key: str) -> Callable[..., Any]:
    """Return the object at a dotted path.

    Raises:
        ConfigError: Where there is none that can be called.
    """
    sources.find_module(str(path).partition(".")[0])
    try:
        target = get_object(path)
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{key}._target_", "the dotted path of a function or class", path
        ) from error
    if not callable(target):
        raise ConfigError(f"{key}._target_", "a function or class", path)
    found: Callable[..., Any] = target
    return found


def _check_arguments(
    path: str, target: Callable[..., Any], arguments: Mapping[str, Any], key: str
) -> None:
    """Check names, and values against what the target's own signature says of them."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # some functions written in C do not tell
        return
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = [parameter.name for parameter in parameters]
    for name, value in arguments.items():
        if name not in known and not is_open:
            expected = f"an argument of `{target.__name__}`"
            hint = nearest(f"{key}.{name}", [f"{key}.{other}" for other in known])
            raise ConfigError(f"{key}.{name}", expected, value, hint)
    signature = signatures.inspect(f"{key}._target_", path)
    for name, check in signature.checks.items() if signature else ():
        if check and name in arguments and not check.accepts(arguments[name]):
            raise ConfigError(f"{key}.{name}", check.expected, arguments[name])

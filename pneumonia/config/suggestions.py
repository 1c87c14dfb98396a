"""What somebody probably meant: the nearest name, and the range that is nearest to a text."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Sequence

_ROUND = re.compile(r"\s*([A-Za-z_]\w*)\s*\(.*\)", re.DOTALL)
_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*[(\[](.*)[)\]]\s*", re.DOTALL)
_NUMBER = r"[-+]?\d[\d.]*(?:[eE][-+]?\d+)?"
_SPAN = re.compile(rf"\s*({_NUMBER})\s*(?:-|:|\.\.+|\bto\b)\s*({_NUMBER})\s*")
# What other libraries call their ranges: numpy, scipy, Optuna, KerasTuner, Ray Tune, hyperopt.
_KINDS: dict[str, tuple[str, ...]] = {
    "tag(log, interval": ("loguniform", "log_uniform", "log", "logspace", "log_interval", "loguni"),
    "int(interval": ("int", "randint", "int_uniform", "quniform", "integer", "int_interval"),
    "interval": ("uniform", "float", "linear", "linspace", "between", "intervall", "rand"),
    "choice": ("categorical", "choose", "select", "one_of", "oneof", "any", "in", "grid", "list"),
}
_OURS = ("choice", "range", "interval", "tag")


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.5, most: int = 1) -> str:
    """Return a sentence, without a full stop, with the names that come nearest; maybe nothing."""
    found = [f"`{one}`" for one in close(name, names, cutoff=cutoff, most=most)]
    if len(found) < 2:
        return f"The nearest is {found[0]}" if found else ""
    return f"The nearest are {', '.join(found[:-1])} and {found[-1]}"


def closest(name: str, names: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the name that comes nearest, or None."""
    return next(iter(close(name, names, cutoff=cutoff)), None)


def close(name: str, names: Iterable[str], *, cutoff: float = 0.5, most: int = 1) -> list[str]:
    """Return the names that come nearest, whatever the case of their letters, nearest first."""
    by_case = {other.lower(): other for other in reversed(list(names))}
    found = difflib.get_close_matches(name.lower(), by_case, n=most, cutoff=cutoff)
    return [by_case[one] for one in found]


def _is_range(value: object) -> bool:
    from pneumonia.config.ranges import looks_like_range  # brings Hydra, which names need not

    return looks_like_range(value)


def misspelt_function(value: object) -> str | None:
    """Return the sweep function that a call like `choises(1, 2)` comes nearest to, if any."""
    call = _ROUND.fullmatch(value.rstrip()) if isinstance(value, str) else None
    return None if not call or _is_range(value) else closest(call[1], _OURS, cutoff=0.6)


def closest_key(key: str, keys: Sequence[str]) -> str | None:
    """Return the dotted path that comes nearest to one that does not exist, or None.

    The last part of a path says most: `epochs` and `training.epochs` are near `tuner.max_epochs`,
    `lr` is near `optimizer.learning_rate`.
    """
    group, _, last = key.replace("/", ".").rpartition(".")
    same_group = [path for path in keys if group and path.startswith(f"{group}.")]
    found = _by_last(last, same_group) or _by_last(last, keys)
    return found or closest(key, keys, cutoff=0.6)


def _by_last(last: str, keys: Sequence[str]) -> str | None:
    by_last = {path.rpartition(".")[2]: path for path in reversed(keys)}
    for name, path in by_last.items():
        words = name.split("_")
        is_short = len(words) > 1 and last.lower() == "".join(word[:1] for word in words)
        if is_short or last.lower().replace("_", "") == name.replace("_", ""):
            return path
    found = closest(last, by_last, cutoff=0.6)
    return by_last[found] if found else None


def range_meant(value: object, *, is_whole: bool) -> str | None:
    """Return the range that a text was probably meant as, such as `uniform(0, 1)`, if any.

    Args:
        value: What stands in the place of a range, but is none.
        is_whole: Whether only whole numbers make sense.
    """
    if not isinstance(value, str):
        return None
    if span := _SPAN.fullmatch(value):
        return _write("interval", f"{span[1]}, {span[2]}", is_whole)
    if listed := re.fullmatch(r"\s*[\[({](.*,.*)[\])}]\s*", value):
        return f"choice({listed[1]})"
    call = _CALL.fullmatch(value)
    if not call or (_is_range(value) and value.strip()[len(call[1]) :].lstrip()[0] == "("):
        return None
    kind = _kind(call[1].lower())
    if kind is None:
        return None
    inner = re.fullmatch(r"\s*(?:interval|uniform)\s*\((.*)\)\s*", call[2])
    return _write(kind, inner[1] if inner else call[2], is_whole)


def _kind(name: str) -> str | None:
    for kind, names in _KINDS.items():
        if name in names:
            return kind
    spellings: dict[str, str] = {own: own for own in _OURS}
    spellings |= {name: kind for kind, names in _KINDS.items() for name in names if len(name) > 5}
    found = closest(name, spellings, cutoff=0.6)
    return spellings[found] if found else None


def _write(kind: str, arguments: str, is_whole: bool) -> str:
    parts = [part.strip() for part in arguments.split(",")]
    # Some have a step after the ends.
    arguments = ", ".join(parts[:2] if kind.endswith("interval") else parts)
    if kind.endswith("interval") and is_whole and "log" not in kind:
        kind = "int(interval"
    if kind == "tag(log, interval" and is_whole:
        kind = "tag(log, int(interval"
    return f"{kind}({arguments}){')' * kind.count('(')}"


def quoted(text: str) -> str:
    """Return a text as Hydra's grammar takes it, whatever characters it has."""
    escaped = re.sub(r'(\\*)("|$)', lambda end: 2 * end[1] + (r"\"" if end[2] else ""), text)
    return f'"{escaped}"'


def typed(key: str, value: str) -> str:
    """Return an override as it is typed in a shell, the value being taken as it is."""
    return in_shell(f"{key}={quoted(value)}")


def in_shell(text: str) -> str:
    """Return a word as it is typed in a shell, always in quotes."""
    return shlex.quote(text) if "'" in text else f"'{text}'"


def value_meant(
    value: object, names: Iterable[str], accepts: Callable[[object], bool]
) -> str | None:
    """Return, as it would be typed, the value that was probably meant, if any.

    Args:
        value: What was given.
        names: The texts that would have been right.
        accepts: Says whether a value would have been right.
    """
    if isinstance(value, float) and value.is_integer() and accepts(int(value)):
        return str(int(value))
    if not isinstance(value, str):
        return None
    if decimals := re.fullmatch(r"(\d*),(\d+)", value):
        number = float(f"{decimals[1]}.{decimals[2]}")
        return str(number) if accepts(number) and not accepts(1000) else None
    words = {"none": "null", "nil": "null", "yes": "true", "no": "false", "on": "true"}
    for word, meaning in {"null": None, "true": True, "false": False}.items():
        if word in (value.strip().lower(), words.get(value.strip().lower())) and accepts(meaning):
            return word
    return closest(value, names, cutoff=0.4)

"""What a value of the config must be: a noun phrase for messages, and a test."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Check:
    """What a value must be.

    Attributes:
        expected: A noun phrase for messages.
        accepts: Says whether a value is right.
        names: Lists texts that are right, given what is wrong, to name the nearest.
    """

    expected: str
    accepts: Callable[[object], bool]
    names: Callable[[object], Sequence[str]] = lambda value: ()

    def __or__(self, other: Check) -> Check:
        return Check(
            f"{self.expected.replace(' or ', ', ')} or {other.expected}",
            lambda value: self.accepts(value) or other.accepts(value),
            lambda value: (*self.names(value), *other.names(value)),
        )

    @property
    def is_whole(self) -> bool:
        """Whether of all numbers only whole ones are right."""
        some = (1, 2, 64, 1024)
        return any(map(self.accepts, some)) and not any(self.accepts(one + 0.5) for one in some)


def integer(low: int, high: int | None = None) -> Check:
    """Return the check for an integer from `low` to `high`, both included."""
    if high is not None:
        expected = f"an integer from {low} to {high}"
    else:
        expected = "a positive integer" if low == 1 else f"an integer of at least {low}"
    return Check(expected, lambda value: is_integer(value) and low <= value <= (high or math.inf))  # type: ignore[operator]


def number(
    low: float, high: float = math.inf, *, with_low: bool = True, with_high: bool = True
) -> Check:
    """Return the check for a finite number between two, which may count or not."""

    def accepts(value: object) -> bool:
        if not is_number(value) or not math.isfinite(value):  # type: ignore[arg-type]
            return False
        above = value >= low if with_low else value > low  # type: ignore[operator]
        return above and (value <= high if with_high else value < high)  # type: ignore[operator]

    if high == math.inf:
        expected = f"a number of at least {low:g}" if with_low else f"a number above {low:g}"
    else:
        expected = f"a number from {low:g} to {'' if with_high else 'below '}{high:g}"
    return Check(expected, accepts)


def one_of(*values: str) -> Check:
    """Return the check for one of some texts."""
    *most, last = values
    expected = f"{', '.join(most)} or {last}" if most else last
    return Check(expected, lambda value: value in values, lambda value: values)


def named(kind: str, names: Callable[[], Sequence[str]], *, any_case: bool = False) -> Check:
    """Return the check for one of many names, which are only listed when they are asked for."""

    def accepts(value: object) -> bool:
        if not isinstance(value, str):
            return False
        return value.lower() in map(str.lower, names()) if any_case else value in names()

    return Check(kind, accepts, lambda value: names())


def path(expected: str, is_right: Callable[[Path], bool], *suffixes: str) -> Check:
    """Return the check for a path on this machine, with one of the endings if there are any."""

    def accepts(value: object) -> bool:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            return False
        try:
            return is_right(Path(value).expanduser()) and value.endswith(suffixes or "")
        except (OSError, RuntimeError):  # too long for a name, or no such user
            return False

    return Check(expected, accepts, _beside)


def _beside(value: object) -> Sequence[str]:
    """List the paths that a path which is not there was probably meant for."""
    wanted = Path(str(value))
    try:
        names = [path.name for path in wanted.expanduser().parent.iterdir()]
    except (OSError, RuntimeError, ValueError):
        return []
    near = difflib.get_close_matches(wanted.name, names, n=3, cutoff=0.7)
    return [str(wanted.parent / name) for name in near if name != wanted.name]


def is_integer(value: object) -> bool:
    """Say whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Say whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


TEXT = Check("a text", lambda value: isinstance(value, str) and value.strip() != "")
NULL = Check("null", lambda value: value is None)
BOOLEAN = Check("true or false", lambda value: isinstance(value, bool))
SCALAR = Check(
    "a number, text, true, false or null",
    lambda value: value is None or isinstance(value, str | int | float),
)
ANY = Check("anything", lambda value: True)
POSITIVE = number(0, with_low=False)
FRACTION = number(0, 1)

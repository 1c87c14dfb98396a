"""What a value must be, written once: on the signature of the plug-in that takes it.

    def my_head(input_shape, *, units: Annotated[int, Bounds(1, 4096)] = 64,
                share: Annotated[float, Bounds(0, below=1)] = 0.5,
                pooling: Literal["avg", "max"] = "avg", name: str | None = None): ...

`signatures` reads it there without importing the function. Nothing heavy is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pneumonia.config import sources
from pneumonia.config.ranges import is_integer, is_number
from pneumonia.config.suggestions import close
from pneumonia.formatting import short


@dataclass(frozen=True, slots=True)
class Check:
    """What a value must be; in `Annotated`, a further constraint on it.

    Attributes:
        expected: A noun phrase for messages.
        accepts: Says whether a value is right.
        names: Lists texts that are right, given what is wrong, to name the nearest.
        is_path: Whether the value is the path of something.
    """

    expected: str
    accepts: Callable[[object], bool]
    names: Callable[[object], Sequence[str]] = lambda value: ()
    is_path: bool = False

    def __or__(self, other: Check) -> Check:
        return Check(
            f"{self.expected.replace(' or ', ', ')} or {other.expected}",
            lambda value: self.accepts(value) or other.accepts(value),
            lambda value: (*self.names(value), *other.names(value)),
            self.is_path or other.is_path,
        )

    @property
    def is_whole(self) -> bool:
        """Whether of all numbers only whole ones are right."""
        some = (1, 2, 64, 1024)
        return any(map(self.accepts, some)) and not any(self.accepts(one + 0.5) for one in some)

    @property
    def is_list(self) -> bool:
        """Whether lists of texts are right."""
        return self.accepts(["a", "b"])


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ends of a number: `low` and `high` count, `above` and `below` do not."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def integer(self) -> Check:
        """Return the check for a whole number; true and false are none."""
        low, high = self.low, self.high
        if self.above is not None:
            low = math.floor(self.above) + 1
        if self.below is not None:
            high = math.ceil(self.below) - 1
        if low is None:
            expected = "an integer" if high is None else f"an integer of at most {high}"
        elif high is not None:
            expected = f"an integer from {low} to {high}"
        else:
            expected = "a positive integer" if low == 1 else f"an integer of at least {low}"
        least, most = -math.inf if low is None else low, math.inf if high is None else high
        return Check(expected, lambda value: is_integer(value) and least <= value <= most)  # type: ignore[operator]

    def number(self) -> Check:
        """Return the check for a finite number."""
        lows = [end for end in (self.low, self.above) if end is not None]
        highs = [end for end in (self.high, self.below) if end is not None]
        until = [f"{'' if self.below is None else 'below '}{end:g}" for end in highs]
        if lows and highs and self.low is None:
            expected = f"a number above {lows[0]:g}, {'up to ' * (self.below is None)}{until[0]}"
        elif lows and highs:
            expected = f"a number from {lows[0]:g} to {until[0]}"
        elif lows:
            expected = f"a number {'above' if self.low is None else 'of at least'} {lows[0]:g}"
        elif highs:
            expected = f"a number {'of at most' if self.below is None else ''} {until[0]}"
        else:
            expected = "a finite number"
        return Check(" ".join(expected.split()), self._holds)

    def _holds(self, value: object) -> bool:
        if not (is_number(value) and math.isfinite(value)):  # type: ignore[arg-type]
            return False
        return (
            (self.low is None or value >= self.low)  # type: ignore[operator]
            and (self.high is None or value <= self.high)  # type: ignore[operator]
            and (self.above is None or value > self.above)  # type: ignore[operator]
            and (self.below is None or value < self.below)  # type: ignore[operator]
        )


def one_of(*values: str | int | bool | None) -> Check:
    """Return the check for one of some values; 1 is neither 1.0 nor true."""
    shown = [short(value) for value in values]
    expected = f"{', '.join(shown[:-1])} or {shown[-1]}" if shown[1:] else shown[0]
    texts = [value for value in values if isinstance(value, str)]
    return Check(
        expected,
        lambda value: any(type(value) is type(one) and value == one for one in values),
        lambda value: texts,
    )


def named(
    expected: str,
    module: str,
    picks: Callable[[str], bool] = lambda name: True,
    *,
    any_case: bool = False,
) -> Check:
    """Return the check for the name of something that a module holds, which is not imported.

    Args:
        expected: A noun phrase for messages.
        module: The dotted path of the module.
        picks: Says which of its names count.
        any_case: Whether letters may be large or small; names are listed in small ones then.
    """

    def names(value: object = None) -> list[str]:
        found = [name for name in sources.names(module) if picks(name)]
        return [name.lower() for name in found] if any_case else found

    def accepts(value: object) -> bool:
        return isinstance(value, str) and (value.lower() if any_case else value) in names()

    return Check(expected, accepts, names)


def path(
    expected: str,
    kind: Literal["file", "folder", "new", "any"] = "any",
    *suffixes: str,
) -> Check:
    """Return the check for the path of something on this machine.

    Args:
        expected: A noun phrase for messages.
        kind: A file or folder that exists, or any of the two; `new` is a folder, or nothing yet.
        *suffixes: What its name ends with, one of them.
    """
    is_right: dict[str, Callable[[Path], bool]] = {
        "file": Path.is_file,
        "folder": Path.is_dir,
        "new": lambda place: place.is_dir() or not place.exists(),
        "any": Path.exists,
    }

    def accepts(value: object) -> bool:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            return False
        try:
            place = Path(value).expanduser()
            return is_right[kind](place) and value.endswith(suffixes or "")
        except (OSError, RuntimeError):  # too long for a name, or no such user
            return False

    return Check(expected, accepts, _beside, is_path=True)


def _beside(value: object) -> Sequence[str]:
    """List the paths that a path which is not there was probably meant for."""
    wanted = Path(str(value))
    try:
        names = [path.name for path in wanted.expanduser().parent.iterdir()]
    except (OSError, RuntimeError, ValueError):
        return []
    near = close(wanted.name, names, most=3, cutoff=0.7)
    return [str(wanted.parent / name) for name in near if name != wanted.name]


def _is_pair(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2 or value[0] == value[1]:
        return False
    return all(map(TEXT.accepts, value))


TEXT = Check("a text", lambda value: isinstance(value, str) and value.strip() != "")
NULL = Check("null", lambda value: value is None)
BOOLEAN = Check("true or false", lambda value: isinstance(value, bool))
SCALAR = Check(
    "a number, text, true, false or null",
    lambda value: value is None or isinstance(value, str | int | float),
)
ANY = Check("anything", lambda value: True)

SEED = Bounds(0, 2**31 - 1)

LAYER = Check("the name of a layer", TEXT.accepts)
CLASS_NAMES = Check("two different texts in a list, the negative class first", _is_pair)
WEIGHTS = path("an existing file of weights (.weights.h5, .h5, .keras)", "file", ".h5", ".keras")
EXISTING = path("a path that exists")
FOLDER = path("an existing folder", "folder")
PLACE = path("a folder", "new")
ACTIVATION = named(
    "the name of a Keras activation",
    "keras.activations",
    lambda name: name not in ("deserialize", "get", "serialize"),
)
NETWORK = named(
    "the name of a network of keras.applications",
    "keras.applications",
    lambda name: name[0].isupper(),
)
# Those that need nothing but a learning rate.
OPTIMIZER = named(
    "the name of an optimizer of Keras",
    "keras.optimizers",
    lambda name: name[0].isupper() and not name.endswith(("Optimizer", "OptimizerMap")),
    any_case=True,
)

"""One range: a value of Hydra's sweep grammar, read by Hydra's own parser.

The grammar is that of https://hydra.cc/docs/advanced/override_grammar/extended/, whose
`Functions.choice` is widened here by null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException

from pneumonia.errors import ConfigError

if TYPE_CHECKING:
    from keras_tuner.engine.hyperparameters import HyperParameter

Scalar: TypeAlias = str | int | float | bool | None

EXPECTED = "choice(...), range(...), interval(...), int(interval(...)) or tag(..., any of these)"
# More values than this are an interval: an oracle keeps them all in memory.
MOST_VALUES = 10_000

_FUNCTIONS = ("choice", "range", "interval", "tag", "int", "float", "str", "bool", "sort")
_RANDOM = ("shuffle", "glob")
_ENDS = re.compile(r"\binterval\s*\(([^()]*)\)")
_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Condition:
    """That another hyperparameter, the parent, has one of some values."""

    parent: str
    values: tuple[Scalar, ...]

    def holds(self, value: Scalar) -> bool:
        """Say whether the parent's value is one of the values."""
        return any(same(value, other) for other in self.values)


@dataclass(frozen=True, slots=True)
class Range:
    """The values that one hyperparameter can take; it never draws any.

    Attributes:
        path: Dotted path of the key, and the hyperparameter's name everywhere.
        kind: 'choice' among `values` in their order, or an 'int' or 'float' from `low` to `high`,
            both included, searched on a logarithmic scale where `log` is true.
        start: The value to start from; by default the first of a choice, the low end otherwise.
        is_start_given: Whether the tag `default:` names the start value.
        conditions: All must hold for the hyperparameter to exist; the parents' own are included.
    """

    path: str
    kind: Literal["choice", "int", "float"]
    values: tuple[Scalar, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    start: Scalar = None
    is_start_given: bool = False
    conditions: tuple[Condition, ...] = ()

    @property
    def size(self) -> float:
        """Number of values, infinite for an interval of floats."""
        if self.kind == "choice":
            return len(self.values)
        return self.high - self.low + 1 if self.kind == "int" else math.inf

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """All the values of a choice, or both ends."""
        return self.values if self.kind == "choice" else (self.low, self.high)

    def contains(self, value: object) -> bool:
        """Say whether the hyperparameter can take this value."""
        if self.kind == "choice":
            return any(same(value, other) for other in self.values)
        is_right = is_number(value) if self.kind == "float" else is_integer(value)
        return is_right and self.low <= value <= self.high  # type: ignore[operator]

    def encode(self, value: Scalar) -> Any:
        """Turn a value into what KerasTuner holds: its choices are of one type and never null."""
        if self.kind != "choice":
            return self._number(value)
        return self._other(value, self.values, self._codes())

    def decode(self, code: object) -> Scalar:
        """Turn what KerasTuner holds back into the value."""
        if self.kind != "choice" and is_number(code):
            return self._number(code)
        return self._other(code, self._codes(), self.values)  # type: ignore[no-any-return]

    def _other(self, value: object, ours: Sequence[Any], others: Sequence[Any]) -> Any:
        for own, other in zip(ours, others, strict=True):
            if same(own, value):
                return other
        raise ConfigError(self.path, f"a value of {self}", value)

    def hyperparameter(self, parents: Mapping[str, Range]) -> HyperParameter:
        """Return the hyperparameter as KerasTuner describes it."""
        from keras_tuner.engine import hyperparameters as hp
        from keras_tuner.src.engine.conditions import Parent

        conditions = [
            Parent(item.parent, [parents[item.parent].encode(value) for value in item.values])
            for item in self.conditions
        ]
        common = {"name": self.path, "default": self.encode(self.start), "conditions": conditions}
        if self.kind == "choice":
            codes = self._codes()
            # KerasTuner's Choice would turn true and false into 1 and 0.
            if isinstance(codes[0], bool):
                return hp.Boolean(**common)
            return hp.Choice(values=codes, **common)
        make = hp.Int if self.kind == "int" else hp.Float
        sampling = "log" if self.log else "linear"
        return make(min_value=self.low, max_value=self.high, sampling=sampling, **common)

    def _number(self, value: Any) -> int | float:
        return int(value) if self.kind == "int" else float(value)

    def _codes(self) -> list[Any]:
        """Return one code per value, all of one type and all different."""
        values = self.values
        if len(values) == 2 and all(isinstance(value, bool) for value in values):
            return list(values)  # a lone true or false is no Boolean, which always has both
        if all(is_number(value) for value in values):
            is_mixed = len({type(value) for value in values}) > 1
            return [float(value) for value in values] if is_mixed else list(values)  # type: ignore[arg-type]
        names = [value if isinstance(value, str) else _name(value) for value in values]
        return names if len(set(names)) == len(names) else [_name(value) for value in values]

    def __str__(self) -> str:
        """Write the range in the grammar it was read from, without its start value."""
        if self.kind == "choice":
            return f"choice({', '.join(_name(value) for value in self.values)})"
        text = f"interval({self.low}, {self.high})"
        text = f"int({text})" if self.kind == "int" else text
        return f"tag(log, {text})" if self.log else text


def looks_like_range(value: object) -> bool:
    """Say whether a value is meant as a range: it begins like a call of a sweep function."""
    if not isinstance(value, str):
        return False
    call = _CALL.match(value)
    return call is not None and call[1] in (*_FUNCTIONS, *_RANDOM)


@cache  # every trial's config is collapsed
def parse(path: str, text: str) -> Range:
    """Read the range of a key, such as `tag(log, default:0.001, interval(1e-4, 1e-2))`.

    Raises:
        ConfigError: If it is no range, or an empty or impossible one.
    """
    sweep = _sweep(path, text)
    log, start = _tags(path, text, sweep.tags)
    if isinstance(sweep, IntervalSweep):
        found = _interval(path, text, sweep, log=log)
    elif log:
        raise ConfigError(path, "the tag log on an interval only", text)
    else:
        values = sweep.list if isinstance(sweep, ChoiceSweep) else _steps(path, text, sweep)
        found = _choice(path, text, values)
    return _with_start(found, text, start)


def same(one: object, other: object) -> bool:
    """Compare two scalars: 1 equals 1.0, but neither equals true."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@cache
def _parser() -> OverridesParser:
    """Return Hydra's parser, whose choice takes null too."""
    functions = create_functions()
    signature = functions.definitions["choice"]
    values = signature.parameters["args"]
    functions.definitions["choice"] = signature.replace(
        parameters=[values.replace(annotation=values.annotation | None)]
    )
    return OverridesParser(functions)


def _sweep(path: str, text: str) -> ChoiceSweep | RangeSweep | IntervalSweep:
    """Parse the text with Hydra's parser, as the value of an override, so that all of it counts."""
    try:
        sweep = _parser().parse_override(f"x={text.strip()}").value()
    except (HydraException, AssertionError) as error:
        cause = str(error).strip().splitlines()[0] if str(error) else "not understood"
        raise ConfigError(path, EXPECTED, text, f"Hydra's parser says: {cause}") from error
    if not isinstance(sweep, ChoiceSweep | RangeSweep | IntervalSweep):
        raise ConfigError(path, EXPECTED, text)
    if getattr(sweep, "simple_form", False) and not text.lstrip().startswith("sort"):
        # Hydra takes int(16, 64) for the two values, where most would mean all between.
        inner = text.partition("(")[2].rpartition(")")[0]
        hint = f"Did you mean int(interval({inner})), or choice({inner})?"
        raise ConfigError(path, EXPECTED, text, hint)
    if getattr(sweep, "shuffle", False):
        raise ConfigError(path, "values in a fixed order", text, "Leave out shuffle")
    return sweep


def _tags(path: str, text: str, tags: set[str]) -> tuple[bool, str | None]:
    """Return whether the scale is logarithmic, and the text of the value to start from."""
    # Hydra drops the inner tags of tag(..., tag(...)), and those inside a cast of a choice.
    if len(re.findall(r"\btag\s*\(", text)) > bool(tags):
        raise ConfigError(path, "a single tag(...) with tags, around everything else", text)
    starts = [tag.partition(":")[2] for tag in tags if tag.startswith("default:")]
    unknown = sorted(tag for tag in tags if tag != "log" and not tag.startswith("default:"))
    if unknown or len(starts) > 1:
        raise ConfigError(path, "the tags log and default:<value>, at most once each", text)
    return "log" in tags, starts[0].strip() if starts else None


def _interval(path: str, text: str, sweep: IntervalSweep, *, log: bool) -> Range:
    low, high = sweep.start, sweep.end
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(path, "an interval with finite ends", text)
    if not low < high:
        raise ConfigError(path, "an interval whose low end comes first and is lower", text)
    if log and low <= 0:
        raise ConfigError(path, "an interval above 0, for a logarithmic scale", text)
    whole = isinstance(low, int) and isinstance(high, int)
    # Hydra makes int(interval(0.5, 3.9)) the interval from 0 to 3.
    ends = [end.rpartition("=")[2] for ends in _ENDS.findall(text) for end in ends.split(",")]
    if whole and not all(float(end).is_integer() for end in ends):
        raise ConfigError(path, "whole numbers in int(interval(low, high))", text)
    return Range(path, "int" if whole else "float", low=low, high=high, log=log, start=low)


def _steps(path: str, text: str, sweep: RangeSweep) -> list[Scalar]:
    """List the values of a range, whose stop is excluded as in Hydra."""
    numbers = (sweep.start, sweep.stop, sweep.step)
    if not all(is_number(number) and math.isfinite(number) for number in numbers):  # type: ignore
        raise ConfigError(path, "a range of finite numbers", text)
    # Decimals: adding 0.1 as a float three times does not give 0.3.
    start, stop, step = (Decimal(str(number)) for number in numbers)
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise ConfigError(path, "range(start, stop, step) with values: stop is excluded", text)
    if count > MOST_VALUES:
        hint = "Use int(interval(...)) or interval(...)"
        raise ConfigError(path, f"a range of at most {MOST_VALUES} values", text, hint)
    whole = all(isinstance(number, int) for number in numbers)
    steps = (start + index * step for index in range(count))
    return [int(value) if whole else float(value) for value in steps]


def _choice(path: str, text: str, values: list[Any]) -> Range:
    for index, value in enumerate(values):
        if not isinstance(value, str | int | float | bool | None):
            raise ConfigError(path, "numbers, strings, true, false or null in a choice", text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(path, "a choice among finite numbers", text)
        if any(same(value, other) for other in values[:index]):
            raise ConfigError(path, f"different values in a choice, not {_name(value)} twice", text)
    return Range(path, "choice", values=tuple(values), start=values[0])


def _with_start(found: Range, text: str, start: str | None) -> Range:
    """Return the range with its start value, given as text, checked."""
    if start is None:
        return found
    value: Any = _parser().parse_override(f"x={start}").value() if start else None
    if isinstance(value, ChoiceSweep):
        value = start  # a text with a comma, whose quotes are gone with those of the tag
    if found.kind == "float" and is_number(value):
        value = float(value)
    if not found.contains(value):
        raise ConfigError(found.path, "a default that is one of the range's values", text)
    if found.kind == "choice":
        value = next(own for own in found.values if same(own, value))
    return replace(found, start=value, is_start_given=True)


def is_integer(value: object) -> bool:
    """Say whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Say whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(value: object) -> str:
    """Write a scalar as YAML would; a string that could be mistaken for another type is quoted."""
    return repr(value) if isinstance(value, str) else json.dumps(value)

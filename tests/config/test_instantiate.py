"""Sections of the configuration become objects, or errors that name their key."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from pneumonia.config.instantiate import build, locate
from pneumonia.errors import ConfigError, DataError, UserError

HERE = __name__


class Thing:
    def __init__(self, first: int, *, size: int = 1, name: str = "") -> None:
        if size < 0:
            raise ValueError("size must not be negative")
        self.given = (first, size, name)


def anything(**options: Any) -> dict[str, Any]:
    return options


def no_data() -> None:
    raise DataError("There is no data.")


def broken() -> None:
    raise RuntimeError("not the user's fault")


def section(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.{name}", **arguments}


def test_calls_the_target_with_its_arguments() -> None:
    assert build(section("Thing", size=3), "a", 7, name="x").given == (7, 3, "x")
    assert build(section("anything", some=1, other=None), "a") == {"some": 1, "other": None}
    assert build({"_target_": "math.sqrt"}, "a", 9.0) == 3.0


def test_partial_binds_the_arguments() -> None:
    call = build(section("Thing", _partial_=True, size=3), "a")
    assert isinstance(call, functools.partial)
    assert call(7).given == (7, 3, "")


def test_a_function_that_does_not_tell_its_arguments() -> None:
    assert build({"_target_": "builtins.dict", "a": 1}, "x") == {"a": 1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (section("Thing", sise=3), ["`a.b.sise`", "an argument of `Thing`", "`a.b.size`"]),
        (section("Thing", far_from_all=3), ["`a.b.far_from_all`", "an argument of `Thing`"]),
        (section("Thing", size=-1), ["`a.b`", "size must not be negative", "'size': -1"]),
        (section("Thing", first=1), ["`a.b`", "multiple values"]),
        (section("Nothing"), ["`a.b._target_`", "dotted path", f"{HERE}.Nothing"]),
        ({"_target_": "no.such.module"}, ["`a.b._target_`", "dotted path"]),
        ({"_target_": "math.pi"}, ["`a.b._target_`", "function or class", "math.pi"]),
        ({"_target_": "math"}, ["`a.b._target_`", "function or class"]),
        ({"_target_": ""}, ["`a.b._target_`", "dotted path"]),
        ({"_target_": None}, ["`a.b._target_`", "dotted path"]),
        ({}, ["`a.b._target_`", "dotted path", "None"]),
    ],
)
def test_a_mistake_names_its_key(given: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(given, "a.b", 7)
    assert all(part in str(caught.value) for part in expected)


def test_errors_of_the_target_keep_what_they_are() -> None:
    with pytest.raises(DataError, match="no data"):
        build(section("no_data"), "a")
    with pytest.raises(RuntimeError, match="not the user's fault"):
        build(section("broken"), "a")


def test_locate() -> None:
    assert locate(f"{HERE}.Thing", "a") is Thing
    with pytest.raises(UserError):
        locate(f"{HERE}.Missing", "a")

"""What a `_target_` takes, and what its arguments must be, read from its source.

Importing a target to look at it would import TensorFlow, which takes longer than telling the user
of a mistake should.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from pneumonia.config import constraints, sources
from pneumonia.config.constraints import BOOLEAN, NULL, Bounds, Check
from pneumonia.config.ranges import is_integer, is_number
from pneumonia.config.suggestions import closest
from pneumonia.errors import ConfigError

# Their own names are all in their signatures; whatever comes through **kwargs, they refuse.
_COMPLETE = ("keras.optimizers.", "keras.losses.", "keras.metrics.", "keras_tuner.oracles.")
_MOST_HOPS = 5
_PLAIN = {
    "int": Check("an integer", is_integer),
    "float": Check("a number", is_number),
    "str": Check("a text", lambda value: isinstance(value, str)),
    "bool": BOOLEAN,
}
_OURS = f"{constraints.__name__}."


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function or class takes by keyword.

    Attributes:
        checks: Of each argument's name what its annotation lets it be, or None for anything.
        is_open: Whether other names may be given too.
        required: The names, given by keyword only, that have no default.
    """

    checks: Mapping[str, Check | None]
    is_open: bool
    required: frozenset[str] = frozenset()


def inspect(key: str, target: object) -> Signature | None:
    """Find a target in its source.

    Args:
        key: The dotted path of the key that holds the target.
        target: The dotted path of a function or class.

    Returns:
        What it takes; None where that cannot be told without importing it.

    Raises:
        ConfigError: If there is no such module, or no such name in it, or a constraint on an
            argument cannot be read.
    """
    if not isinstance(target, str) or not all(map(str.isidentifier, target.split("."))):
        raise ConfigError(key, "the dotted path of a function or class", target)
    if "." not in target:
        hint = f"Options are chosen by {key.split('.')[0]}=<option>"
        raise ConfigError(key, "the dotted path of a function or class: module.name", target, hint)
    try:
        found = _find(key, target, target, 0)
    except ModuleNotFoundError as error:
        missing = f"No module {error}"
        raise ConfigError(key, "something that can be imported", target, missing) from error
    if found is None:
        return None
    file, definition = found
    arguments, skip = _arguments(definition)
    if arguments is None:
        return None
    named = [*arguments.args[skip:], *arguments.kwonlyargs]
    try:
        checks = {arg.arg: _Annotations(file).read(arg.annotation) for arg in named}
    except (TypeError, ValueError, SyntaxError, AttributeError) as error:
        expected = "constraints that are written out, as Bounds(1, 64)"
        raise ConfigError(key, expected, target, f"It cannot be read: {error}") from error
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    required = frozenset(arg.arg for arg, default in pairs if default is None)
    is_open = arguments.kwarg is not None and not target.startswith(_COMPLETE)
    return Signature(checks, is_open, required)


def _find(key: str, target: str, path: str, hops: int) -> tuple[Path, sources.Definition] | None:
    """Follow a dotted path through files and the imports in them to a definition."""
    file, names = sources.locate(path)
    if file is None or hops > _MOST_HOPS:
        return None
    outline = sources.outline(file)
    if not names:
        raise ConfigError(key, "a function or class, not a module", target)
    name = names[0]
    if name in outline.definitions:
        return (file, outline.definitions[name]) if len(names) == 1 else None
    if name in outline.imports:
        return _find(key, target, ".".join((outline.imports[name], *names[1:])), hops + 1)
    if outline.is_open:
        return None
    module = ".".join(target.split(".")[: -len(names)])
    # What other names follow is a module, written in small letters.
    near = closest(name, [one for one in outline.public if names[1:] == [] or one.islower()])
    hint = f"The nearest is {module}.{near}" if near else ""
    raise ConfigError(key, f"a function or class of `{module}`", target, hint)


def _arguments(definition: sources.Definition) -> tuple[ast.arguments | None, int]:
    """Return the arguments of a function, or of a class's own __init__, and how many to skip."""
    if isinstance(definition, ast.ClassDef):
        methods = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
        made = [method.args for method in methods if method.name == "__init__"]
        return (made[0] if made else None), 1
    # A decorator may change what the function takes.
    return (None if definition.decorator_list else definition.args), 0


class _Annotations:
    """Reads the annotations in one file, and the names in them that come from others."""

    def __init__(self, file: Path, hops: int = 0) -> None:
        self._outline = sources.outline(file)
        self._hops = hops

    def read(self, node: ast.expr | None) -> Check | None:
        """Return what an annotation lets a value be; None for anything.

        Raises:
            ValueError: For a constraint whose arguments are not written out.
        """
        parts = list(self._parts(node))
        known = [part for part in parts if part is not None]
        return reduce(or_, known) if known and len(known) == len(parts) else None

    def _parts(self, node: ast.expr | None) -> Iterator[Check | None]:
        """Yield the check of every part of a union."""
        match node:
            case ast.Constant(value=None):
                yield NULL
            case ast.Constant(value=str(text)):
                yield from self._parts(ast.parse(text, mode="eval").body)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                yield from self._parts(left)
                yield from self._parts(right)
            case ast.Name() | ast.Attribute():
                yield from self._named(node)
            case ast.Subscript(value=kind, slice=inner):
                items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                yield from self._subscript(self._path(kind).rpartition(".")[2], items)
            case _:
                yield None

    def _subscript(self, kind: str, items: list[ast.expr]) -> Iterator[Check | None]:
        if kind == "Literal":
            yield constraints.one_of(*map(ast.literal_eval, items))
        elif kind == "Annotated":
            yield from self._annotated(*items)
        elif kind in ("Optional", "Union"):
            for item in items:
                yield from self._parts(item)
            if kind == "Optional":
                yield NULL
        else:
            yield None

    def _annotated(self, base: ast.expr, *further: ast.expr) -> Iterator[Check | None]:
        """Yield the checks of a type with constraints, which are for all but null."""
        found = [one for one in map(self._constraint, further) if one is not None]
        parts = list(self._parts(base))
        plain = [part for part in parts if part is not NULL]
        if found[1:]:
            raise ValueError("one constraint is enough for a type")
        for one in found:
            if isinstance(one, Check):
                yield one
            else:
                yield one.integer() if plain == [_PLAIN["int"]] else one.number()
        if not found:
            yield from plain
        if len(plain) < len(parts):
            yield NULL

    def _constraint(self, node: ast.expr) -> Check | Bounds | None:
        """Return one of our constraints; None for what others put into an annotation."""
        call = node if isinstance(node, ast.Call) else None
        name = self._path(call.func if call else node)
        if not name.startswith(_OURS):
            return None
        found: Any = getattr(constraints, name.removeprefix(_OURS))
        if call:
            options = {one.arg or "": ast.literal_eval(one.value) for one in call.keywords}
            found = found(*map(ast.literal_eval, call.args), **options)
        return found if isinstance(found, Check | Bounds) else None

    def _named(self, node: ast.Name | ast.Attribute) -> Iterator[Check | None]:
        """Yield the checks of a type by its name, which may stand for an annotation."""
        path = self._path(node)
        if isinstance(node, ast.Name) and node.id in self._outline.assigned:
            yield from self._parts(self._outline.assigned[node.id])
        elif path in _PLAIN or "." not in path or self._hops > _MOST_HOPS:
            yield _PLAIN.get(path)
        else:
            yield self._imported(path)

    def _imported(self, path: str) -> Check | None:
        try:
            file, names = sources.locate(path)
        except ModuleNotFoundError:
            return None
        if file is None or len(names) != 1:
            return None
        return _Annotations(file, self._hops + 1).read(ast.Name(names[0]))

    def _path(self, node: ast.expr) -> str:
        """Return the dotted path of what a name or an attribute in this file stands for."""
        first, *rest = ast.unparse(node).split(".")
        known = self._outline.modules | self._outline.imports
        return ".".join((known.get(first, first), *rest))

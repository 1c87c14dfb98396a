"""What a `_target_` names and takes, read from its source: nothing is imported.

Importing a target to look at it would import TensorFlow, which takes longer than telling the user
of a mistake should.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pneumonia.errors import ConfigError

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
# Their own names are all in their signatures; whatever comes through **kwargs, they refuse.
_COMPLETE = ("keras.optimizers.", "keras.losses.", "keras.metrics.", "keras_tuner.oracles.")
_MOST_HOPS = 5
# Assigned names are constants or types, which no `_target_` names.
_HARMLESS = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function or class takes by keyword.

    Attributes:
        types: Of each argument's name the type written for it, or an empty text.
        is_open: Whether other names may be given too.
        required: The names, given by keyword only, that have no default.
    """

    types: Mapping[str, str]
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
        ConfigError: If there is no such module, or no such name in it.
    """
    if not isinstance(target, str) or not all(map(str.isidentifier, target.split("."))):
        raise ConfigError(key, "the dotted path of a function or class", target)
    if "." not in target:
        hint = f"Options are chosen by {key.split('.')[0]}=<option>"
        raise ConfigError(key, "the dotted path of a function or class: module.name", target, hint)
    found = _find(key, target, target, 0)
    if found is None:
        return None
    signature = _read(found)
    if signature and target.startswith(_COMPLETE):
        return replace(signature, is_open=False)
    return signature


def _find(key: str, target: str, path: str, hops: int) -> _Definition | None:
    """Follow a dotted path through files and the imports in them to a definition."""
    file, names = _locate(key, target, path)
    if file is None or hops > _MOST_HOPS:
        return None
    definitions, imports, is_open = _outline(file)
    if not names:
        raise ConfigError(key, "a function or class, not a module", target)
    if names[0] in definitions:
        return definitions[names[0]] if len(names) == 1 else None
    if names[0] in imports:
        further = ".".join((imports[names[0]], *names[1:]))
        return _find(key, target, further, hops + 1)
    if is_open:
        return None
    module = ".".join(target.split(".")[: -len(names)])
    public = [name for name in (*definitions, *imports) if not name.startswith("_")]
    lowered = {name.lower(): name for name in public}
    is_last = len(names) == 1
    near = [lowered[names[0].lower()]] if is_last and names[0].lower() in lowered else []
    near = near or difflib.get_close_matches(names[0], public, n=1, cutoff=0.8)
    near = near or [
        lowered[name]
        for name in difflib.get_close_matches(names[0].lower(), lowered, n=1, cutoff=0.5)
    ]
    hint = f"The nearest is {module}.{near[0]}" if near else ""
    raise ConfigError(key, f"a function or class of `{module}`", target, hint)


def _locate(key: str, target: str, path: str) -> tuple[Path | None, list[str]]:
    """Return the file of the module in a dotted path, and the names that follow it."""
    first, *names = path.split(".")
    spec = find_module(first)
    if spec is None:
        raise ConfigError(key, "something that can be imported", target, f"No module {first}")
    folders = list(spec.submodule_search_locations or ())
    if not folders:
        return _source(spec.origin), names
    # A package without an __init__.py has no file: it may be any folder beside the program.
    folder, file = Path(folders[0]), Path(spec.origin) if spec.origin else None
    while names:
        if (folder / names[0] / "__init__.py").is_file():
            folder = folder / names.pop(0)
            file = folder / "__init__.py"
        elif (folder / f"{names[0]}.py").is_file():
            return folder / f"{names[0]}.py", names[1:]
        elif file is None and (folder / names[0]).is_dir():
            folder = folder / names.pop(0)
        else:
            break
    if file is None:
        missing = path.removesuffix("." + ".".join(names[1:])) if names[1:] else path
        raise ConfigError(key, "something that can be imported", target, f"No module {missing}")
    return _source(str(file)), names


def _source(origin: str | None) -> Path | None:
    """Return the file if it is source that can be read."""
    file = Path(origin or "")
    return file if file.suffix == ".py" and file.is_file() else None


@cache
def _outline(file: Path) -> tuple[dict[str, _Definition], dict[str, str], bool]:
    """Return a module's definitions, what it imports from where, and whether it may hold more."""
    definitions: dict[str, _Definition] = {}
    imports: dict[str, str] = {}
    is_open = False
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, _Definition):
            definitions[node.name] = node
            is_open = is_open or node.name == "__getattr__"
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports |= {
                name.asname or name.name: f"{node.module}.{name.name}" for name in node.names
            }
            is_open = is_open or any(name.name == "*" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            is_open = True
        elif not isinstance(node, _HARMLESS) and not _is_for_types(node):
            # Something may be defined under a condition.
            is_open = True
    return definitions, imports, is_open


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _read(definition: _Definition) -> Signature | None:
    """Return the signature of a function, or of a class's own __init__."""
    if isinstance(definition, ast.ClassDef):
        methods = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
        made = [method for method in methods if method.name == "__init__"]
        return _arguments(made[0].args, skip=1) if made else None
    # A decorator may change what the function takes.
    return None if definition.decorator_list else _arguments(definition.args, skip=0)


def _arguments(args: ast.arguments, *, skip: int) -> Signature:
    named = [*args.args[skip:], *args.kwonlyargs]
    types = {arg.arg: ast.unparse(arg.annotation) if arg.annotation else "" for arg in named}
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    required = frozenset(arg.arg for arg, default in pairs if default is None)
    return Signature(types, is_open=args.kwarg is not None, required=required)


def find_module(name: str) -> ModuleSpec | None:
    """Find the first module of a dotted path that a user names.

    One that is installed nowhere may lie in the current folder, from where it can be imported then,
    and what its own code imports from there with it: nothing else in that folder, which may be a
    stranger's, comes to run because somebody imports something of that name.

    Args:
        name: The name, without dots.

    Returns:
        Where it is, or None.
    """
    spec = _spec(name)
    folder = str(Path.cwd())
    if spec is not None or (folder in sys.path and not _shut(folder)):
        return spec
    finder = _shut(folder) or _Folder(folder)
    if finder.files.find_spec(name) is None:
        return None
    finder.names.add(name)
    sys.path_importer_cache[folder] = finder
    if folder not in sys.path:
        sys.path.append(folder)  # where processes that unpickle look, too
    return _spec(name)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _shut(folder: str) -> _Folder | None:
    finder: object = sys.path_importer_cache.get(folder)
    return finder if isinstance(finder, _Folder) else None


class _Folder:
    """Stands for a folder on the path, and shows nothing of it but modules with certain names.

    Args:
        folder: The absolute path.
    """

    def __init__(self, folder: str) -> None:
        self.names: set[str] = set()
        self._folder = folder
        self.files: Any = pkgutil.get_importer(folder)

    def find_spec(self, name: str, target: object = None) -> ModuleSpec | None:
        """Find a module that was named, or that the code of one imports just now."""
        if name not in self.names and _importing() not in self.names:
            return None
        # A file would go before a package without an __init__.py, wherever on the path that is.
        others = [place for place in sys.path if place != self._folder]
        if PathFinder.find_spec(name, others) is not None:
            return None
        spec: ModuleSpec | None = self.files.find_spec(name)
        if spec is not None:
            self.names.add(name)
        return spec

    def invalidate_caches(self) -> None:
        """Look at the folder anew."""
        self.files.invalidate_caches()


def _importing() -> str:
    """Return the first name of the module whose code imports something just now."""
    frame: Any = sys._getframe(2)
    while frame and str(frame.f_globals.get("__name__")).startswith("importlib"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).partition(".")[0] if frame else ""


def names(module: str) -> list[str]:
    """Return the public functions and classes of a module, read from its source."""
    file, further = _locate(module, module, module)
    definitions, imports, _ = _outline(file) if file and not further else ({}, {}, False)
    return sorted(name for name in (*definitions, *imports) if not name.startswith("_"))

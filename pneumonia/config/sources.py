"""What modules define and are, read from their files: nothing is imported, TensorFlow least of all.

A module that is installed nowhere may lie in the current folder, from where it can be imported
then, and what its own code imports from there with it: nothing else in that folder, which may be a
stranger's, comes to run because somebody imports something of that name.
"""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pneumonia import files

MATTERING = ("tensorflow", "keras", "keras-tuner", "numpy", "scipy")
"""The libraries whose versions decide what a trial comes to, and which trials are proposed."""
# Their versions are compared, or their code.
_KNOWN = {"pneumonia", *(name.replace("-", "_") for name in MATTERING), *sys.stdlib_module_names}
_INSTALLED = ("site-packages", "dist-packages")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(slots=True)
class Outline:
    """What a module's file defines at its top.

    Attributes:
        definitions: Functions and classes.
        imports: Of each imported name the dotted path.
        modules: Of each imported module the same.
        assigned: Of each assigned name what stands behind the equals sign.
        is_open: Whether there may be more.
    """

    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    assigned: dict[str, ast.expr] = field(default_factory=dict)
    is_open: bool = False

    @property
    def public(self) -> list[str]:
        """The functions and classes that are meant for others."""
        found = (*self.definitions, *self.imports)
        return sorted(name for name in found if not name.startswith("_"))


@cache
def outline(file: Path) -> Outline:
    """Read a file of source."""
    found = Outline()
    for node in ast.parse(file.read_bytes()).body:
        _add(found, node)
    return found


def _add(found: Outline, node: ast.stmt) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            found.definitions[node.name] = node
            found.is_open = found.is_open or node.name == "__getattr__"
        case ast.ImportFrom(module=str(module), level=0):
            names = {one.asname or one.name: f"{module}.{one.name}" for one in node.names}
            found.imports |= names
            found.is_open = found.is_open or "*" in names
        case ast.Import():
            found.modules |= {one.asname: one.name for one in node.names if one.asname}
            found.modules |= {
                one.name.partition(".")[0]: one.name.partition(".")[0]
                for one in node.names
                if not one.asname
            }
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            found.assigned[name] = value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            found.assigned[name] = value
        case ast.If() if ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for inner in node.body:
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    _add_types(found, inner)
        case ast.Expr() | ast.Assign() | ast.AnnAssign():
            pass
        case _:  # something may be defined under a condition, or come from beside
            found.is_open = True


def _add_types(found: Outline, node: ast.Import | ast.ImportFrom) -> None:
    """Add what is imported for annotations only: no `_target_` can name it."""
    own = Outline()
    _add(own, node)
    found.modules |= own.imports | own.modules


def locate(path: str) -> tuple[Path | None, list[str]]:
    """Return the file of the module in a dotted path, if it is source, and the names that follow.

    Raises:
        ModuleNotFoundError: With the name of what is missing.
    """
    first, *names = path.split(".")
    spec = find_module(first)
    if spec is None:
        raise ModuleNotFoundError(first)
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
        raise ModuleNotFoundError(
            path.removesuffix("." + ".".join(names[1:])) if names[1:] else path
        )
    return _source(str(file)), names


def names(module: str) -> list[str]:
    """Return the public functions and classes of a module; none where it cannot be read."""
    file, further = locate(module)
    return outline(file).public if file and not further else []


def _source(origin: str | None) -> Path | None:
    file = Path(origin or "")
    return file if file.suffix == ".py" and file.is_file() else None


def targets(section: Mapping[Any, Any]) -> set[str]:
    """Return what a part of a config, or all of it, names by `_target_`, of a range each value."""
    found = set[str]()
    for key, value in section.items():
        if isinstance(value, Mapping):
            found |= targets(value)
        elif str(key).endswith("_target_"):
            found.update(re.findall(r"\w+(?:\.\w+)+", str(value)))
    return found


def plugins(named: Iterable[str]) -> dict[str, str]:
    """Return digests of plug-ins by module: the code that is neither ours nor a known library's.

    Modules from beside one, which it imports, are among them. Each is as it was when this process
    first asked, which is what it imports.

    Args:
        named: Dotted paths.
    """
    names, found = {path.partition(".")[0] for path in named}, dict[str, str]()
    while names:
        name = names.pop()
        if name not in (*_KNOWN, *found) and (place := find_place(name)):
            found[name] = digest(place)
            names |= _from_beside(place)
    return dict(sorted(found.items()))


def find_place(name: str) -> Path | None:
    """Return the file or the folder of a module, without dots; None where it has none."""
    spec = find_module(name)
    place = spec and next(iter(spec.submodule_search_locations or ()), spec.origin)
    return Path(place) if place and Path(place).exists() else None


@cache
def digest(place: Path) -> str:
    """Return the digest of a file or folder of sources, as it was when first asked for."""
    return files.digest([place], place)


@cache
def _from_beside(place: Path) -> set[str]:
    """Return the first names of the modules that one imports from where it lies itself."""
    if place.parent.name in _INSTALLED:
        return set()
    found = {name.partition(".")[0] for file in files.sources(place) for name in _imports(file)}
    beside = (place.parent / name for name in found)
    return {one.name for one in beside if one.is_dir() or one.with_suffix(".py").is_file()}


def _imports(file: Path) -> Iterator[str]:
    try:
        nodes = ast.walk(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError):  # told where it is imported
        return
    for node in nodes:
        match node:
            case ast.Import():
                yield from (one.name for one in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module


def find_module(name: str) -> ModuleSpec | None:
    """Find the first module of a dotted path that a user names, in the current folder at last.

    Args:
        name: The name, without dots.
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
    """Stands for a folder on the path, and shows nothing of it but modules with certain names."""

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

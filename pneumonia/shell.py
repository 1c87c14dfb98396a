"""Paths and commands as a user in the current folder would type them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path


def as_path(text: str) -> Path:
    """Return the path that a user has typed: `~` is their home, `./~` a file of that name."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path forgets what `./` is for


def shown(path: Path, *, resolve: bool = True) -> str:
    """Return a path as a user in the current folder types it, with or without symbolic links."""
    try:
        absolute = path.resolve() if resolve else path.absolute()
        return str(absolute.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # elsewhere; the current folder was removed
        return str(path)


def commands() -> tuple[str, str]:
    """Return what goes before our commands to run them from here, and the one that opens MLflow."""
    folder = Path(sys.executable).parent
    is_on_path = shutil.which("pneumonia") is not None
    prefix = "" if is_on_path else shlex.quote(f"{shown(folder, resolve=False)}/")
    with suppress(OSError, UnicodeDecodeError):
        if "\nui:" in Path("Makefile").read_text(encoding="utf-8"):
            return prefix, "make ui"
    return prefix, f"{prefix}pneumonia ui"


def command(*words: str) -> str:
    """Return a command, its name and its arguments, as it works when it is pasted here."""
    return f"{commands()[0]}{shlex.join(words)}"


def first_search() -> str:
    """Return the command that makes a first search where there is none."""
    return command("pneumonia", "experiment=demo")


def resume(folder: Path, search_id: str = "", *more: str) -> str:
    """Return the command that goes on with a search, by its id where it lies in `outputs` here.

    A sweep has no id.
    """
    try:
        is_found = Path("outputs").resolve() in folder.resolve().parents
    except FileNotFoundError:  # the current folder was removed
        is_found = False
    place = shown(folder) if "/" in shown(folder) else f"./{shown(folder)}"
    return command("pneumonia", f"resume={search_id if search_id and is_found else place}", *more)

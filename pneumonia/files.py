"""Files: disks that are full, read-only or failing, and CSV that no program misreads."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pneumonia.errors import UserError

_NUMBERS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,  # a limit of the process, or of the file system
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EISDIR,  # a folder where a file should be, and the other way round
    errno.ENOTDIR,
}


# What a spreadsheet takes for a formula, in full width too, and what it may skip before one. With
# an apostrophe it is a text; what has one gets another, so that all can be read back.
_FORMULA = re.compile("'*(\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")


class StorageError(UserError):
    """A file that cannot be written or read: it stops a search, and is no result of a trial."""


class GoneError(StorageError):
    """A folder or a file that was removed meanwhile: nothing can go on in it."""


def explain(error: BaseException, path: Path | None = None) -> StorageError | None:
    """Return the error to raise instead of one that the disk has caused, or None for another.

    It names the path where the error names no file.
    """
    if isinstance(error, StorageError):
        return error
    if isinstance(error, FileNotFoundError) and not _has_current_folder():
        return GoneError("The current folder was removed: go to another one.")
    if not isinstance(error, OSError) or error.errno not in _NUMBERS:
        return None
    name = error.filename2 or error.filename or path  # of two, the second is written
    text = os.strerror(error.errno)
    return StorageError(f"{name}: {text}." if name else f"A file cannot be written: {text}.")


def _has_current_folder() -> bool:
    with contextlib.suppress(FileNotFoundError):
        return bool(Path.cwd())
    return False


@contextlib.contextmanager
def atomic(path: Path, *, suffix: str = ".part") -> Iterator[Path]:
    """Give a path beside a file to write to; at the end it takes the file's place, or is removed.

    Its name is the same every time: what a killed process has left of it is written over. Where
    several processes may write one file, or the writer looks at its name, another suffix helps.
    """
    part = path.with_name(f".{path.name}{suffix}")
    part.unlink(missing_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a text in UTF-8 to a file, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", errors=errors)


def add_line(file: BinaryIO, line: str) -> None:
    """Add a line to a file that was opened as `a+b` without a buffer, after whole lines only.

    What a crash has left of a line before it must not spoil this one: it gets an end.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    torn = b"" if file.read(1) in (b"", b"\n") else b"\n"
    file.write(torn + line.encode() + b"\n")


def below(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files of a name in a folder and below, whatever others remove there meanwhile."""
    for place, _, names in os.walk(folder):
        if name in names:
            yield Path(place, name)


def written(path: Path) -> float:
    """Return when a file was written, in seconds since 1970; 0 for one that is gone."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def sources(place: Path) -> Iterator[Path]:
    """Yield a file, or the Python files in and below a folder."""
    return (path for path in (place, *place.rglob("*.py")) if path.is_file())


def digest(places: Iterable[Path], root: Path) -> str:
    """Return a digest of files, and of the sources in folders, 12 hexadecimal digits.

    Args:
        places: What to read; what is not there counts as nothing.
        root: They are known by where they lie below it.
    """
    state = hashlib.sha256()
    for path in sorted(path for place in places for path in sources(place)):
        name = path.relative_to(root).as_posix()
        state.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()[:12]


def let_go(path: Path) -> None:
    """Tell the system that a file will hardly be read soon: it need not be kept in memory.

    What is not on the disk yet is sent there, and stays in memory until another call. Without it
    the gigabytes of classifiers that a search writes push out what this machine does need.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, a newline after each; `csv.reader` and `csv_text` read them back.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    lines = []
    for row in rows:
        line = io.StringIO()
        # What may end a line is quoted only where the writer itself ends lines so.
        csv.writer(line, lineterminator="\r\n").writerow(map(_as_cell, row))
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def csv_text(cell: str) -> str:
    """Return the text that a cell of `as_csv` stands for."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _as_cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value

"""What the commands share: how they run, their names of files and `key=value` pairs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pneumonia import files, startup, terminal
from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError, UserError, hide_passwords
from pneumonia.shell import as_path

UNREAD, USER_ERROR, INTERRUPTED = 1, 2, 130
FORMATS = ("table", "csv", "json")


def run(
    command: Callable[[list[str]], int | None],
    arguments: Sequence[str] | None,
    *,
    text: str,
    tell: Callable[[str], object] = terminal.say,
) -> int:
    """Run a command; return the exit status.

    Args:
        command: What runs, given the arguments; returns a status, or nothing for 0.
        arguments: Without the command's name; None for those of the command line.
        text: What `--help` prints instead.
        tell: Tells the user of a mistake or an interruption.

    Returns:
        The command's own status; 2 for a mistake of the user; 130 when interrupted; 1 where nobody
        reads what it prints. A fault leaves with its traceback, and so with 1.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "-h" in arguments or "--help" in arguments or "--version" in arguments:
        shown = text if "--version" not in arguments else f"pneumonia {_version()}\n"
        terminal.write(shown, sys.stdout)
        return 0
    startup.prepare()
    hide_passwords()
    # What is asked to end closes its runs and removes half a file, as when a user interrupts it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Hydra writes to both as if they were always open, and somebody always read them.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    logging.raiseExceptions = False
    try:
        return command(arguments) or 0
    except BrokenPipeError:
        terminal.abandon(sys.stdout)
        return UNREAD
    except KeyboardInterrupt as error:
        tell(str(error) or "Interrupted.")
        return INTERRUPTED
    except (UserError, OSError) as error:
        fault = error if isinstance(error, UserError) else files.explain(error)
        if fault is None:
            raise
        tell(str(fault))
        return USER_ERROR


def split(
    arguments: Sequence[str], keys: Sequence[str], *, named: str | None = "a name"
) -> tuple[list[str], dict[str, str]]:
    """Tell names and `key=value` pairs apart; an argument is a name where that file exists.

    Args:
        arguments: After the command's name.
        keys: The keys that there are.
        named: What a name stands for, in a message; None where there is none.

    Raises:
        ConfigError: For an unknown key, a key without a value, an option, or a name too many.
    """
    names: list[str] = []
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        is_pair = equals and key.replace(".", "").isidentifier()
        is_file = os.path.exists(argument)  # noqa: PTH110 - Path raises where a name is too long
        if named and (is_file or not (is_pair or argument.startswith("-"))):
            names.append(argument)
        elif not is_pair:
            expected = f"{f'{named} or ' if named else ''}a `key=value` pair; see --help"
            bare = key.lstrip("-")
            mended = f"Keys are written without dashes: {bare}={value or '<value>'}"
            raise ConfigError("arguments", expected, argument, mended if bare in keys else "")
        elif key not in keys:
            near = nearest(key, keys)
            raise ConfigError(key, f"one of the keys {', '.join(keys)}", argument, near)
        elif not value:
            raise ConfigError(key, "a value", argument)
        else:
            given[key] = value
    return names, given


def number(
    given: dict[str, str], key: str, usual: int, *, expected: str, values: range = range(1, 2**31)
) -> int:
    """Return a whole number that is given, or the usual one; raise a ConfigError for another."""
    text = given.get(key, str(usual))
    if not text.isdecimal() or int(text) not in values:
        raise ConfigError(key, expected, text)
    return int(text)


def threshold(given: dict[str, str]) -> float | None:
    """Return a threshold from 0 to 1, None where none is given; raise a ConfigError for another."""
    if (text := given.get("threshold")) is None:
        return None
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise ConfigError("threshold", "a number from 0 to 1", text)


def output_of(given: dict[str, str]) -> tuple[Path | None, str]:
    """Return the file to write, if any, and its format, one of `FORMATS`.

    The format is the one that is asked for, what the file's name ends in, or a table.

    Raises:
        ConfigError: For another one, or a file that has no place.
    """
    output = as_path(given["output"]) if "output" in given else None
    suffix = output.suffix.lower()[1:] if output else ""
    kind = given.get("format", suffix if suffix in FORMATS else "table")
    if kind not in FORMATS:
        raise ConfigError("format", f"one of {', '.join(FORMATS)}", kind)
    return output_file(given), kind


def output_file(given: dict[str, str]) -> Path | None:
    """Return the file to write, if any; raise a ConfigError where it has no place."""
    output = as_path(given["output"]) if "output" in given else None
    if output and (not output.parent.is_dir() or (output.exists() and not output.is_file())):
        raise ConfigError("output", "a file in an existing folder", str(output))
    if output and not os.access(output.parent, os.W_OK):
        raise ConfigError("output", "a file in a folder that can be written", str(output))
    return output


def write(text: str, output: Path) -> None:
    """Write a text to a file, which appears whole or not at all; a UserError where it cannot be."""
    try:
        with files.atomic(output.resolve(), suffix=f".{os.getpid()}") as part:
            # File names that are not UTF-8 keep their bytes.
            part.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}).") from error


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pneumonia")
    except PackageNotFoundError:
        return "(not installed)"

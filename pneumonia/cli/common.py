"""Our smaller commands: how they run, their names of files and `key=value` pairs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pneumonia import files, startup, terminal
from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError, UserError, hide_passwords

USER_ERROR = 2
INTERRUPTED = 130
FORMATS = ("table", "csv", "json")


def run(
    command: Callable[[list[str]], int | None], arguments: Sequence[str] | None, *, text: str
) -> int:
    """Run a command; return the exit status.

    Args:
        command: What runs, given the arguments; returns a status, or nothing for 0.
        arguments: By default those of the command line.
        text: What `--help` prints instead.

    Returns:
        The command's own status; 2 for a mistake of the user, told in a message; 130 when
        interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if "-h" in arguments or "--help" in arguments:
        terminal.write(text, sys.stdout)
        return 0
    startup.prepare()
    hide_passwords()
    try:
        return command(arguments) or 0
    except UserError as error:
        terminal.say(str(error))
        return USER_ERROR
    except KeyboardInterrupt:
        terminal.say("Interrupted.")
        return INTERRUPTED
    except OSError as error:
        fault = files.explain(error)
        if fault is None:
            raise
        terminal.say(str(fault))
        return USER_ERROR


def split(
    arguments: Sequence[str], keys: Sequence[str], *, named: str = "a name"
) -> tuple[list[str], dict[str, str]]:
    """Tell names and `key=value` pairs apart.

    An argument is a name where a file of that name exists.

    Args:
        arguments: Those of the command line.
        keys: The keys that there are.
        named: What a name stands for, as an error message says it.

    Raises:
        ConfigError: For an unknown key, a key without a value, or an option.
    """
    names: list[str] = []
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.replace(".", "").isidentifier() or _exists(argument):
            if argument.startswith("-") and not _exists(argument):
                expected = f"{named} or a `key=value` pair; see --help"
                raise ConfigError("arguments", expected, argument)
            names.append(argument)
        elif key not in keys:
            hint = nearest(key, keys)
            raise ConfigError(key, f"one of the keys {', '.join(keys)}", argument, hint)
        elif not value:
            raise ConfigError(key, "a value", argument)
        else:
            given[key] = value
    return names, given


def output_format(text: str | None, output: Path | None) -> str:
    """Return one of `FORMATS`: what is asked for, what the file's name ends in, or a table.

    Raises:
        ConfigError: For another one.
    """
    if text is None:
        suffix = output.suffix.lower()[1:] if output else ""
        return suffix if suffix in FORMATS else "table"
    if text not in FORMATS:
        raise ConfigError("format", f"one of {', '.join(FORMATS)}", text)
    return text


def threshold(text: str | None) -> float | None:
    """Return a threshold from 0 to 1, or None where none is given.

    Raises:
        ConfigError: For anything else.
    """
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError("threshold", "a number from 0 to 1", text)
    return value


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # too long for a name
        return False

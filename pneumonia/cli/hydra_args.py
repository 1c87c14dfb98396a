"""The options of the command, checked before Hydra acts on them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pneumonia.config.hydra_internals import get_args_parser
from pneumonia.config.suggestions import closest
from pneumonia.errors import ConfigError

_COMPLETION = re.compile(r"(install|uninstall)=(bash|fish|zsh)")
# What Hydra does only one of.
_MODES = ("run", "multirun", "cfg", "info", "shell_completion")


def parse(arguments: Sequence[str]) -> Any:
    """Parse the command line as Hydra does.

    Args:
        arguments: Without the name of the program.

    Returns:
        Hydra's options and `overrides`.

    Raises:
        ConfigError: For what Hydra would refuse in other words, or should not do.
    """
    parser = get_args_parser()
    # Hydra takes `--experiment` for `--experimental-rerun`.
    parser.allow_abbrev = False

    def refuse(message: str) -> NoReturn:
        raise _explain(parser, message)

    parser.error = refuse  # type: ignore[method-assign]
    args: Any = parser.parse_intermixed_args(arguments)  # overrides before and after options
    _check(args)
    return args


def _check(args: Any) -> None:
    if args.experimental_rerun:
        # It loads a pickle, which can run anything.
        hint = "A search is run again by experiment=<its folder>/best.yaml"
        expected = "no rerun from a pickle"
        raise ConfigError("--experimental-rerun", expected, args.experimental_rerun, hint)
    for flag, value in (("--config-name", args.config_name), ("--config-path", args.config_path)):
        if value is not None:
            hint = "Use experiment=<file>.yaml, or --config-dir for further options"
            raise ConfigError(flag, "no other main config than ours", value, hint)
    if args.resolve and not args.cfg:
        raise ConfigError("--resolve", "--cfg job beside it", "--resolve")
    given = [mode for mode in _MODES if getattr(args, mode)]
    if len(given) > 1:
        shown = " ".join(f"--{mode.replace('_', '-')}" for mode in given)
        raise ConfigError("options", f"one of {shown.replace(' ', ', ')}", shown)
    told = " ".join(args.overrides)
    # A shell asks what may come next by `query`, with the line so far in the environment.
    is_asked = told.startswith("query=") and "COMP_LINE" in os.environ
    if args.shell_completion and not is_asked and not _COMPLETION.fullmatch(told):
        hint = 'In bash and zsh: eval "$(pneumonia -sc install=bash)"'
        raise ConfigError("--shell-completion", "install=bash, fish or zsh", told, hint)


def _explain(parser: argparse.ArgumentParser, message: str) -> ConfigError:
    """Return the error for what the parser says."""
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown(parser, found[1])
    found = re.match(r"argument ([^:]+): (.*)", message)
    flag = max(found[1].split("/"), key=len) if found else "options"
    actions = (one for one in parser._actions if flag in one.option_strings)
    choices = next((one.choices for one in actions), None)
    expected = f"one of {', '.join(map(str, choices))}" if choices else "a value"
    received = re.search(r"(?:choice:|argument) '([^']*)'", message)
    return ConfigError(flag, expected, received[1] if received else "")


def _unknown(parser: argparse.ArgumentParser, argument: str) -> ConfigError:
    name, equals, value = argument.partition("=")
    flags = [flag for one in parser._actions for flag in one.option_strings if flag[:2] == "--"]
    flags.append("--dry-run")
    near = None if equals else closest(name, flags, cutoff=0.85)
    bare = name.lstrip("-")
    hint = f"Keys are written without dashes: {bare}={value or '<value>'}"
    if near and near != "--experimental-rerun":
        hint = f"The nearest is {near}"
    return ConfigError(name, "an option, see --help", argument, hint)

"""The options of the command, checked before Hydra acts on them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any

from pneumonia.config.hydra_internals import get_args_parser
from pneumonia.config.suggestions import closest
from pneumonia.errors import ConfigError

_COMPLETION = re.compile(r"(install|uninstall)=(bash|fish|zsh)")
# What Hydra does only one of.
_MODES = ("run", "multirun", "cfg", "info", "shell_completion")


def parse(arguments: Sequence[str]) -> Any:
    """Parse the command line as Hydra does; return its options and `overrides`.

    Raises:
        ConfigError: For what Hydra would refuse in other words, or should not do.
    """
    parser = get_args_parser()
    # Hydra takes `--experiment` for `--experimental-rerun`.
    parser.allow_abbrev = parser.exit_on_error = False
    try:  # overrides before and after options
        args, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        flag = max(str(error.argument_name).split("/"), key=len)
        choices = parser._option_string_actions[flag].choices
        expected = f"one of {', '.join(map(str, choices))}" if choices else "a value"
        received = re.search(r"(?:choice:|argument) '([^']*)'", error.message)
        raise ConfigError(flag, expected, received[1] if received else "") from None
    if unknown:
        raise _unknown(parser, unknown[0])
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


def _unknown(parser: argparse.ArgumentParser, argument: str) -> ConfigError:
    name, equals, value = argument.partition("=")
    flags = [flag for flag in parser._option_string_actions if flag[:2] == "--"]
    near = None if equals else closest(name, [*flags, "--dry-run"], cutoff=0.85)
    hint = f"Keys are written without dashes: {name.lstrip('-')}={value or '<value>'}"
    if near and near != "--experimental-rerun":
        hint = f"The nearest is `{near}`"
    return ConfigError(name, "an option, see --help", argument, hint)

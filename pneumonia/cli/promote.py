"""The command `pneumonia promote`: a search's classifier becomes the champion."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pneumonia import terminal
from pneumonia.cli import common
from pneumonia.errors import ConfigError, UserError

KEYS = ("tracking.uri", "tracking.alias")
_HELP = """\
Make the classifier of a search the champion of its dataset, which `pneumonia predict` takes.

  pneumonia promote SEARCH [key=value ...]

SEARCH is the id of a search that has completed, its folder, or last: the one that was registered
last. A search does this by itself where it is better than the champion on the same val split
(tracking.promote).

Keys:
  tracking.uri=URI         the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here
  tracking.alias=champion  the alias that the search was given

Examples:
  pneumonia promote last
  pneumonia promote outputs/2026-11-27/18-33-02-512-41

Exit status: 0; 2 for a mistake in the command.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status: 0, 2 for a mistake of the user, 130."""
    return common.run(_promote, arguments, text=_HELP)


def _promote(arguments: list[str]) -> None:
    names, given = common.split(arguments, KEYS, named="a search")
    if len(names) != 1:
        raise UserError("Which search? pneumonia promote SEARCH [key=value ...], or --help.")
    from pneumonia.config.schema import ALIAS
    from pneumonia.tracking import registry
    from pneumonia.tracking.settings import CHAMPION, TrackingSettings

    alias = given.get("tracking.alias", CHAMPION)
    if not ALIAS.accepts(alias):
        raise ConfigError("tracking.alias", ALIAS.expected, alias)
    settings = TrackingSettings(uri=given.get("tracking.uri"), alias=alias)
    version, before = registry.promote(_search_id(names[0]), settings)
    told = f"{registry.uri(version)} has the alias {alias}"
    if before is None:
        told += ", which no version had"
    elif before.version != version.version:
        told += f", taken from {registry.uri(before)}"
    else:
        told += " already"
    terminal.write(f"{told}.\n", sys.stdout)


def _search_id(name: str) -> str:
    """Return the id of the search in a folder, or what is the id itself."""
    from pneumonia.storage import journal

    folder = Path(name)
    if name == "last" or not folder.is_dir():
        return name
    first = next(journal.read(folder), None)
    if first is None:
        raise UserError(f"{folder}: expected the folder of a search that has begun.")
    return str(first["search_id"])

"""The command `pneumonia-report`: it writes the pages on searches again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pneumonia import terminal
from pneumonia.cli.common import run
from pneumonia.errors import ConfigError, UserError
from pneumonia.reporting import report
from pneumonia.shell import shown
from pneumonia.storage.search_folder import SearchFolder

_HELP = """\
Write the report of a search again, or one that compares several.

  pneumonia-report FOLDER... [output=FILE]

FOLDER is the folder of a search, such as outputs/<date>/<time>: its report.html is written anew,
from its journal and predictions. Several folders, or the folder of a multirun, give one page that
compares the searches, with links to their own reports.

  output=FILE   where to; by default report.html in the folder, or comparison.html here for several

Examples:
  pneumonia-report outputs/2026-01-31/12-00-00
  pneumonia-report outputs/2026-01-31/* output=january.html

The page holds all it needs and opens from disk. Exit status: 0; 2 for a mistake in the command.
Not for clinical use.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `pneumonia-report`; return the exit status.

    Args:
        arguments: Those of the command line by default.

    Returns:
        0; 2 for a mistake of the user, told in a message; 130 when interrupted.
    """
    return run(_tell, arguments, text=_HELP)


def _tell(arguments: list[str]) -> None:
    terminal.write(f"{shown(_run(arguments))}\n", sys.stdout)


def _run(arguments: Sequence[str]) -> Path:
    """Write what the arguments ask for; return the file."""
    output, folders = None, []
    for argument in arguments:
        key, is_pair, value = argument.partition("=")
        if not is_pair or Path(argument).exists():
            folders.append(Path(argument))
        elif key == "output" and value:
            output = Path(value)
        else:
            raise ConfigError(key, "the key `output` with a file", value)
    if not folders:
        raise UserError("No folder is named. See pneumonia-report --help.")
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: expected the folder of a search. Received: no folder.")
    first = SearchFolder(folders[0])
    if len(folders) == 1 and first.journal.exists():
        return report.write(first.path, output=output)
    return report.write_overview(folders, output or _default(folders))


def _default(folders: Sequence[Path]) -> Path:
    return SearchFolder(folders[0]).report if len(folders) == 1 else Path("comparison.html")


if __name__ == "__main__":
    sys.exit(main())

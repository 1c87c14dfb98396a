"""`pneumonia report`: the report of a search again, or one that compares several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pneumonia import terminal
from pneumonia.cli import common
from pneumonia.errors import UserError
from pneumonia.shell import as_path, shown

KEYS = ("output",)

_HELP = """\
Write the report of a search again, or one that compares several.

  pneumonia report SEARCH... [output=FILE]

SEARCH is the folder of a search, such as outputs/<date>/<time>, its id, or `last`: its report.html
is written anew, from its journal and predictions. Several, or the folder of a multirun, give one
page that compares the searches, with links to their own reports.

Keys:
  output=FILE        where to; by default report.html in the folder, or comparison.html here for
                     several

Examples:
  pneumonia report last
  pneumonia report outputs/2026-01-31/12-00-00
  pneumonia report outputs/2026-01-31/* output=january.html

The page holds all it needs and opens from disk. Exit status: 0; 2 for a mistake in the command.
Not for clinical use.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return common.run(_run, arguments, text=_HELP)


def _run(arguments: list[str]) -> None:
    names, given = common.split(arguments, KEYS, named="a search")
    if not names:
        raise UserError("No search is named. See pneumonia report --help.")
    folders, output = [_folder(name) for name in names], common.output_file(given)
    from pneumonia.reporting import report
    from pneumonia.storage.search_folder import SearchFolder

    first = SearchFolder(folders[0])
    if len(folders) == 1 and first.journal.exists():
        page = report.write(first.path, output=output)
    else:
        usual = first.report if len(folders) == 1 else Path("comparison.html")
        page = report.write_overview(folders, output or usual)
    terminal.write(f"{shown(page)}\n", sys.stdout)


def _folder(name: str) -> Path:
    from pneumonia.storage import search_folder

    if (path := as_path(name)).is_dir():
        return path
    try:
        return search_folder.find(name, is_any=True)
    except FileNotFoundError as error:
        expected = "the folder of a search, the id of one under outputs, or `last`"
        raise UserError(f"{name}: expected {expected}.") from error

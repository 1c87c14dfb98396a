"""Pages on searches: `report.html` in the folder of each, one that compares several.

Also the command `pneumonia-report`, which writes them again.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pneumonia import terminal
from pneumonia.cli.common import run
from pneumonia.config import presets
from pneumonia.errors import ConfigError, UserError
from pneumonia.reporting import (
    page,
    score_sections,
    search_comparison,
    summary_sections,
    trial_sections,
)
from pneumonia.reporting.worst_errors import Load
from pneumonia.shell import commands, shown
from pneumonia.storage import history, journal, search_record
from pneumonia.storage.search_record import Chronicle

NAME = "report.html"

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


def write(
    folder: Path, *, ending: Mapping[str, Any] | None = None, load: Load | None = None
) -> Path:
    """Write the report of one search into its folder, whole or not at all.

    It holds all it needs, plotly.js included, and takes 5 to 7 MB, never more than
    `page.MOST_BYTES`.

    Args:
        folder: The folder of the search.
        ending: The event that is about to end the search, where the journal does not have it yet.
        load: Gives the final classifier for heat maps; by default it is read from its file.

    Raises:
        UserError: Where the folder is not that of a search.
    """
    return save(render(search_record.read(folder, ending=ending), load=load), folder / NAME)


def attempt(
    folder: Path, ending: Mapping[str, Any], *, load: Load | None, say: Callable[[str], None]
) -> list[str]:
    """Write the report of a search that is about to tell its end; return the file's name, if any.

    Args:
        folder: The folder of the search.
        ending: The event that is about to end it.
        load: As of `write`.
        say: Is told what went wrong.
    """
    try:
        return [write(folder, ending=ending, load=load).name]
    # Neither a fault in a picture nor a second Ctrl-C may keep the end out of the journal.
    except (Exception, KeyboardInterrupt) as error:
        say(f"warning: there is no report: {type(error).__name__}: {error}")
        return []


def render(search: Chronicle, *, load: Load | None = None) -> str:
    """Return the report of a search as HTML; arguments as of `write`."""
    evaluated = score_sections.evaluate(search)
    sections = [
        summary_sections.summary(search, evaluated, _commands(search)),
        *trial_sections.build(search),
        *score_sections.build(search, evaluated, load=load),
        summary_sections.data_card(search),
        *summary_sections.export(search),
        trial_sections.times(search),
        trial_sections.failures(search),
        summary_sections.provenance(search),
    ]
    subtitle = f"Search {search.started.get('search_id', '')} in {shown(search.folder)}"
    return page.render(search.name, subtitle, sections, class_names=search.class_names)


def write_overview(folders: Sequence[Path], path: Path) -> Path:
    """Write the page that compares all the searches in or below some folders.

    Raises:
        UserError: Where there is none.
    """
    found = [search for folder in folders for search in find_searches(folder)]
    if not found:
        raise UserError(f"{folders[0]}: expected a search in it, a folder with a {journal.NAME}.")
    searches = [search_record.read(folder) for folder in found]
    here = path.parent.resolve()
    links = {
        str(folder): quote(os.path.relpath(folder.resolve() / NAME, here))
        for folder in found
        if (folder / NAME).exists()
    }
    jobs = [
        job
        for folder in folders
        for job in search_record.jobs(folder)
        if job.status and folder / job.folder not in found
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(search_comparison.render(searches, links, jobs), path)


def find_searches(folder: Path) -> list[Path]:
    """Return the folders of the searches in or below a folder that have begun, in their order."""
    found = {path.parent for path in folder.rglob(journal.NAME)}
    return sorted((one for one in found if next(journal.read(one), None)), key=_order)


def find_search(search_id: str, folder: Path) -> Path | None:
    """Return the folder of a search in or below a folder, None where it is not there."""
    for path in folder.rglob(journal.NAME):
        first = history.first_event(path.parent)
        if first is not None and first.get("search_id") == search_id:
            return path.parent
    return None


def _order(folder: Path) -> tuple[int, str]:
    return int(next(journal.read(folder))["time"]), str(folder)


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
    first = folders[0]
    if len(folders) == 1 and (first / journal.NAME).exists():
        search = search_record.read(first)
        return save(render(search), output or first / NAME)
    return write_overview(folders, output or _default(folders))


def _default(folders: Sequence[Path]) -> Path:
    return folders[0] / NAME if len(folders) == 1 else Path("comparison.html")


def save(text: str, path: Path) -> Path:
    """Write a page, whole or not at all."""
    # The same name every time: what a killed process has left of it is written over.
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _commands(search: Chronicle) -> list[tuple[str, str]]:
    """Return the commands that come next, each with what it does."""
    prefix, ui = commands()
    found = [(ui, "look at the trials in MLflow")]
    if search.status == "completed":
        # The file: by the time that somebody reads this, another search may have the champion.
        file = search.folder / str(search.ended.get("classifier") or "")
        model = f" model={shlex.quote(shown(file))}" if file.is_file() else ""
        predict = f"{prefix}pneumonia predict IMAGE...{model}"
        found.append((predict, "get probabilities for image files"))
    preset = search.folder / "best.yaml"
    if preset.exists():
        options = presets.options(search.started.get("choices") or {})
        again = f"{prefix}pneumonia {options}experiment={shlex.quote(shown(preset))}"
        found.append((again, "train the winner again, to the same score"))
    return found


if __name__ == "__main__":
    sys.exit(main())

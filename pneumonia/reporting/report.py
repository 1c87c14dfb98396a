"""Pages on searches: `report.html` in the folder of each, one that compares several."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pneumonia import files
from pneumonia.config import presets
from pneumonia.errors import UserError
from pneumonia.reporting import page, score_sections, search_comparison
from pneumonia.reporting import summary_sections as summary
from pneumonia.reporting import trial_sections as trials
from pneumonia.reporting.worst_errors import Load
from pneumonia.shell import commands, shown
from pneumonia.storage import jobs, journal, search_record
from pneumonia.storage.search_folder import SearchFolder, find_all
from pneumonia.storage.search_record import SearchRecord

NAME = SearchFolder(Path()).report.name


def write(
    folder: Path,
    *,
    ending: Mapping[str, Any] | None = None,
    load: Load | None = None,
    output: Path | None = None,
) -> Path:
    """Write the report of one search, whole or not at all.

    It holds all it needs, plotly.js included, and takes 5 to 7 MB, never more than
    `page.MOST_BYTES`.

    Args:
        folder: The folder of the search.
        ending: The event that is about to end the search, where the journal does not have it yet.
        load: Gives the final classifier for heat maps; by default it is read from its file.
        output: The file; by default one in the folder.

    Raises:
        UserError: Where the folder is not that of a search.
    """
    text = render(search_record.read(folder, ending=ending), load=load)
    return save(text, output or SearchFolder(folder).report)


def attempt(
    folder: Path, ending: Mapping[str, Any], *, load: Load | None, say: Callable[[str], None]
) -> list[str]:
    """Write the report of a search that is about to tell its end; return the file's name, if any.

    `say` is told what went wrong; the other arguments are as of `write`.
    """
    try:
        return [write(folder, ending=ending, load=load).name]
    # Neither a fault in a picture nor a second Ctrl-C may keep the end out of the journal.
    except (Exception, KeyboardInterrupt) as error:
        say(f"warning: there is no report: {type(error).__name__}: {error}")
        return []


def render(search: SearchRecord, *, load: Load | None = None) -> str:
    """Return the report of a search as HTML; arguments as of `write`."""
    evaluated = score_sections.evaluate(search)
    sections = [
        summary.summary(search, evaluated, _commands(search)),
        *trials.build(search),
        *score_sections.build(search, evaluated, load=load),
        summary.data_card(search),
        *summary.export(search),
        trials.times(search),
        trials.failures(search),
        summary.provenance(search),
    ]
    subtitle = f"Search {search.first.get('search_id', '')} in {shown(search.folder)}"
    title = str(search.first.get("name", search.folder.name))
    return page.render(title, subtitle, sections, class_names=search.class_names)


def write_overview(folders: Sequence[Path], path: Path) -> Path:
    """Write the page that compares all the searches in or below some folders.

    Raises:
        UserError: Where there is none.
    """
    found = [search for folder in folders for search in find_all(folder)]
    if not found:
        raise UserError(f"{folders[0]}: expected a search in it, a folder with a {journal.NAME}.")
    searches = [search_record.read(folder) for folder in found]
    here = path.parent.resolve()
    links = {
        str(folder): quote(os.path.relpath(folder.resolve() / NAME, here))
        for folder in found
        if (folder / NAME).exists()
    }
    failed = [
        job
        for folder in folders
        for job in jobs.read(folder)
        if job.status and folder / job.folder not in found
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(search_comparison.render(searches, links, failed), path)


def save(text: str, path: Path) -> Path:
    """Write a page, whole or not at all."""
    files.write_text(path, text, errors="replace")
    return path


def _commands(search: SearchRecord) -> list[tuple[str, str]]:
    """Return the commands that come next, each with what it does."""
    prefix, ui = commands()
    found = [(ui, "look at the trials in MLflow")]
    if search.status == "completed":
        # The file: by the time that somebody reads this, another search may have the champion.
        file = search.folder / str(search.ended.get("classifier") or "")
        model = f" model={shlex.quote(shown(file))}" if file.is_file() else ""
        predict = f"{prefix}pneumonia predict IMAGE...{model}"
        found.append((predict, "get probabilities for image files"))
    preset = SearchFolder(search.folder).preset
    if preset.exists():
        options = presets.options(search.first.get("choices") or {})
        again = f"{prefix}pneumonia {options}experiment={shlex.quote(shown(preset))}"
        found.append((again, "train the winner again, to the same score"))
    return found

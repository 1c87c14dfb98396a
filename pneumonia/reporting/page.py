"""One HTML page that holds all it needs: it opens from disk, and nothing leaves it.

Whatever others have named (files, classes, paths, reasons) is escaped by Jinja2, and the page's
policy lets no script run but the two that are written here: the plots' library and the page's own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pneumonia.reporting.figures import Figure
from pneumonia.reporting.worst_errors import WrongImage
from pneumonia.tables import Table

Counts = tuple[tuple[int, int], tuple[int, int]]

MOST_BYTES = 9_000_000
"""What a page never exceeds; plotly.js alone is 4.8 MB of it."""

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the beginning of a page: what it is called, the number, what stands below."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page, in plain text: the page makes it HTML.

    Attributes:
        key: Its anchor in the page.
        title: Its heading.
        texts: Paragraphs at its beginning.
        tiles: Numbers in large print.
        tables: Tables; one without rows is left out.
        commands: Commands to copy, each with what it does.
        figures: Interactive figures.
        matrices: Confusion matrices, each with its title: true negatives, false positives; false
            negatives, true positives.
        pictures: Images that were wrong.
        notes: Paragraphs at its end.
        details: What is folded away: its summary and its text.
        links: For tables, the addresses of the first column's cells, by their text.
    """

    key: str
    title: str
    texts: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    matrices: Sequence[tuple[str, Counts]] = ()
    pictures: Sequence[WrongImage] = ()
    notes: Sequence[str] = ()
    details: Sequence[tuple[str, str]] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def render(
    title: str, subtitle: str, sections: Sequence[Section], *, class_names: tuple[str, str]
) -> str:
    """Return the page as HTML; the negative class comes first."""
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), (_TEMPLATES / "page.js").read_text(encoding="utf-8")]
    template = _environment().get_template("page.html")
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        class_names=class_names,
        hashes=[_hash(script) for script in scripts],
        # Our own files and plotly.js, which hold no closing tag.
        scripts=[Markup(script) for script in scripts],
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["dotted"] = _dotted
    return environment


def _dotted(path: str) -> Markup:
    """Return a dotted path that a line can break in."""
    return Markup(str(escape(path)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _hash(script: str) -> str:
    """Return how a content security policy names a script that may run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"

"""Text in cells, as plain lines, as Markdown, and as rich draws it for a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from pneumonia import terminal


@dataclass(frozen=True, slots=True)
class Table:
    """Text in cells. It must not format numbers; as a string it is aligned plain text.

    The title is a line above, the notes are lines below; columns of numbers stand at the right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_number: tuple[bool, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(len(cell) for cell in column) for column in columns]
        lines = [self._line(cells, widths) for cells in (self.header, *self.rows)]
        rule = "  ".join("-" * width for width in widths)
        below = ["", *self.notes] if self.notes else []
        return "\n".join([self.title, "", lines[0], rule, *lines[1:], *below]) + "\n"

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, self.is_number, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    def markdown(self) -> str:
        """Return the header and the rows as a Markdown table."""
        rule = tuple("---:" if right else ":---" for right in self.is_number)
        escaped = [tuple(cell.replace("|", "\\|") for cell in row) for row in self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.header, rule, *escaped))


def show(*parts: Table | str, stream: TextIO | None = None) -> None:
    """Write tables and texts to the stream, standard output if None, an empty line between them.

    On a terminal rich draws the tables. A stream that is closed or cannot encode a character is no
    error.
    """
    stream = sys.stdout if stream is None else stream
    is_drawn = terminal.is_terminal(stream)
    texts = [
        _drawn(part, stream) if is_drawn and isinstance(part, Table) else str(part)
        for part in parts
    ]
    terminal.write("\n" + "\n".join(texts), stream)


def _drawn(table: Table, stream: TextIO) -> str:
    """Return the table as rich draws it for a terminal, the first row in bold."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    file = io.TextIOWrapper(io.BytesIO(), encoding=stream.encoding)  # tells rich what it may draw
    console = Console(file=file, force_terminal=True, width=terminal.width(stream))
    is_tight = max(len(line) for line in str(table).splitlines()[2:4]) > console.width
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, right in zip(table.header, table.is_number, strict=True):
        heading = name.replace(".", ".\n").replace("_", "_\n") if is_tight else name
        drawn.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
    for index, row in enumerate(table.rows):
        drawn.add_row(*(Text(cell) for cell in row), style="bold" if index == 0 else None)
    with console.capture() as capture:
        console.print(Text(table.title, style="bold"))
        console.print(drawn)
        for note in table.notes:
            console.print(Text(note, style="dim"))
    return capture.get()

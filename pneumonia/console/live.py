"""What the live display of a search looks like, at any size of the terminal: rich draws it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.text import Text

_LEVELS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 24
_BAR_WIDTHS = (10, 40)
_GAP = "  "
# On a smaller terminal there is room for one line only: columns, rows.
_LEAST_SIZE = (40, 8)

Cells: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to see of a search at one moment, as text.

    Attributes:
        line: All of it in one line, for a terminal too small for more.
        trial: Which trial runs, of how many.
        share: How much of the plan is done, from 0 to 1; None while unknown.
        times: The remaining time and so on, what matters least last.
        state: Epoch, objective and best so far, or what goes on instead of training.
        curve: The objective of the trial that runs, an epoch each.
        values: Its hyperparameters.
        header: The names of the table's columns: trial, objective, ..., hyperparameters.
        rows: The best trials so far, the best first; as many cells each as there are columns.
    """

    line: str = ""
    trial: str = ""
    share: float | None = None
    times: Cells = ()
    state: Cells = ()
    curve: tuple[float, ...] = ()
    values: Cells = ()
    header: Cells = ()
    rows: tuple[Cells, ...] = ()


class Picture:
    """Owns the console that makes lines for a terminal of a scene.

    It colors as the terminal allows and as NO_COLOR and COLORTERM say.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(
            file=io.StringIO(),
            force_terminal=True,
            legacy_windows=False,
            highlight=False,
            width=400,
        )
        self._table: tuple[object, list[str]] = (None, [])

    def lines(self, scene: Scene, columns: int, rows: int) -> list[str]:
        """Return a scene as lines of less than `columns` cells, fewer than `rows`.

        The first of them is empty, unless it is the only one.
        """
        room = max(1, columns - 1)
        if columns < _LEAST_SIZE[0] or rows < _LEAST_SIZE[1]:
            return [self._drawn(cut(scene.line, room))]
        above = [self._drawn(text) for text in head(scene, room)]
        room_below = rows - len(above) - 3
        key = (scene.header, scene.rows, room, room_below)
        if self._table[0] != key:  # it changes when a trial ends only, and costs the most
            below = [self._drawn(text) for text in table(scene, room, room_below)]
            self._table = (key, below)
        return ["", *above, *([""] if self._table[1] else []), *self._table[1]]

    def _drawn(self, text: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(text, end="", no_wrap=True)
        return capture.get()


def head(scene: Scene, room: int) -> Iterator[Text]:
    """Yield the lines above the table, each of at most `room` cells: bar, state, values."""
    from rich.text import Text

    times = list(scene.times)
    others = len(scene.trial) + _BAR_WIDTHS[0] + len("  100%")
    while times and others + sum(len(" · ") + len(text) for text in times) > room:
        times.pop()
    if scene.share is not None:
        parts = [f"{scene.share:4.0%}", *times]
        rest = " ".join(["", " · ".join(parts)])
        bar = room - len(scene.trial) - len(rest) - 1
        line = Text(scene.trial, "bold").append(" " if scene.trial else "")
        if bar >= _BAR_WIDTHS[0]:
            line.append_text(_bar(scene.share, min(bar, _BAR_WIDTHS[1])))
        yield cut(line.append(rest, "not bold"), room)
    elif scene.trial or times:
        yield cut(Text(" · ".join([*filter(None, [scene.trial]), *times]), "bold"), room)
    state = Text(" · ".join(scene.state))
    curve = sparkline(scene.curve, min(_CURVE_WIDTH, room - len(state) - len(_GAP)))
    if curve:
        state.append(_GAP).append(curve, "cyan")
    if state:
        yield cut(state, room)
    if scene.values:
        yield cut(Text(" ".join(scene.values)), room)


def table(scene: Scene, room: int, most: int) -> Iterator[Text]:
    """Yield the lines of the table, as many of its columns and rows as there is room for.

    Args:
        scene: The scene.
        room: The cells that a line may take.
        most: The most lines.
    """
    from rich.text import Text

    if not scene.rows:
        return
    for split in (False, True):  # long dotted names take two lines where one has no room
        headings = [_heading(name) if split else ["", name] for name in scene.header]
        columns = list(zip(*([*_two(headings), *scene.rows]), strict=True))
        widths = [max(_cells(cell) for cell in column) for column in columns]
        if sum(widths) + len(_GAP) * (len(widths) - 1) <= room:
            break
    while len(widths) > 2 and sum(widths) + len(_GAP) * (len(widths) - 1) > room:
        widths.pop()
    titles = [line for line in _two(headings) if any(line)]
    for index, cells in enumerate([*titles, *scene.rows][: max(0, most)]):
        style = "dim" if index < len(titles) else "bold" if index == len(titles) else ""
        padded = (_right(cell, width) for cell, width in zip(cells, widths, strict=False))
        yield cut(Text(_GAP.join(padded), style), room)


def sparkline(values: Sequence[float], most: int) -> str:
    """Return a curve as a line of blocks, from its lowest value to its highest.

    A curve of more than `most` values is thinned out evenly; its last value stays. What is not a
    number is left blank.
    """
    if most < 1 or not values:
        return ""
    last = len(values) - 1
    if last >= most:
        step = last / max(1, most - 1)
        values = [values[last - round(i * step)] for i in reversed(range(most))]
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    return "".join(
        _LEVELS[min(7, int(8 * (value - low) / span)) if span else 3]
        if math.isfinite(value)
        else " "
        for value in values
    )


def cut(text: Text | str, room: int) -> Text:
    """Return a text that takes at most `room` cells; what was cut off shows as `…`."""
    from rich.text import Text

    made = text if isinstance(text, Text) else Text(text)
    made.plain = "".join(c if c.isprintable() else "?" for c in made.plain)
    made.truncate(room, overflow="ellipsis")
    return made


def _bar(share: float, width: int) -> Text:
    from rich.text import Text

    halves = int(2 * width * min(1.0, max(0.0, share)))
    full, half = divmod(halves, 2)
    rest = width - full - half
    return Text().append("━" * full + "╸" * half, "cyan").append("─" * rest, "dim")


def _heading(name: str) -> list[str]:
    first, dot, last = name.rpartition(".")
    return [first + dot, last]


def _two(headings: Sequence[Sequence[str]]) -> list[Cells]:
    return [tuple(pair[line] for pair in headings) for line in (0, 1)]


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _right(text: str, width: int) -> str:
    return " " * (width - _cells(text)) + text

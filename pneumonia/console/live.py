"""The live display of a search: how it looks at any size of a terminal, and how it stays in place.

`rich.live` is not enough: it leaves the cursor below its lines, where a library in C, the echo of
Ctrl-C or a terminal that becomes narrower would break them.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import RLock
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from pneumonia import terminal
from pneumonia.formatting import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_LEVELS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 24
_BAR_WIDTHS = (10, 40)
_GAP = "  "
# On a smaller terminal there is room for one line only: columns, rows.
_LEAST_SIZE = (40, 8)
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"

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


class Screen:
    """Owns what a terminal shows from the cursor on, and the standard streams that lead to it.

    Between drawings the cursor stands on the first line of the region, which is left empty. So all
    that is ours is below the cursor: a terminal that was made narrower, and has wrapped our lines
    or cut them, is put right by erasing from there; and what comes past us, from a library in C, a
    stopped job or the echo of Ctrl-C, stands above the next drawing.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = RLock()
        self._kept: list[tuple[str, Any, _Above]] = []
        self._partial = ""
        self._console = make_console()
        self.is_gone = False

    def open(self) -> None:
        """Lead the standard streams that end at a terminal through `write`."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if terminal.is_terminal(stream):
                above = _Above(self, stream)
                self._kept.append((name, stream, above))
                setattr(sys, name, above)

    def close(self) -> None:
        """Erase the region and give the streams back; what follows starts on a clean line."""
        with self._lock:
            for name, stream, above in self._kept:
                if getattr(sys, name) is above:  # somebody else's is not ours to take away
                    setattr(sys, name, stream)
            self._kept.clear()
            text, self._partial = self._partial, ""
            self._put(f"\r{_ERASE_BELOW}{text}")

    def draw(self, scene: Scene) -> None:
        """Show a scene in place of the one before."""
        lines = draw_lines(scene, *terminal.size(self._stream), self._console)
        body = "\r\n".join(line + _ERASE_LINE for line in lines)
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        # A terminal that has just become narrower cuts the lines, rather than to wrap them.
        self._put(f"\r{_WRAP_OFF}{body}{_ERASE_BELOW}{up}\r{_WRAP_ON}")

    def write(self, text: str) -> None:
        """Write text that stays, above the region; the beginning of a line waits for its end."""
        with self._lock:
            whole, newline, partial = (self._partial + text).rpartition("\n")
            self._partial = partial.rpartition("\r")[2]  # a line of another's, drawn in place
            if newline:
                self._put(f"\r{_ERASE_BELOW}{whole}\n")

    def _put(self, text: str) -> None:
        with self._lock:
            self.is_gone = not terminal.write(text, self._stream)


class _Above:
    """A standard stream whose text comes out above the region of a screen."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen, self._stream, self._process = screen, stream, os.getpid()

    def write(self, text: str) -> int:
        if os.getpid() == self._process:
            self._screen.write(text)
            return len(text)
        return self._stream.write(text)  # a fork has no screen

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_console() -> Console:
    """Return what colors text as the terminal allows and as NO_COLOR and COLORTERM say."""
    from rich.console import Console

    return Console(
        file=io.StringIO(), force_terminal=True, legacy_windows=False, highlight=False, width=400
    )


def draw_lines(scene: Scene, columns: int, rows: int, console: Console) -> list[str]:
    """Return a scene as lines of less than `columns` cells, fewer than `rows`.

    The first of them is empty, unless it is the only one.
    """
    room = max(1, columns - 1)
    if columns < _LEAST_SIZE[0] or rows < _LEAST_SIZE[1]:
        return [_drawn(cut(scene.line, room), console)]
    above = [_drawn(text, console) for text in head(scene, room)]
    below = _draw_table(scene.header, scene.rows, room, rows - len(above) - 3, console)
    return ["", *above, *([""] if below else []), *below]


@lru_cache(maxsize=1)  # it changes when a trial ends only, and costs the most
def _draw_table(
    header: Cells, rows: tuple[Cells, ...], room: int, most: int, console: Console
) -> list[str]:
    return [_drawn(text, console) for text in table(header, rows, room, most)]


def _drawn(text: Text, console: Console) -> str:
    with console.capture() as capture:
        console.print(text, end="", no_wrap=True)
    return capture.get()


def head(scene: Scene, room: int) -> Iterator[Text]:
    """Yield the lines above the table, each of at most `room` cells: bar, state, values."""
    from rich.text import Text

    times = list(scene.times)
    others = len(scene.trial) + _BAR_WIDTHS[0] + len("  100%")
    while times and others + sum(len(" · ") + len(text) for text in times) > room:
        times.pop()
    if scene.share is not None:
        rest = " " + " · ".join([f"{scene.share:4.0%}", *times])
        bar = room - len(scene.trial) - len(rest) - 1
        line = Text(scene.trial, "bold").append(" " if scene.trial else "")
        if bar >= _BAR_WIDTHS[0]:
            line.append_text(_bar(scene.share, min(bar, _BAR_WIDTHS[1])))
        yield cut(line.append(rest, "not bold"), room)
    elif scene.trial or times:
        yield cut(Text(" · ".join([*filter(None, [scene.trial]), *times]), "bold"), room)
    state = Text(" · ".join(scene.state))
    if curve := sparkline(scene.curve, min(_CURVE_WIDTH, room - len(state) - len(_GAP))):
        state.append(_GAP).append(curve, "cyan")
    if state:
        yield cut(state, room)
    if scene.values:
        yield cut(Text(" ".join(scene.values)), room)


def table(header: Cells, rows: tuple[Cells, ...], room: int, most: int) -> Iterator[Text]:
    """Yield at most so many lines of the best trials, with the columns that there is room for."""
    from rich.cells import cell_len
    from rich.text import Text

    if not rows:
        return
    parts = [name.rpartition(".") for name in header]
    whole = [("",) * len(header), header]
    split = [tuple(first + dot for first, dot, _ in parts), tuple(last for *_, last in parts)]
    for titles in (whole, split):  # long dotted names take two lines where one has no room
        columns = zip(*titles, *rows, strict=True)
        widths = [max(map(cell_len, column)) for column in columns]
        if sum(widths) + len(_GAP) * (len(widths) - 1) <= room:
            break
    while len(widths) > 2 and sum(widths) + len(_GAP) * (len(widths) - 1) > room:
        widths.pop()
    titles = [line for line in titles if any(line)]
    for index, cells in enumerate([*titles, *rows][: max(0, most)]):
        style = "dim" if index < len(titles) else "bold" if index == len(titles) else ""
        padded = (" " * (n - cell_len(cell)) + cell for cell, n in zip(cells, widths, strict=False))
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
    made.plain = printable(made.plain)
    made.truncate(room, overflow="ellipsis")
    return made


def _bar(share: float, width: int) -> Text:
    from rich.text import Text

    full, half = divmod(int(2 * width * min(1.0, max(0.0, share))), 2)
    rest = width - full - half
    return Text().append("━" * full + "╸" * half, "cyan").append("─" * rest, "dim")

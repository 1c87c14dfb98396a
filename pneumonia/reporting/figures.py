"""What interactive figures are made of, as plotly.js takes them: data and layout.

Plain mappings rather than plotly's Python objects, which take seconds to import and to check. A
colour that begins with @ is one of the page's, which differ between light and dark. Plotly reads
some HTML in texts, so whatever others have named goes through `escape`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Json = dict[str, Any]
Numbers = Iterable[Any]

CURVES = ("@blue", "@orange", "@green", "@purple", "@yellow", "@sky")
MOST_TRIALS = 2000  # in a figure: the best or the first ones where there are more


@dataclass(frozen=True, slots=True)
class Figure:
    """One interactive figure; sizes are in CSS pixels.

    Attributes:
        key: Its name in the page: letters and dashes.
        title: What stands above it.
        alt: What it shows, for who does not see it.
        data: The traces.
        layout: The axes.
        height: Of the plot.
        note: What stands below it.
        min_width: Below which it is scrolled sideways.
    """

    key: str
    title: str
    alt: str
    data: list[Json]
    layout: Json
    height: int = 340
    note: str = ""
    min_width: int = 0


def escape(text: str) -> str:
    """Return a text as Plotly shows it: it takes some HTML for format."""
    return html.escape(text, quote=False)


def lines(x: Numbers, y: Numbers, name: str, *, line: Json, **properties: Any) -> Json:
    """Return a trace of points that a line joins."""
    own = {"type": "scatter", "mode": "lines", "name": name, "x": rounded(x), "y": rounded(y)}
    return {**own, "line": line, **properties}


def dots(x: Numbers, y: Numbers, name: str, *, marker: Json, **properties: Any) -> Json:
    """Return a trace of points."""
    return lines(x, y, name, line={}, marker=marker, mode="markers", **properties)


def bars(x: Sequence[Any], y: Numbers, name: str, colour: str, hover: str) -> Json:
    """Return a trace of upright bars."""
    return {
        "type": "bar", "name": name, "x": list(x), "y": rounded(y), "marker": {"color": colour},
        "hovertemplate": f"{hover}<extra>%{{fullData.name}}</extra>",
    }  # fmt: skip


def intervals(ends: Sequence[tuple[Any, Any, Any]], colour: str, *, width: int = 4) -> Json:
    """Return error bars for values, each with the two ends of its interval: value, low, high."""
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": width,
        "array": rounded(max(0.0, high - value) for value, _, high in ends),
        "arrayminus": rounded(max(0.0, value - low) for value, low, _ in ends),
    }  # fmt: skip


def axis(title: str, **properties: Any) -> Json:
    """Return an axis."""
    return {"title": {"text": escape(title)}, **properties}


def focus(values: Sequence[float], sign: float) -> list[float]:
    """Return the part of the axis to begin with: all but what lies far on the bad side."""
    bad, median = np.percentile(values, [25 if sign > 0 else 75, 50])
    best = max(values, key=lambda value: sign * value)
    fence = median - sign * 4 * max(abs(best - median), abs(median - bad), 1e-9)
    inner = [value for value in values if sign * value >= sign * fence]
    low, high = min(inner), max(inner)
    pad = 0.06 * (high - low) or max(abs(high) * 0.01, 1e-6)
    return [number(low - pad), number(high + pad)]  # type: ignore[list-item]


def rounded(values: Numbers) -> list[float | int | None]:
    """Return numbers with the digits that a picture can show."""
    return [number(value) for value in values]


def number(value: Any) -> float | int | None:
    """Return a number with the digits that a picture can show; None where it is none."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.6g}")

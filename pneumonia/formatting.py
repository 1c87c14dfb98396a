"""Values as a person reads them."""

from __future__ import annotations


def clock_time(seconds: float) -> str:
    """Return a duration as minutes and seconds, 0:41, or hours, 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(value: object) -> str:
    """Return a value with the digits that matter: four of a float, all of anything else."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def megabytes(size: float) -> str:
    """Return a size in 10^6 bytes, with a digit behind the point below ten."""
    value = size / 1e6
    return f"{value:,.{0 if value >= 10 else 1}f}"


def cut(text: str, most: int) -> str:
    """Return a text with at most so many characters; the last stands for what is left out."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: str) -> str:
    """Return a text of others, which may hold what would move a terminal's cursor, without that."""
    return "".join(c if c.isprintable() else "?" for c in text)


def with_spread(score: float | None, spread: float | None) -> str:
    """Return a score with the standard deviation between the trainings that it is the mean of."""
    shown = "" if score is None else f"{score:.4f}"
    return shown if spread is None else f"{shown} ± {spread:.4f}"

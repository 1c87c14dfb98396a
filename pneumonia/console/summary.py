"""What a search tells at its end: tables, the commands that come next, a note for the run."""

from __future__ import annotations

import io
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pneumonia import terminal
from pneumonia.console.progress import clock_time, short
from pneumonia.evaluation.metrics import DECIDED, Confusion, Estimate, Scores
from pneumonia.evaluation.thresholds import Decision, predictive_values

_NAMES = {
    "auc": "AUC",
    "f1": "F1",
    "brier": "Brier score",
}
_DISCLAIMER = (
    "Not for clinical use: a research result, not a medical device. "
    "Nobody has tested it on patients."
)
_NO_WIDTH = "An interval without width only says that no image of this split told otherwise."


@dataclass(frozen=True, slots=True)
class Row:
    """A trial that came to a score, as the table shows it.

    Attributes:
        number: The trial's number within the search, from 1.
        score: Its objective.
        values: Its hyperparameters, by dotted path.
        epoch: The epoch at which it had that score; 0 if unknown.
        seconds: How long it took; nan if unknown.
    """

    number: int
    score: float
    values: Mapping[str, object]
    epoch: int = 0
    seconds: float = math.nan


@dataclass(frozen=True, slots=True)
class Table:
    """Text in cells. It must not format numbers; as a string it is aligned plain text.

    Attributes:
        title: A line above.
        header: The columns' names.
        rows: As many cells each as there are columns.
        is_number: Which columns stand at the right.
        notes: Lines below.
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
        return "\n".join([self.title, "", lines[0], rule, *lines[1:], *self._below()]) + "\n"

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, self.is_number, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    def _below(self) -> list[str]:
        return ["", *self.notes] if self.notes else []

    def markdown(self) -> str:
        """Return the header and the rows as a Markdown table."""
        rule = tuple("---:" if right else ":---" for right in self.is_number)
        escaped = [tuple(cell.replace("|", "\\|") for cell in row) for row in self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.header, rule, *escaped))


def best_table(rows: Sequence[Row], *, objective: str, limit: int = 10, failed: int = 0) -> Table:
    """Return the table of the best trials.

    Of trials with the same hyperparameters, such as a Hyperband trial and what it was promoted to,
    the best is shown. A hyperparameter that is the same in all the trials is named below the table
    and has no column.

    Args:
        rows: All the trials that came to a score, the best first.
        objective: Name of the metric that ranks them.
        limit: How many to show.
        failed: How many came to none.
    """
    rows_of: dict[str, Row] = {}
    for row in rows:
        rows_of.setdefault(repr(sorted(row.values.items())), row)
    shown = list(rows_of.values())[:limit]
    varying, same = _varying(rows)
    has_epoch, has_time = any(r.epoch for r in shown), any(r.seconds >= 0 for r in shown)
    optional = (has_epoch, has_time)
    cells = []
    for row in shown:
        epoch, seconds = str(row.epoch or ""), ""
        if row.seconds >= 0:
            seconds = clock_time(row.seconds)
        given = [text for text, has in zip((epoch, seconds), optional, strict=True) if has]
        values = [short(row.values[name]) if name in row.values else "-" for name in varying]
        cells.append((str(row.number), f"{row.score:.4f}", *given, *values))
    extra = [name for name, has in zip(("epoch", "time"), optional, strict=True) if has]
    of_numbers = [all(_is_number(row.values.get(name, 0)) for row in shown) for name in varying]
    return Table(
        title=_count(len(rows), "trial") + f" by {objective}, the best first",
        header=("trial", objective, *extra, *varying),
        rows=tuple(cells),
        is_number=(True, True, *(True for _ in extra), *of_numbers),
        notes=_trial_notes(same, hidden=len(rows_of) - len(shown), failed=failed),
    )


def scores_table(
    scores: Scores,
    *,
    chosen: Scores | None = None,
    decision: Sequence[str] = (),
    title: str = "Scores on the test split",
) -> Table:
    """Return the table of all the scores with their intervals, and the counts below it.

    Args:
        scores: At 0.5.
        chosen: At the classifier's own threshold, shown beside them where that is another.
        decision: How the classifier decides, in sentences: the last notes.
        title: A line above.
    """
    sides = [scores]
    if chosen is not None and chosen.threshold != scores.threshold:
        sides.append(chosen)
    cells = []
    for name, estimate in scores.estimates().items():
        label = score_name(name)
        others = [side.estimates()[name] if name in DECIDED else None for side in sides[1:]]
        cells.append((label, *(cell for one in (estimate, *others) for cell in _shown(one))))
    has_no_width = any(e.low == e.high for side in sides for e in side.estimates().values())
    heads = ["value", *(f"above {side.threshold:.4g}" for side in sides[1:])]
    return Table(
        title=title,
        header=("score", *(cell for head in heads for cell in (head, "95 % interval"))),
        rows=tuple(cells),
        is_number=(False, *(True for _ in heads for _ in range(2))),
        notes=(
            _counted(scores.confusion),
            f"Positive is a probability above {scores.threshold:g}. Intervals: "
            f"{scores.resamples:,} bootstrap resamples, stratified by class.",
            *([_NO_WIDTH] if has_no_width else []),
            *(f"{_counted(one.confusion)[:-1]}, above {one.threshold:.4g}." for one in sides[1:]),
            *decision,
        ),
    )


def score_name(name: str) -> str:
    """Return what people call a score, such as 'AUC'."""
    return _NAMES.get(name, name.replace("_", " "))


def decided(decision: Decision, chosen: Scores, *, prevalence: float | None) -> list[str]:
    """Return how a classifier decides, in sentences.

    Args:
        decision: How.
        chosen: The scores at its threshold.
        prevalence: The share of positives where it will be used, if it is known.
    """
    lines = [f"The classifier's own threshold is {decision.threshold:.4g}: {decision.statement}."]
    if decision.temperature != 1:
        lines.append(
            f"Its logits are divided by {decision.temperature:.4g}, the temperature that fits val."
        )
    if prevalence is not None:
        rates = chosen.sensitivity.value, chosen.specificity.value
        positive, negative = predictive_values(*rates, prevalence)
        lines.append(
            f"At a prevalence of {prevalence:.1%}, {positive:.1%} of its positive decisions would "
            f"be right, and {negative:.1%} of its negative ones."
        )
    return lines


def _shown(estimate: Estimate | None) -> tuple[str, str]:
    """Return the cells of a score and its interval."""
    if estimate is None:
        return "", ""
    if math.isnan(estimate.value):
        return "undefined", ""
    return f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}"


def _counted(counts: Confusion) -> str:
    return (
        f"Of {_count(counts.positives, 'positive image')}, {counts.true_positives} found and "
        f"{counts.false_negatives} missed; of {_count(counts.negatives, 'negative image')}, "
        f"{counts.true_negatives} cleared and {counts.false_positives} false alarms."
    )


def next_commands(
    preset: Path | str,
    *,
    model: str | None = None,
    prefix: str = "",
    ui: str = "make ui",
    options: str = "",
) -> str:
    """Return the commands that come next, one a line, each with what it does.

    Args:
        preset: The winner's preset, as a user in the current folder would type it.
        model: A model URI for `pneumonia-predict`, if it is not the one used by default; an empty
            one where no classifier was logged, which leaves that command out.
        prefix: What goes before our commands where they are not on the path, as `.venv/bin/`.
        ui: The command that shows the results.
        options: What the preset needs before it, with a space after it.
    """
    retrain = f"{prefix}pneumonia {options}experiment={shlex.quote(str(preset))}"
    predict = f"{prefix}pneumonia-predict IMAGE..." + (f" model={model}" if model else "")
    commands = {
        ui: "look at the results in a browser",
        predict: "get probabilities for image files",
        retrain: "train the winner again, to the same score",
    }
    if model == "":
        del commands[predict]
    width = max(len(command) for command in commands)
    lines = [f"  {command.ljust(width)}  {what}" for command, what in commands.items()]
    return "\n".join(["What comes next", "", *lines]) + "\n"


def description(
    rows: Sequence[Row],
    table: Table,
    *,
    objective: str,
    facts: Mapping[str, object] | None = None,
) -> str:
    """Return the note on a search that MLflow shows with its run, in Markdown.

    Args:
        rows: All the trials that came to a score, the best first.
        table: The winner's scores on the test split, by `scores_table`.
        objective: Name of the metric that ranks the trials.
        facts: What else to tell, by name, such as the dataset and its source.
    """
    best = rows[0]
    values = [f"- `{name}`: {short(value)}" for name, value in best.values.items()]
    parts = [
        f"**{_DISCLAIMER}**",
        f"### Winner: trial {best.number}, {objective} {best.score:.4f}",
        "\n".join(values),
        f"### {table.title}",
        table.markdown(),
        "\n\n".join(table.notes),
        "\n".join(f"- {name}: {value}" for name, value in (facts or {}).items()),
        "The test split chose nothing: neither the winner, nor its epoch, nor the threshold.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def show(*parts: Table | str, stream: TextIO | None = None) -> None:
    """Write tables and texts to the stream, standard output if None, an empty line between them.

    On a terminal rich draws the tables. A stream that is closed or cannot encode a character is no
    error.
    """
    stream = sys.stdout if stream is None else stream
    texts = [
        _drawn(part, stream) if isinstance(part, Table) and terminal.is_terminal(stream) else part
        for part in parts
    ]
    terminal.write("\n" + "\n".join(str(text) for text in texts), stream)


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
        style = "bold" if index == 0 else None
        drawn.add_row(*(Text(cell) for cell in row), style=style)
    with console.capture() as capture:
        console.print(Text(table.title, style="bold"))
        console.print(drawn)
        for note in table.notes:
            console.print(Text(note, style="dim"))
    return capture.get()


def _varying(rows: Sequence[Row]) -> tuple[list[str], dict[str, object]]:
    """Return the hyperparameters that differ between trials, and the values of the others."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    missing = object()
    varying, same = [], {}
    for name in names:
        values = [row.values.get(name, missing) for row in rows]
        if all(value == values[0] for value in values):
            same[name] = values[0]
        else:
            varying.append(name)
    return varying, same


def _trial_notes(same: Mapping[str, object], *, hidden: int, failed: int) -> tuple[str, ...]:
    notes = []
    if same:
        values = ", ".join(f"{name}={short(value)}" for name, value in same.items())
        notes.append(f"The same in all: {values}.")
    if hidden:
        notes.append(f"{_count(hidden, 'more trial')} with other hyperparameters not shown.")
    if failed:
        notes.append(f"{_count(failed, 'trial')} came to no score.")
    return tuple(notes)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

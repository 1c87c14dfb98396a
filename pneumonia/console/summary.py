"""What a search tells at its end: tables, the commands that come next, a note for the run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from pneumonia.evaluation.metrics import DECIDED, Confusion, Estimate, Scores, score_name
from pneumonia.formatting import clock_time, short, with_spread
from pneumonia.storage.trial_record import distinct, varying
from pneumonia.tables import Table

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
        spread: The standard deviation between its trainings; None where it has only one.
    """

    number: int
    score: float
    values: Mapping[str, object]
    epoch: int = 0
    seconds: float = math.nan
    spread: float | None = None

    def cells(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return number, score, epoch, time and the hyperparameters of those names, as text."""
        seconds = clock_time(self.seconds) if self.seconds >= 0 else ""
        values = [short(self.values[name]) if name in self.values else "-" for name in names]
        score = with_spread(self.score, self.spread)
        return (str(self.number), score, str(self.epoch or ""), seconds, *values)


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
    best = distinct(rows, lambda row: row.values)
    shown, names = best[:limit], varying(row.values for row in rows)
    same = {name: v for row in rows[:1] for name, v in row.values.items() if name not in names}
    cells = [row.cells(names) for row in shown]
    of_numbers = [all(_is_number(row.values.get(name, 0)) for row in shown) for name in names]
    # Epoch and time have a column where they are known.
    kept = [True, True, *(any(row[i] for row in cells) for i in (2, 3)), *(True for _ in names)]
    return Table(
        title=_count(len(rows), "trial") + f" by {objective}, the best first",
        header=tuple(compress(("trial", objective, "epoch", "time", *names), kept)),
        rows=tuple(tuple(compress(row, kept)) for row in cells),
        is_number=tuple(compress((True, True, True, True, *of_numbers), kept)),
        notes=_trial_notes(same, hidden=len(best) - len(shown), failed=failed),
    )


def scores_table(
    scores: Scores,
    *,
    chosen: Scores | None = None,
    decision: Sequence[str] = (),
) -> Table:
    """Return the table of all the scores with their intervals, and the counts below it.

    Those at the classifier's own threshold are beside those at 0.5 where that is another. How the
    classifier decides, in sentences, is the last of the notes.
    """
    sides = [scores, *([chosen] if chosen and chosen.threshold != scores.threshold else [])]
    cells = []
    for name, estimate in scores.estimates().items():
        others = [side.estimates()[name] if name in DECIDED else None for side in sides[1:]]
        shown = (cell for one in (estimate, *others) for cell in _shown(one))
        cells.append((score_name(name), *shown))
    has_no_width = any(e.low == e.high for side in sides for e in side.estimates().values())
    heads = ["value", *(f"above {side.threshold:.4g}" for side in sides[1:])]
    return Table(
        title="Scores on the test split",
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
        model: A model URI for `pneumonia predict`, if it is not the one used by default; an empty
            one where no classifier was logged, which leaves that command out.
        prefix: What goes before our commands where they are not on the path, as `.venv/bin/`.
        ui: The command that shows the results.
        options: What the preset needs before it, with a space after it.
    """
    retrain = f"{prefix}pneumonia {options}experiment={shlex.quote(str(preset))}"
    predict = f"{prefix}pneumonia predict IMAGE..." + (f" model={model}" if model else "")
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
    table: Table | None,
    *,
    objective: str,
    facts: Mapping[str, object] | None = None,
) -> str:
    """Return the note on a search that MLflow shows with its run, in Markdown.

    The first of the rows is the winner, the table is that of its scores on the test split, None
    where that was not read; facts are what else to tell, by name, such as the dataset.
    """
    best = rows[0]
    values = [f"- `{name}`: {short(value)}" for name, value in best.values.items()]
    parts = [
        f"**{_DISCLAIMER}**",
        f"### Winner: trial {best.number}, {objective} {with_spread(best.score, best.spread)}",
        "\n".join(values),
        *((f"### {table.title}", table.markdown(), *table.notes) if table else ()),
        "\n".join(f"- {name}: {value}" for name, value in (facts or {}).items()),
        "The test split chose nothing: neither the winner, nor its epoch, nor the threshold."
        if table
        else "The test split was not read.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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

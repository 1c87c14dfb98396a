"""Two classifiers on the same test split: read what they predict, and tell whether they differ."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumonia import files
from pneumonia.config import presets
from pneumonia.errors import UserError
from pneumonia.evaluation.significance import Difference, delong, mcnemar
from pneumonia.shell import command
from pneumonia.tables import Table
from pneumonia.tracking.runs import Run

FILE = "predictions.csv"
_HEADER = ["split", "name", "label", "probability"]
_LEVEL = 0.05
_NOTES = (
    "AUC: DeLong's test. Accuracy: McNemar's test, mid-p, with Tango's interval.",
    "No difference found is no proof that there is none. Both tests are of this test split only; "
    "to choose a classifier by them would spend it.",
)


@dataclass(frozen=True, slots=True)
class Tested:
    """What one classifier predicts for a test split.

    Attributes:
        label: What to call it.
        names: Of the images, sorted.
        positive: Their labels (N,).
        probabilities: Of the positive class (N,).
        threshold: Strictly above it, an image counts as positive.
        digest: Of the split's data.
    """

    label: str
    names: tuple[str, ...]
    positive: NDArray[np.bool_]
    probabilities: NDArray[np.float64]
    threshold: float
    digest: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two classifiers, and how their scores on the test split differ, `AUC` and `accuracy`."""

    first: Tested
    second: Tested
    scores: dict[str, Difference]


def read(text: str, run: Run, *, threshold: float | None = None) -> Tested:
    """Return what a search's final classifier predicts for its test split.

    Args:
        text: Of the file `predictions.csv` that the search has logged.
        run: The search.
        threshold: Where it decides; by default at its own, 0.5 where none was chosen.

    Raises:
        UserError: The text is no such file, or has no test split.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
        if rows[:1] != [_HEADER]:
            raise ValueError(f"its first line is not {','.join(_HEADER)}")
        found = sorted(
            (files.csv_text(name), label == "1", float(probability))
            for split, name, label, probability in rows[1:]
            if split == "test"
        )
        if not found or not all(math.isfinite(row[2]) for row in found):
            raise ValueError("it has no test split, or values that are not numbers")
    except (ValueError, csv.Error) as error:
        name = f"{FILE} of the search {run.run_id[:8]}"
        raise UserError(f"{name} cannot be read: {error}.") from error
    names, positive, probabilities = zip(*found, strict=True)
    own = run.metrics.get("threshold", 0.5) if threshold is None else threshold
    arrays = np.array(positive), np.array(probabilities)
    return Tested(run.run_id[:8], names, *arrays, threshold=own, digest=run.digests.get("test", ""))


def compare(first: Tested, second: Tested) -> Comparison:
    """Compare two classifiers on the split that both were tested on.

    Raises:
        UserError: They were tested on different images, or labels.
    """
    given = f"Received: {first.label} and {second.label}"
    if first.digest != second.digest:
        raise UserError(
            f"`test`: expected two searches with the same test split. {given}, whose test splits "
            f"have the digests {first.digest or 'unknown'} and {second.digest or 'unknown'}."
        )
    if first.names != second.names or (first.positive != second.positive).any():
        raise UserError(
            f"`test`: expected predictions for the same images with the same labels. {given}, "
            f"whose {FILE} name others."
        )
    right = [(one.probabilities > one.threshold) == one.positive for one in (first, second)]
    auc = delong(first.positive, first.probabilities, second.probabilities)
    return Comparison(first, second, {"AUC": auc, "accuracy": mcnemar(*right)})


def render(found: Comparison, kind: str) -> Table | str:
    """Return a comparison as a table with what it means below, or as CSV or JSON, in all digits."""
    if kind == "table":
        return _table(found)
    scores = {name.lower(): one for name, one in found.scores.items()}
    if kind == "csv":
        header = ("score", "first", "second", "difference", "low", "high", "p")
        rows = [(name, *_values(one)) for name, one in scores.items()]
        return files.as_csv([header, *rows])
    body = {
        "first": found.first.label,
        "second": found.second.label,
        "images": len(found.first.names),
        "positives": int(found.first.positive.sum()),
        "thresholds": [found.first.threshold, found.second.threshold],
        **{name: _as_json(one) for name, one in scores.items()},
    }
    return json.dumps(body, indent=2, allow_nan=False) + "\n"


def _values(one: Difference) -> tuple[float, ...]:
    return one.first, one.second, one.value, one.low, one.high, one.p


def _as_json(one: Difference) -> dict[str, object]:
    """Return a difference as JSON has it: what is undefined is null."""
    first, second, value, *interval, p = (None if math.isnan(x) else x for x in _values(one))
    return {"first": first, "second": second, "difference": value, "interval": interval, "p": p}


def _table(found: Comparison) -> Table:
    first, second, scores = found.first, found.second, found.scores.items()
    count, positives = len(first.names), int(first.positive.sum())
    return Table(
        title=f"{second.label} against {first.label} on {count} test images, {positives} positive",
        header=("score", first.label, second.label, "difference", "95 % interval", "p"),
        rows=tuple(
            (name, f"{one.first:.3f}", f"{one.second:.3f}", f"{one.value:+.3f}",
             f"{one.low:+.3f} to {one.high:+.3f}", p_text(one.p))
            for name, one in scores
        ),
        is_number=(False, True, True, True, True, True),
        notes=(
            *(_sentence(name, one.p) for name, one in scores),
            f"Positive is a probability above {first.threshold:g} and {second.threshold:g}.",
            *_NOTES,
        ),
    )  # fmt: skip


def missing(run: Run, names: Sequence[str], *, store: Sequence[str] = ()) -> UserError:
    """Return the error for a search without predictions: how to compare `names` nevertheless."""
    first, second = names
    export, train = commands_again(run, run.run_id[:8], "again.yaml", store)
    return UserError(
        f"The search {run.run_id[:8]} ({run.name}) has not logged {FILE}: it has no winner yet, or "
        f"was made with an earlier version. To get it, train its winner again: `{export}`, then "
        f"`{train}`, and name that search (`last`) here instead, where now is "
        f"test={first},{second}."
    )


def commands_again(run: Run, name: str, file: str, store: Sequence[str]) -> tuple[str, str]:
    """Return the commands that write a trial of a search as a preset, and that train it again."""
    options = shlex.split(presets.options(json.loads(run.tags.get("choices") or "{}")))
    export = command("pneumonia", "compare", f"export={name}", f"output={file}", *store)
    return export, command("pneumonia", *options, f"experiment={file}", *store)


def p_text(p: float) -> str:
    """Return a p value with the digits that matter."""
    if math.isnan(p):
        return "undefined"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _sentence(name: str, p: float) -> str:
    if math.isnan(p):
        return f"The {name} cannot be compared: there are too few images of a class."
    verdict = "differs" if p < _LEVEL else "does not differ"
    shown = f"= {p_text(p)} {'<' if p < _LEVEL else '>='} {_LEVEL}" if p >= 0.001 else p_text(p)
    return f"The {name} {verdict} beyond chance (p {shown})."

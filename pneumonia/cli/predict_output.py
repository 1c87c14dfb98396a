"""A prediction, and predictions as text: a table, CSV or JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.cells import cell_len

from pneumonia.errors import UserError
from pneumonia.files import as_csv
from pneumonia.formatting import printable
from pneumonia.tracking.model_lookup import FoundModel

NOTE = "Not for clinical use."


@dataclass(frozen=True, slots=True)
class Prediction:
    """The probability of the positive class for one file, and the class decided for."""

    file: str
    probability: float
    decision: str


def decide(file: str, probability: np.float32, model: FoundModel) -> Prediction:
    """Return the prediction for a file.

    Raises:
        UserError: Where the probability is not a number.
    """
    value = float(str(probability))  # the shortest digits that mean this float32
    if not math.isfinite(value):
        raise UserError(f"{model.uri}: the classifier gives {probability} for {file}.")
    return Prediction(file, value, model.class_names[value > model.threshold])


def render(predictions: Sequence[Prediction], model: FoundModel, format: str) -> str:
    """Return predictions as text.

    Args:
        predictions: In the order they are shown.
        model: What gave them, with the threshold that was used.
        format: `table` (four decimals), `csv` or `json` (all the digits of a float32).
    """
    if format == "table":
        return _table(predictions)
    if format == "csv":
        cells = [(one.file, one.probability, one.decision) for one in predictions]
        return as_csv([("file", "probability", "decision"), *cells])
    rows = [
        {"file": one.file, "probability": one.probability, "decision": one.decision}
        for one in predictions
    ]
    body = {
        "model": model.uri,
        "class_names": model.class_names,
        "threshold": model.threshold,
        "origin": asdict(model.origin),
        "note": NOTE,
        "predictions": rows,
    }
    return json.dumps(body, indent=2) + "\n"


def write(text: str, output: Path) -> None:
    """Write a text to a file, which appears whole or not at all.

    Raises:
        UserError: Where it cannot be written.
    """
    file = output.resolve()
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        # File names that are not UTF-8 keep their bytes.
        part.write_text(text, encoding="utf-8", errors="surrogateescape")
        part.replace(file)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}).") from error
    finally:
        part.unlink(missing_ok=True)


def _table(predictions: Sequence[Prediction]) -> str:
    rows = [("file", "probability", "decision")]
    rows += [
        (printable(one.file), f"{one.probability:.4f}", printable(one.decision))
        for one in predictions
    ]
    width = max(cell_len(name) for name, *_ in rows)
    return "".join(
        f"{name}{' ' * (width - cell_len(name))}  {probability:>11}  {decision}\n"
        for name, probability, decision in rows
    )

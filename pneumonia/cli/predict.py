"""`pneumonia predict`: image files in, probabilities out.

Nothing but the standard library is imported before the arguments are right, and nothing of
TensorFlow before the model and an image are there.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pneumonia import files, terminal
from pneumonia.cli import common
from pneumonia.errors import ConfigError, DataError, UserError
from pneumonia.formatting import printable
from pneumonia.shell import as_path

if TYPE_CHECKING:
    from pneumonia.models.predictor import Predictor
    from pneumonia.tracking.model_lookup import FoundModel

KEYS = ("model", "format", "output", "threshold", "heatmaps", "batch_size", "tracking.uri")
UNREADABLE = 1
NOTE = "Not for clinical use."

Row: TypeAlias = tuple[str, float, str]
"""A file, the probability of the positive class, and the class decided for."""

_HEADER = ("file", "probability", "decision")

_HELP = """\
Give the probability of pneumonia, or of what a classifier was trained for, for image files.

  pneumonia predict IMAGE... [key=value ...]

IMAGE is a file, a folder with all below it, or a quoted pattern: PNG, JPEG, BMP, TIFF, WebP and,
with `pip install 'pydicom>=3' 'python-gdcm>=3.0.24'`, DICOM.

Keys:
  model=MODEL        models:/pneumonia-DATASET@champion, which is taken by itself where there is
                     one champion of real images; or last, for that of the last search; or
                     models:/pneumonia-DATASET/3, models:/m-..., runs:/..., the id of a search,
                     of its run or a trial's, or a .keras file
  format=table       table, csv or json; the suffix of output decides where it is not given
  output=FILE        write there instead of printing
  threshold=0.5      strictly above it, an image is positive; the model's own where not given
  heatmaps=FOLDER    show on each image what spoke for the positive class, in NAME.heatmap.png
                     there; true: beside the image
  batch_size=32      images at a time
  tracking.uri=URI   the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Examples:
  pneumonia predict chest.png
  pneumonia predict scans/ format=csv output=scans.csv
  pneumonia predict 'scans/**/*.jpeg' model=models:/pneumonia-npz/3 threshold=0.3
  pneumonia predict chest.dcm model=classifier.keras format=json
  pneumonia predict scans/ heatmaps=maps

Exit status: 0; 1 where files could not be read, each told on standard error and the rest
predicted; 2 for a mistake in the command. Not for clinical use.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status, 1 where files could not be read."""
    return common.run(_run, arguments, text=_HELP)


def _run(arguments: list[str]) -> int:
    names, given = common.split(arguments, KEYS, named="an image")
    if not names:
        raise UserError("Which images? pneumonia predict IMAGE... [key=value ...], or --help.")
    output, kind = common.output_of(given)
    threshold = common.threshold(given)
    size = common.number(given, "batch_size", 32, expected="a positive integer")
    from PIL import Image

    from pneumonia.datasets import decode, image_files
    from pneumonia.models import gradcam
    from pneumonia.tracking.model_lookup import find_model
    from pneumonia.tracking.settings import TrackingSettings

    image_files.quieten()
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # what is too large
    paths = decode.find_files(names, without=(gradcam.SUFFIX,))
    if output is not None and output.resolve() in {path.resolve() for path in paths}:
        raise ConfigError("output", "another file than the images", str(output))
    places: dict[Path, Path] = {}
    if (maps := given.get("heatmaps", "false")) != "false":
        folder = None if maps == "true" else as_path(maps)
        places = gradcam.place(paths, folder)
    model = find_model(given.get("model"), TrackingSettings(uri=given.get("tracking.uri")))
    if threshold is not None:
        model = replace(model, threshold=threshold)
    rows = _predict(paths, model, size, places=places)
    if not rows:
        terminal.say("None of the files could be read.")
        return UNREADABLE
    terminal.say(f"{model.uri}: {printable(str(model.origin))}.")
    terminal.say(
        f"{model.uri}: the probability is that of {printable(model.class_names[1])}, decided for "
        f"above {model.threshold:g}. {NOTE}"
    )
    text = render(rows, model, kind)
    if output is not None:
        common.write(text, output)
    elif not terminal.write(text, sys.stdout):
        terminal.say("The result could not be written.")
        return UNREADABLE
    return 0 if len(rows) == len(paths) else UNREADABLE


def _predict(
    paths: Sequence[Path], model: FoundModel, batch_size: int, *, places: Mapping[Path, Path]
) -> list[Row]:
    """Predict what can be read and draw the heat maps that have a place; tell what cannot be."""
    from pneumonia.datasets import decode
    from pneumonia.models import gradcam
    from pneumonia.models.predictor import Predictor

    predictor: Predictor | None = None
    rows: list[Row] = []
    done, report = 0, _reporter(len(paths))
    for batch in decode.decode_batches(paths, batch_size=batch_size):
        readable, images = [], []
        for path, image in batch:
            if isinstance(image, DataError):
                report(None)
                terminal.say(str(image))
            else:
                readable.append(path)
                images.append(image)
        if images:
            # Only now: where no file can be read, TensorFlow need not start.
            predictor = predictor or Predictor.load(
                model.file, class_names=model.class_names, threshold=model.threshold
            )
            pairs = zip(readable, predictor.predict(images), strict=True)
            rows += [_decide(str(path), str(value), predictor, model.uri) for path, value in pairs]
            if places:
                heats = predictor.explain(images)
                for path, image, heat in zip(readable, images, heats, strict=True):
                    gradcam.write(image, heat, places[path])
        done += len(batch)
        report(done)
    report(None)
    return rows


def _decide(file: str, probability: str, predictor: Predictor, uri: str) -> Row:
    """Return the row of a file; the text has the shortest digits that mean a float32.

    Raises:
        UserError: Where the probability is not a number.
    """
    value = float(probability)
    if not math.isfinite(value):
        raise UserError(f"{uri}: the classifier gives {probability} for {file}.")
    return file, value, predictor.decide(value)


def render(rows: Sequence[Row], model: FoundModel, kind: str) -> str:
    """Return predictions as a table, with four decimals, or as CSV or JSON, with all digits."""
    if kind == "table":
        return _table(rows)
    if kind == "csv":
        return files.as_csv([_HEADER, *rows])
    body = {
        "model": model.uri,
        "class_names": model.class_names,
        "threshold": model.threshold,
        "origin": asdict(model.origin),
        "note": NOTE,
        "predictions": [dict(zip(_HEADER, row, strict=True)) for row in rows],
    }
    return json.dumps(body, indent=2) + "\n"


def _table(rows: Sequence[Row]) -> str:
    from rich.cells import cell_len, set_cell_size

    shown = [_HEADER] + [(printable(f), f"{p:.4f}", printable(d)) for f, p, d in rows]
    width = max(cell_len(name) for name, *_ in shown)
    return "".join(f"{set_cell_size(f, width)}  {p:>11}  {d}\n" for f, p, d in shown)


def _reporter(total: int) -> Callable[[int | None], None]:
    """Return a function that shows how many images are done, or with None clears the line."""
    if not terminal.is_terminal(sys.stderr):
        return lambda done: None

    def report(done: int | None) -> None:
        text = "" if done is None else f"{done} of {total} images"
        terminal.write(f"\r\x1b[K{text}", sys.stderr)

    return report

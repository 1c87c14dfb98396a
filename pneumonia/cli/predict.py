"""The command `pneumonia-predict`: image files in, probabilities out.

Nothing but the standard library is imported before the arguments are right, and nothing of
TensorFlow before the model and an image are there.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumonia import terminal
from pneumonia.cli.common import output_format, run, split, threshold
from pneumonia.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from pneumonia.cli.predict_output import Prediction
    from pneumonia.tracking.model_lookup import FoundModel

UNREADABLE = 1
CHAMPION = "models:/pneumonia@champion"
BATCH_SIZE = 32

_KEYS = ("model", "format", "output", "threshold", "heatmaps", "batch_size", "tracking.uri")
_HELP = """\
Give the probability of pneumonia, or of what a classifier was trained for, for image files.

  pneumonia-predict IMAGE... [key=value ...]

IMAGE is a file, a folder with all below it, or a quoted pattern: PNG, JPEG, BMP, TIFF, WebP and,
with `pip install 'pydicom>=3' 'python-gdcm>=3.0.24'`, DICOM.

Keys:
  model=models:/pneumonia@champion
                     the classifier of the search that completed last; or models:/pneumonia/3,
                     models:/m-..., runs:/..., the id of a search's or a trial's run, or a
                     .keras file
  format=table       table, csv or json; the suffix of output decides where it is not given
  output=FILE        write there instead of printing
  threshold=0.5      strictly above it, an image is positive; the model's own where not given
  heatmaps=FOLDER    show on each image what spoke for the positive class, in NAME.heatmap.png
                     there; true: beside the image
  batch_size=32      images at a time
  tracking.uri=URI   the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Examples:
  pneumonia-predict chest.png
  pneumonia-predict scans/ format=csv output=scans.csv
  pneumonia-predict 'scans/**/*.jpeg' model=models:/pneumonia/3 threshold=0.3
  pneumonia-predict chest.dcm model=classifier.keras format=json
  pneumonia-predict scans/ heatmaps=maps

Exit status: 0; 1 where files could not be read, each told on standard error and the rest
predicted; 2 for a mistake in the command. Not for clinical use.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    Args:
        names: Files, folders and patterns.
        model: Which classifier.
        format: One of `arguments.FORMATS`.
        output: The file to write, or None to print.
        threshold: From 0 to 1, or None for the model's own.
        heatmaps: The folder for heat maps, whether to write them beside the images, or neither.
        batch_size: The most images at a time.
        tracking_uri: The MLflow store, or None for the usual one.
    """

    names: tuple[str, ...]
    model: str = CHAMPION
    format: str = "table"
    output: Path | None = None
    threshold: float | None = None
    heatmaps: Path | bool = False
    batch_size: int = BATCH_SIZE
    tracking_uri: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status.

    Args:
        arguments: Those of the command line by default.

    Returns:
        0; 1 where files could not be read or the result not be printed; 2 for a mistake of the
        user, told in a message; 130 when interrupted.
    """
    return run(lambda given: _run(parse(given)), arguments, text=_HELP)


def parse(arguments: Sequence[str]) -> Options:
    """Check the arguments of the command.

    Raises:
        ConfigError: For an unknown key or a value that does not fit.
        UserError: Where no image is named.
    """
    names, given = split(arguments, _KEYS, named="an image")
    if not names:
        raise UserError("Which images? pneumonia-predict IMAGE... [key=value ...], or --help.")
    output = Path(given["output"]).expanduser() if "output" in given else None
    return Options(
        names=tuple(names),
        model=given.get("model", CHAMPION),
        format=output_format(given.get("format"), output),
        output=output,
        threshold=threshold(given.get("threshold")),
        heatmaps=_heatmaps(given.get("heatmaps", "false")),
        batch_size=_batch_size(given.get("batch_size")),
        tracking_uri=given.get("tracking.uri"),
    )


def _run(options: Options) -> int:
    from pneumonia.cli.predict_output import NOTE, render, write
    from pneumonia.datasets import decode
    from pneumonia.formatting import printable
    from pneumonia.models import gradcam
    from pneumonia.tracking.model_lookup import find_model
    from pneumonia.tracking.settings import Settings

    _quiet_decoders()
    paths = decode.find_files(options.names, without=(gradcam.SUFFIX,))
    _check_output(options.output, paths)
    places: dict[Path, Path] = {}
    if options.heatmaps:
        folder = None if options.heatmaps is True else options.heatmaps
        places = gradcam.place(paths, folder)
    model = find_model(options.model, Settings(uri=options.tracking_uri))
    if options.threshold is not None:
        model = replace(model, threshold=options.threshold)
    predictions = _predict(paths, model, options.batch_size, places=places)
    if not predictions:
        terminal.say("None of the files could be read.")
        return UNREADABLE
    terminal.say(
        f"{model.uri}: the probability is that of {printable(model.class_names[1])}, decided for "
        f"above {model.threshold:g}. {NOTE}"
    )
    text = render(predictions, model, options.format)
    if options.output is not None:
        write(text, options.output)
    elif not terminal.write(text, sys.stdout):
        terminal.say("The result could not be written.")
        return UNREADABLE
    return 0 if len(predictions) == len(paths) else UNREADABLE


def _predict(
    paths: Sequence[Path], model: FoundModel, batch_size: int, *, places: Mapping[Path, Path]
) -> list[Prediction]:
    """Predict what can be read and draw the heat maps that have a place; tell what cannot be."""
    from pneumonia.cli.predict_output import decide
    from pneumonia.datasets import decode
    from pneumonia.models import gradcam
    from pneumonia.models.predictor import Predictor

    predictor: Predictor | None = None
    predictions: list[Prediction] = []
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
            if predictor is None:
                # Only now: where no file can be read, TensorFlow need not start.
                names = model.class_names
                predictor = Predictor.load(model.file, class_names=names, threshold=model.threshold)
            pairs = zip(readable, predictor.predict(images), strict=True)
            predictions += [decide(str(path), value, predictor, model.uri) for path, value in pairs]
            if places:
                heats = predictor.explain(images)
                for path, image, heat in zip(readable, images, heats, strict=True):
                    gradcam.write(image, heat, places[path])
        done += len(batch)
        report(done)
    report(None)
    return predictions


def _check_output(output: Path | None, paths: Sequence[Path]) -> None:
    """Make sure, before any work, that the result has a place and overwrites no image."""
    if output is None:
        return
    if not output.parent.is_dir() or (output.exists() and not output.is_file()):
        raise ConfigError("output", "a file in an existing folder", str(output))
    if not os.access(output.parent, os.W_OK):
        raise ConfigError("output", "a file in a folder that can be written", str(output))
    if output.resolve() in {path.resolve() for path in paths}:
        raise ConfigError("output", "another file than the images", str(output))


def _heatmaps(text: str) -> Path | bool:
    return text == "true" if text in ("true", "false") else Path(text).expanduser()


def _batch_size(text: str | None) -> int:
    if text is None:
        return BATCH_SIZE
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError("batch_size", "a positive integer", text)
    return value


def _quiet_decoders() -> None:
    """Let what is too large be an error."""
    from PIL import Image

    from pneumonia.datasets import image_files

    image_files.quieten()
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _reporter(total: int) -> Callable[[int | None], None]:
    """Return a function that shows how many images are done, or with None clears the line."""
    if not terminal.is_terminal(sys.stderr):
        return lambda done: None

    def report(done: int | None) -> None:
        text = "" if done is None else f"{done} of {total} images"
        terminal.write(f"\r\x1b[K{text}", sys.stderr)

    return report


if __name__ == "__main__":
    sys.exit(main())

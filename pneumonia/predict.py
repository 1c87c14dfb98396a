"""The command `pneumonia-predict`: image files in, probabilities out.

Nothing but the standard library is imported before the arguments are right, and nothing of
TensorFlow before the model and an image are there.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumonia import terminal
from pneumonia.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from pneumonia.inference import Classify
    from pneumonia.mlflow_lookup import FoundModel
    from pneumonia.prediction import Prediction

UNREADABLE = 1
USER_ERROR = 2
INTERRUPTED = 130
CHAMPION = "models:/pneumonia@champion"
FORMATS = ("table", "csv", "json")
BATCH_SIZE = 32

_KEYS = ("model", "format", "output", "threshold", "batch_size", "tracking.uri")
_HELP = """\
Give the probability of pneumonia, or of what a classifier was trained for, for image files.

  pneumonia-predict IMAGE... [key=value ...]

IMAGE is a file, a folder with all below it, or a quoted pattern: PNG, JPEG, BMP, TIFF and, with
`pip install 'pneumonia[dicom]'`, DICOM.

Keys:
  model=models:/pneumonia@champion
                     the classifier of the search that completed last; or models:/pneumonia/3,
                     models:/m-..., runs:/..., the id of a search's or a trial's run, or a
                     .keras file
  format=table       table, csv or json; the suffix of output decides where it is not given
  output=FILE        write there instead of printing
  threshold=0.5      strictly above it, an image is positive; the model's own where it has one
  batch_size=32      images at a time
  tracking.uri=URI   the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Examples:
  pneumonia-predict chest.png
  pneumonia-predict scans/ format=csv output=scans.csv
  pneumonia-predict 'scans/**/*.jpeg' model=models:/pneumonia/3 threshold=0.3
  pneumonia-predict chest.dcm model=classifier.keras format=json

Exit status: 0; 1 where files could not be read, each told on standard error and the rest
predicted; 2 for a mistake in the command. Not for clinical use.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    Args:
        names: Files, folders and patterns.
        model: Which classifier.
        format: One of `FORMATS`.
        output: The file to write, or None to print.
        threshold: From 0 to 1, or None for the model's own.
        batch_size: The most images at a time.
        tracking_uri: The MLflow store, or None for the usual one.
    """

    names: tuple[str, ...]
    model: str = CHAMPION
    format: str = "table"
    output: Path | None = None
    threshold: float | None = None
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
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if "-h" in arguments or "--help" in arguments:
        terminal.write(_HELP, sys.stdout)
        return 0
    try:
        return _run(parse(arguments))
    except UserError as error:
        _say(str(error))
        return USER_ERROR
    except KeyboardInterrupt:
        _say("Interrupted.")
        return INTERRUPTED


def parse(arguments: Sequence[str]) -> Options:
    """Tell images and `key=value` pairs apart, and check the values.

    An argument is an image where a file of that name exists.

    Raises:
        ConfigError: For an unknown key or a value that does not fit.
        UserError: Where no image is named.
    """
    names, given = [], {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.replace(".", "").isidentifier() or _exists(argument):
            if argument.startswith("-") and not _exists(argument):
                expected = "an image or a `key=value` pair; see --help"
                raise ConfigError("arguments", expected, argument)
            names.append(argument)
        elif key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            hint = f"The nearest is {near[0]}" if near else ""
            raise ConfigError(key, f"one of the keys {', '.join(_KEYS)}", argument, hint)
        elif not value:
            raise ConfigError(key, "a value", argument)
        else:
            given[key] = value
    if not names:
        raise UserError("Which images? pneumonia-predict IMAGE... [key=value ...], or --help.")
    output = Path(given["output"]).expanduser() if "output" in given else None
    return Options(
        names=tuple(names),
        model=given.get("model", CHAMPION),
        format=_format(given.get("format"), output),
        output=output,
        threshold=_threshold(given.get("threshold")),
        batch_size=_batch_size(given.get("batch_size")),
        tracking_uri=given.get("tracking.uri"),
    )


def _run(options: Options) -> int:
    from pneumonia import inference
    from pneumonia.mlflow_lookup import find_model
    from pneumonia.mlflow_setup import Settings
    from pneumonia.prediction import NOTE, render, write

    _quiet_decoders()
    paths = inference.find_files(options.names)
    _check_output(options.output, paths)
    model = find_model(options.model, Settings(uri=options.tracking_uri))
    if options.threshold is not None:
        model = replace(model, threshold=options.threshold)
    predictions = _predict(paths, model, options.batch_size)
    if not predictions:
        _say("None of the files could be read.")
        return UNREADABLE
    _say(
        f"{model.uri}: the probability is that of {model.class_names[1]}, decided for above "
        f"{model.threshold:g}. {NOTE}"
    )
    text = render(predictions, model, options.format)
    if options.output is not None:
        write(text, options.output)
    elif not terminal.write(text, sys.stdout):
        _say("The result could not be written.")
        return UNREADABLE
    return 0 if len(predictions) == len(paths) else UNREADABLE


def _predict(paths: Sequence[Path], model: FoundModel, batch_size: int) -> list[Prediction]:
    """Predict what can be read, and tell what cannot."""
    from pneumonia import inference
    from pneumonia.prediction import decide

    classify: Classify | None = None
    predictions: list[Prediction] = []
    done, report = 0, _reporter(len(paths))
    for batch in inference.decode_batches(paths, batch_size=batch_size):
        files, images = [], []
        for path, image in batch:
            if isinstance(image, DataError):
                report(None)
                _say(str(image))
            else:
                files.append(str(path))
                images.append(image)
        if images:
            # Only now: where no file can be read, TensorFlow need not start.
            classify = classify or inference.load_classifier(model.file)
            values = inference.classify_all(images, classify)
            pairs = zip(files, values, strict=True)
            predictions += [decide(file, value, model) for file, value in pairs]
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


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # too long for a name
        return False


def _format(text: str | None, output: Path | None) -> str:
    if text is None:
        suffix = output.suffix.lower()[1:] if output else ""
        return suffix if suffix in FORMATS else "table"
    if text not in FORMATS:
        raise ConfigError("format", f"one of {', '.join(FORMATS)}", text)
    return text


def _threshold(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError("threshold", "a number from 0 to 1", text)
    return value


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
    """Keep the decoders' warnings to themselves; what is too large becomes an error."""
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\b")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _reporter(total: int) -> Callable[[int | None], None]:
    """Return a function that shows how many images are done, or with None clears the line."""
    if not terminal.is_terminal(sys.stderr):
        return lambda done: None

    def report(done: int | None) -> None:
        text = "" if done is None else f"{done} of {total} images"
        terminal.write(f"\r\x1b[K{text}", sys.stderr)

    return report


def _say(text: str) -> None:
    """Write one line to standard error."""
    terminal.write(" ".join(text.split("\n")) + "\n", sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

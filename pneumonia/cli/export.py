"""`pneumonia export`: a classifier for phones and small computers.

What is written was run beside the classifier it comes from: where their outputs differ, nothing is
left behind.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia import files, terminal
from pneumonia.cli import common
from pneumonia.errors import ConfigError, UserError
from pneumonia.shell import as_path, commands, shown

if TYPE_CHECKING:
    from pneumonia.models.gradcam import Pixels as Image
    from pneumonia.models.predictor import Classify
    from pneumonia.tracking.model_lookup import FoundModel

FORMATS = ("litert",)
TOLERANCE = 1e-4
"""The most that the probabilities of an export may differ by."""

KEYS = ("model", "format", "output", "tracking.uri")
_HELP = """\
Write a classifier in a format for phones and small computers, and check and measure it.

  pneumonia export [IMAGE...] [key=value ...]

IMAGE, a file, a folder or a pattern as of pneumonia predict, is what the export is compared with
its classifier on, to 1e-4; generated chest phantoms where none is named. Needs
`pip install 'ai-edge-litert>=2.1'`.

Keys:
  model=MODEL        the classifier, named as for pneumonia predict; the only champion of real
                     images where none is named
  format=litert      LiteRT (TensorFlow Lite), of built-in operations alone: a raw uint8 image
                     (1, height, width, 1 or 3) of any size to its probability (1, 1)
  output=classifier.tflite
                     the file; sizes, latencies and the comparison go to .json beside it, and
                     into the report of the search where its folder is in outputs/ here
  tracking.uri=URI   the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Exit status: 0; 2 for a mistake in the command, or an export that is not the same.
Not for clinical use.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return common.run(_run, arguments, text=_HELP)


def _run(arguments: list[str]) -> None:
    names, given = common.split(arguments, KEYS, named="an image")
    if (kind := given.get("format", FORMATS[0])) not in FORMATS:
        raise ConfigError("format", f"one of {', '.join(FORMATS)}", kind)
    output = as_path(given.get("output", "classifier.tflite"))
    if output.suffix != ".tflite" or output.is_dir() or not output.absolute().parent.is_dir():
        raise ConfigError("output", "a .tflite file in an existing folder", str(output))
    from pneumonia.datasets import decode
    from pneumonia.models import gradcam
    from pneumonia.tracking.model_lookup import find_model
    from pneumonia.tracking.settings import TrackingSettings

    paths = decode.find_files(names, without=(gradcam.SUFFIX,))
    model = find_model(given.get("model"), TrackingSettings(uri=given.get("tracking.uri")))
    facts = _export(model, paths, output)
    beside = output.with_suffix(".json")
    text = json.dumps(facts, indent=2) + "\n"
    files.write_text(beside, text)
    terminal.write(_summary(facts, output, beside) + _report(model, text), sys.stdout)


def _export(model: FoundModel, paths: Sequence[Path], output: Path) -> dict[str, Any]:
    """Write the export, whole or not at all; return what there is to say of it."""
    from pneumonia.datasets import decode
    from pneumonia.models.predictor import Predictor

    predictor = Predictor.load(model.file)
    from pneumonia.models import litert

    if not litert.is_supported():
        install = f"{commands()[0]}{litert.EXTRA}"
        raise UserError(f"An export is checked with the package ai-edge-litert: {install}")
    images = [decode.decode(path) for path in paths] or _phantoms()
    try:
        with files.atomic(output, suffix=f".{os.getpid()}.tflite") as part:
            part.write_bytes(litert.convert(predictor.model))
            measured = measure(predictor.classify, litert.load(part), images)
            if not measured["largest_difference"] <= TOLERANCE:
                raise UserError(
                    f"{model.uri}: the export's probabilities differ by up to "
                    f"{measured['largest_difference']:.2g} from the classifier's, more than "
                    f"{TOLERANCE:g}; nothing is written."
                )
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}).") from error
    return {
        "model": model.uri,
        "origin": asdict(model.origin),
        "format": FORMATS[0],
        "file": output.name,
        "bytes": output.stat().st_size,
        "classifier_bytes": model.file.stat().st_size,
        "class_names": list(model.class_names),
        "threshold": model.threshold,
        "note": "Not for clinical use.",
    } | measured


def _report(model: FoundModel, text: str) -> str:
    """Put what was measured into the report of the model's search; return what to say of it."""
    from pneumonia.reporting import report
    from pneumonia.storage.search_folder import SearchFolder, find

    try:
        folder = find(model.origin.search)
    except (FileNotFoundError, UserError):
        return ""
    try:
        files.write_text(SearchFolder(folder).export, text)
        return f"The report: {shown(report.write(folder))}\n"
    except (OSError, UserError) as error:
        return f"There is no new report. {error}\n"


def measure(classifier: Classify, export: Classify, images: Sequence[Image]) -> dict[str, Any]:
    """Compare an export with its classifier, and measure how long one image takes in each.

    Args:
        classifier: uint8 images (n, H, W, C) to probabilities (n,).
        export: Likewise.
        images: uint8 (H, W, C) each, at least one; the first is what is timed.

    Returns:
        `images`, `largest_difference`, `timed_shape`, `machine`, and `latency_ms` of both: the
        median of 30 runs after three more.
    """
    import numpy as np

    first = images[0][None]
    pairs = [(classifier(image[None])[0], export(image[None])[0]) for image in images]
    return {
        "images": len(images),
        # nan where a probability is no number: numpy's max keeps it, Python's may not
        "largest_difference": float(np.max([abs(float(a) - float(b)) for a, b in pairs])),
        "timed_shape": list(first.shape),
        "latency_ms": {
            "classifier": _median_ms(lambda: classifier(first)),
            "export": _median_ms(lambda: export(first)),
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    }


def _median_ms(call: Callable[[], object]) -> float:
    seconds = timeit.repeat(call, number=1, repeat=33)[3:]
    return round(1000 * statistics.median(seconds), 3)


def _summary(facts: dict[str, Any], output: Path, beside: Path) -> str:
    latency = facts["latency_ms"]
    height, width = facts["timed_shape"][1:3]
    return (
        f"{facts['model']} is in {output}: {facts['bytes'] / 1e6:.1f} MB "
        f"(the classifier {facts['classifier_bytes'] / 1e6:.1f} MB).\n"
        f"On {facts['images']} images its probabilities differ by at most "
        f"{facts['largest_difference']:.1g}; an image of {width} x {height} pixels takes "
        f"{latency['export']:.1f} ms (the classifier {latency['classifier']:.1f} ms).\n"
        f"Figures: {beside}\n"
    )


def _phantoms() -> list[Image]:
    """Return generated images, smaller and larger than most classifiers take."""
    import numpy as np

    from pneumonia.datasets.chest_phantom import phantom

    data = [phantom(train=2, val=2, test=8, image_size=size) for size in (64, 160)]
    return [image for one in data for image in one.test.images.read(np.arange(8))]

"""The command `pneumonia-export`: a classifier for phones and small computers.

What is written was run beside the classifier it comes from: where their outputs differ, nothing is
left behind.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia import terminal
from pneumonia.cli import common
from pneumonia.errors import ConfigError, UserError
from pneumonia.shell import commands, shown

if TYPE_CHECKING:
    from pneumonia.models.gradcam import Pixels as Image
    from pneumonia.models.predictor import Classify
    from pneumonia.tracking.model_lookup import FoundModel

CHAMPION = "models:/pneumonia@champion"
FORMATS = ("litert",)
OUTPUT = Path("classifier.tflite")
TOLERANCE = 1e-4
"""The most that the probabilities of an export may differ by."""

_KEYS = ("model", "format", "output", "tracking.uri")
_REPEATS = 30
_PHANTOMS = 16
_OUTPUTS = Path("outputs")
_HELP = """\
Write a classifier in a format for phones and small computers, and check and measure it.

  pneumonia-export [IMAGE...] [key=value ...]

IMAGE, a file, a folder or a pattern as of pneumonia-predict, is what the export is compared with
its classifier on, to 1e-4; generated chest phantoms where none is named. Needs
`pip install 'ai-edge-litert>=2.1'`.

Keys:
  model=models:/pneumonia@champion
                     the classifier, named as for pneumonia-predict
  format=litert      LiteRT (TensorFlow Lite), of built-in operations alone: a raw uint8 image
                     (1, height, width, 1 or 3) of any size to its probability (1, 1)
  output=classifier.tflite
                     the file; sizes, latencies and the comparison go to .json beside it, and
                     into the report of the search where its folder is in outputs/ here
  tracking.uri=URI   the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Exit status: 0; 2 for a mistake in the command, or an export that is not the same.
Not for clinical use.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    Args:
        names: Files, folders and patterns of images to compare on; none for phantoms.
        model: Which classifier.
        output: The file to write.
        tracking_uri: The MLflow store, or None for the usual one.
    """

    names: tuple[str, ...]
    model: str = CHAMPION
    output: Path = OUTPUT
    tracking_uri: str | None = None


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status.

    Args:
        given: The arguments, those of the command line by default.

    Returns:
        0; 2 for a mistake of the user, told in a message; 130 when interrupted.
    """
    return common.run(_tell, given, text=_HELP)


def parse(given: Sequence[str]) -> Options:
    """Check the arguments of the command.

    Raises:
        ConfigError: For an unknown key or a value that does not fit.
    """
    names, values = common.split(given, _KEYS, named="an image")
    kind = values.get("format", FORMATS[0])
    if kind not in FORMATS:
        raise ConfigError("format", f"one of {', '.join(FORMATS)}", kind)
    output = Path(values.get("output", OUTPUT)).expanduser()
    if output.suffix != ".tflite" or output.is_dir() or not output.absolute().parent.is_dir():
        raise ConfigError("output", "a .tflite file in an existing folder", str(output))
    model = values.get("model", CHAMPION)
    return Options(tuple(names), model, output, values.get("tracking.uri"))


def _tell(given: list[str]) -> None:
    terminal.write(_run(parse(given)), sys.stdout)


def _run(options: Options) -> str:
    """Write the export and what was measured of it; return what there is to say."""
    from pneumonia.datasets import decode
    from pneumonia.models import gradcam
    from pneumonia.models.predictor import Predictor
    from pneumonia.tracking.model_lookup import find_model
    from pneumonia.tracking.settings import Settings

    paths = decode.find_files(options.names, without=(gradcam.SUFFIX,))
    model = find_model(options.model, Settings(uri=options.tracking_uri))
    predictor = Predictor.load(model.file)
    from pneumonia.models import litert

    if not litert.is_supported():
        install = f"{commands()[0]}{litert.EXTRA}"
        raise UserError(f"An export is checked with the package ai-edge-litert: {install}")
    images = [decode.decode(path) for path in paths] or _phantoms()
    part = options.output.with_name(f".{options.output.stem}.{os.getpid()}.tflite")
    try:
        part.write_bytes(litert.convert(predictor.model))
        measured = measure(predictor.classify, litert.load(part), images)
        if not measured["largest_difference"] <= TOLERANCE:
            raise UserError(
                f"{model.uri}: the export's probabilities differ by up to "
                f"{measured['largest_difference']:.2g} from the classifier's, more than "
                f"{TOLERANCE:g}; nothing is written."
            )
        facts = _describe(model, part, options.output) | measured
        part.replace(options.output)
    except OSError as error:
        raise UserError(f"{options.output}: cannot be written ({error.strerror}).") from error
    finally:
        part.unlink(missing_ok=True)
    beside = options.output.with_suffix(".json")
    text = json.dumps(facts, indent=2) + "\n"
    beside.write_text(text, encoding="utf-8")
    return _summary(facts, options.output, beside) + _report(model, text)


def _report(model: FoundModel, text: str) -> str:
    """Put what was measured into the report of the model's search; return what to say of it."""
    from pneumonia.reporting import report
    from pneumonia.storage import search_record

    folder = report.find_search(model.search_id, _OUTPUTS) if model.search_id else None
    if folder is None:
        return ""
    (folder / search_record.EXPORT).write_text(text, encoding="utf-8")
    try:
        return f"The report: {shown(report.write(folder))}\n"
    except UserError as error:
        return f"There is no new report. {error}\n"


def measure(classifier: Classify, export: Classify, images: Sequence[Image]) -> dict[str, Any]:
    """Compare an export with its classifier, and measure how long one image takes in each.

    Args:
        classifier: uint8 images (n, H, W, C) to probabilities (n,).
        export: Likewise.
        images: uint8 (H, W, C) each, at least one; the first is what is timed.

    Returns:
        `images`, `largest_difference`, `timed_shape`, and `latency_ms` of both: the median of 30
        runs, the first ones left out.
    """
    import numpy as np

    pairs = [(classifier(image[None])[0], export(image[None])[0]) for image in images]
    first = images[0][None]
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
    seconds = []
    for _ in range(3 + _REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return round(1000 * statistics.median(seconds[3:]), 3)


def _describe(model: FoundModel, part: Path, output: Path) -> dict[str, Any]:
    return {
        "model": model.uri,
        "format": FORMATS[0],
        "file": output.name,
        "bytes": part.stat().st_size,
        "classifier_bytes": model.file.stat().st_size,
        "class_names": list(model.class_names),
        "threshold": model.threshold,
        "note": "Not for clinical use.",
    }


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
    import numpy as np

    from pneumonia.datasets.chest_phantom import phantom

    images: list[Image] = []
    for size in (64, 160):  # larger and smaller than most classifiers take
        data = phantom(train=2, val=2, test=_PHANTOMS // 2, image_size=size)
        images += list(data.test.images.read(np.arange(_PHANTOMS // 2)))
    return images


if __name__ == "__main__":
    sys.exit(main())

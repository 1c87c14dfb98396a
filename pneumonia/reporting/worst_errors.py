"""The images that the final classifier got most wrong, as pictures that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumonia import startup
from pneumonia.config import search_space
from pneumonia.datasets.cache import load_data
from pneumonia.errors import DataError, UserError
from pneumonia.models import gradcam
from pneumonia.models.predictor import Predictor
from pneumonia.storage.predictions import Predictions
from pneumonia.storage.search_record import SearchRecord

Pixels = NDArray[np.uint8]
Load: TypeAlias = Callable[[], Predictor]

MOST = 6  # of each kind: missed, and false alarms
_SIDE = 224  # of a picture, in pixels
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class WrongImage:
    """An image that was wrong, and the image under its heat map, if any, both as data URIs."""

    name: str
    truth: int
    probability: float
    image: str
    heat: str = ""


def draw(search: SearchRecord, threshold: float, *, load: Load | None = None) -> list[WrongImage]:
    """Return the images of the test split that were most confidently wrong, missed ones first.

    Strictly above the threshold an image is positive. `load` gives the final classifier for heat
    maps; by default it is read from its file.

    Raises:
        UserError: Where the images are not at hand, or are others than the search had.
    """
    test = search.predictions["test"]
    worst = [*_worst(test, threshold, label=1), *_worst(test, threshold, label=0)]
    if not worst:
        return []
    images = _read(search, [test.names[index] for index in worst])
    heats = _heats(images, load or _loader(search))
    labels, probabilities = test.labels.tolist(), test.probabilities.tolist()
    return [
        WrongImage(test.names[n], labels[n], probabilities[n], _uri(_resize(image)), heat)
        for n, image, heat in zip(worst, images, heats, strict=True)
    ]


def _worst(test: Predictions, threshold: float, *, label: int) -> list[int]:
    """Return the indices of wrong images of a class, the most confidently wrong first."""
    p = test.probabilities
    wrong = np.flatnonzero((test.labels == label) & ((p > threshold) != label))
    order = np.argsort(-np.abs(p[wrong] - label), kind="stable")
    return [int(index) for index in wrong[order][:MOST]]


def _read(search: SearchRecord, names: Sequence[str]) -> list[Pixels]:
    """Read images of the test split by their names, if they are those that the search had."""
    winner = search.winner()
    if search.cfg is None or "dataset" not in search.cfg:
        raise DataError("The configuration of the search does not tell of the data.")
    config = search_space.collapse(search.cfg, winner.hyperparameters if winner else {})
    split = load_data(config).test
    known = {row["split"]: row["digest"] for row in search.first.get("datasets", [])}
    if known.get("test", split.digest) != split.digest:
        raise DataError("The images of the test split have changed since the search.")
    places = {name: index for index, name in enumerate(split.names)}
    missing = [name for name in names if name not in places]
    if missing:
        raise DataError(f"There is no image {missing[0]!r} in the test split.")
    return [np.asarray(one) for one in split.images.read(np.array([places[n] for n in names]))]


def _loader(search: SearchRecord) -> Load | None:
    """Return what reads the final classifier from its file, None where there is none."""
    path = search.folder / str(search.ended.get("classifier") or "")
    if not path.is_file():
        return None
    # TensorFlow: a report without heat maps does without it.
    startup.import_keras()
    from pneumonia.models import classifier

    return lambda: Predictor(classifier.load(path))


def _heats(images: Sequence[Pixels], load: Load | None) -> list[str]:
    """Return each image under its heat map as a data URI, empty where none can be made."""
    if load is None:
        return [""] * len(images)
    try:
        maps = load().explain(images)
    except UserError:  # a classifier whose features have no place
        return [""] * len(images)
    return [
        _uri(gradcam.overlay(_resize(image), _resize_heat(heat, image)))
        for image, heat in zip(images, maps, strict=True)
    ]


def _resize(image: Pixels) -> Pixels:
    """Bring an image to the size of a picture, as uint8 (H, W, C)."""
    resized = np.asarray(_drawn(image).resize(_size(image), Image.Resampling.BICUBIC))
    return resized if resized.ndim == 3 else resized[..., np.newaxis]


def _resize_heat(heat: NDArray[np.float32], image: Pixels) -> NDArray[np.float32]:
    drawn = Image.fromarray(heat.astype(np.float32))
    resized = np.asarray(drawn.resize(_size(image), Image.Resampling.BILINEAR), np.float32)
    return resized.clip(0.0, 1.0)


def _drawn(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _size(image: Pixels) -> tuple[int, int]:
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _uri(image: Pixels) -> str:
    file = io.BytesIO()
    _drawn(image).save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

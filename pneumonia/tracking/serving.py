"""What MLflow loads to serve a classifier: it checks images before the model sees them.

A copy of this file lies in every MLflow model, so it imports nothing of this package. The signature
leaves the input open, since MLflow would cast a request to the type in there without a word: floats
from 0 to 1 would become black images with a confident answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EXPECTED = "integers from 0 to 255 of shape (images, height, width, 1 or 3)"


class Served:
    """A classifier as MLflow's pyfunc calls it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def get_raw_model(self) -> Any:
        """Return the Keras model."""
        return self._model.get_raw_model()

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Return the probabilities (n, 1) of images (n, height, width, 1 or 3)."""
        return self._model.predict(check(data))


def check(data: Any) -> Any:
    """Return images as uint8.

    Raises:
        MlflowException: For anything but `EXPECTED`; over HTTP it is status 400.
    """
    from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

    try:
        images = np.asarray(data)
    except ValueError:  # rows of several lengths
        images = np.empty(0, object)
    is_image = images.ndim == 4 and images.shape[-1] in (1, 3) and images.size > 0
    if is_image and images.dtype.kind in "ui" and images.min() >= 0 and images.max() <= 255:
        return images.astype(np.uint8)
    message = f"Images: expected {EXPECTED}. Received: {_describe(images)}"
    raise MlflowException(message, INVALID_PARAMETER_VALUE)


def _describe(images: Any) -> str:
    if images.dtype.kind not in "uif" or not images.size:
        return "rows of several lengths, or no numbers."
    low, high = images.min(), images.max()
    hint = "; (255 * images).round() gives what is expected" if 0 <= low <= high <= 1 else ""
    is_float = images.dtype.kind == "f"
    kind = "floats" if is_float else "integers"
    return f"{kind} from {low:g} to {high:g} of shape {images.shape}{hint if is_float else ''}."


def _load_pyfunc(path: str) -> Served:
    import keras
    import mlflow.keras

    keras.config.set_image_data_format("channels_last")  # `keras.json` may say otherwise
    return Served(mlflow.keras._load_pyfunc(path))

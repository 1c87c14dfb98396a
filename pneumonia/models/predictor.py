"""A classifier at work: from images of any sizes to probabilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pneumonia.errors import UserError

if TYPE_CHECKING:
    import keras

Image = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Classify = Callable[[Image], Probabilities]

_REASON_LENGTH = 200


def load_model(file: Path) -> keras.Model:
    """Load a classifier, which takes seconds where TensorFlow is not loaded yet.

    Raises:
        UserError: Where the file is not a classifier, or runs code of its own.
    """
    from pneumonia import startup

    startup.start()
    from pneumonia.models import classifier

    try:
        model = classifier.load(file)
    except Exception as error:  # Keras raises errors of many kinds
        reason = " ".join(str(error).split())[:_REASON_LENGTH]
        raise UserError(f"{file}: Keras cannot load it as a classifier ({reason}).") from error
    _check_model(file, model)
    return model


def classifying(model: keras.Model) -> Classify:
    """Return a classifier as a function.

    Returns:
        A function of uint8 images (n, H, W, C) of any one size, which gives the float32
        probabilities (n,) of the positive class.
    """
    import tensorflow as tf

    # One signature for all sizes: tracing again for each takes longer than the images do.
    call = tf.function(
        lambda images: model(images, training=False), autograph=False
    ).get_concrete_function(tf.TensorSpec((None, None, None, None), tf.uint8))
    return lambda images: np.asarray(call(tf.constant(images)), np.float32)[:, 0]


def classify_all(images: Sequence[Image], classify: Classify) -> Probabilities:
    """Return the probabilities (n,) of images of any sizes; equal sizes go together."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[image.shape].append(index)
    probabilities = np.empty(len(images), np.float32)
    for indices in groups.values():
        probabilities[indices] = classify(np.stack([images[index] for index in indices]))
    return probabilities


def _check_model(file: Path, model: keras.Model) -> None:
    takes = [(tensor.dtype, len(tensor.shape)) for tensor in model.inputs]
    gives = [tuple(tensor.shape) for tensor in model.outputs]
    if takes != [("uint8", 4)] or gives != [(None, 1)]:
        raise UserError(
            f"{file}: expected a classifier, from uint8 images (n, height, width, channels) to "
            f"probabilities (n, 1). Received: a model from {takes} to {gives}."
        )

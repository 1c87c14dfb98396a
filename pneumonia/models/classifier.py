"""The classifier: preprocessing, backbone and head in one model that stands alone.

It consists of stock Keras layers, so whoever has Keras can load and use its file, without this
package. Its preprocessing is the only one there is: `resize` runs these same layers.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pneumonia import files

# Values that `resize` handles at a time, in or out: 64 MB as floats.
_CHUNK_VALUES = 16_000_000


def assemble(backbone: keras.Model, head: keras.Model, *, image_size: int) -> keras.Model:
    """Join preprocessing, backbone and head.

    Args:
        backbone: Raw images `(N, image_size, image_size, 3)` in 0..255 to features.
        head: Features to the probability `(N, 1)`.
        image_size: Height and width the backbone takes, in pixels.

    Returns:
        uint8 images `(N, H, W, C)` of any height and width, C in {1, 3}, to the probability of
        the positive class `(N, 1)`. The weights are shared with `backbone` and `head`.
    """
    image = keras.Input((None, None, None), dtype="uint8", name="image")
    x = _uncompiled(head)(_uncompiled(backbone)(_preprocess(image, image_size)))
    return _renamed(keras.Model(image, x, name="classifier"))


def preprocessing(size: int, *, flips: bool = False) -> keras.Model:
    """Return the first layers alone: uint8 `(N, H, W, C)` to float32 `(N, size, size, 3)`.

    With flips, the mirror images of all images come after them: `(2 N, size, size, 3)`.
    """
    image = keras.Input((None, None, None), dtype="uint8", name="image")
    x = _preprocess(image, size)
    if flips:
        x = keras.ops.concatenate([x, keras.ops.flip(x, axis=2)], axis=0)
    return _renamed(keras.Model(image, x))


def _renamed(model: keras.Model) -> keras.Model:
    # Keras numbers unnamed operations through the whole process; a file should not depend on it.
    for operation in model.operations:
        operation.name = re.sub(r"^(resize|get_item|flip|concatenate)_\d+$", r"\1", operation.name)
    return model


def resize(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], size: int
) -> NDArray[np.float32]:
    """Resize images as the first layers of an assembled classifier do.

    Args:
        images: uint8 `(H, W, C)` each, C in {1, 3}; or one array `(N, H, W, C)`.
        size: Height and width of the result in pixels.

    Returns:
        float32 `(N, size, size, 3)` in 0..255. Fractions are kept.
    """
    result = np.empty((len(images), size, size, 3), np.float32)
    preprocess = _preprocessor(size)
    start = 0
    while start < len(images):
        stop = _end_of_chunk(images, start, size)
        result[start:stop] = preprocess(np.asarray(images[start:stop]))
        start = stop
    return result


def save(model: keras.Model, path: Path) -> None:
    """Write a classifier to one `.keras` file, which appears whole or not at all.

    What a compiled one holds beyond its weights is left out.
    """
    with files.atomic(path, suffix=".part.keras") as part:
        _uncompiled(model).save(part)


def load(path: Path) -> keras.Model:
    """Read a classifier; a file that would run code of its own is refused by Keras."""
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _uncompiled(model: keras.Model) -> keras.Model:
    """Wrap the layers of a model anew, because Keras saves the optimizer of a compiled one."""
    return keras.Model(model.input, model.output, name=model.name)


def _preprocess(image: keras.KerasTensor, size: int) -> keras.KerasTensor:
    x = keras.layers.Rescaling(1.0, name="float")(image)
    # Not the layer `Resizing`: it sets `training=True` for all layers after it in a plain call.
    # Without antialiasing a radiograph of 2000 pixels would come down to a grid of single pixels.
    x = keras.ops.image.resize(x, (size, size), antialias=True)
    # One channel becomes three; of three channels, three times repeated, the first three remain.
    x = keras.layers.Concatenate(name="repeat")([x, x, x])[..., :3]
    return keras.layers.Reshape((size, size, 3), name="rgb")(x)


@functools.lru_cache(maxsize=8)
def _preprocessor(size: int) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    model = preprocessing(size)
    # One signature for all shapes: tracing again for each size of photograph takes longer.
    call = tf.function(model, autograph=False).get_concrete_function(
        tf.TensorSpec((None, None, None, None), tf.uint8)
    )
    return lambda images: np.asarray(call(tf.constant(images, tf.uint8)))


def _end_of_chunk(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], start: int, size: int
) -> int:
    """Find where the images from `start` on stop having one shape, or exceed a chunk."""
    shape = images[start].shape
    count = max(1, _CHUNK_VALUES // max(math.prod(shape), size * size * 3))
    stop = start + 1
    while stop < min(len(images), start + count) and images[stop].shape == shape:
        stop += 1
    return stop

"""A classifier as a LiteRT (TensorFlow Lite) model of built-in operations, raw images in.

The resizing with antialiasing is no operation of LiteRT. It is linear and separable, so here it is
two matrix products, with matrices that the model makes from the size of the image: the triangle
kernel of `tf.image.resize`, bilinear, as wide as the scale down.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pneumonia import startup
from pneumonia.errors import UserError

EXTRA = "pip install 'ai-edge-litert>=2.1'"

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

# What the first layers end in, one for each size that the members of a mean take.
_PREPROCESSED = r"rgb(_\d+)?"
_REASON_LENGTH = 200


def is_supported() -> bool:
    """Tell whether the package that runs LiteRT models is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def convert(classifier: keras.Model) -> bytes:
    """Convert a classifier.

    Returns:
        A `.tflite` file: one uint8 image (1, H, W, C) of any size, C in {1, 3}, to its float32
        probability (1, 1).

    Raises:
        UserError: Where the model is no classifier of this program, or uses what LiteRT has not.
    """
    rgb = [o.output for o in classifier.operations if re.fullmatch(_PREPROCESSED, o.name)]
    if not rgb:
        raise UserError("Only a classifier of this program can be exported.")
    rest = keras.Model(rgb, classifier.output)

    def call(image: tf.Tensor) -> tf.Tensor:
        return rest([_preprocess(image, int(one.shape[1])) for one in rgb])

    # One image: where their number is open, so is every shape, and the fast kernels are not used.
    signature = tf.TensorSpec((1, None, None, None), tf.uint8, name="image")
    function = tf.function(call, autograph=False)
    # Not the classifier as the second argument: its variables would be read, and nowhere be set.
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(signature)], function
    )
    try:
        content: bytes = converter.convert()
    except Exception as error:  # the converter raises errors of many kinds
        reason = " ".join(str(error).split())[:_REASON_LENGTH]
        raise UserError(f"LiteRT has no operation for a part of this model ({reason}).") from error
    return content


def load(file: Path) -> Classify:
    """Return a `.tflite` file as a function of one uint8 image (1, H, W, C) of any size.

    It gives the float32 probability (1,) of the positive class. TensorFlow is not used.
    """
    from ai_edge_litert.interpreter import Interpreter

    with startup.quiet_stderr():  # it says which delegate it has made
        interpreter = Interpreter(model_path=str(file), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape: tuple[int, ...] = ()

    def classify(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal shape
        if images.shape != shape:
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
            shape = images.shape
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        probabilities: NDArray[np.float32] = interpreter.get_tensor(result["index"])[:, 0]
        return probabilities

    return classify


def _preprocess(image: tf.Tensor, size: int) -> tf.Tensor:
    """Return an image (1, H, W, C) as a classifier's first layers give it: (1, size, size, 3)."""
    x = tf.cast(image, tf.float32)
    shape = tf.shape(x)
    height, width, channels = shape[1], shape[2], shape[3]
    x = tf.matmul(_resizing(height, size), tf.reshape(x, (height, width * channels)))
    across = tf.broadcast_to(_resizing(width, size)[tf.newaxis], (size, size, width))
    x = tf.matmul(across, tf.reshape(x, (size, width, channels)))
    return tf.reshape(tf.concat([x, x, x], axis=-1)[..., :3], (1, size, size, 3))


def _resizing(length: tf.Tensor, size: int) -> tf.Tensor:
    """Return the matrix (size, length) that resizes rows of some length."""
    length = tf.cast(length, tf.float32)
    scale = length / size
    centres = (tf.range(size, dtype=tf.float32) + 0.5) * scale
    places = tf.range(length, dtype=tf.float32) + 0.5
    distances = tf.abs(places[tf.newaxis, :] - centres[:, tf.newaxis])
    weights = tf.nn.relu(1.0 - distances / tf.maximum(scale, 1.0))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)

"""Where a classifier looks: Grad-CAM heat maps of the evidence for the positive class.

The weights of the channels of the last layer with height and width are the mean gradients of the
classifier's score, and the heat is the positive part of the channels' weighted sum (Selvaraju et
al. 2017, https://arxiv.org/abs/1610.02391). The score is the logit of the probability: its gradient
has the same direction, and does not vanish where the probability is near 0 or 1.

A heat map is as coarse as that layer, and it tells what moved the score, not where the disease is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from pneumonia.errors import UserError

Heat = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Explain = Callable[[Sequence[Pixels]], list[Heat]]
Step = Callable[[Any], Any]

_BATCH = 16
# Values of images of one size that are handled at a time: 64 MB as floats.
_BATCH_VALUES = 16_000_000
_STRONGEST = 0.6  # how much of the image the hottest place covers


def explain(classifier: keras.Model, images: Sequence[Pixels]) -> list[Heat]:
    """Return a heat map of the evidence for the positive class for each image.

    Args:
        classifier: As `classifier.load` returns it.
        images: uint8 (H, W, C) each, of any sizes, C in {1, 3}.

    Returns:
        float32 (H, W) in [0, 1] each: the hottest place is 1, unless nothing speaks for the
        positive class, which gives zeros.

    Raises:
        UserError: Where no layer of the classifier has height and width.
    """
    return explainer(classifier)(images)


def explainer(classifier: keras.Model) -> Explain:
    """Return `explain` of one classifier, traced once for images of all sizes.

    Raises:
        UserError: Where no layer of the classifier has height and width.
    """
    look, judge = _halves(classifier)

    def heat(images: tf.Tensor) -> tf.Tensor:
        maps = look(images)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = judge(maps)
        gradients = tape.gradient(score, maps)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))

    signature = tf.TensorSpec((None, None, None, None), tf.uint8)
    # One signature for all sizes: tracing again for each takes longer than the images do.
    call = tf.function(heat, autograph=False).get_concrete_function(signature)
    return lambda images: _in_batches(images, lambda batch: np.asarray(call(tf.constant(batch))))


def overlay(image: Pixels, heat: Heat) -> Pixels:
    """Lay a heat map over an image.

    Args:
        image: uint8 (H, W, C), C in {1, 3}.
        heat: (H, W) in [0, 1].

    Returns:
        uint8 (H, W, 3): grey where it is cold, from purple to yellow where it is hot.
    """
    from matplotlib import colormaps

    levels = np.linspace(0, 1, 256, dtype=np.float32)
    shares = _STRONGEST * levels[:, np.newaxis]
    colours = 255 * shares * colormaps["inferno"](levels)[:, :3].astype(np.float32)
    level = (255 * heat).round().astype(np.uint8)
    grey = image[..., :1] if image.shape[-1] == 1 else image.mean(-1, np.float32, keepdims=True)
    laid: Pixels = ((1 - shares)[level] * grey + colours[level]).round().astype(np.uint8)
    return laid


def _in_batches(images: Sequence[Pixels], call: Callable[[Pixels], Heat]) -> list[Heat]:
    """Call for images of one size together, a bounded number at a time."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[image.shape].append(index)
    heats: dict[int, Heat] = {}
    for shape, indices in groups.items():
        size = max(1, min(_BATCH, _BATCH_VALUES // int(np.prod(shape))))
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            maps = call(np.stack([images[index] for index in some]))
            heats |= {index: _finish(one, shape[:2]) for index, one in zip(some, maps, strict=True)}
    return [heats[index] for index in range(len(images))]


def _finish(heat: Heat, shape: tuple[int, ...]) -> Heat:
    """Bring a coarse map to the size of its image and its greatest value to 1."""
    height, width = shape
    coarse = Image.fromarray(heat.astype(np.float32))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    greatest = fine.max()
    return np.clip(fine / greatest, 0, 1) if greatest > 0 else np.zeros(shape, np.float32)


def _halves(model: keras.Model) -> tuple[Step, Step]:
    """Split a classifier into what leads to the last maps, and from them to the logit."""
    operations = model.operations
    for index in reversed(range(len(operations))):
        operation = operations[index]
        if isinstance(operation, keras.Model):
            maps = _last_maps(operation)
            if maps is None:
                continue
            before = keras.Model(model.input, operations[index - 1].output)
            inside = keras.Model(operation.input, maps)
            after = keras.Model(maps, operation.output)
            steps = [after, *operations[index + 1 : -1], _logit(operations[-1])]
            return _chain([before, inside]), _chain(steps)
        if isinstance(operation, keras.layers.Layer) and _has_extent(operation.output):
            inside = keras.Model(model.input, operation.output)
            steps = [*operations[index + 1 : -1], _logit(operations[-1])]
            return inside, _chain(steps)
    raise UserError("A heat map needs a classifier with a layer that has height and width.")


def _last_maps(model: keras.Model) -> keras.KerasTensor | None:
    """Return the last output of a layer in a model that has height and width, if any."""
    tensors = [operation.output for operation in model.operations[1:]]
    return next((tensor for tensor in reversed(tensors) if _has_extent(tensor)), None)


def _has_extent(tensor: Any) -> bool:
    shape: tuple[int | None, ...] = getattr(tensor, "shape", ())
    if len(shape) != 4:
        return False
    _, height, width, _ = shape
    return height is not None and width is not None and height * width > 1


def _chain(steps: Sequence[Step]) -> Step:
    def call(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return call


def _logit(last: keras.Model | keras.layers.Layer) -> Step:
    """Return the last layer, or the last model's layers, without the sigmoid at the end."""
    before: Step | None = None
    if isinstance(last, keras.Model):
        last, whole = last.layers[-1], last
        before = keras.Model(whole.input, last.input)
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.sigmoid:
        return _chain([before, last]) if before else last

    def linear(x: Any) -> Any:
        return tf.matmul(x, last.kernel.value) + last.bias.value

    return _chain([before, linear]) if before else linear

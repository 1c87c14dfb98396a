"""The part of a model that no trial trains, run as fast as the processor can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pneumonia.datasets.base import Split
from pneumonia.errors import ConfigError
from pneumonia.models.classifier import resize
from pneumonia.training.augment import View

Array = np.ndarray[Any, Any]
Graph = Callable[[tf.Tensor], tf.Tensor]

BFLOAT16 = "bfloat16"

_graphs: WeakKeyDictionary[keras.Model, dict[str, Graph]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Frozen:
    """The part of a model that no trial trains.

    Attributes:
        model: From images (n, size, size, 3), 0 to 255, to features; None where all is trained.
        image_size: The side that images are resized to, in pixels.
        digest: Of the configuration of the model and its weights.
    """

    model: keras.Model | None
    image_size: int
    digest: str

    def read(
        self, split: Split, indices: Array, view: View | None = None, precision: str = "float32"
    ) -> Array:
        """Return what is made of the images at `indices`: resized, augmented, through the model.

        Which augmentation an image gets depends on the first index and on their number.
        """
        images = resize(split.images.read(indices), self.image_size)
        if view is not None:
            images = view.render(images, int(indices[0]))
        if self.model is None:
            return images
        return np.asarray(call(self.model, images, precision))


def call(model: keras.Model, images: Array, precision: str) -> tf.Tensor:
    """Return the outputs of a model whose weights do not change any more, in inference mode.

    Args:
        model: The model.
        images: float32 (n, ...), as the model takes them.
        precision: `float32`, or `bfloat16` for the convolutions and products.

    Raises:
        ConfigError: Where the processor does not compute in bfloat16.
    """
    graphs = _graphs.setdefault(model, {})
    if precision not in graphs:
        graphs[precision] = _build(model, precision)
    # TensorFlow takes up the option at every call, not when a graph is built.
    with _reduced_precision() if precision == BFLOAT16 else nullcontext():
        return graphs[precision](tf.constant(images))


def has_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _build(model: keras.Model, precision: str) -> Graph:
    if precision == BFLOAT16 and not has_bfloat16():
        raise ConfigError(
            "features.precision", "float32, as this processor has no bfloat16", precision
        )
    signature = [tf.TensorSpec([None, *model.input.shape[1:]], tf.float32)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    depthwise = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    layers = model._flatten_layers(include_self=False, recursive=True)
    if precision != BFLOAT16 and any(isinstance(layer, depthwise) for layer in layers):
        # With constants, TensorFlow 2.21 takes half as long again for depthwise convolutions.
        return function  # type: ignore[no-any-return]
    # Constants let batch normalization be folded into the convolutions.
    constant = convert_variables_to_constants_v2(function.get_concrete_function())
    return lambda x: constant(x)[0]


@contextmanager
def _reduced_precision() -> Iterator[None]:
    name = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})

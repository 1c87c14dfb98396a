"""The part of a model that no trial trains, run as fast as the processor can."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pneumonia.datasets.base import Split
from pneumonia.datasets.cache import Kept
from pneumonia.errors import ConfigError
from pneumonia.models.classifier import resize
from pneumonia.models.layers import identity
from pneumonia.models.mirror import Mirrored
from pneumonia.training.augment import View
from pneumonia.training.fused_layers import Fused, substitutes

Array = np.ndarray[Any, Any]

BFLOAT16 = "bfloat16"

_graphs: Kept[tuple[tuple[keras.Model, ...], Any]] = Kept(8)


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

    def images(self, split: Split, indices: Array) -> Array:
        """Return the images at `indices`, resized."""
        return resize(split.images.read(indices), self.image_size)

    def read(self, split: Split, indices: Array, view: View | Mirrored | None = None) -> Array:
        """Return what is made of the images at `indices`: resized, augmented, through the model.

        Which augmentation an image gets depends on the first index and on their number.
        """
        images = self.images(split, indices)
        if view is not None:
            images = view.render(images, int(indices[0]))
        return images if self.model is None else np.asarray(call((self.model,), images)[0])


def call(
    models: tuple[keras.Model, ...], images: Array, precision: str = "float32"
) -> Sequence[tf.Tensor]:
    """Return the outputs of models whose weights do not change any more, in inference mode.

    What several of them have in common is computed once.

    Args:
        models: The models.
        images: float32 (n, ...), as each of them takes them.
        precision: `float32`, or `bfloat16` for the convolutions and products.

    Raises:
        ConfigError: Where the processor does not compute in bfloat16.
    """
    graph = _graph(models, precision)
    # TensorFlow takes up the option at every call, not when a graph is built.
    with _reduced_precision() if precision == BFLOAT16 else nullcontext():
        outputs: Sequence[tf.Tensor] = graph(tf.constant(images))
    return outputs


def has_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@functools.lru_cache(maxsize=8)
def is_nested(one: keras.Model, other: keras.Model) -> bool:
    """Tell whether one of two models is the other one cut earlier: both cost what the longer does.

    That is known where both are graphs of Keras' own layers.
    """
    if not all(hasattr(model, "_run_through_graph") for model in (one, other)):
        return False
    first, second = (
        {identity(operation) for operation in model.operations if getattr(operation, "weights", 0)}
        for model in (one, other)
    )
    return first <= second or second <= first


def agree(models: tuple[keras.Model, ...], images: Array, precision: str) -> bool:
    """Tell whether models give the same bits together as each of them does alone.

    TensorFlow makes one operation, which rounds otherwise, of neighbours, but not where another
    model is cut between them.
    """
    together = _graph(models, precision)
    for model, output in zip(models, together.outputs, strict=True):
        alone = functools.partial(together.prune, together.inputs, [output])
        _graph((model,), precision, alone)  # a part of the joint graph, quicker than tracing again
    return all(
        np.array_equal(outputs, call((model,), images, precision)[0])
        for model, outputs in zip(models, call(models, images, precision), strict=True)
    )


def _graph(
    models: tuple[keras.Model, ...], precision: str, make: Callable[[], Any] | None = None
) -> Any:
    """Return the graph of models, a function of images; they are kept with it."""
    make = make or functools.partial(_build, models, precision)
    return _graphs.get([[*map(id, models)], precision], lambda: (models, make()))[1]


def _build(models: tuple[keras.Model, ...], precision: str) -> Any:
    if precision == BFLOAT16 and not has_bfloat16():
        raise ConfigError(
            "features.precision", "float32, as this processor has no bfloat16", precision
        )
    signature = [tf.TensorSpec([None, *models[0].input.shape[1:]], tf.float32)]
    function = tf.function(
        lambda x: _outputs(models, x), input_signature=signature, autograph=False
    )
    # What is worked out of weights alone is worked out once.
    return convert_variables_to_constants_v2(function.get_concrete_function())


def _outputs(models: Sequence[keras.Model], x: tf.Tensor) -> list[tf.Tensor]:
    """Return what each model gives; an operation that several apply to the same is applied once."""
    if not all(hasattr(model, "_run_through_graph") for model in models):
        return [model(x, training=False) for model in models]
    made: dict[Hashable, Any] = {}

    def shared(
        calls: Mapping[keras.layers.Layer, Callable[..., Any]], operation: keras.Operation
    ) -> Callable[..., Any]:
        mode = {"training": False} if isinstance(operation, keras.layers.Layer) else {}
        call = calls.get(operation, functools.partial(operation, **mode))
        parts: tuple[Any, ...] = (operation,)
        if isinstance(call, Fused):
            parts, call = (call.layer, call.norm), call.frozen

        def apply(*args: Any, **kwargs: Any) -> Any:
            place = repr(keras.tree.map_structure(_leaf, (args, kwargs)))
            with tf.init_scope():  # weights are read, not a part of the graph that is being built
                key = (*map(identity, parts), place)
            if key not in made:
                made[key] = call(*args, **kwargs)
            return made[key]

        return apply

    found = []
    for model in models:
        run = functools.partial(shared, substitutes(model))
        found.append(keras.tree.flatten(model._run_through_graph(x, run))[0])
    return found


def _leaf(value: Any) -> str:
    """Name an argument: a constant by its value, anything else as the object that it is."""
    is_constant = isinstance(value, str | int | float | slice | type(None))
    return repr(value) if is_constant else f"object {id(value)}"


@contextmanager
def _reduced_precision() -> Iterator[None]:
    name = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})

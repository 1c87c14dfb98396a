"""Several classifiers as one: the mean of their probabilities, in a graph of stock Keras layers.

What they have in common is there once: a layer that has the same arguments, weights and input as
one before it is that one. So classifiers on one frozen backbone share it, also where they are cut
at different layers of it, or are fine-tuned from one on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Any

import keras

from pneumonia.models import classifier, mirror
from pneumonia.models.layers import identity


class Mean:
    """Owns the graph while classifiers are put into it.

    Their weights are copied, so they may change as soon as one has been added.

    Args:
        flips: Whether it is the mean over each image and its mirror image too.
    """

    def __init__(self, *, flips: bool = False) -> None:
        self._flips = flips
        self._image = keras.Input((None, None, None), dtype="uint8", name="image")
        self._made: dict[Hashable, Any] = {}
        self._names: set[str] = set()
        self._outputs: list[keras.KerasTensor] = []

    def add(
        self, backbone: keras.Model, head: keras.Model, *, image_size: int, count: int = 1
    ) -> None:
        """Add a classifier, as often as it counts; arguments as of `classifier.assemble`."""
        x = self._merge(classifier.preprocessing(image_size, flips=self._flips), self._image)
        x = self._merge(backbone, x)
        own = keras.models.clone_model(head)
        own.set_weights(head.get_weights())
        own.name = self._name("head")
        self._outputs += [own(x)] * count

    def finish(self) -> keras.Model:
        """Return the classifier, from uint8 images (n, H, W, C) to the mean (n, 1)."""
        outputs = self._outputs
        x = keras.layers.Average(name="average")(outputs) if len(outputs) > 1 else outputs[0]
        if not self._flips:
            return keras.Model(self._image, x, name="classifier")
        x = keras.ops.mean(keras.ops.reshape(x, (2, -1, 1)), axis=0)
        whole = keras.Model(self._image, x, name="classifier")
        for operation, name in zip(whole.operations[-2:], ("views", mirror.MEAN), strict=True):
            operation.name = name
        return whole

    def _merge(self, model: keras.Model, x: keras.KerasTensor) -> keras.KerasTensor:
        """Apply a model to a tensor by layers that are there already, or by copies of its own."""
        # What `keras.models.clone_model` calls; of an input amid a graph, that makes one more copy.
        return model._run_through_graph(x, call_fn=self._call)

    def _call(self, layer: Any, *args: Any, **options: Any) -> Any:
        key = identity(layer), repr(keras.tree.map_structure(_described, (args, options)))
        if key not in self._made:
            copy: Callable[..., Any] = type(layer).from_config(layer.get_config())
            copy.name = self._name(layer.name)  # type: ignore[attr-defined]
            self._made[key] = copy(*args, **options)
            if isinstance(layer, keras.layers.Layer):
                copy.set_weights(layer.get_weights())  # type: ignore[attr-defined]
        return self._made[key]

    def _name(self, name: str) -> str:
        """Return a name that no other layer has: the first keeps its own."""
        numbered = (f"{name}_{count}" for count in itertools.count(2))
        free = next(one for one in itertools.chain([name], numbered) if one not in self._names)
        self._names.add(free)
        return free


def _described(value: Any) -> Any:
    # The tensors are kept, so that no other gets the place of one in memory.
    return id(value) if isinstance(value, keras.KerasTensor) else repr(value)

"""Layers that stand in for Keras' own where a training loop is compiled."""

from __future__ import annotations

import json
from typing import Any

import keras
import tensorflow as tf

# XLA fuses the many small operations of a dense head, and is slower than oneDNN on convolutions.
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)

# What these do to a number does not depend on its place in an array.
_NAMES = "SGD RMSprop Adam AdamW Adadelta Adagrad Adamax Nadam Ftrl Lion"
ELEMENTWISE = tuple(getattr(keras.optimizers, name) for name in _NAMES.split())
FLOAT32 = "float32"
_PENALTIES = (type(None), keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


class Clock:
    """Owns the seed of the dropout masks, and reads the step from the optimizer.

    Attributes:
        seed: The seed of the training.
        generator: Under XLA Threefry, because it takes ten times as long there for Philox; Philox
            otherwise, because there is nothing else on a CPU.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, *, jit: bool) -> None:
        self.generator = "threefry" if jit else "philox"
        self.seed = tf.Variable(0, trainable=False, dtype=tf.int32)
        self._optimizer = optimizer

    def step(self) -> tf.Tensor:
        """Return the number of steps taken, those whose gradients are only accumulated too."""
        return tf.cast(self._optimizer._iterations.value, tf.int32)


class SteppedDropout(keras.layers.Layer):  # type: ignore[misc]
    """Dropout whose rate is a variable and whose mask depends on seed and step only.

    Owns neither seed nor step: the program gives both, so a training that goes on from a state
    draws the masks that it would have drawn.
    """

    def __init__(
        self, layer: keras.layers.Dropout, position: int, clock: Clock, precision: str = FLOAT32
    ) -> None:
        super().__init__(name=layer.name, dtype=precision)
        self.position = position
        self.clock = clock
        self.rate = tf.Variable(float(layer.rate), trainable=False, dtype=tf.float32)
        self.noise_shape = layer.noise_shape

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the inputs, with a part of them dropped while training."""
        if not training:
            return inputs
        shape = tf.shape(inputs) if self.noise_shape is None else self.noise_shape
        seed = tf.stack([self.clock.seed + self.position, self.clock.step()])
        noise = tf.random.stateless_uniform(shape, seed, alg=self.clock.generator)
        kept = tf.cast(noise >= self.rate, inputs.dtype)
        return inputs * kept / tf.cast(1.0 - self.rate, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the inputs."""
        return input_shape


class TransposedDense(keras.layers.Layer):  # type: ignore[misc]
    """A dense layer that keeps its kernel as (units, inputs).

    With a few dozen rows in a batch, XLA's routines take up to half the time for the products of
    both passes when the kernel lies this way: 1.5 ms became 0.9 ms for 768 inputs and 1,024 units.
    With 256 rows, an epoch takes a tenth longer instead.
    """

    def __init__(self, layer: keras.layers.Dense) -> None:
        super().__init__(name=layer.name)
        self.units, self.activation = layer.units, layer.activation
        self.use_bias, self.penalty = layer.use_bias, layer.kernel_regularizer
        self.bias_penalty, self.bias_constraint = layer.bias_regularizer, layer.bias_constraint

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the variables, in the order of Keras' layer; a program gives them their values."""
        shape = (self.units, input_shape[-1])
        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer="zeros", regularizer=self.penalty
        )
        self.bias = None
        if self.use_bias:
            options = {"regularizer": self.bias_penalty, "constraint": self.bias_constraint}
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer="zeros", **options
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the outputs (n, units) for inputs (n, inputs)."""
        x = tf.matmul(self.kernel, inputs, transpose_b=True)
        if self.bias is not None:
            # Before it is transposed: XLA would make one product of the two, by the slow way.
            x = x + tf.convert_to_tensor(self.bias)[:, None]
        return self.activation(tf.transpose(x))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (n, units)."""
        return (input_shape[0], self.units)


def may_transpose(layer: keras.layers.Layer, optimizer: keras.optimizers.Optimizer) -> bool:
    """Tell whether a layer trains the same with its kernel transposed."""
    return (
        type(layer) is keras.layers.Dense
        and type(optimizer) in ELEMENTWISE
        and _takes_rows(layer)
        and layer.units > 1
        and type(layer.kernel_regularizer) in _PENALTIES
        and layer.kernel_constraint is None
        and layer.activity_regularizer is None
        and layer.quantization_mode is None
        and not layer.lora_enabled
        and layer.compute_dtype == layer.variable_dtype == "float32"
    )


def _takes_rows(layer: keras.layers.Layer) -> bool:
    """Tell whether a layer gets (n, inputs) wherever it is used; `layer.input` knows one place."""
    inputs = [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
    return all(len(tensor.shape) == 2 for tensor in inputs)


def clone(
    model: keras.Model,
    clock: Clock,
    found: list[SteppedDropout],
    precision: str = FLOAT32,
    *,
    transposing: keras.optimizers.Optimizer | None,
) -> keras.Model:
    """Return a model of layers that can be compiled; its dropouts go into the list.

    Its layers follow Keras' dtype policy `precision` where they say nothing else, all but the last
    one: https://keras.io/api/mixed_precision/policy. Variables are float32 under each of them.
    """
    last = _last(model)

    def policy(layer: keras.layers.Layer) -> str:
        is_free = layer is not last and not isinstance(layer, keras.layers.InputLayer)
        return precision if is_free and layer.dtype_policy.name == FLOAT32 else ""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if transposing is not None and may_transpose(layer, transposing):
            return TransposedDense(layer)
        if type(layer) is not keras.layers.Dropout:
            config = layer.get_config()
            other = policy(layer) if "dtype" in config else ""
            return layer.__class__.from_config(config | ({"dtype": other} if other else {}))
        found.append(SteppedDropout(layer, len(found), clock, policy(layer) or FLOAT32))
        return found[-1]

    cloned = keras.models.clone_model(model, clone_function=copy, recursive=True)
    for ours, theirs in zip(leaves(cloned), leaves(model), strict=True):
        ours.trainable = theirs.trainable
    order = {layer.name: position for position, layer in enumerate(dropouts(model))}
    found.sort(key=lambda layer: order[layer.name])
    return cloned


def _last(model: keras.Model) -> keras.Operation:
    """Return what gives the output of a model, within the models that it is made of."""
    found = model.outputs[0]._keras_history.operation
    return _last(found) if isinstance(found, keras.Model) else found


def leaves(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model and of those among them that hold others, these first."""
    return list(model._flatten_layers(include_self=False, recursive=True))


def dropouts(model: keras.Model) -> list[keras.layers.Dropout]:
    """Return the dropouts of a model."""
    return [layer for layer in leaves(model) if type(layer) is keras.layers.Dropout]


def architecture(model: keras.Model) -> Any:
    """Return what a program for a model depends on: all of its layers but the rates of dropout."""

    def without_rate(item: dict[str, Any]) -> dict[str, Any]:
        if item.get("class_name") == "Dropout":
            item["config"].pop("rate", None)
        return item

    config = json.loads(model.to_json(), object_hook=without_rate)
    return config, [layer.trainable for layer in leaves(model)]


def is_dense(model: keras.Model) -> bool:
    """Tell whether a model has no convolutions."""
    return not any(isinstance(layer, _CONVOLUTIONS) for layer in leaves(model))

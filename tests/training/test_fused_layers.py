"""Layers that are computed in another way give what Keras' own give, and the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import slow

from pneumonia.models import backbones
from pneumonia.training import compiled_loop, frozen_graph, fused_layers

Conv, Depthwise, Norm = (
    keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.BatchNormalization
)  # fmt: skip
Build = Callable[[keras.KerasTensor], keras.KerasTensor]


def network(build: Build, shape: tuple[int | None, ...] = (9, 11, 4)) -> keras.Model:
    """Return a model whose variables are all random and whose normalizations are frozen."""
    keras.utils.set_random_seed(1)
    model = keras.Model(inputs := keras.Input(shape), build(inputs))
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape)
         if "variance" not in variable.name else rng.uniform(0.5, 1.5, weight.shape)
         for variable, weight in zip(model.weights, model.get_weights(), strict=True)]
    )  # fmt: skip
    for layer in model.layers:
        layer.trainable = not isinstance(layer, Norm)
    return model


def gradients(
    model: keras.Model, x: np.ndarray[Any, Any], *, training: bool = True
) -> list[np.ndarray[Any, Any]]:
    """Return the outputs, and the gradients of a function of them by inputs and variables."""

    @tf.function
    def run(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=training)
            total = tf.reduce_sum(tf.sin(y)) + sum(model.losses, tf.constant(0.0))
        return [y, *tape.gradient(total, [x, *model.trainable_variables])]

    return [value.numpy() for value in run(tf.constant(x))]


def check(model: keras.Model, folded: int, *, convolutions: int = 1) -> None:
    """Compare a model with a clone that is fused."""
    x = np.random.default_rng(1).normal(size=(3, 9, 11, 4)).astype(np.float32)
    x = x[..., : model.input.shape[-1]]
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    for ours, theirs in zip(other.layers, model.layers, strict=True):
        ours.trainable = theirs.trainable
    found = fused_layers.substitutes(other)
    assert sum(isinstance(layer, Norm) for layer in found) == folded
    assert len(found) == folded + convolutions
    fused_layers.fuse(other)
    for expected, got in zip(gradients(model, x), gradients(other, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max())
    assert [v.path for v in other.variables] == [v.path for v in model.variables]


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "use_bias": False, "kernel_regularizer": "l2"},
        {"kernel_size": 3, "strides": 2, "padding": "same"},
        {"kernel_size": (1, 3), "dilation_rate": 2, "use_bias": False},
        {"kernel_size": 1, "strides": 2},
        {"kernel_size": 3, "activation": "relu"},
        slow({"kernel_size": 1, "groups": 2}),
    ],
    ids=str,
)
def test_convolution(options: dict[str, Any]) -> None:
    is_folded = "activation" not in options
    layers = [Conv(6, **options), Norm(), keras.layers.ReLU(6.0)]
    check(network(keras.Sequential(layers).call), folded=int(is_folded))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 5, "padding": "same"},
        {"kernel_size": 5, "padding": "same", "strides": 2, "use_bias": False},
        {"kernel_size": 5, "strides": 2},
        {"kernel_size": (3, 4), "strides": 3, "padding": "same"},
        slow({"kernel_size": (7, 2), "padding": "same"}),
        {"kernel_size": 4, "dilation_rate": 2, "use_bias": False},
        {"kernel_size": 4, "depth_multiplier": 2},
    ],
    ids=str,
)
def test_depthwise(options: dict[str, Any]) -> None:
    layers = [Depthwise(**options), Norm(scale=False, epsilon=0.1)]
    check(network(keras.Sequential(layers).call), folded=1)


def test_sizes_that_are_not_known() -> None:
    layers = [Depthwise(5, padding="same"), Conv(3, 1), Norm(center=False)]
    check(network(keras.Sequential(layers).call, (None, None, 4)), folded=1, convolutions=2)


def test_not_what_others_read_too() -> None:
    def both(x: keras.KerasTensor) -> keras.KerasTensor:
        y = Conv(4, 1)(x)
        return keras.layers.Add()([y, Norm()(y)])

    check(network(both), folded=0)


def test_not_what_is_used_twice() -> None:
    convolution, norm = Conv(4, 1), Norm()
    check(network(lambda x: norm(convolution(convolution(x)))), folded=0)
    convolution, norm = Conv(4, 1), Norm()
    check(network(lambda x: norm(convolution(norm(x)))), folded=0)


def test_not_an_output() -> None:
    inputs = keras.Input((9, 11, 4))
    y = Conv(4, 1)(inputs)
    model = keras.Model(inputs, [y, Norm(trainable=False)(y)])
    assert list(fused_layers.substitutes(model)) == [model.layers[1]]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Conv(4, 1, data_format="channels_first"),
        lambda: Conv(4, 1, activity_regularizer="l2"),
        lambda: Conv(4, 1, dtype="mixed_bfloat16"),
        lambda: type("Mine", (Conv,), {})(4, 1),
        lambda: Norm(axis=1, trainable=False),
    ],
)
def test_not_what_is_not_known(layer: Callable[[], keras.layers.Layer]) -> None:
    inputs = keras.Input((9, 11, 4))
    assert not fused_layers.substitutes(keras.Model(inputs, layer()(inputs)))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: Norm()(Conv(4, 1)(inputs=x)),
        lambda x: Norm()(inputs=Conv(4, 1, activation="relu", dtype="float64")(x)),
        lambda x: Norm()(Conv(4, 1)(Conv(4, 1, dtype="mixed_float16")(x))),
    ],
    ids=["keyword", "keyword and float64", "from float16"],
)
def test_not_what_is_called_in_another_way(build: Build) -> None:
    model = network(build)
    assert not fused_layers.substitutes(model)
    x = np.random.default_rng(1).normal(size=(3, 9, 11, 4)).astype(np.float32)
    found = frozen_graph.call((model,), x)[0]
    np.testing.assert_allclose(found, model(x, training=False), rtol=1e-2)


def test_not_a_normalization_that_learns() -> None:
    model = network(keras.Sequential([Conv(4, 1, use_bias=False), Norm()]).call)
    model.layers[-1].trainable = True
    check(model, folded=0)


def block(x: keras.KerasTensor) -> keras.KerasTensor:
    """Convolve as in a MobileNet; to a probability."""
    for layer in (Conv(6, 1, use_bias=False), Norm(), keras.layers.ReLU(6.0)):
        x = layer(x)
    for layer in (Depthwise(5, strides=2, padding="same"), Norm(), keras.layers.ReLU()):
        x = layer(x)
    return keras.layers.Dense(1, "sigmoid")(keras.layers.GlobalAveragePooling2D()(x))


def test_gradients_are_the_same_again() -> None:
    model = network(block)
    fused_layers.fuse(model)
    x = np.random.default_rng(1).normal(size=(64, 9, 11, 4)).astype(np.float32)
    for one, other in zip(gradients(model, x), gradients(model, x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_program_trains_as_keras_does_and_goes_on_to_the_same_bits() -> None:
    model, rng = network(block), np.random.default_rng(1)
    x = rng.normal(size=(32, 9, 11, 4)).astype(np.float32)
    y = rng.integers(0, 2, 32).astype(np.float32)
    rows = rng.permutation(32).reshape(4, 8).astype(np.int32)
    halves = [
        compiled_loop.Chunk(x, rows[part], y[rows[part]], np.ones((2, 8), np.float32), 2)
        for part in (slice(0, 2), slice(2, 4))
    ]
    loss = keras.losses.BinaryCrossentropy()
    program = compiled_loop.program(model, keras.optimizers.Adam(0.01), loss=loss)
    program.start(model, learning_rate=0.01, seed=1)
    program.train(halves[:1])
    state = program.state()
    program.train(halves[1:])
    straight = program.weights()
    program.resume(*state)
    program.train(halves[1:])
    for one, other in zip(program.weights(), straight, strict=True):
        np.testing.assert_array_equal(one, other)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    for batch in rows:
        model.train_on_batch(x[batch], y[batch])
    for one, variable in zip(straight, compiled_loop.variables(model), strict=True):
        np.testing.assert_allclose(one, variable.numpy(), atol=1e-4)
    np.testing.assert_allclose(program.predict(x), model.predict(x, verbose=0)[:, 0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MobileNet", "EfficientNetB0", "ResNet50"])
def test_networks_of_keras(kind: str) -> None:
    keras.utils.set_random_seed(1)
    model = backbones.keras_application(name=kind, image_size=64, weights=None, trainable=True)
    x = np.random.default_rng(0).uniform(0, 255, (8, 64, 64, 3)).astype(np.float32)
    norms = [layer for layer in model.layers if isinstance(layer, Norm)]
    for norm in norms:
        norm.momentum = 0.0
    model(x, training=True)  # statistics with which numbers neither vanish nor grow
    for norm in norms:
        norm.trainable = False
    expected = gradients(model, x, training=False)  # without dropout
    found = fused_layers.substitutes(model)
    assert sum(isinstance(layer, Norm) for layer in found) > 20
    fused_layers.fuse(model)
    for one, other in zip(gradients(model, x, training=False), expected, strict=True):
        # A unit at 0 may be on either side of it, so that some numbers differ by more.
        assert np.linalg.norm(one - other) <= 5e-2 * np.linalg.norm(other)

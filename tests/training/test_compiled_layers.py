"""A dense layer may lie transposed only where its training is the same for it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from pneumonia.training import compiled_loop
from pneumonia.training.compiled_layers import may_transpose

RMSPROP = keras.optimizers.RMSprop


def dense(units: int = 4, shape: tuple[int, ...] = (6,), **options: Any) -> keras.layers.Dense:
    layer = keras.layers.Dense(units, **options)
    keras.Model(inputs := keras.Input(shape), layer(inputs))
    return layer


@pytest.mark.parametrize("kind", [RMSPROP, keras.optimizers.Adam, keras.optimizers.Lion])
def test_each_number_by_itself(kind: type[keras.optimizers.Optimizer]) -> None:
    assert may_transpose(dense(kernel_regularizer="l2", bias_constraint="non_neg"), kind())


@pytest.mark.parametrize("kind", [keras.optimizers.Muon, keras.optimizers.Adafactor])
def test_not_by_rows_and_columns(kind: type[keras.optimizers.Optimizer]) -> None:
    assert not may_transpose(dense(), kind())


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_constraint": "unit_norm"},
        {"kernel_regularizer": "orthogonal_regularizer"},
        {"activity_regularizer": "l2"},
        {"shape": (3, 6)},
        {"units": 1},
        {"dtype": "mixed_bfloat16"},
    ],
)
def test_not_what_knows_rows_from_columns(options: dict[str, Any]) -> None:
    assert not may_transpose(dense(**options), RMSPROP())


def test_not_a_layer_of_another_class() -> None:
    class Mine(keras.layers.Dense):  # type: ignore[misc]
        """It may do anything."""

    layer = Mine(4)
    layer(np.zeros((1, 6), np.float32))
    assert not may_transpose(layer, RMSPROP())


@pytest.mark.parametrize("constraint", [None, "unit_norm"])
def test_weights_go_in_and_come_out_as_keras_has_them(constraint: str | None) -> None:
    layer = dense(kernel_constraint=constraint, kernel_initializer="ones", activation="softmax")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(layer(inputs)))
    loss = keras.losses.BinaryCrossentropy()
    program = compiled_loop.program(model, RMSPROP(0.1), loss=loss, jit=True)
    program.start(model, learning_rate=0.1, seed=1)
    wanted = [np.arange(value.size, dtype=np.float32).reshape(value.shape) / 9
              for value in program.weights()]  # fmt: skip
    program.set_weights(wanted)
    for one, other in zip(program.weights(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.flags.c_contiguous
    for variable, value in zip(compiled_loop.variables(model), wanted, strict=True):
        variable.assign(value)
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_allclose(program.predict(x), model.predict(x, verbose=0)[:, 0], atol=1e-6)


def test_not_what_is_used_for_more_than_rows_elsewhere() -> None:
    layer = dense(units=6)
    assert may_transpose(layer, RMSPROP())
    layer(layer(keras.Input((6,))))
    assert may_transpose(layer, RMSPROP())
    layer(keras.Input((3, 6)))
    assert not may_transpose(layer, RMSPROP())

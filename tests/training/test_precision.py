"""Mixed precision: what computes in 16 bits and what does not, and that it goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from families import quick, slow
from test_trial import assert_same, config, state

from pneumonia.artifacts import FolderStore
from pneumonia.datasets.cache import load_data
from pneumonia.models import classifier
from pneumonia.training import checkpoint, compiled_layers, compiled_loop, network, trial
from pneumonia.training.compiled_loop import Chunk, Program
from pneumonia.training.trial import Hooks, Task

Array = np.ndarray[Any, Any]
SIZE, COUNT, BATCH = 8, 48, 8
LOSS = keras.losses.BinaryCrossentropy()
MIXED = ("mixed_float16", "mixed_bfloat16")


def made(*, convolutions: bool = True, dropout: float = 0.3) -> keras.Model:
    """A backbone and a head, as a trial trains them."""
    keras.utils.set_random_seed(3)
    images = keras.Input((SIZE, SIZE, 1), name="images")
    x = keras.layers.Flatten(name="flat")(images)
    if convolutions:
        x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(images)
        x = keras.layers.BatchNormalization(name="bn")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    backbone = keras.Model(images, x, name="backbone")
    features = keras.Input(backbone.output.shape[1:], name="features")
    x = keras.layers.Dense(6, "relu", name="dense", kernel_regularizer="l2")(features)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    head = keras.Model(features, keras.layers.Dense(1, "sigmoid", name="p")(x), name="head")
    outer = keras.Input((SIZE, SIZE, 1), name="images")
    return keras.Model(outer, head(backbone(outer)), name="trainable")


def started(precision: str, *, jit: bool = False, **options: Any) -> Program:
    model, optimizer = made(**options), keras.optimizers.Adam(0.01, weight_decay=0.01)
    found = compiled_loop.program(
        model, optimizer, loss=LOSS, jit=jit, averages=True, precision=precision
    )
    found.start(model, learning_rate=0.01, seed=5, weight_decay=0.01)
    return found


def images() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = (np.arange(COUNT) % 2).astype(np.float32)
    noise = rng.normal(size=(COUNT, SIZE, SIZE, 1))
    return (noise + y[:, None, None, None]).astype(np.float32), y


def epoch(program: Program, number: int) -> float:
    x, y = images()
    rows = np.random.default_rng(number).permutation(COUNT).reshape(-1, BATCH).astype(np.int32)
    plan = {"kept": np.full(len(rows), 0.9, np.float32)}
    chunk = Chunk(x, rows, y[rows], np.ones_like(y[rows]), len(rows), plan)
    return program.train([chunk])[0]


@pytest.mark.parametrize("precision", quick(MIXED, "mixed_bfloat16"))
def test_all_but_the_last_layer_compute_in_16_bits_on_float32_weights(precision: str) -> None:
    program = started(precision)
    layers = {layer.name: layer for layer in compiled_layers.leaves(program._model)}
    computed = {
        name: layers[name].compute_dtype for name in ("conv", "bn", "dense", "dropout", "p")
    }
    short = precision.removeprefix("mixed_")
    expected = dict.fromkeys(("conv", "bn", "dense", "dropout"), short) | {"p": "float32"}
    assert computed == expected
    assert {variable.dtype for variable in program._model.variables} == {"float32"}
    assert program.predict(images()[0]).dtype == np.float32
    assert np.isfinite(epoch(program, 1))
    assert {value.dtype.name for value in program.weights()} == {"float32"}
    assert compiled_loop.program(
        made(), keras.optimizers.Adam(0.01, weight_decay=0.01), loss=LOSS, jit=False,
        averages=True, precision="float32",
    ) is not program  # fmt: skip


def test_what_says_its_own_dtype_keeps_it() -> None:
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, dtype="float64", name="own")(inputs)
    x = keras.layers.Dense(2, name="free")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="p")(x))
    clone = compiled_layers.clone(
        model, compiled_layers.Clock(keras.optimizers.SGD(), jit=False), [], transposing=None,
        precision="mixed_bfloat16",
    )  # fmt: skip
    computed = {layer.name: layer.compute_dtype for layer in clone.layers}
    assert [computed[name] for name in ("own", "free", "p")] == ["float64", "bfloat16", "float32"]


@pytest.mark.parametrize(
    ("precision", "jit"),
    [
        ("mixed_bfloat16", False),
        slow("mixed_float16", False),
        *[slow(precision, True) for precision in MIXED],
    ],
)
def test_goes_on_from_a_state_bit_for_bit(precision: str, jit: bool) -> None:
    program = started(precision, jit=jit, convolutions=not jit)
    straight = [epoch(program, number) for number in range(6)]
    expected = program.state()
    program = started(precision, jit=jit, convolutions=not jit)
    first = [epoch(program, number) for number in range(2)]
    state = program.state()
    program = started(precision, jit=jit, convolutions=not jit)
    epoch(program, 9)  # another trial, in between
    program.resume(*state)
    assert [*first, *(epoch(program, number) for number in range(2, 6))] == straight
    for found, wanted in zip(program.state(), expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("precision", MIXED)
def test_it_learns_what_float32_learns(precision: str) -> None:
    exact, mixed = started("float32", dropout=0.0), started(precision, dropout=0.0)
    losses = [[epoch(one, number) for number in range(12)] for one in (exact, mixed)]
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.05)
    assert losses[1][-1] < 0.8 * losses[1][0]
    x = images()[0]
    wanted = mixed.predict(x)
    exact.set_weights(mixed.weights())
    # The classifier's file computes in float32.
    np.testing.assert_allclose(exact.predict(x), wanted, atol=0.02)


def test_a_loss_in_float16_is_scaled_and_a_step_that_overflows_is_left_out() -> None:
    program = started("mixed_float16", convolutions=False)
    scale = program._optimizer.dynamic_scale
    before = program.weights()
    scale.assign(1e30)
    epoch(program, 1)
    assert float(scale) == pytest.approx(1e30 / 2 ** (COUNT // BATCH))
    trained = [variable.path for variable in program._model.trainable_variables]
    paths = [variable.path for variable in compiled_loop.variables(program._model)]
    for path, one, other in zip(paths, before, program.weights(), strict=True):
        if path in trained:
            np.testing.assert_array_equal(one, other)
    program = started("mixed_float16", convolutions=False)
    assert float(program._optimizer.dynamic_scale) == 2.0**15


@pytest.mark.slow
@pytest.mark.parametrize(("model", "precision"), [("cnn", MIXED[0]), ("fine", MIXED[1])])
def test_a_trial_goes_on_exactly_and_its_file_answers_alike(
    model: str, precision: str, tmp_path: Path
) -> None:
    cfg, store = config(tmp_path, model, training__precision=precision), FolderStore(tmp_path)
    for name, epochs, parent in (("straight", 4, None), ("first", 2, None), ("on", 4, "first")):
        ended = trial.run(Task(name, cfg, epochs, parent, keeps_classifier=True), store, Hooks())
        assert ended.status == "COMPLETED", ended.traceback
    assert_same(state(tmp_path, "on"), state(tmp_path, "straight"))
    [done] = checkpoint.read(store, "on")
    assert {value.dtype.name for value in done.best} == {"float32"}
    val = load_data(cfg).val
    loaded = classifier.load(tmp_path / str(ended.classifier))
    answers = loaded.predict(np.stack(list(val.images.read(range(len(val))))), verbose=0)[:, 0]
    feed = network.plain_feed(cfg, val, report=lambda *_: None)
    np.testing.assert_allclose(answers, network.predict(cfg, done.best, feed), atol=1e-5)
    np.testing.assert_allclose(answers, done.predicted, atol=0.03)
    assert np.abs(answers - done.predicted).max() > 0  # the epochs themselves were mixed
    policies = {layer.dtype_policy.name for layer in compiled_layers.leaves(loaded)}
    assert policies <= {"float32", "uint8"}

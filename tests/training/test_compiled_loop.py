"""The engine trains as Keras does, and goes on from a state as if it had never stopped."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from families import slow

from pneumonia.training import compiled_loop

Array = np.ndarray[Any, Any]
Trained = tuple[list[float], list[Array], Array]  # losses, variables, probabilities
WIDTH, COUNT, BATCH = 24, 200, 32


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(COUNT, WIDTH)).astype(np.float32)
    return x, (x[:, :3].sum(axis=1) > 0).astype(np.float32)


def head(units: int = 16, dropout: float = 0.0, penalty: float = 0.0) -> keras.Model:
    inputs = keras.Input((WIDTH,), name="features")
    regularizer = keras.regularizers.L2(penalty) if penalty else None
    x = keras.layers.Dense(units, "relu", name="dense", kernel_regularizer=regularizer)(inputs)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="p")(x), name="head")


def chunks(
    x: Array, y: Array, order: Array, weights: Array | None = None
) -> Iterator[compiled_loop.Chunk]:
    """Give one epoch in two chunks, the last batch padded."""
    steps = -(-len(order) // BATCH)
    real = len(order) - (steps - 1) * BATCH
    indices = np.resize(order, steps * BATCH).reshape(steps, BATCH)
    weight = np.ones(len(x)) if weights is None else weights
    weight = weight[indices].astype(np.float32)
    weight[-1] *= BATCH / real
    weight[-1, real:] = 0
    half = -(-steps // 2)
    for start in (0, half):
        rows = np.resize(np.arange(start, min(start + half, steps)), half)
        count = min(half, steps - start)
        yield compiled_loop.Chunk(
            x, indices[rows].astype(np.int32), y[indices[rows]], weight[rows], count
        )


def train(
    program: compiled_loop.Program, data: tuple[Array, Array], epochs: range, **options: Any
) -> list[float]:
    return [
        program.train(chunks(*data, np.random.default_rng(e).permutation(COUNT), **options))[0]
        for e in epochs
    ]


@pytest.fixture(scope="module")
def by_keras(data: tuple[Array, Array]) -> Callable[..., Trained]:
    """Return a function that trains by Keras itself, once with each optimizer."""
    x, y = data

    @functools.cache
    def run(optimizer: str) -> Trained:
        keras.utils.set_random_seed(1)
        model = head(penalty=0.01)
        weights = np.where(y > 0, 0.7, 1.6)
        kind = getattr(keras.optimizers, optimizer)
        model.compile(kind(0.01), loss=keras.losses.BinaryCrossentropy(), jit_compile=False)
        losses = []
        for epoch in range(2):
            order = np.random.default_rng(epoch).permutation(COUNT)
            history = model.fit(
                x[order], y[order], sample_weight=weights[order], batch_size=BATCH, shuffle=False,
                verbose=0,
            )  # fmt: skip
            losses.append(history.history["loss"][0])
        found = [variable.numpy() for variable in compiled_loop.variables(model)]
        return losses, found, model.predict(x, verbose=0)[:, 0]

    return run


OPTIMIZERS = ("RMSprop", "Adam", "SGD", "AdamW", "Adafactor", "Muon")


@pytest.mark.parametrize(
    ("optimizer", "jit"),
    [
        ("RMSprop", True),
        slow("Adam", False),
        *(slow(name, name != "RMSprop") for name in OPTIMIZERS),
        *(slow(name, False) for name in OPTIMIZERS if name not in ("RMSprop", "Adam")),
    ],
)
def test_trains_as_keras_does(
    optimizer: str, jit: bool, data: tuple[Array, Array], by_keras: Callable[..., Trained]
) -> None:
    x, y = data
    kind = getattr(keras.optimizers, optimizer)
    loss = keras.losses.BinaryCrossentropy()
    keras.utils.set_random_seed(1)
    model = head(penalty=0.01)
    program = compiled_loop.program(model, kind(0.01), loss=loss, jit=jit)
    program.start(model, learning_rate=0.01, seed=1)
    ours = train(program, data, range(2), weights=np.where(y > 0, 0.7, 1.6))

    losses, expected, probabilities = by_keras(optimizer)
    assert losses == pytest.approx(ours, abs=1e-5)
    for one, other in zip(program.weights(), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(program.predict(x), probabilities, atol=1e-5)


@pytest.mark.parametrize(("jit", "accumulated"), [slow(True, None), (False, None), (False, 2)])
def test_goes_on_from_a_state_bit_for_bit(
    jit: bool, accumulated: int | None, data: tuple[Array, Array]
) -> None:
    loss = keras.losses.BinaryCrossentropy()
    keras.utils.set_random_seed(1)
    model = head(dropout=0.4)
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=accumulated)
    program = compiled_loop.program(model, optimizer, loss=loss, jit=jit)
    program.start(model, learning_rate=0.01, seed=5)
    straight = train(program, data, range(7))
    expected = program.state()

    program.start(model, learning_rate=0.01, seed=5)
    first = train(program, data, range(3))
    state = program.state()
    program.start(model, learning_rate=0.5, seed=9)
    train(program, data, range(2))  # another trial, in between
    program.start(model, learning_rate=0.01, seed=5)
    program.resume(*state)
    assert [*first, *train(program, data, range(3, 7))] == straight
    for found, wanted in zip(program.state(), expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_learning_rate_and_dropout_do_not_trace_again(data: tuple[Array, Array]) -> None:
    loss = keras.losses.BinaryCrossentropy()
    first = compiled_loop.program(head(dropout=0.1), keras.optimizers.SGD(0.1), loss=loss)
    assert compiled_loop.program(head(dropout=0.5), keras.optimizers.SGD(0.2), loss=loss) is first
    assert compiled_loop.program(head(units=17), keras.optimizers.SGD(0.1), loss=loss) is not first
    assert (
        compiled_loop.program(head(), keras.optimizers.SGD(0.1, momentum=0.9), loss=loss)
        is not first
    )
    other = keras.losses.BinaryFocalCrossentropy()
    assert compiled_loop.program(head(), keras.optimizers.SGD(0.1), loss=other) is not first


@pytest.mark.parametrize("jit", [True, False])
def test_dropout_drops_its_share_and_only_in_training(jit: bool) -> None:
    inputs = keras.Input((4000,), name="x")
    outputs = keras.layers.Dropout(0.3, name="dropout")(inputs)
    mean = keras.initializers.Constant(1 / 4000)
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer=mean, name="mean")(outputs)
    model = keras.Model(inputs, outputs)
    program = compiled_loop.program(
        model, keras.optimizers.SGD(0.0), loss=keras.losses.MeanSquaredError(), jit=jit
    )
    program.start(model, learning_rate=0.0, seed=1)
    x = np.ones((BATCH, 4000), np.float32)
    index = np.tile(np.arange(BATCH, dtype=np.int32), (2, 1))
    ones = np.ones((2, BATCH), np.float32)
    _, outputs = program.train([compiled_loop.Chunk(x, index, ones, ones, 2)])
    assert outputs.mean() == pytest.approx(1.0, abs=0.01)
    assert outputs.std() == pytest.approx(np.sqrt(0.3 / 0.7 / 4000), rel=0.5)
    assert not np.array_equal(outputs[0], outputs[1])
    np.testing.assert_allclose(program.predict(x), np.ones(BATCH), atol=1e-5)


def test_convolutions_are_not_compiled_by_xla() -> None:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs))
    assert not compiled_loop.is_dense(keras.Model(inputs, keras.layers.Dense(1)(x)))
    assert compiled_loop.is_dense(head())


def test_state_of_frozen_and_nested_layers_is_kept(data: tuple[Array, Array]) -> None:
    inner = head(units=8)
    inner.get_layer("dense").trainable = False
    inputs = keras.Input((WIDTH,), name="features")
    model = keras.Model(inputs, inner(inputs), name="outer")
    before = inner.get_layer("dense").kernel.numpy()
    loss = keras.losses.BinaryCrossentropy()
    program = compiled_loop.program(model, keras.optimizers.SGD(0.1), loss=loss)
    program.start(model, learning_rate=0.1, seed=1)
    train(program, data, range(1))
    after = dict(
        zip([v.path for v in compiled_loop.variables(model)], program.weights(), strict=True)
    )
    kernels = {path: value for path, value in after.items() if path.endswith("kernel")}
    assert len(kernels) == 2
    np.testing.assert_array_equal(next(v for p, v in kernels.items() if "dense" in p), before)
    assert not np.array_equal(
        next(v for p, v in kernels.items() if "dense" not in p), inner.get_layer("p").kernel
    )


def test_a_program_belongs_to_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_loop, "_PATIENCE", 0.05)
    loss, kind = keras.losses.BinaryCrossentropy(), keras.optimizers.SGD
    found: list[compiled_loop.Program] = []

    def elsewhere() -> None:
        with compiled_loop.borrow(head(units=19), kind(0.1), loss=loss) as program:
            found.append(program)

    with compiled_loop.hold():
        with compiled_loop.borrow(head(units=19), kind(0.1), loss=loss) as first:
            pass
        run_thread(elsewhere)
        with compiled_loop.borrow(head(units=19), kind(0.2), loss=loss) as again:
            assert again is first
    run_thread(elsewhere)
    assert found[0] is not first
    assert found[1] is first


def test_a_program_that_comes_back_soon_is_waited_for() -> None:
    loss, kind = keras.losses.BinaryCrossentropy(), keras.optimizers.SGD
    borrowed, found = threading.Event(), list[compiled_loop.Program]()

    def elsewhere() -> None:
        with compiled_loop.borrow(head(units=21), kind(0.1), loss=loss) as program:
            found.append(program)
            borrowed.set()
            time.sleep(0.1)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert borrowed.wait(20)
    with compiled_loop.borrow(head(units=21), kind(0.1), loss=loss) as program:
        assert program is found[0]
    thread.join()


def run_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

"""Each ingredient of a training does what Keras or its paper says, and may be broken off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import slow
from test_trial import assert_same, config, run, state

from pneumonia.artifacts import FolderStore
from pneumonia.errors import ConfigError
from pneumonia.training import compiled_loop, inputs, loop, network, trial
from pneumonia.training.compiled_loop import Chunk
from pneumonia.training.recipe import Recipe
from pneumonia.training.steps import batches
from pneumonia.training.trial import Hooks, Task

Array = np.ndarray[Any, Any]
WIDTH, COUNT, BATCH, EPOCHS = 6, 45, 10, 4
STEPS = 5
LOSS = keras.losses.BinaryCrossentropy()


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    x = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)
    return x, (x[:, 0] > 0.3).astype(np.float32)


def small() -> keras.Model:
    """Build a model of a layer that is the rest, and one that is the head."""
    keras.utils.set_random_seed(1)
    x = keras.Input((WIDTH,), name="x")
    a, b = keras.Input((WIDTH,), name="a"), keras.Input((4,), name="b")
    rest = keras.Model(a, keras.layers.Dense(4, "tanh", name="one")(a), name="rest")
    head = keras.Model(b, keras.layers.Dense(1, "sigmoid", name="two")(b), name="head")
    return keras.Model(x, head(rest(x)), name="small")


def fit(
    recipe: Recipe,
    data: tuple[Array, Array],
    optimizer: keras.optimizers.Optimizer,
    *,
    epochs: int = EPOCHS,
    rate: float = 0.05,
    weights: Array | None = None,
    ends: list[tuple[Array, ...]] | None = None,
) -> tuple[Array, ...]:
    """Train the small model by our loop, its samples in order; return its weights."""
    model, (x, y) = small(), data
    with compiled_loop.borrow(
        model, optimizer, loss=LOSS, jit=False, averages=recipe.average is not None
    ) as program:
        decay = compiled_loop.weight_decay(optimizer)
        program.start(model, learning_rate=rate, weight_decay=decay, seed=1)
        weights = np.ones(COUNT) if weights is None else weights
        for epoch in range(1, epochs + 1):
            rows, weight = batches(np.arange(COUNT), weights, BATCH)
            plan = recipe.plan(weight, rate=rate, begun=0, epoch=epoch, seed=1)
            program.train([Chunk(x, rows.astype("i4"), y[rows], weight, len(rows), plan)])
            if ends is not None:
                ends.append(program.weights())
        with program.averaged():
            averaged = program.weights()
        assert len(program.weights()) == len(averaged)
        return averaged


def fit_by_keras(
    data: tuple[Array, Array], optimizer: keras.optimizers.Optimizer, **options: Any
) -> list[Array]:
    model, (x, y) = small(), data
    model.compile(optimizer, loss=LOSS, run_eagerly=True)
    options = {"epochs": EPOCHS, "batch_size": BATCH, "shuffle": False, "verbose": 0} | options
    model.fit(x, y, **options)
    return [variable.numpy() for variable in compiled_loop.variables(model)]


def assert_close(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("warmup", [slow(0.0), 0.6])
def test_cosine_is_keras_own_schedule(warmup: float, data: tuple[Array, Array]) -> None:
    recipe = Recipe(schedule="cosine", schedule_epochs=6, warmup=warmup)
    steps = round(warmup * STEPS)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, 6 * STEPS - steps, warmup_target=0.05, warmup_steps=steps
    )
    expected = fit_by_keras(data, keras.optimizers.RMSprop(schedule))
    assert_close(fit(recipe, data, keras.optimizers.RMSprop(0.1)), expected)


def rates(recipe: Recipe, epochs: int, *, begun: int = 0) -> Array:
    weight = np.ones((STEPS, BATCH))
    plans = (
        recipe.plan(weight, rate=0.05, begun=begun, epoch=epoch, seed=1)
        for epoch in range(begun + 1, epochs + 1)
    )
    return np.concatenate([plan["rate"] for plan in plans])


def test_a_schedule_begins_with_its_optimizer_and_ends_with_the_training() -> None:
    warm = rates(Recipe(warmup=0.8), 2)
    np.testing.assert_allclose(warm, 0.05 * np.minimum(np.arange(10) / 4, 1), rtol=1e-6)
    found = rates(Recipe(schedule="cosine", schedule_epochs=4, head_epochs=2), 6, begun=2)
    assert found[0] == np.float32(0.05)
    assert 0 < found[9] < 0.002
    np.testing.assert_allclose(found[10:], 0, atol=1e-9)  # longer than it was to be


@pytest.mark.slow  # that it goes on is below
def test_ema_is_that_of_keras(data: tuple[Array, Array]) -> None:
    optimizer = keras.optimizers.AdamW(0.05, use_ema=True, ema_momentum=0.9)
    expected = fit_by_keras(data, optimizer)
    recipe = Recipe(average="ema", ema_decay=0.9)
    ends: list[tuple[Array, ...]] = []
    assert_close(fit(recipe, data, keras.optimizers.AdamW(0.05), ends=ends), expected)
    assert np.abs(ends[-1][0] - expected[0]).max() > 0.01


def test_swa_is_the_mean_of_the_ends_of_epochs(data: tuple[Array, Array]) -> None:
    recipe = Recipe(average="swa", swa_start=0.25, schedule_epochs=EPOCHS)
    for epochs in (1, 2, EPOCHS):  # before it begins, the weights themselves
        ends: list[tuple[Array, ...]] = []
        found = fit(recipe, data, keras.optimizers.SGD(0.5), rate=0.5, ends=ends, epochs=epochs)
        counted = ends[1:] if epochs > 1 else ends
        assert_close(found, [np.mean(values, axis=0) for values in zip(*counted, strict=True)])


def test_mixup_trains_on_mixtures_of_images_and_of_labels(data: tuple[Array, Array]) -> None:
    x, y = data
    recipe, weights = Recipe(mixup=0.4), np.where(y > 0, 1.6, 0.7)
    rows, weight = batches(np.arange(COUNT), weights, BATCH)
    plan = recipe.plan(weight, rate=0.1, begun=0, epoch=1, seed=1)
    model = small()
    for row, w, share, partner in zip(rows, weight, plan["share"], plan["partner"], strict=True):
        real = np.flatnonzero(w)
        # Each image is the partner of one; what pads a batch is that of nothing that counts.
        assert sorted(partner[real]) == list(real)
        mixed = share * x[row] + (1 - share) * x[row][partner]
        with tf.GradientTape() as tape:
            p = model(mixed)[:, 0]
            both = [
                -(t * tf.math.log(p) + (1 - t) * tf.math.log(1 - p))
                for t in (y[row], y[row][partner])
            ]
            each = share * w * both[0] + (1 - share) * w[partner] * both[1]
            loss = tf.reduce_sum(each) / BATCH
        for variable, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        ):
            variable.assign_sub(0.1 * gradient)
    found = fit(recipe, data, keras.optimizers.SGD(0.1), rate=0.1, epochs=1, weights=weights)
    assert_close(found, model.get_weights())
    assert 0 <= plan["share"].min() < 0.3 < 0.7 < plan["share"].max() <= 1
    other = recipe.plan(weight, rate=0.1, begun=0, epoch=2, seed=1)
    assert (other["share"] != plan["share"]).all()


@pytest.mark.parametrize("kind", [slow("SGD"), "AdamW"])
def test_the_rest_has_a_learning_rate_of_its_own(kind: str, data: tuple[Array, Array]) -> None:
    options = {"weight_decay": 0.1} | ({"momentum": 0.9} if kind == "SGD" else {})
    model, (x, y) = small(), data
    parts = [model.get_layer(name).trainable_variables for name in ("rest", "head")]
    both = [getattr(keras.optimizers, kind)(rate, **options) for rate in (0.005, 0.05)]
    for start in range(0, 40, BATCH):
        rows = slice(start, start + BATCH)
        with tf.GradientTape() as tape:
            loss = LOSS(y[rows, None], model(x[rows]))
        for optimizer, variables, gradient in zip(
            both, parts, tape.gradient(loss, parts), strict=True
        ):
            optimizer.apply(gradient, variables)
    recipe = Recipe(rest_learning_rate=0.1)
    first = (data[0][:40], data[1][:40])
    found = fit_first(recipe, first, getattr(keras.optimizers, kind)(0.05, **options))
    assert_close(found, model.get_weights())


def fit_first(
    recipe: Recipe, data: tuple[Array, Array], optimizer: keras.optimizers.Optimizer
) -> tuple[Array, ...]:
    """Train for one epoch of whole batches."""
    model, (x, y) = small(), data
    program = compiled_loop.program(model, optimizer, loss=LOSS, jit=False)
    program.start(model, learning_rate=0.05, weight_decay=0.1, seed=1)
    rows, weight = batches(np.arange(len(x)), np.ones(len(x)), BATCH)
    plan = recipe.plan(weight, rate=0.05, begun=0, epoch=1, seed=1)
    program.train([Chunk(x, rows.astype("i4"), y[rows], weight, len(rows), plan)])
    return program.weights()


@pytest.mark.slow
def test_weight_decay_does_not_trace_again(data: tuple[Array, Array]) -> None:
    made = [keras.optimizers.AdamW(0.05, weight_decay=decay) for decay in (0.01, 0.3)]
    programs = [compiled_loop.program(small(), one, loss=LOSS, jit=False) for one in made]
    assert programs[0] is programs[1]
    for decay in (0.3, 0.01):
        optimizer = keras.optimizers.AdamW(0.05, weight_decay=decay)
        found = fit(Recipe(), data, optimizer, epochs=2)
        expected = fit_by_keras(data, keras.optimizers.AdamW(0.05, weight_decay=decay), epochs=2)
        assert_close(found, expected)
    none = keras.optimizers.Adam(0.05)
    assert compiled_loop.program(small(), none, loss=LOSS, jit=False) is not programs[0]


def test_balanced_batches_draw_both_classes_equally_often(tmp_path: Path) -> None:
    labels = np.array([0] * 30 + [1] * 71)
    recipe = Recipe(balanced_batches=True)
    order = recipe.order(labels, 5, 1)
    assert len(order) == len(labels)
    assert labels[order].mean() == pytest.approx(51 / 101)
    times = np.bincount(order, minlength=101)
    assert set(times[:30]) == {1, 2}  # 50 draws of 30 images
    assert set(times[30:]) == {0, 1}
    np.testing.assert_array_equal(order, recipe.order(labels, 5, 1))
    assert (order != recipe.order(labels, 5, 2)).any()
    rows = labels[order][:96].reshape(3, 32).mean(axis=1)
    assert rows.min() > 0.2  # mixed, not one class after the other
    assert rows.max() < 0.8
    # Then they are not weighted as well; what is calibrated knows what they were drawn for.
    cfg = config(tmp_path, "cnn", training__balanced_batches=True, training__class_weight=None)
    prepared = inputs.prepare(cfg, report=lambda *_: None)
    assert set(prepared.train_weights) == {1.0}
    assert inputs.positive_share(labels, inputs.class_rule(cfg)) == pytest.approx(0.5)


EVERYTHING = {
    "schedule": "cosine",
    "schedule_epochs": 5,
    "warmup": 0.5,
    "mixup": 0.4,
    "balanced_batches": True,
    "head_epochs": 2,
    "rest_learning_rate": 0.1,
}


@pytest.mark.parametrize(
    ("model", "more"),
    [
        slow("fine", {"average": "swa", "swa_start": 0.5}),
        ("cnn", {"average": "ema", "ema_decay": 0.9}),
    ],
)
def test_goes_on_bit_for_bit_with_everything(
    model: str, more: dict[str, Any], tmp_path: Path
) -> None:
    cfg = config(tmp_path, model)
    cfg["training"] |= EVERYTHING | more
    if model == "fine":
        cfg["model"] |= {"layer": "block1a_project_bn+block2b_add", "batch_norm": "trained"}
    run(cfg, tmp_path, 4, "straight")
    parent = None
    for epochs in (1, 2, 3, 4):  # within the head's epochs, at their end, and after
        run(cfg, tmp_path, epochs, f"to{epochs}", parent=parent)
        parent = f"to{epochs}"
    assert_same(state(tmp_path, "to4"), state(tmp_path, "straight"))


@pytest.mark.slow
def test_first_the_head_then_all(tmp_path: Path) -> None:
    cfg = config(tmp_path, "fine", training__head_epochs=2)
    model = network.trainable(cfg, 0)
    before = [variable.numpy() for variable in compiled_loop.variables(model)]
    head = {id(variable) for variable in model.get_layer("head").variables}
    trained = {id(variable) for variable in model.trainable_variables}
    flags = [id(variable) in head for variable in compiled_loop.variables(model)]
    for epochs in (1, 2, 3):
        run(cfg, tmp_path, epochs, str(epochs))
        pairs = zip(before, state(tmp_path, str(epochs)).model, strict=True)
        changed = [not np.array_equal(one, other) for one, other in pairs]
        assert [one for one, flag in zip(changed, flags, strict=True) if flag] == [True] * 4
        rest = [one for one, flag in zip(changed, flags, strict=True) if not flag]
        assert any(rest) == (epochs > 2)
    # Every epoch counts, and the head's alone is what a training without the rest comes to.
    assert {id(variable) for variable in model.trainable_variables} == trained
    assert len(state(tmp_path, "3").history) == 3


def test_early_stopping_waits_for_what_comes_after_the_head() -> None:
    rule = {"patience": 2, "min_delta": 0.0}
    section = {"early_stopping": rule, "head_epochs": 3}
    cfg = {"training": section, "objective": {"name": "val_auc", "direction": "max"}}
    history = [{"val_auc": value} for value in (0.9, 0.8, 0.8, 0.8, 0.8)]
    assert not loop.is_stopped(history[:4], cfg)
    assert loop.is_stopped(history, cfg)
    assert loop.is_stopped(history[:3], {**cfg, "training": {"early_stopping": rule}})


def test_the_averages_are_measured_kept_and_written(tmp_path: Path) -> None:
    cfg = config(tmp_path, "features", training__average="ema")
    task, store = Task("0", cfg, 3), FolderStore(tmp_path)
    outcome = trial.run(task, store, Hooks())
    assert outcome.classifier is not None
    best = trial.best_weights(task, store, Hooks())
    feed = inputs.prepare(cfg, report=lambda *_: None).val
    labels = inputs.prepare(cfg, report=lambda *_: None).val_labels
    metrics = loop.build_metrics(cfg)
    measured = loop.measure(metrics, labels, network.predict(cfg, best, feed))
    assert {f"val_{name}": value for name, value in measured.items()}.items() <= (
        outcome.metrics.items()
    )
    last = state(tmp_path, "0").model
    assert any((one != other).any() for one, other in zip(best, last, strict=True))
    # Trained again to a number of epochs, the averages after the last of them are what is kept.
    one = loop.Training(
        network.trainable(cfg, 0), inputs.prepare(cfg, report=lambda *_: None), cfg, cfg["seed"]
    )
    done = loop.train(one, 3, begin=None, tell=lambda *_: None, keeps_last=True)
    assert all((a == b).all() for a, b in zip(done.model, last, strict=True))
    predicted = network.predict(cfg, done.best, feed)
    assert loop.measure(metrics, labels, predicted)["auc"] == done.history[-1]["val_auc"]


@pytest.mark.parametrize(
    "loss",
    [
        {"_target_": "keras.losses.BinaryCrossentropy", "label_smoothing": 0.2},
        slow({"_target_": "keras.losses.BinaryFocalCrossentropy", "gamma": 3.0}),
    ],
)
def test_losses_of_keras_by_config(loss: dict[str, Any], tmp_path: Path) -> None:
    cfg = config(tmp_path, "features", training__loss=loss, training__jit=False)
    outcome = run(cfg, tmp_path, 2)
    prepared = inputs.prepare(cfg, report=lambda *_: None)
    weights = trial.best_weights(Task("0", cfg, 2), FolderStore(tmp_path), Hooks())
    predicted = network.predict(cfg, weights, prepared.val)[:, None]
    arguments = {name: value for name, value in loss.items() if name != "_target_"}
    kind = getattr(keras.losses, loss["_target_"].rpartition(".")[2])
    expected = float(kind(**arguments)(prepared.val_labels[:, None].astype("f4"), predicted))
    assert outcome.metrics["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_schedule_needs_a_rate_that_is_a_number() -> None:
    schedule = {"_target_": "test_recipe.scheduled"}
    cfg = {"optimizer": schedule, "training": {"loss": {"_target_": "keras.losses.Hinge"}}}
    cfg["training"] |= {"jit": "auto", "schedule": "cosine"}
    with pytest.raises(ConfigError, match=r"`training.schedule`: expected constant"):
        loop.started(small(), cfg, 0).__enter__()


def scheduled() -> keras.optimizers.Optimizer:
    """Build an optimizer as a plug-in might."""
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10))

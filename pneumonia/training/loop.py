"""Train a model epoch by epoch: order, chunks, metrics, early stopping, the best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pneumonia.config.instantiate import build
from pneumonia.errors import ConfigError
from pneumonia.evaluation.objective import Metrics, Objective
from pneumonia.seeding import PHASE, integer
from pneumonia.training import compiled_loop
from pneumonia.training.checkpoint import FitState
from pneumonia.training.compiled_layers import FLOAT32
from pneumonia.training.feeds import read_all
from pneumonia.training.inputs import Inputs
from pneumonia.training.recipe import Recipe, has_rest, head_only
from pneumonia.training.steps import Steps

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Tell = Callable[[int, Metrics], None]
Offer = Callable[[Callable[[], FitState]], object]


class DivergedError(Exception):
    """A training whose loss or objective is no longer a number."""


class TooSlowError(Exception):
    """A training that takes longer than `training.max_seconds`."""


class Limit:
    """Owns the seconds that a trial may train, from its first epoch on, and what else may stop it.

    Args:
        max_seconds: None for no limit.
        between_epochs: Called before every epoch; what it raises stops the training there.
    """

    def __init__(
        self, max_seconds: float | None = None, between_epochs: Callable[[], None] = lambda: None
    ) -> None:
        self._max_seconds, self._between_epochs = max_seconds, between_epochs
        self._began: float | None = None

    def check(self, done: int, epochs: int, *, has_trained: bool) -> None:
        """Stop before an epoch where the training must not go on; one is always trained.

        Raises:
            TooSlowError: Where it has taken longer than it may.
        """
        self._between_epochs()
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        seconds = now - self._began
        if self._max_seconds is not None and has_trained and seconds > self._max_seconds:
            raise TooSlowError(
                f"The training was stopped after {seconds:.1f} s, at epoch {done} of {epochs}: "
                f"`training.max_seconds` is {self._max_seconds:g}."
            )


@dataclass(frozen=True, slots=True)
class Training:
    """What one training needs.

    Attributes:
        model: With its initial weights, from inputs to probabilities (n, 1).
        inputs: What it trains on and is measured by.
        config: The whole configuration of the trial.
        seed: Of its order and its dropout.
        limit: What may stop it between two epochs.
    """

    model: keras.Model
    inputs: Inputs
    config: Config
    seed: int
    limit: Limit = field(default_factory=Limit)


@contextmanager
def started(model: keras.Model, config: Config, seed: int) -> Iterator[compiled_loop.Program]:
    """Yield the program of a model, at the beginning of a training."""
    optimizer = build(config["optimizer"], "optimizer")
    frequency = getattr(optimizer, "ema_overwrite_frequency", None)
    if getattr(optimizer, "use_ema", False) and not frequency:
        # Keras' own loop would put the averages into the model when all epochs are over.
        expected = "a number of steps after which the averages are the weights, with use_ema"
        raise ConfigError("optimizer.ema_overwrite_frequency", expected, frequency)
    loss = build(config["training"]["loss"], "training.loss")
    jit = None if config["training"]["jit"] == "auto" else config["training"]["jit"]
    recipe, precision = Recipe.of(config), config["training"].get("precision", FLOAT32)
    rate, decay = compiled_loop.learning_rate(optimizer), compiled_loop.weight_decay(optimizer)
    if rate is None and recipe.has_schedule:
        expected = "constant, without a warm-up, as the optimizer has a schedule"
        raise ConfigError("training.schedule", expected, recipe.schedule)
    averages = recipe.average is not None
    with compiled_loop.borrow(
        model, optimizer, loss=loss, jit=jit, averages=averages, precision=precision
    ) as program:
        program.start(model, learning_rate=rate, weight_decay=decay, seed=seed)
        yield program


def exact(config: Config) -> Config:
    """Return a configuration whose programs give what the classifier's file does: in float32."""
    return {**config, "training": {**config["training"], "precision": FLOAT32}}


def build_metrics(config: Config) -> dict[str, Any]:
    """Return the metrics of a configuration by name, as `measure` takes them."""
    return {
        name: build(section, f"training.metrics.{name}")
        for name, section in config["training"]["metrics"].items()
    }


def train(
    training: Training,
    epochs: int,
    *,
    begin: FitState | None,
    tell: Tell,
    offer: Offer = lambda make: None,
    keeps_last: bool = False,
) -> FitState:
    """Train up to an epoch.

    Args:
        training: What to train.
        epochs: The epoch.
        begin: How far it has come already.
        tell: Called after every epoch with its number, from 1, and its metrics.
        offer: Called before that with a function that returns how far it has come.
        keeps_last: Whether the last epoch counts as the best.

    Raises:
        DivergedError: Where the loss or the objective is not a number.
        TooSlowError: Where it takes longer than it may.
    """
    recipe, state = Recipe.of(training.config), begin or FitState((), (), (), ())
    first = recipe.head_epochs if has_rest(training.model) else 0
    known = len(state.history)

    def check(done: int) -> None:
        training.limit.check(done, epochs, has_trained=done > known)

    run = partial(_train, training, recipe, check, tell, offer, keeps_last=keeps_last)
    if known < first:
        with head_only(training.model):
            state = run(state, (0, min(first, epochs)))
    return state if epochs <= first else run(state, (first, epochs))


def _train(
    training: Training,
    recipe: Recipe,
    check: Callable[[int], None],
    tell: Tell,
    offer: Offer,
    state: FitState,
    span: tuple[int, int],
    *,
    keeps_last: bool,
) -> FitState:
    """Train on from after the first epoch of a span, where the optimizer begins, to its last."""
    config, (begun, until) = training.config, span
    history, best, predicted = list(state.history), state.best, state.predicted
    seed = integer(training.seed, PHASE, begun) if begun else training.seed
    with started(training.model, config, seed) as program:
        if len(history) > begun:
            program.resume(state.model, state.optimizer)
        elif begun:
            program.set_weights(state.model)
        metrics, val = build_metrics(config), read_all(training.inputs.val)
        objective = Objective(**config["objective"])
        steps = Steps(
            training.inputs,
            recipe,
            batch=config["training"]["batch_size"],
            size=math.prod(training.model.input.shape[1:]),
            seed=training.seed,
            begun=begun,
            rate=program.learning_rate,
        )
        with closing(steps.chunks(range(len(history) + 1, until + 1))) as chunks:
            while len(history) < until and not is_stopped(history, config):
                check(len(history))
                epoch = len(history) + 1
                loss, trained = _run_epoch(steps, program, chunks, epoch, metrics)
                with program.averaged():
                    measured, latest = _measure_val(training, program, epoch, val, metrics)
                    history.append({"loss": loss, **trained, **measured})
                    if keeps_last or objective.best_epoch(history) == epoch:
                        best, predicted = program.weights(), latest
                offer(partial(_progress, program, best, history, predicted))
                tell(epoch, history[-1])
        return _progress(program, best, history, predicted)


def is_stopped(history: Sequence[Metrics], config: Config) -> bool:
    """Tell whether early stopping ends a training here: too many epochs without a better one.

    Those in which only the head trains do not count.
    """
    rule, objective = config["training"]["early_stopping"], Objective(**config["objective"])
    if rule is None or not history:
        return False
    best, waited, first = -math.inf, 0, Recipe.of(config).head_epochs
    for epoch, metrics in enumerate(history, start=1):
        value = objective.sign * metrics[objective.name]
        if value > best + rule["min_delta"] or best == -math.inf:
            best, waited = value, 0
        elif epoch <= first:
            waited = 0
        else:
            waited += 1
    return bool(waited >= rule["patience"])


def measure(metrics: dict[str, Any], y: Array, probabilities: Array) -> Metrics:
    """Return metrics of probabilities (n,) for labels (n,), 0 or 1.

    By name, they are Keras metrics or functions of labels and probabilities.
    """
    result = {}
    for name, metric in metrics.items():
        if isinstance(metric, keras.metrics.Metric):
            metric.reset_state()
            metric.update_state(y[:, None].astype(np.float32), probabilities[:, None])
            result[name] = float(metric.result())
        else:
            result[name] = float(metric(y, probabilities))
    return result


def rehearse(config: Config, y: Array, probabilities: Array) -> None:
    """Measure probabilities (n,) by the loss and the metrics of a configuration.

    Raises:
        UserError: Where one of Keras' does not go with one probability for each image.
    """
    section = config["training"]["loss"]
    if _is_of_keras(section):
        labels, loss = y[:, None].astype(np.float32), build(section, "training.loss")
        with _explaining("training.loss", section):
            either = [loss(labels, p[:, None]) for p in (probabilities, 1 - probabilities)]
            if np.array_equal(*either):
                raise ValueError("It is the same for every probability")
    for name, metric in build_metrics(config).items():
        section = config["training"]["metrics"][name]
        with _explaining(f"training.metrics.{name}", section):
            measure({name: metric}, y, probabilities)


def _is_of_keras(section: Config) -> bool:
    return str(section["_target_"]).startswith("keras.")


@contextmanager
def _explaining(key: str, section: Config) -> Iterator[None]:
    """Take an error of what is Keras' for a mistake in a section; others keep their traces."""
    try:
        yield
    except Exception as error:
        if not _is_of_keras(section):
            raise
        expected = "what measures one probability for each image"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(key, expected, section["_target_"], reason.rstrip(".")) from error


def _progress(
    program: compiled_loop.Program,
    best: tuple[Array, ...],
    history: Sequence[Metrics],
    predicted: Array,
) -> FitState:
    return FitState(*program.state(), best, tuple(history), predicted)


def _run_epoch(
    steps: Steps,
    program: compiled_loop.Program,
    chunks: Iterator[compiled_loop.Chunk],
    epoch: int,
    metrics: dict[str, Any],
) -> tuple[float, Metrics]:
    """Train for an epoch; return its mean loss, and the metrics of its outputs."""
    order = steps.order(epoch)
    loss, outputs = program.train(steps.take(chunks, order))
    if not math.isfinite(loss):
        raise DivergedError(f"The training diverged: its loss is {loss} in epoch {epoch}.")
    labels = steps.inputs.train_labels[order]
    return loss, measure(metrics, labels, outputs.reshape(-1)[: len(order)])


def _measure_val(
    training: Training,
    program: compiled_loop.Program,
    epoch: int,
    val: Array | tf.Tensor,
    metrics: dict[str, Any],
) -> tuple[Metrics, Array]:
    labels, predicted = training.inputs.val_labels, program.predict(val)
    measured = measure(metrics, labels, predicted)
    result = {"val_loss": program.loss(labels, predicted)}
    result |= {f"val_{name}": value for name, value in measured.items()}
    # An accuracy is a number even where the predictions are none; the loss of val then is not.
    for name in ("val_loss", training.config["objective"]["name"]):
        if not math.isfinite(result[name]):
            text = f"its {name} is {result[name]} in epoch {epoch}"
            raise DivergedError(f"The training diverged: {text}.")
    return result, predicted

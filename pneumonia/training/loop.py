"""Train a model epoch by epoch: order, chunks, metrics, early stopping, the best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
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
from pneumonia.seeding import SHUFFLE, generator
from pneumonia.training import compiled_loop
from pneumonia.training.checkpoint import FitState
from pneumonia.training.feeds import ahead, is_computed, read_all
from pneumonia.training.inputs import Inputs

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Tell = Callable[[int, Metrics], None]
Offer = Callable[[Callable[[], FitState]], object]

_CHUNK_BYTES = 64 * 2**20


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
    with compiled_loop.borrow(model, optimizer, loss=loss, jit=jit) as program:
        program.start(model, learning_rate=compiled_loop.learning_rate(optimizer), seed=seed)
        yield program


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
) -> FitState:
    """Train up to an epoch.

    Args:
        training: What to train.
        epochs: The epoch.
        begin: How far it has come already.
        tell: Called after every epoch with its number, from 1, and its metrics.
        offer: Called before that with a function that returns how far it has come.

    Raises:
        DivergedError: Where the loss or the objective is not a number.
        TooSlowError: Where it takes longer than it may.
    """
    config = training.config
    history: list[Metrics] = []
    best: tuple[Array, ...] = ()
    with started(training.model, config, training.seed) as program:
        if begin is not None:
            program.resume(begin.model, begin.optimizer)
            history, best = list(begin.history), begin.best
        metrics, begun = build_metrics(config), len(history)
        val, run = read_all(training.inputs.val), partial(_run_epoch, training, program)
        with closing(_all_chunks(training, range(begun + 1, epochs + 1))) as chunks:
            while len(history) < epochs and not is_stopped(history, config):
                training.limit.check(len(history), epochs, has_trained=len(history) > begun)
                epoch = len(history) + 1
                history.append(run(epoch, chunks, val=val, metrics=metrics))
                if best_epoch(history, config["objective"]) == epoch:
                    best = program.weights()
                offer(partial(_progress, program, best, history))
                tell(epoch, history[-1])
        return _progress(program, best, history)


def best_epoch(history: Sequence[Metrics], objective: Config) -> int:
    """Return the number (from 1) of the best epoch, the earliest of equals; 0 for no history."""
    return Objective(**objective).best_epoch(history)


def is_stopped(history: Sequence[Metrics], config: Config) -> bool:
    """Tell whether early stopping ends a training here: too many epochs without a better one."""
    rule, objective = config["training"]["early_stopping"], Objective(**config["objective"])
    if rule is None or not history:
        return False
    best, waited = -math.inf, 0
    for metrics in history:
        value = objective.sign * metrics[objective.name]
        if value > best + rule["min_delta"] or best == -math.inf:
            best, waited = value, 0
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
    program: compiled_loop.Program, best: tuple[Array, ...], history: Sequence[Metrics]
) -> FitState:
    return FitState(*program.state(), best, tuple(history))


def _run_epoch(
    training: Training,
    program: compiled_loop.Program,
    epoch: int,
    chunks: Iterator[compiled_loop.Chunk],
    *,
    val: Array | tf.Tensor,
    metrics: dict[str, Any],
) -> Metrics:
    inputs = training.inputs
    order = _order(training, epoch)
    loss, outputs = program.train(_of_epoch(chunks, training))
    if not math.isfinite(loss):
        raise DivergedError(f"The training diverged: its loss is {loss} in epoch {epoch}.")
    trained = measure(metrics, inputs.train_labels[order], outputs.reshape(-1)[: len(order)])
    predicted = program.predict(val)
    measured = measure(metrics, inputs.val_labels, predicted)
    val_loss = program.loss(inputs.val_labels, predicted)
    result = {"loss": loss, **trained, "val_loss": val_loss}
    result |= {f"val_{name}": value for name, value in measured.items()}
    # An accuracy is a number even where the predictions are none; the loss of val then is not.
    for name in ("val_loss", training.config["objective"]["name"]):
        if not math.isfinite(result[name]):
            text = f"its {name} is {result[name]} in epoch {epoch}"
            raise DivergedError(f"The training diverged: {text}.")
    return result


def _order(training: Training, epoch: int) -> Array:
    return generator(training.seed, SHUFFLE, epoch).permutation(len(training.inputs.train))


def _steps(training: Training) -> int:
    batch: int = training.config["training"]["batch_size"]
    return -(-len(training.inputs.train) // batch)


def _all_chunks(training: Training, epochs: range) -> Generator[compiled_loop.Chunk]:
    """Yield the chunks of all epochs; where images are rendered, the next one is made meanwhile."""
    every = (chunk for epoch in epochs for chunk in _chunks(training, epoch))
    return ahead(every) if is_computed(training.inputs.train) else every


def _of_epoch(
    chunks: Iterator[compiled_loop.Chunk], training: Training
) -> Iterator[compiled_loop.Chunk]:
    """Yield the chunks of one epoch, without asking for the next epoch's first."""
    left = _steps(training)
    while left > 0:
        chunk = next(chunks)
        left -= chunk.steps
        yield chunk


def _chunks(training: Training, epoch: int) -> Iterator[compiled_loop.Chunk]:
    """Yield the epoch in chunks of equal shape; the last batch is padded with weight 0."""
    inputs, batch = training.inputs, training.config["training"]["batch_size"]
    shape, order, steps = training.model.input.shape[1:], _order(training, epoch), _steps(training)
    real = len(order) - (steps - 1) * batch
    indices = np.resize(order, steps * batch).reshape(steps, batch)
    weights = inputs.train_weights[indices].astype(np.float32)
    # Keras divides by the size of the batch, so the samples of a short one count for more here.
    weights[-1] *= batch / real
    weights[-1, real:] = 0.0
    labels, whole = inputs.train_labels[indices].astype(np.float32), inputs.train.whole()
    if whole is not None:
        yield compiled_loop.Chunk(whole, indices.astype(np.int32), labels, weights, steps)
        return
    most = max(1, _CHUNK_BYTES // (4 * batch * math.prod(shape)))
    per_chunk = -(-steps // -(-steps // most))
    places = np.arange(per_chunk * batch, dtype=np.int32).reshape(per_chunk, batch)
    for start in range(0, steps, per_chunk):
        count = min(per_chunk, steps - start)
        rows = np.resize(np.arange(start, start + count), per_chunk)
        x = inputs.train.read(epoch, indices[rows].reshape(-1))
        yield compiled_loop.Chunk(x, places, labels[rows], weights[rows], count)

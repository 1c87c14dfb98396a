"""Run one trial: build what its configuration says, train it, keep its best epoch.

Running a trial is a function of plain values, so it can happen in another process or on another
machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pneumonia import checkpoint, classifier, engine
from pneumonia.building import build
from pneumonia.checkpoint import Metrics, Progress
from pneumonia.feeds import Feed, read_all
from pneumonia.inputs import Inputs, Parts, parts, prepare
from pneumonia.seeding import SHUFFLE, generator

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
OnEpoch = Callable[[int, int, Metrics], None]
Report = Callable[[str, int, int], None]

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Task:
    """One trial to run, in plain values.

    Attributes:
        trial_id: Its name within the search.
        config: The whole configuration, without ranges.
        epochs: The epoch up to which it is trained, counted from the trial's very beginning.
        folder: The folder of the search.
        parent: The trial that it goes on from, or None.
        keeps_state: Whether it may be gone on from, so that its state has to be kept.
        keeps_classifier: Whether its classifier is written.
    """

    trial_id: str
    config: Config
    epochs: int
    folder: str
    parent: str | None = None
    keeps_state: bool = True
    keeps_classifier: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a trial.

    Attributes:
        score: The objective at the best epoch; the mean over the executions.
        best_epoch: The best epoch of the best execution, from 1.
        metrics: The metrics at that epoch.
        history: The metrics of that execution's epochs.
        seconds: How long it took.
        classifier: The file of its classifier within the search's folder, or None.
    """

    score: float
    best_epoch: int
    metrics: Metrics
    history: tuple[Metrics, ...]
    seconds: float
    classifier: str | None


class DivergedError(Exception):
    """A training whose loss is no longer a number."""


def state_path(folder: str | Path, trial_id: str) -> Path:
    """Return where the state of a trial is kept."""
    return Path(folder) / "trials" / f"{trial_id}.zip"


def run(task: Task, *, on_epoch: OnEpoch, report: Report) -> Result:
    """Train a trial up to its epoch.

    Args:
        task: What to train.
        on_epoch: Called after every epoch with execution (from 0), epoch (from 1) and metrics.
        report: Called with a text, how much is done and how much there is to do.

    Raises:
        UserError: Where the configuration cannot be built.
        DivergedError: Where the loss is not a number.
    """
    started = time.monotonic()
    config = task.config
    inputs = prepare(config, report=report)
    earlier = checkpoint.load(state_path(task.folder, task.parent)) if task.parent else ()
    done: list[Progress] = []
    for execution in range(config["training"]["executions_per_trial"]):
        model = _model(config, execution)
        begin = earlier[execution] if earlier else None

        def tell(epoch: int, metrics: Metrics, execution: int = execution) -> None:
            on_epoch(execution, epoch, metrics)

        done.append(_train(model, inputs, config, execution, task.epochs, begin, tell))
    if task.keeps_state:
        checkpoint.save(state_path(task.folder, task.trial_id), done)
    return _result(task, done, started)


def best_weights(task_folder: str | Path, trial_id: str, config: Config) -> tuple[Array, ...]:
    """Return the weights of a trial's best execution after its best epoch."""
    executions = checkpoint.load(state_path(task_folder, trial_id))
    return executions[_best_execution(executions, config["objective"])].best


def retrain(config: Config, epochs: int, *, report: Report) -> tuple[Array, ...]:
    """Train on train and val together for a number of epochs; return the weights after the last."""
    inputs = prepare(config, report=report, joined=True)
    stopless = {**config, "training": {**config["training"], "early_stopping": None}}
    model = _model(stopless, 0)
    done = _train(model, inputs, stopless, 0, epochs, None, lambda *_: None)
    return done.model


def predict(config: Config, weights: tuple[Array, ...], feed: Feed) -> Array:
    """Return the probabilities (n,) that a trained model gives for a feed."""
    model = _model(config, 0)
    program = _program(model, config)
    program.set_weights(weights)
    return program.predict(read_all(feed))


def write_classifier(config: Config, weights: tuple[Array, ...], path: Path) -> None:
    """Assemble the classifier with these weights and write it to a `.keras` file."""
    model = _model(config, 0)
    for variable, value in zip(engine.variables(model), weights, strict=True):
        variable.assign(value)
    built = parts(config)
    size = config["model"]["image_size"]
    whole = classifier.assemble(built.backbone, model.get_layer("head"), image_size=size)
    path.parent.mkdir(parents=True, exist_ok=True)
    classifier.save(whole, path)


def classifier_bytes(config: Config) -> int:
    """Return about how large the file of a trial's classifier is."""
    model, built = _model(config, 0), parts(config)
    head = model.get_layer("head")
    return 4 * int(built.backbone.count_params() + head.count_params())


def best_epoch(history: tuple[Metrics, ...] | list[Metrics], objective: Config) -> int:
    """Return the number (from 1) of the best epoch, the earliest of equals; 0 for no history."""
    sign = 1.0 if objective["direction"] == "max" else -1.0
    values = [sign * metrics[objective["name"]] for metrics in history]
    values = [value if math.isfinite(value) else -math.inf for value in values]
    return int(np.argmax(values)) + 1 if values else 0


def _result(task: Task, done: list[Progress], started: float) -> Result:
    objective = task.config["objective"]
    best = done[_best_execution(done, objective)]
    number = best_epoch(best.history, objective)
    scores = [_best_value(progress, objective) for progress in done]
    name = None
    if task.keeps_classifier:
        name = f"classifiers/{task.trial_id}.keras"
        write_classifier(task.config, best.best, Path(task.folder) / name)
    return Result(
        score=float(np.mean(scores)),
        best_epoch=number,
        metrics=best.history[number - 1],
        history=best.history,
        seconds=time.monotonic() - started,
        classifier=name,
    )


def _best_value(progress: Progress, objective: Config) -> float:
    return progress.history[best_epoch(progress.history, objective) - 1][objective["name"]]


def _best_execution(executions: list[Progress] | tuple[Progress, ...], objective: Config) -> int:
    values = [_best_value(progress, objective) for progress in executions]
    return int(np.argmax(values) if objective["direction"] == "max" else np.argmin(values))


def _model(config: Config, execution: int) -> keras.Model:
    """Build what is trained, with the initial weights of an execution."""
    built: Parts = parts(config)
    keras.utils.set_random_seed(config["seed"] + execution)
    head = build(config["dense"], "dense", built.shape)
    if built.rest is None:
        inputs = keras.Input(built.shape, name="features")
        return keras.Model(inputs, head(inputs), name="trainable")
    built.reset(execution)
    inputs = keras.Input(built.rest.input.shape[1:], name="images")
    return keras.Model(inputs, head(built.rest(inputs)), name="trainable")


def _program(model: keras.Model, config: Config) -> engine.Program:
    optimizer = build(config["optimizer"], "optimizer")
    loss = build(config["training"]["loss"], "training.loss")
    jit = config["training"]["jit"]
    program = engine.program(model, optimizer, loss=loss, jit=None if jit == "auto" else jit)
    program.start(model, learning_rate=engine.learning_rate(optimizer), seed=config["seed"])
    return program


def _train(
    model: keras.Model,
    inputs: Inputs,
    config: Config,
    execution: int,
    epochs: int,
    begin: Progress | None,
    tell: Callable[[int, Metrics], None],
) -> Progress:
    seed = config["seed"] + execution
    program = _program(model, {**config, "seed": seed})
    history: list[Metrics] = []
    best: tuple[Array, ...] = ()
    if begin is not None:
        program.resume(engine.State(begin.model, begin.optimizer))
        history, best = list(begin.history), begin.best
    val = read_all(inputs.val)
    while len(history) < epochs and not _is_stopped(history, config):
        epoch = len(history) + 1
        history.append(_run_epoch(program, inputs, val, config, seed, epoch))
        if best_epoch(history, config["objective"]) == epoch:
            best = program.weights()
        tell(epoch, history[-1])
    state = program.state()
    return Progress(state.model, state.optimizer, best, tuple(history))


def _run_epoch(
    program: engine.Program, inputs: Inputs, val: Array, config: Config, seed: int, epoch: int
) -> Metrics:
    training = config["training"]
    order = generator(seed, SHUFFLE, epoch).permutation(len(inputs.train))
    chunks = _chunks(inputs, order, epoch, training["batch_size"])
    loss, outputs = program.train(chunks)
    if not math.isfinite(loss):
        raise DivergedError(f"The training diverged: its loss is {loss} in epoch {epoch}.")
    metrics = {"loss": loss}
    trained = outputs.reshape(-1)[: len(order)]
    metrics |= _measure(training["metrics"], inputs.train_labels[order], trained, "")
    predicted = program.predict(val)
    metrics["val_loss"] = program.loss(inputs.val_labels, predicted)
    return metrics | _measure(training["metrics"], inputs.val_labels, predicted, "val_")


def _measure(sections: Config, y: Array, probabilities: Array, prefix: str) -> Metrics:
    result = {}
    for name, section in sections.items():
        metric = build(section, f"training.metrics.{name}")
        if isinstance(metric, keras.metrics.Metric):
            metric.update_state(y[:, None].astype(np.float32), probabilities[:, None])
            result[prefix + name] = float(metric.result())
        else:
            result[prefix + name] = float(metric(y, probabilities))
    return result


def _is_stopped(history: list[Metrics], config: Config) -> bool:
    rule = config["training"]["early_stopping"]
    if rule is None or not history:
        return False
    name, direction = config["objective"]["name"], config["objective"]["direction"]
    sign = 1.0 if direction == "max" else -1.0
    best, waited = -math.inf, 0
    for metrics in history:
        value = sign * metrics[name]
        if value > best + rule["min_delta"] or best == -math.inf:
            best, waited = value, 0
        else:
            waited += 1
    return bool(waited >= rule["patience"])


def _chunks(inputs: Inputs, order: Array, epoch: int, batch: int) -> Iterator[engine.Chunk]:
    """Yield the epoch in chunks of equal shape; the last batch is padded with weight 0."""
    steps = -(-len(order) // batch)
    real = len(order) - (steps - 1) * batch
    indices = np.resize(order, steps * batch).reshape(steps, batch)
    weights = inputs.train_weights[indices].astype(np.float32)
    # Keras divides by the size of the batch, so the samples of a short one count for more here.
    weights[-1] *= batch / real
    weights[-1, real:] = 0.0
    width = inputs.train.read(epoch, indices[0, :1]).nbytes
    most = max(1, _CHUNK_BYTES // (batch * width))
    per_chunk = -(-steps // -(-steps // most))
    for start in range(0, steps, per_chunk):
        count = min(per_chunk, steps - start)
        rows = np.resize(np.arange(start, start + count), per_chunk)
        x = inputs.train.read(epoch, indices[rows].reshape(-1))
        yield engine.Chunk(
            x.reshape(per_chunk, batch, *x.shape[1:]),
            inputs.train_labels[indices[rows]].astype(np.float32),
            weights[rows],
            count,
        )

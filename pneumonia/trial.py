"""Run one trial: build what its configuration says, train it, keep its best epoch.

Running a trial is a function of plain values, so it can happen in another process or on another
machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pneumonia import checkpoint, classifier, engine, training
from pneumonia.building import build
from pneumonia.checkpoint import Metrics, Progress
from pneumonia.feeds import Feed, read_all
from pneumonia.inputs import Parts, parts, prepare
from pneumonia.loading import Kept
from pneumonia.template import Template
from pneumonia.training import Training

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
OnEpoch = Callable[[int, int, Metrics], None]
Report = Callable[[str, int, int], None]

_templates: Kept[Template | None] = Kept(4)


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
        begin = earlier[execution] if earlier else None

        def tell(epoch: int, metrics: Metrics, execution: int = execution) -> None:
            on_epoch(execution, epoch, metrics)

        model = _model(config, execution)
        one = Training(model, inputs, config, config["seed"] + execution)
        done.append(training.train(one, task.epochs, begin=begin, tell=tell))
    if task.keeps_state:
        checkpoint.save(state_path(task.folder, task.trial_id), done)
    return _result(task, done, model, started=started)


def best_weights(task_folder: str | Path, trial_id: str, config: Config) -> tuple[Array, ...]:
    """Return the weights of a trial's best execution after its best epoch."""
    executions = checkpoint.load(state_path(task_folder, trial_id))
    return executions[_best_execution(executions, config["objective"])].best


def retrain(config: Config, epochs: int, *, report: Report) -> tuple[Array, ...]:
    """Train on train and val together for a number of epochs; return the weights after the last."""
    inputs = prepare(config, report=report, joined=True)
    stopless = {**config, "training": {**config["training"], "early_stopping": None}}
    one = Training(_model(stopless, 0), inputs, stopless, config["seed"])
    return training.train(one, epochs, begin=None, tell=lambda *_: None).model


def predict(config: Config, weights: tuple[Array, ...], feed: Feed) -> Array:
    """Return the probabilities (n,) that a trained model gives for a feed."""
    program = training.start(_model(config, 0), config, config["seed"])
    program.set_weights(weights)
    return program.predict(read_all(feed))


def write_classifier(
    config: Config, weights: tuple[Array, ...], path: Path, *, model: keras.Model | None = None
) -> None:
    """Assemble the classifier with these weights and write it to a `.keras` file.

    Args:
        config: The whole configuration of the trial.
        weights: The values of the trained variables.
        path: The file.
        model: What was trained, if it is at hand; its weights do not matter.
    """
    model, built = model or _model(config, 0), parts(config)
    head = model.get_layer("head")
    size = built.frozen.image_size

    def make() -> Template | None:
        whole = classifier.assemble(built.backbone, head, image_size=size)
        try:
            return Template(whole, engine.variables(model))
        except LookupError:
            return None

    layers = [(type(layer).__name__, layer.name) for layer in head.layers]
    template = _templates.get([config["model"], config["seed"], layers], make)
    if template is not None:
        template.write(path, head, weights)
        return
    for variable, value in zip(engine.variables(model), weights, strict=True):
        variable.assign(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    classifier.save(classifier.assemble(built.backbone, head, image_size=size), path)


def classifier_bytes(config: Config) -> int:
    """Return about how large the file of a trial's classifier is."""
    model, built = _model(config, 0), parts(config)
    head = model.get_layer("head")
    return 4 * int(built.backbone.count_params() + head.count_params())


def _result(task: Task, done: list[Progress], model: keras.Model, *, started: float) -> Result:
    objective = task.config["objective"]
    best = done[_best_execution(done, objective)]
    number = training.best_epoch(best.history, objective)
    scores = [_best_value(progress, objective) for progress in done]
    name = None
    if task.keeps_classifier:
        name = f"classifiers/{task.trial_id}.keras"
        write_classifier(task.config, best.best, Path(task.folder) / name, model=model)
    return Result(
        score=float(np.mean(scores)),
        best_epoch=number,
        metrics=best.history[number - 1],
        history=best.history,
        seconds=time.monotonic() - started,
        classifier=name,
    )


def _best_value(progress: Progress, objective: Config) -> float:
    return progress.history[training.best_epoch(progress.history, objective) - 1][objective["name"]]


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

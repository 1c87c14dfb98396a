"""Run one trial: build what its configuration says, train it, keep its best epoch.

Running a trial is a function of plain values, so it can happen in another process or on another
machine.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pneumonia import files
from pneumonia.config.instantiate import LOCK, build
from pneumonia.datasets.cache import Kept, load_data
from pneumonia.evaluation.objective import Metrics
from pneumonia.models import classifier, classifier_file
from pneumonia.models.classifier_file import Template
from pneumonia.models.predictor import Predictor
from pneumonia.training import calibration, checkpoint, compiled_loop, loop
from pneumonia.training.calibration import Decided
from pneumonia.training.checkpoint import Checkpoints, Progress
from pneumonia.training.feeds import Feed, read_all
from pneumonia.training.inputs import Inputs, Parts, parts, plain_feed, prepare
from pneumonia.training.loop import Limit, Training

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


@compiled_loop.hold()
def run(
    task: Task,
    *,
    on_epoch: OnEpoch,
    report: Report,
    between_epochs: Callable[[], None] = lambda: None,
) -> Result:
    """Train a trial up to its epoch.

    Several threads may run trials at once whose inputs can be shared (`inputs.is_shared`).

    Args:
        task: What to train.
        on_epoch: Called after every epoch with execution (from 0), epoch (from 1) and metrics.
        report: Called with a text, how much is done and how much there is to do.
        between_epochs: Called before every epoch; what it raises stops the training there.

    Raises:
        UserError: Where the configuration cannot be built.
        DivergedError: Where the loss or the objective is not a number.
        TooSlowError: Where the training takes longer than it may.
    """
    started = time.monotonic()
    kept = Checkpoints(state_path(task.folder, task.trial_id))
    between = between_epochs
    try:
        trained = _train(task, kept, on_epoch=on_epoch, report=report, between_epochs=between)
    except Exception as error:
        if files.explain(error) is None:
            kept.drop()  # what has failed does not go on
        raise
    if task.keeps_state:
        kept.finish(trained[0])
    else:
        kept.drop()
    return _result(task, *trained, started=started)


def so_far(task: Task) -> Result | None:
    """Return what has come of a trial that was stopped, by its best epoch so far, or None."""
    done = checkpoint.find(state_path(task.folder, task.trial_id))
    if not done:
        return None
    task = replace(task, keeps_classifier=False)
    return _result(task, done, None, None, started=time.monotonic())


def rehearse(config: Config, labels: Array, probabilities: Array) -> None:
    """Build what a trial trains, and measure probabilities by its metrics, without training.

    Raises:
        UserError: Where the configuration cannot be built, or Keras cannot measure by it.
    """
    with loop.started(_model(config, 0), config, config["seed"]):
        loop.rehearse(config, labels, probabilities)


def best_weights(task: Task, *, report: Report) -> tuple[Array, ...]:
    """Return the weights of a trial's best execution after its best epoch.

    Where its state is missing or damaged, the trial is trained again, to the same weights.
    """
    executions = checkpoint.find(state_path(task.folder, task.trial_id))
    if not executions:
        executions, *_ = _train(task, None, on_epoch=lambda *_: None, report=report)
    return executions[_best_execution(executions, task.config["objective"])].best


def retrain(
    config: Config, epochs: int, *, temperature: float, report: Report
) -> tuple[Array, ...]:
    """Train on train and val together for a number of epochs; return the weights after the last.

    Their logits are divided by the temperature.
    """
    inputs = prepare(config, report=report, joined=True)
    stopless = {**config, "training": {**config["training"], "early_stopping": None}}
    one = Training(_model(stopless, 0), inputs, stopless, config["seed"])
    weights = loop.train(one, epochs, begin=None, tell=lambda *_: None).model
    return calibration.fold(one.model, weights, temperature)


def predict(config: Config, weights: tuple[Array, ...], feed: Feed) -> Array:
    """Return the probabilities (n,) that a trained model gives for a feed."""
    with loop.started(_model(config, 0), config, config["seed"]) as program:
        program.set_weights(weights)
        return program.predict(read_all(feed))


def assemble(config: Config, weights: tuple[Array, ...]) -> Predictor:
    """Return the classifier with these weights, in memory.

    Args:
        config: The whole configuration of the trial.
        weights: The values of the trained variables.
    """
    model = _model(config, 0)
    return Predictor(_assemble(config, model, weights))


def _assemble(config: Config, model: keras.Model, weights: tuple[Array, ...]) -> keras.Model:
    built = parts(config)
    for variable, value in zip(compiled_loop.variables(model), weights, strict=True):
        variable.assign(value)
    head = model.get_layer("head")
    with LOCK:
        return classifier.assemble(built.backbone, head, image_size=built.frozen.image_size)


def decide(config: Config, weights: tuple[Array, ...], *, report: Report) -> Decided:
    """Return how a model with these weights decides, by what it predicts for val."""
    split, model = load_data(config).val, _model(config, 0)
    feed = plain_feed(config, split, report=report)
    return calibration.decide(model, weights, val=feed, labels=split.labels, config=config)


def write_classifier(
    config: Config,
    weights: tuple[Array, ...],
    path: Path,
    *,
    facts: Mapping[str, Any],
    model: keras.Model | None = None,
) -> None:
    """Assemble the classifier with these weights and write it to a `.keras` file.

    Args:
        config: The whole configuration of the trial.
        weights: The values of the trained variables.
        path: The file.
        facts: What the file says of the classifier: `Decision.facts`.
        model: What was trained, if it is at hand; its weights do not matter.
    """
    model, built = model or _model(config, 0), parts(config)
    head = model.get_layer("head")
    size = built.frozen.image_size

    def make() -> Template | None:
        whole = classifier.assemble(built.backbone, head, image_size=size)
        try:
            return Template(whole, compiled_loop.variables(model))
        except LookupError:
            return None

    layers = [(type(layer).__name__, layer.name) for layer in head.layers]
    template = _templates.get([config["model"], config["seed"], layers], make)
    if template is not None:
        template.write(path, head, weights, facts)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with LOCK:  # Keras notes in the whole process that it writes a file
        classifier.save(_assemble(config, model, weights), path)
    classifier_file.write_facts(path, facts)


def _train(
    task: Task,
    kept: Checkpoints | None,
    *,
    on_epoch: OnEpoch,
    report: Report,
    between_epochs: Callable[[], None] = lambda: None,
) -> tuple[tuple[Progress, ...], keras.Model, Inputs]:
    """Train all the executions of a trial, each from where it stopped.

    Args:
        task: What to train.
        kept: Where its state is kept on the way, if at all.
        on_epoch: As `run` takes it.
        report: As `run` takes it.
        between_epochs: As `run` takes it.

    Returns:
        How far the executions have come, the model of the last one, and what it was trained on.
    """
    config = task.config
    inputs = prepare(config, report=report)
    earlier = checkpoint.find(state_path(task.folder, task.parent)) if task.parent else ()
    left = checkpoint.find(state_path(task.folder, task.trial_id)) if kept else ()
    done: list[Progress] = []
    latest: list[Callable[[], Progress]] = []  # of the execution that is trained
    max_seconds = config["training"].get("max_seconds") if kept else None

    def pause() -> None:
        try:
            between_epochs()
        except BaseException:
            if kept is not None and (done or latest):
                kept.write([*done, *(make() for make in latest)])
            raise

    limit = Limit(max_seconds, pause)
    for execution in range(config["training"]["executions_per_trial"]):
        begin = next(
            (found[execution] for found in (left, earlier) if execution < len(found)), None
        )

        def tell(epoch: int, metrics: Metrics, execution: int = execution) -> None:
            on_epoch(execution, epoch, metrics)

        def offer(make: Callable[[], Progress]) -> None:
            latest[:] = [make]
            if kept is not None:
                kept.offer(lambda: [*done, make()])

        # What the process that was killed had no time to tell.
        known = left[execution].history if execution < len(left) else ()
        for epoch, metrics in enumerate(known, start=1):
            tell(epoch, metrics)
        model = _model(config, execution)
        one = Training(model, inputs, config, config["seed"] + execution, limit)
        done.append(loop.train(one, task.epochs, begin=begin, tell=tell, offer=offer))
        latest.clear()
    return tuple(done), model, inputs


def _result(
    task: Task,
    done: tuple[Progress, ...],
    model: keras.Model | None,
    inputs: Inputs | None,
    *,
    started: float,
) -> Result:
    objective = task.config["objective"]
    best = done[_best_execution(done, objective)]
    number = loop.best_epoch(best.history, objective)
    scores = [_best_value(progress, objective) for progress in done]
    name = None
    if task.keeps_classifier and model and inputs:
        name = f"classifiers/{task.trial_id}.keras"
        made = calibration.decide(
            model, best.best, val=inputs.val, labels=inputs.val_labels, config=task.config
        )
        facts = made.decision.facts(load_data(task.config).class_names)
        path = Path(task.folder) / name
        write_classifier(task.config, made.weights, path, facts=facts, model=model)
    return Result(
        score=float(np.mean(scores)),
        best_epoch=number,
        metrics=best.history[number - 1],
        history=best.history,
        seconds=time.monotonic() - started,
        classifier=name,
    )


def _best_value(progress: Progress, objective: Config) -> float:
    return progress.history[loop.best_epoch(progress.history, objective) - 1][objective["name"]]


def _best_execution(executions: tuple[Progress, ...], objective: Config) -> int:
    values = [_best_value(progress, objective) for progress in executions]
    return int(np.argmax(values) if objective["direction"] == "max" else np.argmin(values))


def _model(config: Config, execution: int) -> keras.Model:
    """Build what is trained, with the initial weights of an execution."""
    with LOCK:
        built: Parts = parts(config)
        _seed(config["seed"] + execution, config["dense"])
        head = build(config["dense"], "dense", built.shape)
        head.name = "head"  # by which it is found again, whatever a plug-in calls it
        if built.rest is None:
            inputs = keras.Input(built.shape, name="features")
            return keras.Model(inputs, head(inputs), name="trainable")
        built.reset(execution)
        inputs = keras.Input(built.rest.input.shape[1:], name="images")
        return keras.Model(inputs, head(built.rest(inputs)), name="trainable")


def _seed(seed: int, section: Config) -> None:
    """Seed what the builder of a section draws from.

    Ours draw from Python's generator, as Keras' layers do. Other people's may use TensorFlow's,
    which throws all kernels away when it is seeded: a twentieth of a second in every trial.
    """
    if str(section.get("_target_")).startswith("pneumonia."):
        random.seed(seed)
        np.random.seed(seed)
    else:
        keras.utils.set_random_seed(seed)

"""What a trial trains, built; and what becomes of a trained model: a classifier that decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pneumonia.config.instantiate import LOCK, build, is_ours
from pneumonia.datasets.cache import Kept, load_data
from pneumonia.models import classifier, classifier_file
from pneumonia.models.classifier_file import Template
from pneumonia.seeding import seed_python
from pneumonia.training import calibration, compiled_loop, loop
from pneumonia.training.calibration import Decided
from pneumonia.training.feeds import Feed, read_all
from pneumonia.training.inputs import parts, plain_feed, prepare
from pneumonia.training.loop import Training

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Report = Callable[[str, int, int], None]

_templates: Kept[Template | None] = Kept(4)


def trainable(config: Config, execution: int) -> keras.Model:
    """Build what is trained, with the initial weights of an execution, from 0."""
    with LOCK:
        built = parts(config)
        _seed(config["seed"] + execution, config["dense"])
        head = build(config["dense"], "dense", built.shape)
        head.name = "head"  # by which it is found again, whatever a plug-in calls it
        if built.rest is None:
            inputs = keras.Input(built.shape, name="features")
            return keras.Model(inputs, head(inputs), name="trainable")
        built.reset(execution)
        inputs = keras.Input(built.rest.input.shape[1:], name="images")
        return keras.Model(inputs, head(built.rest(inputs)), name="trainable")


def rehearse(config: Config, labels: Array, probabilities: Array) -> None:
    """Build what a trial trains, and measure probabilities by its metrics, without training.

    Raises:
        UserError: Where the configuration cannot be built, or Keras cannot measure by it.
    """
    with loop.started(trainable(config, 0), config, config["seed"]):
        loop.rehearse(config, labels, probabilities)


def retrain(
    config: Config, epochs: int, *, temperature: float, report: Report
) -> tuple[Array, ...]:
    """Train on train and val together for a number of epochs; return the weights after the last.

    Their logits are divided by the temperature.
    """
    inputs = prepare(config, report=report, joined=True)
    stopless = {**config, "training": {**config["training"], "early_stopping": None}}
    one = Training(trainable(stopless, 0), inputs, stopless, config["seed"])
    done = loop.train(one, epochs, begin=None, tell=lambda *_: None, keeps_last=True)
    return calibration.fold(one.model, done.best, temperature)


def predict(config: Config, weights: tuple[Array, ...], feed: Feed) -> Array:
    """Return the probabilities (n,) that a trained model gives for a feed."""
    with loop.started(trainable(config, 0), loop.exact(config), config["seed"]) as program:
        program.set_weights(weights)
        return program.predict(read_all(feed))


def put(model: keras.Model, weights: tuple[Array, ...]) -> None:
    """Give what a trial trains, `trainable`, these values of its variables."""
    for variable, value in zip(compiled_loop.variables(model), weights, strict=True):
        variable.assign(value)


def assemble(config: Config, model: keras.Model, weights: tuple[Array, ...]) -> keras.Model:
    """Return the classifier with these weights, the values of the trained variables, in memory.

    The model is `trainable`.
    """
    built = parts(config)
    put(model, weights)
    head = model.get_layer("head")
    with LOCK:
        return classifier.assemble(built.backbone, head, image_size=built.frozen.image_size)


def decide(config: Config, weights: tuple[Array, ...], *, report: Report) -> Decided:
    """Return how a model with these weights decides, by what it predicts for val."""
    split, model = load_data(config).val, trainable(config, 0)
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
        model: What was trained, if it is at hand; its own weights do not matter.
    """
    model, built = model or trainable(config, 0), parts(config)
    head = model.get_layer("head")

    def make() -> Template | None:
        whole = classifier.assemble(built.backbone, head, image_size=built.frozen.image_size)
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
        classifier.save(assemble(config, model, weights), path)
    classifier_file.write_facts(path, facts)


def _seed(seed: int, section: Config) -> None:
    """Seed what the builder of a section draws from.

    Ours draw as Keras' layers do. Other people's may use TensorFlow's,
    which throws all kernels away when it is seeded: a twentieth of a second in every trial.
    """
    if is_ours(section):
        seed_python(seed)
        np.random.seed(seed)
    else:
        keras.utils.set_random_seed(seed)

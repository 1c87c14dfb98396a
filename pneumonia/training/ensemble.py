"""Trained models that are averaged, or one alone: what they predict, decide by, and become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from pneumonia.config.instantiate import LOCK, build
from pneumonia.datasets.base import ImageSource, Split
from pneumonia.datasets.cache import load_data
from pneumonia.evaluation.thresholds import Decision, fit_shared_temperature, logit, sigmoid
from pneumonia.models import classifier, classifier_file
from pneumonia.models.mean import Mean
from pneumonia.models.predictor import Predictor
from pneumonia.training import calibration, held_out, loop, network
from pneumonia.training.calibration import Weights
from pneumonia.training.inputs import class_rule, class_weights, parts, plain_feed

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Report = Callable[[str, int, int], None]

# Beside 1, float32 has no number that is nearer.
_MOST = 1 - 2.0**-24


@dataclass(frozen=True, slots=True)
class Member:
    """A trained model, alone or beside others.

    Attributes:
        config: The whole configuration of its trial.
        weights: The values of its trained variables.
        epochs: After how many they were best.
        count: How often it counts in the mean.
        flips: Whether the mean is over each image and its mirror image too, as for all members.
    """

    config: Config
    weights: Weights
    epochs: int
    count: int = 1
    flips: bool = False


def predict(
    members: Sequence[Member], split: Literal["val", "test"], *, report: Report
) -> list[Array]:
    """Return the probabilities that each member gives for a split, float32 (n,)."""
    return [np.mean(_views(one, split, report), axis=0) for one in members]


def _views(one: Member, split: str, report: Report) -> list[Array]:
    """Return what a member gives for a split, and for its mirror images where they count."""
    images: Split = getattr(load_data(one.config), split)
    mirrored = replace(images, images=_Mirrored(images.images), digest=f"{images.digest}-mirrored")
    return [
        network.predict(one.config, one.weights, plain_feed(one.config, some, report=report))
        for some in (images, *((mirrored,) if one.flips else ()))
    ]


@dataclass(frozen=True, slots=True)
class _Mirrored:
    """The mirror images of a split's images."""

    images: ImageSource

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Any) -> list[Array]:
        return [image[:, ::-1] for image in self.images.read(indices)]


def mean(members: Sequence[Member], values: Sequence[Array]) -> Array:
    """Return the mean of the members' values, (n,) each, in their own type."""
    counts = [one.count for one in members]
    return np.average(values, axis=0, weights=counts).astype(values[0].dtype)


def decide(
    config: Config, members: Sequence[Member], *, report: Report
) -> tuple[Decision, list[Member], list[Array]]:
    """Choose how the mean decides, by the configuration of the best trial.

    Its temperature, if it is asked for, divides the logits of all members, so that it is in their
    weights, as that of one classifier is.

    Returns:
        The decision; the members with the temperature in their weights; what each gives for val.
    """
    section, labels, temperature = config["threshold"], load_data(config).val.labels, 1.0
    can_calibrate = section["calibrate"] and all(map(_is_foldable, members))
    if can_calibrate:
        flat = [_divided(one, calibration.FLAT) for one in members]
        views = [p for one in flat for p in _views(one, "val", report) * one.count]
        drawn = calibration.FLAT * logit(views)
        weights = class_weights(labels, class_rule(config))
        temperature = fit_shared_temperature(labels, drawn, weights)
        members = [_divided(one, temperature) for one in members]
    given = predict(members, "val", report=report)
    found = temperature if can_calibrate else None
    decision = calibration.conclude(labels, mean(members, given), config, found)
    return decision, list(members), given


def decide_held_out(
    config: Config, members: Sequence[Member], given: Sequence[Array], counts: Sequence[int]
) -> tuple[Decision, list[Member], list[Array]]:
    """Choose how the mean decides by what trials gave out of fold; otherwise as `decide`.

    Args:
        config: Of the best trial.
        members: The models of all fits of the trials.
        given: What each trial gave, float32 (n,), for the images of `held_out.labels`.
        counts: How often each trial counts.
    """
    labels, temperature = held_out.labels(config), None
    if config["threshold"]["calibrate"] and all(map(_is_foldable, members)):
        tiny = np.finfo(np.float32).tiny
        logits = logit(np.clip(np.asarray(given, np.float64), tiny, _MOST))
        weights = class_weights(labels, class_rule(config))
        drawn = np.repeat(logits, counts, axis=0)
        temperature = fit_shared_temperature(labels, drawn, weights)
        members = [_divided(one, temperature) for one in members]
        given = [sigmoid(one / temperature).astype(np.float32) for one in logits]
    joint = np.average(given, axis=0, weights=counts)
    decision = calibration.conclude(labels, joint, config, temperature, where="out of fold")
    return decision, list(members), list(given)


def _divided(one: Member, temperature: float) -> Member:
    model = network.trainable(one.config, 0)
    return replace(one, weights=calibration.fold(model, one.weights, temperature))


def _is_foldable(one: Member) -> bool:
    return calibration.is_foldable(network.trainable(one.config, 0))


def retrain(members: Sequence[Member], temperature: float, *, report: Report) -> list[Member]:
    """Train each on train and val together, up to its best epoch; as `network.retrain`."""
    return [
        replace(
            one,
            weights=network.retrain(one.config, one.epochs, temperature=temperature, report=report),
        )
        for one in members
    ]


def score(config: Config, labels: Array, probabilities: Array) -> float:
    """Return what probabilities (n,) for val come to by the objective of a configuration."""
    name = config["objective"]["name"].removeprefix("val_")
    if name == "loss":
        loss = build(config["training"]["loss"], "training.loss")
        return float(loss(labels[:, None].astype(np.float32), probabilities[:, None]))
    section = {name: config["training"]["metrics"][name]}
    metrics = loop.build_metrics({"training": {"metrics": section}})
    return loop.measure(metrics, labels, probabilities)[name]


def assemble(members: Sequence[Member]) -> Predictor:
    """Return the classifier of the members in memory."""
    if len(members) == 1 and not members[0].flips:
        return network.assemble(members[0].config, members[0].weights)
    return Predictor(_join(members))


def write(members: Sequence[Member], path: Path, *, facts: Mapping[str, Any]) -> None:
    """Write the classifier of the members to a `.keras` file that says these facts of itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = _join(members)
    with LOCK:  # Keras notes in the whole process that it writes a file
        classifier.save(model, path)
    classifier_file.write_facts(path, facts)


def _join(members: Sequence[Member]) -> keras.Model:
    with LOCK:
        whole = Mean(flips=members[0].flips)
        for one in members:
            model, built = network.trainable(one.config, 0), parts(one.config)
            network.put(model, one.weights)  # trials may share the layers of a backbone that trains
            head, size = model.get_layer("head"), built.frozen.image_size
            whole.add(built.backbone, head, image_size=size, count=one.count)
        return whole.finish()

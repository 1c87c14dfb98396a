"""Trained models that are averaged, or one alone: what they predict, decide by, and become."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import keras
import numpy as np

from pneumonia.config.instantiate import LOCK, build
from pneumonia.datasets.base import Split
from pneumonia.datasets.cache import load_data
from pneumonia.errors import ConfigError
from pneumonia.evaluation.thresholds import Decision, fit_shared_temperature, logit, sigmoid
from pneumonia.models import classifier, classifier_file
from pneumonia.models.mean import Mean
from pneumonia.models.mirror import Mirrored
from pneumonia.models.predictor import Predictor
from pneumonia.training import calibration, held_out, loop, network
from pneumonia.training.calibration import Weights
from pneumonia.training.feeds import JoinedFeed, PartFeed
from pneumonia.training.inputs import Parts, class_rule, class_weights, parts, plain_feed

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
        flips: Whether it is the mean over an image and its mirror image too.
        image_size: Height and width in pixels of what it looks at in the end; None is that which it
            was trained on.
    """

    config: Config
    weights: Weights
    epochs: int
    count: int = 1
    flips: bool = False
    image_size: int | None = None

    @property
    def is_as_trained(self) -> bool:
        """Whether it looks at what it was trained on, and at nothing beside."""
        return not self.flips and self.image_size is None

    @property
    def views(self) -> int:
        """How many views of an image it is the mean over."""
        return 2 if self.flips else 1

    @property
    def looking(self) -> Config:
        """Its configuration with images of the size that it looks at in the end."""
        return resized(self.config, self.image_size)


def resized(config: Config, size: int | None) -> Config:
    """Return a configuration with images of another size, unless that is None."""
    return config | {"model": config["model"] | ({"image_size": size} if size else {})}


def final_parts(config: Config) -> Parts:
    """Return the backbone of a trial, which can be built, for what the final classifier is shown.

    Raises:
        ConfigError: It does not take images of that size.
    """
    try:
        return parts(resized(config, config["winner"]["image_size"]))
    except ConfigError as error:
        _, expected, received, hint = error.given
        raise ConfigError("winner.image_size", expected, received, hint) from error


def predict(
    members: Sequence[Member], split: Literal["val", "test"], *, report: Report
) -> list[Array]:
    """Return the probabilities that each member gives for a split, float32 (n,)."""
    return [np.mean(_views(one, split, report), axis=0) for one in members]


def _views(one: Member, split: str, report: Report) -> list[Array]:
    """Return what a member gives for each view of a split."""
    config = one.looking
    images: Split = getattr(load_data(config), split)
    feed = functools.partial(plain_feed, config, images, report=report)
    return [network.predict(config, one.weights, feed(shown=shown)) for shown in _shown(one)]


def _shown(one: Member) -> list[Mirrored | None]:
    """Return the views of an image: it is no other rendering of itself."""
    return [None, Mirrored()] if one.flips else [None]


def predict_held_out(
    members: Sequence[Member], predicted: Sequence[Array], *, report: Report
) -> Array:
    """Return what the fits of a trial give for `held_out.labels`, float32 (k, n).

    Of that k are the executions, as often as there are views: its mean is the trial's.

    Args:
        members: The fits, in the order of `Objective.fits`.
        predicted: What each gave for the images that it was not trained on, of the size of those
            that it was.
        report: Called with a text, how much is done and how much there is to do.
    """
    first, config = members[0], members[0].looking
    data, rows = load_data(config), held_out.parts(config)
    executions = len(members) // len(rows)
    all_given = [] if first.image_size else [held_out.gather(config, predicted)]
    for shown in _shown(first)[len(all_given) :]:
        feed = functools.partial(plain_feed, config, report=report, shown=shown)
        both = JoinedFeed(feed(data.train), feed(data.val))
        more = [
            network.predict(config, one.weights, PartFeed(both, rows[place // executions]))
            for place, one in enumerate(members)
        ]
        all_given.append(held_out.gather(config, more))
    return np.concatenate(all_given)


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
    labels, temperature = load_data(config).val.labels, None
    if config["threshold"]["calibrate"] and all(map(_is_foldable, members)):
        flat = [_divided(one, calibration.FLAT) for one in members]
        views = [p for one in flat for p in _views(one, "val", report) * one.count]
        drawn = calibration.FLAT * logit(views)
        weights = class_weights(labels, class_rule(config))
        temperature = fit_shared_temperature(labels, drawn, weights)
        members = [_divided(one, temperature) for one in members]
    given = predict(members, "val", report=report)
    decision = calibration.conclude(labels, mean(members, given), config, temperature)
    return decision, list(members), given


def decide_held_out(
    config: Config, members: Sequence[Member], given: Sequence[Array], counts: Sequence[int]
) -> tuple[Decision, list[Member], list[Array]]:
    """Choose how the mean decides by what trials gave out of fold; otherwise as `decide`.

    Args:
        config: Of the best trial.
        members: The models of all fits of the trials.
        given: What the fits of each trial gave, as of `predict_held_out`.
        counts: How often each trial counts.

    Returns:
        The decision; the members with the temperature in their weights; what each trial gives.
    """
    labels, temperature = held_out.labels(config), None
    if config["threshold"]["calibrate"] and all(map(_is_foldable, members)):
        tiny = np.finfo(np.float32).tiny
        logits = [logit(np.clip(one.astype(np.float64), tiny, _MOST)) for one in given]
        weights = class_weights(labels, class_rule(config))
        shares = even(counts, [len(one) for one in logits])
        drawn = [np.repeat(one, share, axis=0) for one, share in zip(logits, shares, strict=True)]
        temperature = fit_shared_temperature(labels, np.concatenate(drawn), weights)
        members = [_divided(one, temperature) for one in members]
        given = [sigmoid(one / temperature).astype(np.float32) for one in logits]
    own = [one.mean(axis=0) for one in given]
    joint = np.average(own, axis=0, weights=counts)
    decision = calibration.conclude(labels, joint, config, temperature, where="out of fold")
    return decision, list(members), own


def even(counts: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return how often each model of some trials counts, that trials count as often as asked.

    Args:
        counts: How often each trial counts.
        sizes: How many models each has.
    """
    common = math.lcm(*sizes)
    return [count * common // size for count, size in zip(counts, sizes, strict=True)]


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
    """Return what probabilities for `held_out.labels`, both (n,), come to by the objective.

    As that of a trial, it is the mean over the folds, where there are any.
    """
    rows = held_out.parts(config)
    return fmean(_measure(config, labels[some], probabilities[some]) for some in rows)


def _measure(config: Config, labels: Array, probabilities: Array) -> float:
    name = config["objective"]["name"].removeprefix("val_")
    if name == "loss":
        loss = build(config["training"]["loss"], "training.loss")
        return float(loss(labels[:, None].astype(np.float32), probabilities[:, None]))
    section = {name: config["training"]["metrics"][name]}
    metrics = loop.build_metrics({"training": {"metrics": section}})
    return loop.measure(metrics, labels, probabilities)[name]


def assemble(members: Sequence[Member]) -> Predictor:
    """Return the classifier of the members in memory."""
    one = members[0]
    if len(members) == 1 and one.is_as_trained:
        return Predictor(
            network.assemble(one.config, network.trainable(one.config, 0), one.weights)
        )
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
            model, built = network.trainable(one.looking, 0), parts(one.looking)
            network.put(model, one.weights)  # trials may share the layers of a backbone that trains
            head, size = model.get_layer("head"), built.frozen.image_size
            whole.add(built.backbone, head, image_size=size, count=one.count)
        return whole.finish()

"""From a configuration to what a trial trains on: data, frozen and trained parts, feeds.

Loading and building is kept, within bounds, from trial to trial of one process.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pneumonia.config.instantiate import LOCK, build, is_ours
from pneumonia.datasets.base import Split
from pneumonia.datasets.cache import Kept, load_data
from pneumonia.models import backbones
from pneumonia.models.mirror import Mirrored
from pneumonia.training import feature_cache, held_out
from pneumonia.training.augment import View
from pneumonia.training.feeds import (
    ComputedFeed,
    Feed,
    JoinedFeed,
    PartFeed,
    RenderedFeed,
    StoredFeed,
)
from pneumonia.training.frozen_graph import Frozen

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Report = Callable[[str, int, int], None]

ONLINE = "online"


@dataclass(frozen=True, slots=True)
class Parts:
    """A backbone in its two parts.

    Attributes:
        backbone: The whole: images (n, size, size, 3), 0 to 255, to features (n, f).
        frozen: The part that no trial trains.
        rest: The part from the first trained layer on, or None where all is frozen.
        initial: The weights of the rest before any training.
        shape: Of one image's features.
        section: What it was built from.
        seed: Of the training.
    """

    backbone: keras.Model
    frozen: Frozen
    rest: keras.Model | None
    initial: tuple[Array, ...]
    shape: tuple[int, ...]
    section: Config
    seed: int

    def reset(self, execution: int) -> None:
        """Give the rest its initial weights; executions after the first draw what is random."""
        if self.rest is None:
            return
        self.rest.set_weights(self.initial)
        if execution and self.section.get("weights") is None:
            keras.utils.set_random_seed(self.seed + execution)
            fresh = _split(self.section)[2]
            self.rest.set_weights([] if fresh is None else fresh.get_weights())


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a trial trains on and is measured by; labels are int64 (n,), weights float64 (n,).

    Of the inputs of `train`, those in `rows` are trained on, all if it is None.
    """

    train: Feed
    val: Feed
    train_labels: Array
    train_weights: Array
    val_labels: Array
    rows: Array | None = None


_parts: Kept[Parts] = Kept(4)
_feeds: Kept[Feed] = Kept(12, lock=threading.RLock())  # features may take minutes


def parts(config: Config) -> Parts:
    """Return the backbone of a configuration in its frozen and its trained part."""
    section, seed = config["model"], config["seed"]

    def make() -> Parts:
        keras.utils.set_random_seed(seed)
        backbone, frozen, rest = _split(section)
        initial = () if rest is None else tuple(rest.get_weights())
        digest = feature_cache.digest(frozen, section)
        shape = tuple(backbone.output.shape[1:])
        part = Frozen(frozen, int(backbone.input.shape[1]), digest)
        return Parts(backbone, part, rest, initial, shape, section, seed)

    return _parts.get([section, seed], make)


def prepare(
    config: Config, *, report: Report, joined: bool = False, together: Sequence[Config] = ()
) -> Inputs:
    """Return the inputs of a trial, computing features that are not there yet.

    Args:
        config: The whole configuration.
        report: Called with a text, how much is done and how much there is to do.
        joined: Whether val is trained on too.
        together: Other sections `model`, with which features may be asked for later.
    """
    data, pipeline = load_data(config), _pipeline(config)
    feed = functools.partial(_feed, config, report=report, together=together)
    train = feed(data.train, pipeline)
    labels = data.train.labels
    if joined:
        train = JoinedFeed(train, feed(data.val, pipeline))
        labels = np.concatenate([labels, data.val.labels])
    val = feed(data.val, None)
    return Inputs(train, val, labels, _sample_weights(labels, config), data.val.labels)


def prepare_folds(
    config: Config, *, report: Report, together: Sequence[Config] = ()
) -> list[Inputs]:
    """Return the inputs of a trial for each fold; without folds the only ones.

    Features are those of train and of val, as without folds: each fold has its rows of them.
    Arguments are those of `prepare`.
    """
    if config["objective"].get("folds") is None:
        return [prepare(config, report=report, together=together)]
    labels, pipeline = held_out.labels(config), _pipeline(config)
    feed = functools.partial(_feed, config, report=report, together=together)
    plain = _joined(config, feed, None)
    train = plain if pipeline is None else _joined(config, feed, pipeline)
    found = []
    for held in held_out.parts(config):
        rows = np.delete(np.arange(len(labels)), held)
        weights = np.zeros(len(labels))
        weights[rows] = _sample_weights(labels[rows], config)
        own = PartFeed(plain, held), labels, weights, labels[held], rows
        found.append(Inputs(train, *own))
    return found


def _pipeline(config: Config) -> keras.Sequential | None:
    section = {name: value for name, value in config["augment"].items() if name != "views"}
    with LOCK:  # its layers draw their seeds
        return build(section, "augment")


def plain_feed(
    config: Config, split: Split, *, report: Report, shown: Mirrored | None = None
) -> Feed:
    """Return the inputs of a split without augmentation, or of a view of its images."""
    return _feed(config, split, None, report=report, shown=shown)


def _joined(config: Config, feed: Callable[..., Feed], pipeline: keras.Sequential | None) -> Feed:
    """Return the inputs of train, then of val, kept for the trials that share them."""
    data = load_data(config)
    splits = data.train, data.val

    def make() -> Feed:
        first, second = (feed(split, pipeline) for split in splits)
        return JoinedFeed(first, second, is_kept=True)

    key = [_key(config, split, pipeline) for split in splits]
    return _feeds.get(key, make) if config["features"]["cache"] else make()


def _key(
    config: Config, split: Split, pipeline: keras.Sequential | None, shown: Mirrored | None = None
) -> list[Any]:
    own = shown if pipeline is None else [config["augment"], config["seed"]]
    return [split.digest, parts(config).frozen.digest, config["features"], own]


def _feed(
    config: Config,
    split: Split,
    pipeline: keras.Sequential | None,
    *,
    report: Report,
    together: Sequence[Config] = (),
    shown: Mirrored | None = None,
) -> Feed:
    """Return the inputs of a split, kept for the trials that share them."""
    frozen, seed = parts(config).frozen, config["seed"]
    features, augment = config["features"], config["augment"]

    def make() -> Feed:
        if frozen.model is None:
            return ComputedFeed(split, frozen, pipeline=pipeline, seed=seed, shown=shown)
        if pipeline is None:
            return StoredFeed(compute([shown]), seed)
        about = feature_cache.digest(None, {k: v for k, v in augment.items() if k != "views"})
        view = functools.partial(View, pipeline, about, seed=seed)
        if augment["views"] == ONLINE:
            return RenderedFeed(
                len(split),
                lambda index, **options: compute([view(index)], **options)[0],
                is_apart=features["precision"] == "float32",  # not told to TensorFlow as a whole
            )
        return StoredFeed(compute([view(index) for index in range(augment["views"])]), seed)

    def compute(views: Sequence[View | Mirrored | None], report: Report = report) -> list[Array]:
        return feature_cache.compute(
            split,
            frozen,
            views=views,
            section=features,
            report=report,
            others=lambda: _others(config, together),
        )

    return _feeds.get(_key(config, split, pipeline, shown), make) if features["cache"] else make()


def _others(config: Config, together: Sequence[Config]) -> Iterator[Frozen]:
    """Yield the frozen parts of other sections `model`, of those that can be built."""
    for section in together:
        try:
            frozen = parts({**config, "model": section}).frozen
        except Exception:  # the trials with it fail at it, and tell why
            continue
        if frozen.model is not None:
            yield frozen


def is_shared(config: Config) -> bool:
    """Tell whether several trials may train on a configuration's inputs at the same time.

    They may where these are stored, and no layer of the backbone is trained: all trials have the
    same, and each puts its own weights into them. They may not where features are computed in
    bfloat16, for which TensorFlow is told to use it everywhere.
    """
    section = config["features"]
    is_stored = section["cache"] and config["augment"]["views"] != ONLINE
    return bool(is_stored and section["precision"] == "float32" and parts(config).rest is None)


def class_rule(config: Config) -> Any:
    """Return how training weighs the classes, be it by weights or by how often they are drawn."""
    section = config["training"]
    return "balanced" if section.get("balanced_batches") else section["class_weight"]


def _sample_weights(labels: Array, config: Config) -> Array:
    """Return how much each image (n,) counts in training."""
    is_drawn = config["training"].get("balanced_batches")  # then both classes come equally often
    return class_weights(labels, None if is_drawn else class_rule(config))


def positive_share(labels: Array, rule: Any) -> float:
    """Return the share of positives among labels (n,), weighted as training weights the classes.

    It is the prevalence that trained probabilities are for: a half where classes are balanced.
    """
    return float(np.average(labels, weights=class_weights(labels, rule)))


def _split(section: Config) -> tuple[keras.Model, keras.Model | None, keras.Model | None]:
    with backbones.shared() if is_ours(section) else nullcontext():  # ours change no layers
        backbone = build(section, "model")
    frozen, rest = backbones.split(backbone)
    return backbone, frozen, rest


def class_weights(labels: Array, rule: Any) -> Array:
    """Return a weight per sample: `balanced` gives both classes the same sum."""
    if rule is None:
        return np.ones(len(labels))
    if rule == "balanced":
        counts = np.bincount(labels, minlength=2)
        return (len(labels) / (2 * counts))[labels]
    by_label = {int(label): float(weight) for label, weight in rule.items()}
    return np.array([by_label[0], by_label[1]])[labels]

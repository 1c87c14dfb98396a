"""What a search takes on disk, before it takes it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from omegaconf import DictConfig

from pneumonia.config.instantiate import build
from pneumonia.config.search_space import Space, collapse
from pneumonia.errors import ConfigError
from pneumonia.evaluation.objective import Objective
from pneumonia.search import crown
from pneumonia.search.oracle import Round
from pneumonia.training import ensemble, inputs
from pneumonia.training.recipe import Recipe

Config = dict[str, Any]

# Journal, database of MLflow and small files, as measured: of a search with its pictures and its
# report of 5 MB, which lie beside the journal and in the store, of a trial, and of an epoch.
_SEARCH, _TRIAL, _EPOCH = 14_000_000, 25_000, 3_000
_BESIDE = 20_000  # of each classifier in MLflow
# Backbones are built to know their sizes; the others are taken to be as large on average.
_SAMPLES = 4
_FEATURE_GROUPS = ("dataset", "augment", "model")


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes on disk at the most.

    Attributes:
        classifiers: Of the trials, and the final one.
        features: In the cache, if none of them is there yet.
        states: Of trials that may yet be gone on with; they go when the search ends.
        logs: Journal, pictures and MLflow's database.
    """

    classifiers: int
    features: int
    states: int
    logs: int

    @property
    def total(self) -> int:
        """All of them together."""
        return self.classifiers + self.features + self.states + self.logs


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Bytes of one trial: its classifier, its state, the features of train and val, of test.

    With folds, `folded` is what the final classifier has of it beside the first of its fits.
    """

    classifier: int
    folded: int
    state: int
    features: int
    test: int


def estimate(
    cfg: DictConfig,
    space: Space,
    rounds: Sequence[Round],
    *,
    epochs: int,
    images: Mapping[str, int],
) -> Cost | None:
    """Return what a search takes on disk.

    Args:
        cfg: The configuration with its ranges.
        space: The ranges.
        rounds: The trials to expect.
        epochs: Of all the trials together.
        images: How many there are in each split.

    Returns:
        None where not even one of its models can be built here.
    """
    trials = max(1, sum(item.trials for item in rounds))
    sizes = [found for config in _samples(cfg, space) if (found := _measure(config, images))]
    if not sizes:
        return None
    sets = min(trials, math.prod(item.size for item in space if _is_of_features(item.path)))
    features = sets * sum(size.features for size in sizes) / len(sizes)
    section = collapse(cfg, space.start())["features"]
    if not section["cache"]:  # each set is gone when its trial is over
        features = max(size.features for size in sizes)
    features += max(size.test for size in sizes)
    most = section["max_gb"] * 1e9 if section["cache"] else math.inf
    largest = max(size.classifier for size in sizes)
    # With folds, no trial has a classifier of its own.
    log_models = "none" if cfg.objective.get("folds") else str(cfg.tracking.log_models)
    # The final classifier of several shares what it can, which may be nothing.
    members = min(trials, int(cfg.winner.members))
    further = (members - 1) * largest + members * max(size.folded for size in sizes)
    candidates = min(trials, crown.most_candidates(cfg.winner))
    return Cost(
        classifiers=_classifiers(trials, largest, log_models=log_models) + further,
        features=int(min(features, most)),
        states=(_states(rounds) + candidates - 1) * max(size.state for size in sizes),
        logs=_SEARCH + trials * _TRIAL + epochs * _EPOCH,
    )


def _classifiers(trials: int, size: int, *, log_models: str) -> int:
    """Return the bytes of the classifiers that are kept, beside the journal and in the store.

    A local store shares the disk blocks of the files beside the journal: each counts once.
    """
    kept = {"all": trials + 1, "best": 3, "none": 2}[log_models]
    return min(kept, trials + 1) * (size + _BESIDE)


def _samples(cfg: DictConfig, space: Space) -> Iterator[Config]:
    """Yield configurations of trials that differ in what the sizes depend on, a few of them."""
    yield collapse(cfg, space.largest())
    start = space.start()
    varying = [item for item in space if _is_of_features(item.path) and item.path in start]
    values = [item.values or (item.low, item.high) for item in varying]
    for combination in itertools.islice(itertools.product(*values), _SAMPLES - 1):
        chosen = dict(zip([item.path for item in varying], combination, strict=True))
        try:
            yield collapse(cfg, {**start, **chosen})
        except ConfigError:
            continue  # other hyperparameters exist with these values


def _measure(config: Config, images: Mapping[str, int]) -> _Sizes | None:
    """Return the sizes of a trial; None where it cannot be built, at which it will fail alone."""
    try:
        built = inputs.parts(config)
        head = build(config["dense"], "dense", built.shape)
    except (ConfigError, MemoryError, tf.errors.ResourceExhaustedError):
        return None
    own = int(head.count_params())
    trained = own + (0 if built.rest is None else int(built.rest.count_params()))
    train_val, test = _features(config, built, images)
    is_folded = config["objective"].get("folds") and not config["training"]["retrain"]
    return _Sizes(
        classifier=4 * (int(built.backbone.count_params()) + own),
        folded=4 * trained * (fits(config) - 1) if is_folded else 0,
        # The last weights, the best, the optimizer's, of every fit.
        state=4 * trained * (2 + _slots(config)) * fits(config),
        features=train_val,
        test=test,
    )


def _features(config: Config, built: inputs.Parts, images: Mapping[str, int]) -> tuple[int, int]:
    each, size = _bytes(config, built), config["winner"]["image_size"]
    last = _bytes(config, ensemble.final_parts(config))
    section = dict(config["augment"])
    views = section.pop("views")
    if views == inputs.ONLINE:  # a rendering for every epoch
        views = config["tuner"]["max_epochs"]
    test = last * (2 if config["winner"]["flips"] else 1)
    held_out = test + (each if size else 0)
    is_plain = build(section, "augment") is None
    if config["objective"].get("folds"):  # each image is trained on, and held out
        of_each = each * (0 if is_plain else views) + held_out
        return of_each * (images["train"] + images["val"]), test * images["test"]
    trained = each * (1 if is_plain else views) * images["train"]
    return trained + held_out * images["val"], test * images["test"]


def _bytes(config: Config, built: inputs.Parts) -> int:
    """Return what the features of an image take, if any are kept."""
    model = built.frozen.model
    width = 0 if model is None else math.prod(model.output.shape[1:])
    return width * int(np.dtype(config["features"]["dtype"]).itemsize)


def fits(config: Config) -> int:
    """Return how many trainings a trial has."""
    objective = Objective(**config["objective"])
    return len(objective.fits(config["training"]["executions_per_trial"]))


def _slots(config: Config) -> int:
    """Return how many values are kept for every weight: the optimizer's, and averages."""
    optimizer = build(config["optimizer"], "optimizer")
    weight = keras.Variable(np.zeros(3, dtype=np.float32))
    optimizer.build([weight])
    averages = Recipe.of(config).average is not None
    return sum(tuple(variable.shape) == (3,) for variable in optimizer.variables) + averages


def _is_of_features(path: str) -> bool:
    return path.split(".")[0] in _FEATURE_GROUPS


def _states(rounds: Sequence[Round]) -> int:
    """Return how many states there are at a time: those to go on from, the best, the one running.

    Every round of a bracket but the last may be gone on from until the bracket is over.
    """
    brackets: dict[int, int] = {}
    number = 0
    for item, following in itertools.zip_longest(rounds, rounds[1:]):
        goes_on = following is not None and following.round == item.round + 1
        brackets[number] = brackets.get(number, 0) + (item.trials if goes_on else 0)
        number += not goes_on
    return max(brackets.values(), default=0) + 2

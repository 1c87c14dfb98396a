"""What a search is about to do: its rounds, its time, its space on disk."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pneumonia import files
from pneumonia.config import extras, search_space
from pneumonia.config.search_space import Space, collapse
from pneumonia.config.validate import flatten
from pneumonia.datasets import tfds
from pneumonia.datasets.base import ImageData
from pneumonia.datasets.cache import load_data
from pneumonia.errors import UserError
from pneumonia.process import processors
from pneumonia.search import disk_usage
from pneumonia.search.disk_usage import Cost
from pneumonia.search.oracle import Oracle, Round
from pneumonia.storage import journal, search_folder
from pneumonia.storage.search_folder import OUTPUTS
from pneumonia.training import inputs

_PREPARED = "pneumonia.datasets.sources.pneumonia_mnist"
# Of the newest searches, so many are looked at, and so many of the same model and data are enough.
_LOOKED_AT, _ENOUGH = 30, 3
# What Ray 2.60 and a worker with TensorFlow 2.21 take to begin on two processors, the least and the
# most that was measured; and what a worker takes of memory before it trains.
_RAY_SECONDS, _WORKER_GB = (12, 30), 0.7
# What the time of an epoch depends on, beside the images.
_PACE = (
    *("model.", "augment.", "training.batch_size", "training.jit", "training.threads"),
    "training.precision",
)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast searches were.

    Attributes:
        epoch: Seconds that an epoch takes.
        trial: Seconds that a trial takes beside its epochs.
        searches: How many searches that is known from.
    """

    epoch: float
    trial: float
    searches: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search is about to do, as far as tuner and space tell.

    Attributes:
        tuner: The option of the group, as `model` is.
        model: The option of the group.
        is_search: Whether there is anything to search.
        rounds: The trials that are alike, in their order.
        fits: Trainings per trial.
        trials: How many trials at the most; 0 if unknown.
        epochs: How many epochs of all the trials together at the most; 0 if unknown.
        likely: How many there are by the rounds, fewer where scores decide on the rounds.
        pace: What earlier searches tell, or None.
        max_seconds: The budget in seconds, or None.
        cost: The space on disk, or None where it is not known.
        free: The bytes that are free where the results go.
        log_models: Which classifiers are kept.
    """

    tuner: str
    model: str
    is_search: bool
    rounds: tuple[Round, ...]
    fits: int
    trials: int
    epochs: int
    likely: int
    pace: Speed | None
    max_seconds: float | None
    cost: Cost | None
    free: int
    log_models: str

    @property
    def seconds(self) -> float | None:
        """How long it likely takes, one trial after the other, by what earlier ones tell."""
        if self.pace is None or not self.epochs:
            return None
        seconds = self.trials * self.pace.trial + self.likely * self.pace.epoch
        return min(seconds, self.max_seconds or seconds)


def make(
    cfg: DictConfig,
    oracle: Oracle,
    choices: Mapping[str, str],
    *,
    data: ImageData | None,
    most: int | None = None,
    is_dry: bool = False,
) -> Plan:
    """Return what a search is about to do.

    Args:
        cfg: The configuration with its ranges.
        oracle: A new oracle.
        choices: The option of each config group.
        data: The dataset, or None where it is not prepared yet.
        most: How many trials there may be, where another search tells.
        is_dry: Whether no weights are to be loaded, which might have to be fetched.
    """
    found = search_space.find(cfg)
    start = collapse(cfg, found.start())
    limits = cfg.get("budget") or {}
    counts = [count for count in (limits.get("trials"), most) if count is not None]
    rounds = tuple(oracle.plan(min(counts, default=None)))
    fits = disk_usage.fits(start)
    planned, likely = oracle.most_epochs(rounds) * fits, sum(item.trained for item in rounds) * fits
    limit = limits.get("epochs") or planned
    epochs = min(planned, limit)
    costed = _without_weights(cfg) if is_dry else cfg
    return Plan(
        tuner=choices.get("tuner", ""),
        model=choices.get("model", ""),
        is_search=len(found) > 0,
        rounds=rounds,
        fits=fits,
        trials=sum(item.trials for item in rounds),
        epochs=epochs,
        likely=min(likely, limit),
        pace=pace(cfg, data),
        max_seconds=limits.get("seconds"),
        cost=_cost(costed, found, rounds, epochs=epochs, data=data),
        free=_free(OUTPUTS),
        log_models=str(cfg.tracking.log_models),
    )


def pace(cfg: DictConfig, data: ImageData | None) -> Speed | None:
    """Return how fast earlier searches with the same model and images were, or None.

    That is how fast the fastest was: one that found its features computed.

    Args:
        cfg: The configuration with its ranges.
        data: The dataset; without it nothing is known.
    """
    if data is None:
        return None
    digests = {split.name: split.digest for split in (data.train, data.val)}
    own = _paced(flatten(cfg))
    found: list[tuple[float, float]] = []
    paths = sorted(files.below(OUTPUTS, journal.NAME), key=files.written, reverse=True)
    for path in paths[:_LOOKED_AT]:
        first = search_folder.SearchFolder(path.parent).first_event()
        if not _is_alike(first, own, digests):
            continue
        try:
            epochs, trials = _times(path.parent)
        except UserError:  # damaged: that is told where it is gone on with
            continue
        if epochs and trials:
            epoch = statistics.median(epochs)
            beside = statistics.mean(max(0.0, span - epoch * trained) for span, trained in trials)
            found.append((beside, epoch))
        if len(found) == _ENOUGH:
            break
    return Speed(min(found)[1], min(found)[0], len(found)) if found else None


def _is_alike(first: Mapping[str, Any], own: Mapping[str, Any], digests: Mapping[str, str]) -> bool:
    if first.get("kind") != "search_started" or _paced(first.get("params", {})) != own:
        return False
    given = {row["split"]: row["digest"] for row in first.get("datasets", [])}
    return all(given.get(split) == digest for split, digest in digests.items())


def _paced(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key.startswith(_PACE)}


def _times(folder: Path) -> tuple[list[float], list[tuple[float, int]]]:
    """Return the seconds of a search's epochs but the first ones, of its trials with their epochs.

    Where several trials run at once, each has its share: what passes until an event counts for the
    trial that it is of. One that another process has begun, or another search has run, tells no
    time.
    """
    epochs: list[float] = []
    trials: list[tuple[float, int]] = []
    spans: dict[str, tuple[float, int]] = {}
    before = math.nan
    for event in journal.read(folder):
        kind, trial_id = event["kind"], event.get("trial_id", "")
        elapsed = event.get("seconds_elapsed", math.nan)
        passed, before = elapsed - before, elapsed
        span, trained = spans.pop(trial_id, (math.nan, 0))
        if kind == "epoch_ended" and not math.isnan(span):
            spans[trial_id] = span + passed, trained + 1
            epochs += [passed] if trained else []
        elif kind == "trial_ended" and event["status"] == "COMPLETED" and not math.isnan(span):
            trials.append((span + passed, trained))
        elif kind == "trial_started" and "taken_over_from" not in event["tags"]:
            spans[trial_id] = 0.0, 0
        elif kind == "search_ended":
            spans.clear()
    return epochs, trials


def _cost(
    cfg: DictConfig, found: Space, rounds: tuple[Round, ...], *, epochs: int, data: ImageData | None
) -> Cost | None:
    if data is None:
        return None
    images = {split.name: len(split) for split in (data.train, data.val, data.test)}
    return disk_usage.estimate(cfg, found, rounds, epochs=epochs, images=images)


def prepared(config: dict[str, Any]) -> ImageData | None:
    """Load the dataset, unless that would fetch or prepare it first."""
    section = config["dataset"]
    if section["_target_"] == _PREPARED and not tfds.is_prepared(section.get("data_dir")):
        return None
    return load_data(config)


def _without_weights(cfg: DictConfig) -> DictConfig:
    """Return the configuration with random weights: sizes do not depend on them."""
    made = cfg.copy()
    if made.model.get("weights") == "imagenet":
        made.model.weights = None
    return made


def _free(folder: Path) -> int:
    """Return the bytes that are free where a folder is or will be."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def of_ray(cfg: DictConfig, seconds: float | None) -> list[str]:
    """Return lines on what `executor=ray` costs, and where it is not worth that.

    Args:
        cfg: The configuration with its ranges.
        seconds: How long the search takes one trial after the other; None if unknown.
    """
    if cfg.executor.get("_target_") != extras.RAY:
        return []
    count = cfg.executor.workers
    told = [
        f"executor=ray: Ray and its {'worker' if count == 1 else f'{count} workers'} begin in "
        f"{_RAY_SECONDS[0]} to {_RAY_SECONDS[1]} s, and take about {_WORKER_GB * count:.1f} GB"
    ]
    is_stored = cfg.features.cache and cfg.augment.get("views") != inputs.ONLINE
    if cfg.model.get("trainable") is False and is_stored:
        told.append(
            "warning: heads on stored features train in less time than Ray takes: executor=local"
        )
    elif seconds is not None and count > 1 and seconds * (1 - 1 / count) < _RAY_SECONDS[1]:
        told.append(
            f"warning: too short for Ray: {count} workers save less than that of "
            f"{seconds:.0f} s: executor=local"
        )
    threads, here = count * (cfg.training.threads or processors()), processors()
    if count > 1 and cfg.executor.address is None and threads > here:
        told.append(
            f"warning: {count} workers take {threads} threads, and there are {here} processors: "
            f"training.threads={max(1, here // count)}"
        )
    return told

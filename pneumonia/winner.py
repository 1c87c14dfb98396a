"""The best trial of a search: trained again if asked, scored on test once, kept as a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from pneumonia import inputs, metrics, plots, trial
from pneumonia.loading import load_data
from pneumonia.metrics import Scores
from pneumonia.seeding import BOOTSTRAP, integer
from pneumonia.space import GROUPS

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Report = trial.Report

_PRESET_HEAD = """\
# @package _global_
# The winner of a search, without ranges: trial {number}.
# On val: {objective} {score:.4f} at epoch {epoch}.
# To train it again, to the same score:
#   pneumonia experiment={path}
"""


@dataclass(frozen=True, slots=True)
class Winner:
    """The trial that won.

    Attributes:
        trial_id: Its name within the search.
        config: Its whole configuration, without ranges.
        epochs: The epoch up to which it was to be trained.
        best_epoch: The epoch whose weights are kept, from 1.
        score: Its objective.
        weights: What is kept: the values of the trained variables.
    """

    trial_id: str
    config: Config
    epochs: int
    best_epoch: int
    score: float
    weights: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the winner did on the test split, which nothing was chosen by.

    Attributes:
        scores: The scores with their intervals.
        labels: int64 (N,).
        probabilities: float32 (N,).
        pictures: Names of the files within the search's folder.
    """

    scores: Scores
    labels: Array
    probabilities: Array
    pictures: tuple[str, ...]


def crown(
    trial_id: str,
    config: Config,
    *,
    epochs: int,
    best_epoch: int,
    score: float,
    folder: Path,
    report: Report,
) -> Winner:
    """Return the best trial with its weights, trained again on train and val if asked.

    Args:
        trial_id: The trial that won.
        config: Its whole configuration, without ranges.
        epochs: The epoch up to which it was to be trained.
        best_epoch: The epoch at which it was best, from 1.
        score: Its objective then.
        folder: The folder of the search.
        report: Called with a text, how much is done and how much there is to do.
    """
    if config["training"]["retrain"]:
        weights = trial.retrain(config, best_epoch, report=report)
    else:
        weights = trial.best_weights(folder, trial_id, config)
    return Winner(trial_id, config, epochs, best_epoch, score, weights)


def evaluate(
    winner: Winner, histories: list[plots.History], folder: Path, *, report: Report
) -> Evaluation:
    """Score the winner on the test split and draw how it did.

    Args:
        winner: What to score.
        histories: The learning curves to draw.
        folder: The folder of the search; pictures go to `plots` within it.
        report: Called with a text, how much is done and how much there is to do.
    """
    config = winner.config
    data = load_data(config)
    feed = inputs.plain_feed(config, data.test, report=report)
    probabilities = trial.predict(config, winner.weights, feed)
    labels = data.test.labels
    scores = metrics.evaluate(labels, probabilities, seed=integer(config["seed"], BOOTSTRAP))
    worst = metrics.worst_errors(labels, probabilities)
    figures = {
        "confusion_matrix": plots.confusion_matrix(scores, data.class_names),
        "roc": plots.roc(labels, probabilities, scores),
        "precision_recall": plots.precision_recall(labels, probabilities, scores),
        "calibration": plots.calibration(labels, probabilities, scores),
        "learning_curves": plots.learning_curves(histories, config["objective"]["name"]),
        "errors": plots.error_sheet(
            list(data.test.images.read(worst)),
            labels[worst],
            probabilities[worst],
            [data.test.names[i] for i in worst],
            class_names=data.class_names,
        ),
    }
    names = []
    for name, figure in figures.items():
        plots.save(figure, folder / "plots" / f"{name}.png")
        names.append(f"plots/{name}.png")
    return Evaluation(scores, labels, probabilities, tuple(names))


def write_preset(winner: Winner, choices: Mapping[str, str], folder: Path) -> Path:
    """Write the winner as a preset without ranges: `best.yaml` in the search's folder.

    Args:
        winner: The trial that won.
        choices: The option of each config group.
        folder: The folder of the search.
    """
    path = folder / "best.yaml"
    config = winner.config
    groups = [*GROUPS, "tuner", "tracking", "executor"]
    overrides = [{f"override /{group}": choices[group]} for group in groups if choices.get(group)]
    # One training up to the winner's epochs is all that this preset asks of a tuner.
    tuner = {"max_epochs": winner.epochs}
    body = {
        "defaults": overrides,
        "seed": config["seed"],
        "objective": config["objective"],
        "features": {name: config["features"][name] for name in ("dtype", "precision")},
        "tuner": tuner,
        **{group: config[group] for group in GROUPS},
        "when": config["when"],
    }
    head = _PRESET_HEAD.format(
        number=int(winner.trial_id) + 1,
        objective=config["objective"]["name"],
        score=winner.score,
        epoch=winner.best_epoch,
        path=shown(path),
    )
    path.write_text(head + OmegaConf.to_yaml(OmegaConf.create(body)))
    return path


def shown(path: Path, *, resolve: bool = True) -> str:
    """Return a path as a user in the current folder would type it.

    Args:
        path: The path.
        resolve: Whether to follow symbolic links.
    """
    try:
        absolute = path.resolve() if resolve else path.absolute()
        return str(absolute.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

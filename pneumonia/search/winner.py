"""The best trial of a search: trained again if asked, scored on test once, kept as a preset."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia import files as storage
from pneumonia.config import presets
from pneumonia.datasets.base import Split
from pneumonia.datasets.cache import load_data
from pneumonia.evaluation import metrics, plots
from pneumonia.evaluation.metrics import Scores
from pneumonia.evaluation.thresholds import Decision
from pneumonia.models import classifier_file
from pneumonia.seeding import BOOTSTRAP, integer
from pneumonia.shell import shown
from pneumonia.storage.history import PREDICTIONS
from pneumonia.training import inputs, trial
from pneumonia.training.trial import Task

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Report = trial.Report

CLASSIFIER = "classifier.keras"

_PRESET_COMMENT = """\
The winner of a search, without ranges: trial {number}.
On val: {objective} {score:.4f} at epoch {epoch}.
To train it again, to the same score:
  pneumonia {options}experiment={path}
"""


@dataclass(frozen=True, slots=True)
class Winner:
    """The trial that won.

    Attributes:
        trial_id: Its name within the search.
        number: Its number within the search, from 1.
        config: Its whole configuration, without ranges.
        epochs: The epoch up to which it was to be trained.
        best_epoch: The epoch whose weights are kept, from 1.
        score: Its objective.
        weights: What is kept: the values of the trained variables, the temperature in them.
        decision: How it decides, chosen on val before it was trained again on train and val.
        val_probabilities: What the trial itself gives for val, float32 (n,), which it was held out
            from even where the winner was trained again.
    """

    trial_id: str
    number: int
    config: Config
    epochs: int
    best_epoch: int
    score: float
    weights: tuple[Array, ...]
    decision: Decision
    val_probabilities: Array


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the winner did on the test split, which nothing was chosen by.

    Attributes:
        scores: The scores with their intervals, decided at 0.5 as MedMNIST does.
        chosen: The same, decided at the winner's own threshold.
        labels: int64 (N,).
        probabilities: float32 (N,).
        files: Names of the files that were written, within the search's folder.
    """

    scores: Scores
    chosen: Scores
    labels: Array
    probabilities: Array
    files: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """Return the scores as plain numbers, those at the threshold beside those at 0.5."""
        names = metrics.DECIDED
        own = {f"{name}{end}" for name in names for end in ("", "_low", "_high")}
        chosen = {name: value for name, value in self.chosen.flat().items() if name in own}
        return {
            **self.scores.flat("test_"),
            **{f"test_at_threshold_{name}": value for name, value in chosen.items()},
        }


def crown(
    trial_id: str,
    config: Config,
    *,
    number: int,
    epochs: int,
    best_epoch: int,
    score: float,
    folder: Path,
    report: Report,
) -> Winner:
    """Return the best trial with its weights, trained again on train and val if asked.

    Temperature and threshold are found with the trial's own weights: a classifier that was trained
    on val too is surer of val than of other images.

    Args:
        trial_id: The trial that won.
        config: Its whole configuration, without ranges.
        number: Its number within the search, from 1.
        epochs: The epoch up to which it was to be trained.
        best_epoch: The epoch at which it was best, from 1.
        score: Its objective then.
        folder: The folder of the search.
        report: Called with a text, how much is done and how much there is to do.
    """
    own = trial.best_weights(Task(trial_id, config, epochs, str(folder)), report=report)
    made = trial.decide(config, own, report=report)
    weights = made.weights
    if config["training"]["retrain"]:
        temperature = made.decision.temperature
        weights = trial.retrain(config, best_epoch, temperature=temperature, report=report)
    return Winner(
        trial_id=trial_id,
        number=number,
        config=config,
        epochs=epochs,
        best_epoch=best_epoch,
        score=score,
        weights=weights,
        decision=made.decision,
        val_probabilities=made.probabilities,
    )


def evaluate(
    winner: Winner, histories: list[plots.LearningCurve], folder: Path, *, report: Report
) -> Evaluation:
    """Score the winner on the test split, draw how it did, and write what it predicts.

    `predictions.csv` has the columns split, name, label and probability, for val and test. Those
    of val come from the trial itself, which val was held out from, even if it was trained again.

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
    predicted = [(data.val, winner.val_probabilities), (data.test, probabilities)]
    _write_predictions(folder / PREDICTIONS, predicted)
    labels, seed = data.test.labels, integer(config["seed"], BOOTSTRAP)
    scores, chosen = (
        metrics.evaluate(labels, probabilities, seed=seed, threshold=threshold)
        for threshold in (0.5, winner.decision.threshold)
    )
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
    names = [PREDICTIONS]
    for name, figure in figures.items():
        plots.save(figure, folder / "plots" / f"{name}.png")
        names.append(f"plots/{name}.png")
    return Evaluation(scores, chosen, labels, probabilities, tuple(names))


def _write_predictions(path: Path, predicted: Sequence[tuple[Split, Array]]) -> None:
    """Write the probabilities of splits, in the shortest digits that mean each float32."""
    rows: list[tuple[object, ...]] = [("split", "name", "label", "probability")]
    for split, probabilities in predicted:
        found = zip(split.names, split.labels, probabilities, strict=True)
        rows += [(split.name, *row) for row in found]
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        file.write(storage.as_csv(rows))


def keep_classifier(winner: Winner, folder: Path, *, own: str | None) -> str:
    """Return the file of the final classifier: the trial's own where that is the same.

    Args:
        winner: The trial that won.
        folder: The folder of the search.
        own: The file of the trial's classifier within it, if it was kept.
    """
    facts = winner.decision.facts(load_data(winner.config).class_names)
    is_same = own is not None and classifier_file.read_facts(folder / own) == facts
    if own and is_same and not winner.config["training"]["retrain"]:
        return own
    trial.write_classifier(winner.config, winner.weights, folder / CLASSIFIER, facts=facts)
    return CLASSIFIER


def write_preset(winner: Winner, choices: Mapping[str, str], folder: Path) -> Path:
    """Write the winner as a preset without ranges: `best.yaml` in the search's folder.

    Args:
        winner: The trial that won.
        choices: The option of each config group.
        folder: The folder of the search.
    """
    path = folder / "best.yaml"
    config = winner.config
    comment = _PRESET_COMMENT.format(
        number=winner.number,
        objective=config["objective"]["name"],
        score=winner.score,
        epoch=winner.best_epoch,
        options=presets.options(choices),
        path=shlex.quote(shown(path)),
    )
    path.write_text(presets.text(config, choices, epochs=winner.epochs, comment=comment))
    return path

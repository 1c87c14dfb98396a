"""The best trial of a search, or several: trained again if asked, scored on test once, kept."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pneumonia import files
from pneumonia.config import presets
from pneumonia.datasets.base import ImageData, Split
from pneumonia.datasets.cache import load_data
from pneumonia.evaluation import metrics, plots
from pneumonia.evaluation.metrics import Scores
from pneumonia.evaluation.objective import Objective
from pneumonia.models import classifier_file
from pneumonia.models.predictor import Predictor
from pneumonia.search.crown import Crowned, Ranked
from pneumonia.search.trials import Proposal
from pneumonia.seeding import BOOTSTRAP, integer
from pneumonia.shell import shown
from pneumonia.storage import readings
from pneumonia.storage.readings import Readings
from pneumonia.storage.search_folder import PREDICTIONS, SearchFolder
from pneumonia.storage.trial_record import distinct
from pneumonia.training import ensemble, network
from pneumonia.training.trial import Outcome, Report

Array = np.ndarray[Any, Any]


_PRESET_COMMENT = """\
The winner of a search, without ranges: trial {number}.
{note}On {where}: {objective} {score:.4f} at epoch {epoch}.
To train it again, to the same score:
  pneumonia {options}experiment={path}
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the winner did on the test split, which nothing was chosen by.

    Attributes:
        scores: The scores with their intervals, decided at 0.5 as MedMNIST does.
        chosen: The same, decided at the winner's own threshold.
        readings: How often the split was read, by all searches.
    """

    scores: Scores
    chosen: Scores
    readings: Readings

    def metrics(self) -> dict[str, float]:
        """Return the scores as plain numbers, those at the threshold beside those at 0.5."""
        own = {f"{name}{end}" for name in metrics.DECIDED for end in ("", "_low", "_high")}
        chosen = {name: value for name, value in self.chosen.flat().items() if name in own}
        return {
            **self.scores.flat("test_"),
            **{f"test_at_threshold_{name}": value for name, value in chosen.items()},
        }


@dataclass(frozen=True, slots=True)
class Won:
    """What a search that is completed has found.

    Attributes:
        data: The images.
        ranked: The trials that came to a score, the best first.
        failed: How many came to none.
        best: The winner.
        evaluation: How it did on test; None where that was not read.
        preset: The file that trains the best trial again.
    """

    data: ImageData
    ranked: Ranked
    failed: int
    best: Crowned
    evaluation: Evaluation | None
    preset: Path

    def load(self) -> Predictor:
        """Return the final classifier."""
        return ensemble.assemble(self.best.members)


def evaluate(
    best: Crowned, ranked: Ranked, folder: Path, *, report: Report
) -> tuple[Evaluation | None, list[str]]:
    """Score the winner on the test split if asked, draw how it did, and write what it predicts.

    `predictions.csv` has the columns split, name, label and probability, for val and test. Those
    of val come from the trial itself, which val was held out from, even if it was trained again.

    Args:
        best: The winner.
        ranked: The trials, the best first, whose learning curves to draw.
        folder: The folder of the search; pictures go to `plots` within it.
        report: Called with a text, how much is done and how much there is to do.

    Returns:
        How it did on test, None where that is not read; names of the files that were written,
        within the folder.
    """
    config, data = best.config, load_data(best.config)
    predicted, evaluation = [(data.val, best.probabilities)], None
    curves = plots.learning_curves(_curves(ranked), config["objective"]["name"])
    figures = {"learning_curves": curves}
    if config["winner"]["test"]:
        search_id = SearchFolder(folder).first_event().get("search_id", folder.name)
        counted = readings.note(data.name, data.test.digest, search_id)
        given = ensemble.predict(best.members, "test", report=report)
        probabilities = ensemble.mean(best.members, given)
        predicted.append((data.test, probabilities))
        evaluation, drawn = _score(best, data, probabilities, counted)
        figures |= drawn
    _write_predictions(folder / PREDICTIONS, predicted)
    for name, figure in figures.items():
        plots.save(figure, folder / "plots" / f"{name}.png")
    return evaluation, [PREDICTIONS, *(f"plots/{name}.png" for name in figures)]


def _score(
    best: Crowned, data: ImageData, probabilities: Array, counted: Readings
) -> tuple[Evaluation, dict[str, Figure]]:
    """Return how the winner did, by the probabilities (n,) that it gives for test, and draw it."""
    labels, seed = data.test.labels, integer(best.config["seed"], BOOTSTRAP)
    scores, chosen = (
        metrics.evaluate(labels, probabilities, seed=seed, threshold=threshold)
        for threshold in (0.5, best.decision.threshold)
    )
    worst = metrics.worst_errors(labels, probabilities)
    figures = {
        "confusion_matrix": plots.confusion_matrix(scores, data.class_names),
        "roc": plots.roc(labels, probabilities, scores),
        "precision_recall": plots.precision_recall(labels, probabilities, scores),
        "calibration": plots.calibration(labels, probabilities, scores),
        "errors": plots.error_sheet(
            list(data.test.images.read(worst)),
            labels[worst],
            probabilities[worst],
            [data.test.names[i] for i in worst],
            class_names=data.class_names,
        ),
    }
    return Evaluation(scores, chosen, counted), figures


def _curves(ranked: Ranked, most: int = 5) -> list[plots.LearningCurve]:
    """Return the learning curves of the best trials; promoted ones repeat hyperparameters."""
    return [
        plots.LearningCurve(
            label=f"trial {proposal.number}",
            epochs=range(1, len(outcome.history) + 1),
            metrics={
                name: [epoch[name] for epoch in outcome.history] for name in outcome.history[0]
            },
        )
        for proposal, outcome in distinct(ranked, lambda one: one[0].values)[:most]
    ]


def _write_predictions(path: Path, predicted: Sequence[tuple[Split, Array]]) -> None:
    """Write the probabilities of splits, in the shortest digits that mean each float32."""
    rows: list[tuple[object, ...]] = [("split", "name", "label", "probability")]
    for split, probabilities in predicted:
        found = zip(split.names, split.labels, probabilities, strict=True)
        rows += [(split.name, *row) for row in found]
    files.write_text(path, files.as_csv(rows), errors="surrogateescape")


def keep_classifier(best: Crowned, folder: Path, *, own: str | None) -> str:
    """Return the file of the final classifier: the trial's own where that is the same.

    Args:
        best: The winner.
        folder: The folder of the search.
        own: The file of the best trial's classifier within it, if it was kept.
    """
    config, facts = best.config, best.decision.facts(load_data(best.config).class_names)
    path = SearchFolder(folder).classifier
    if best.told:
        ensemble.write(best.members, path, facts=facts | {"members": best.told})
        return path.name
    is_same = own is not None and classifier_file.read_facts(folder / own) == facts
    if own and is_same and not config["training"]["retrain"]:
        return own
    network.write_classifier(config, best.members[0].weights, path, facts=facts)
    return path.name


def write_preset(
    best: Crowned, won: Proposal, outcome: Outcome, choices: Mapping[str, str], folder: Path
) -> Path:
    """Write the best trial as a preset without ranges: `best.yaml` in the search's folder."""
    config, path = best.config, SearchFolder(folder).preset
    objective = Objective(**config["objective"])
    comment = _PRESET_COMMENT.format(
        where=objective.where,
        number=won.number,
        note=f"The final classifier of the search is {best.told}.\n" if best.told else "",
        objective=objective.name,
        score=outcome.score,
        epoch=outcome.best_epoch,
        options=presets.options(choices),
        path=shlex.quote(shown(path)),
    )
    if outcome.status == "STOPPED":
        fits = {"executions_per_trial": max(1, outcome.fits)}
        config = {**config, "training": config["training"] | fits}
    files.write_text(path, presets.text(config, choices, epochs=won.epochs, comment=comment))
    return path

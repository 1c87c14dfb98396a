"""The best trial of a search, or several: trained again if asked, scored on test once, kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia import files
from pneumonia.artifacts import ArtifactStore
from pneumonia.config import presets
from pneumonia.datasets.base import ImageData, Split
from pneumonia.datasets.cache import load_data
from pneumonia.evaluation import metrics, plots, selection
from pneumonia.evaluation.metrics import Scores
from pneumonia.evaluation.thresholds import Decision
from pneumonia.models import classifier_file
from pneumonia.models.predictor import Predictor
from pneumonia.search.trials import Proposal
from pneumonia.seeding import BOOTSTRAP, integer
from pneumonia.shell import shown
from pneumonia.storage import members
from pneumonia.storage.members import Draw
from pneumonia.storage.search_folder import PREDICTIONS, SearchFolder
from pneumonia.storage.search_record import identity
from pneumonia.training import ensemble, inputs, network, trial
from pneumonia.training.ensemble import Member
from pneumonia.training.trial import Hooks, Outcome, Report, Task

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Ranked = Sequence[tuple[Proposal, Outcome]]


# Of how many candidates for each member the greedy selection draws.
_CANDIDATES = 3
_PRESET_COMMENT = """\
The winner of a search, without ranges: trial {number}.
{note}On val: {objective} {score:.4f} at epoch {epoch}.
To train it again, to the same score:
  pneumonia {options}experiment={path}
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the winner did on the test split, which nothing was chosen by.

    Attributes:
        scores: The scores with their intervals, decided at 0.5 as MedMNIST does.
        chosen: The same, decided at the winner's own threshold.
        files: Names of the files that were written, within the search's folder.
    """

    scores: Scores
    chosen: Scores
    files: tuple[str, ...]

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
        evaluation: How it did on test.
        preset: The file that trains the best trial again.
    """

    data: ImageData
    ranked: Ranked
    failed: int
    best: Crowned
    evaluation: Evaluation
    preset: Path

    def load(self) -> Predictor:
        """Return the final classifier."""
        return ensemble.assemble(self.best.members)


@dataclass(frozen=True, slots=True)
class Crowned:
    """The winner, ready to decide.

    Attributes:
        config: The whole configuration of the best trial, without ranges.
        members: What it is the mean of, or the best trial alone.
        decision: How it does.
        probabilities: What it gives for val, float32 (n,).
        draws: What each member adds; empty where it is the best trial alone.
    """

    config: Config
    members: tuple[Member, ...]
    decision: Decision
    probabilities: Array
    draws: tuple[Draw, ...] = ()


def candidates(ranked: Ranked, section: Mapping[str, Any]) -> Ranked:
    """Return the trials that may become members, the best first; the first is the best of all.

    They differ in their hyperparameters, of which Hyperband's trials share what they are promoted
    with, and have the images of the best.

    Args:
        ranked: The trials that came to a score, the best first.
        section: The config's section `winner`.
    """
    if section["members"] == 1:
        return ranked[:1]
    found: dict[str, tuple[Proposal, Outcome]] = {}
    for one in ranked:
        if _images(one[0]) == _images(ranked[0][0]):
            found.setdefault(identity(one[0].values), one)
    most = most_candidates(section)
    return list(found.values())[:most]


def most_candidates(section: Mapping[str, Any]) -> int:
    """Return how many candidates there are at the most, whose states are kept until the end."""
    members = int(section["members"])
    return members * (_CANDIDATES if section["selection"] == "greedy" and members > 1 else 1)


def shortfall(found: Ranked, section: Mapping[str, Any]) -> str:
    """Return what to tell where there are fewer candidates than members, or nothing."""
    if len(found) >= section["members"]:
        return ""
    return (
        f"winner.members is {section['members']}, but only {len(found)} of the trials that came to "
        "a score differ in their hyperparameters: the final classifier is of no more"
    )


def _images(proposal: Proposal) -> Config:
    return {key: value for key, value in proposal.values.items() if key.startswith("dataset.")}


def crown(
    found: Ranked, section: Mapping[str, Any], task: Callable[[Proposal], Task],
    store: ArtifactStore, hooks: Hooks,
) -> Crowned:  # fmt: skip
    """Return the winner with its weights, trained again on train and val if asked.

    Members, temperature and threshold are found with the trials' own weights, as is what it gives
    for val: a classifier that was trained on val too is surer of val than of other images.

    Args:
        found: The candidates.
        section: The config's section `winner`.
        task: Returns the task of a trial.
        store: Where the trials' states are.
        hooks: What is told meanwhile.

    Raises:
        StateError: A state is missing or damaged, and training again would not give the same.
    """
    report, trained = hooks.report, []
    for proposal, outcome in found:
        one = task(proposal)
        weights = trial.best_weights(one, store, hooks)
        trained.append(Member(one.config, weights, outcome.best_epoch, flips=section["flips"]))
    first = trained[0]
    if len(found) == 1 and not first.flips:
        made = network.decide(first.config, first.weights, report=report)
        alone = replace(first, weights=made.weights)
        best = Crowned(first.config, (alone,), made.decision, made.probabilities)
    else:
        best = _join(found, trained, section, report=report)
    if not best.config["training"]["retrain"]:
        return best
    again = ensemble.retrain(best.members, best.decision.temperature, report=report)
    return replace(best, members=tuple(again))


def _join(
    found: Ranked, trained: Sequence[Member], section: Mapping[str, Any], *, report: Report
) -> Crowned:
    """Select the members, decide how their mean decides, and note what each adds to it."""
    config = trained[0].config
    labels = load_data(config).val.labels
    weights = inputs.class_weights(labels, config["training"]["class_weight"])
    drawn = list(range(len(trained)))
    if section["selection"] == "greedy":
        given = ensemble.predict(trained, "val", report=report)
        drawn = selection.select(labels, given, most=section["members"], weights=weights)
    places = list(dict.fromkeys(drawn))
    chosen = [replace(trained[place], count=drawn.count(place)) for place in places]
    decision, chosen, own = ensemble.decide(config, chosen, report=report)
    of = dict(zip(places, own, strict=True))

    def measure(some: Sequence[int]) -> tuple[float, float]:
        p = np.mean([of[place] for place in some], axis=0)
        return ensemble.score(config, labels, p), selection.log_loss(labels, p, weights)

    draws = []
    for count, place in enumerate(drawn, start=1):
        proposal, both = found[place][0], (*measure([place]), *measure(drawn[:count]))
        draws.append(Draw(proposal.trial_id, proposal.number, *both))
    return Crowned(config, tuple(chosen), decision, ensemble.mean(chosen, own), tuple(draws))


def score(outcome: Outcome, best: Crowned) -> dict[str, float]:
    """Return the objective that the winner comes to on val; that of the best trial beside it."""
    name, alone = best.config["objective"]["name"], outcome.score or 0.0
    if not best.draws:
        return {name: alone}
    return {name: best.draws[-1].joined_score, members.BEST_TRIAL: alone}


def evaluate(best: Crowned, ranked: Ranked, folder: Path, *, report: Report) -> Evaluation:
    """Score the winner on the test split, draw how it did, and write what it predicts.

    `predictions.csv` has the columns split, name, label and probability, for val and test. Those
    of val come from the trial itself, which val was held out from, even if it was trained again.

    Args:
        best: The winner.
        ranked: The trials, the best first, whose learning curves to draw.
        folder: The folder of the search; pictures go to `plots` within it.
        report: Called with a text, how much is done and how much there is to do.
    """
    config, data = best.config, load_data(best.config)
    probabilities = ensemble.mean(
        best.members, ensemble.predict(best.members, "test", report=report)
    )
    predicted = [(data.val, best.probabilities), (data.test, probabilities)]
    _write_predictions(folder / PREDICTIONS, predicted)
    labels, seed = data.test.labels, integer(config["seed"], BOOTSTRAP)
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
        "learning_curves": plots.learning_curves(_curves(ranked), config["objective"]["name"]),
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
    return Evaluation(scores, chosen, tuple(names))


def _curves(ranked: Ranked, most: int = 5) -> list[plots.LearningCurve]:
    """Return the learning curves of the best trials; promoted ones repeat hyperparameters."""
    best: dict[str, tuple[Proposal, Outcome]] = {}
    for one in ranked:
        best.setdefault(identity(one[0].values), one)
    return [
        plots.LearningCurve(
            label=f"trial {proposal.number}",
            epochs=range(1, len(outcome.history) + 1),
            metrics={
                name: [epoch[name] for epoch in outcome.history] for name in outcome.history[0]
            },
        )
        for proposal, outcome in list(best.values())[:most]
    ]


def _write_predictions(path: Path, predicted: Sequence[tuple[Split, Array]]) -> None:
    """Write the probabilities of splits, in the shortest digits that mean each float32."""
    rows: list[tuple[object, ...]] = [("split", "name", "label", "probability")]
    for split, probabilities in predicted:
        found = zip(split.names, split.labels, probabilities, strict=True)
        rows += [(split.name, *row) for row in found]
    told = files.as_csv(rows).encode("utf-8", errors="surrogateescape")
    with files.atomic(path) as part:
        part.write_bytes(told)


def keep_classifier(best: Crowned, folder: Path, *, own: str | None) -> str:
    """Return the file of the final classifier: the trial's own where that is the same.

    Args:
        best: The winner.
        folder: The folder of the search.
        own: The file of the best trial's classifier within it, if it was kept.
    """
    config, facts = best.config, best.decision.facts(load_data(best.config).class_names)
    path = SearchFolder(folder).classifier
    if best.draws:
        told = facts | {"members": members.told(best.draws)}
        ensemble.write(best.members, path, facts=told)
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
    told = f"The final classifier of the search is {members.told(best.draws)}.\n"
    comment = _PRESET_COMMENT.format(
        number=won.number,
        note=told if best.draws else "",
        objective=config["objective"]["name"],
        score=outcome.score,
        epoch=outcome.best_epoch,
        options=presets.options(choices),
        path=shlex.quote(shown(path)),
    )
    with files.atomic(path) as part:
        text = presets.text(config, choices, epochs=won.epochs, comment=comment)
        part.write_text(text, encoding="utf-8")
    return path

"""Which trials become the winner: the best alone, or several whose mean is one classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pneumonia.artifacts import ArtifactStore
from pneumonia.datasets.cache import load_data
from pneumonia.evaluation import selection
from pneumonia.evaluation.objective import Objective
from pneumonia.evaluation.thresholds import Decision
from pneumonia.search.trials import Proposal
from pneumonia.storage import members
from pneumonia.storage.members import Draw
from pneumonia.storage.trial_record import distinct
from pneumonia.training import ensemble, held_out, inputs, network, trial
from pneumonia.training.ensemble import Member
from pneumonia.training.trial import Hooks, Outcome, Report, Task

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Ranked = Sequence[tuple[Proposal, Outcome]]

# Of how many candidates for each member the greedy selection draws.
_CANDIDATES = 3


@dataclass(frozen=True, slots=True)
class Crowned:
    """The winner, ready to decide.

    Attributes:
        config: The whole configuration of the best trial, without ranges.
        members: What it is the mean of, or the best trial alone.
        decision: How it does.
        probabilities: What is given for val, by what val was held out of, float32 (n,).
        draws: What each trial adds; empty where it is the best trial alone.
    """

    config: Config
    members: tuple[Member, ...]
    decision: Decision
    probabilities: Array
    draws: tuple[Draw, ...] = ()

    @property
    def told(self) -> str:
        """What it is the mean of, in words; empty where it is one model."""
        if len(self.members) > 1 and not self.draws:
            return f"the mean of the {len(self.members)} trainings of its trial"
        return members.told(self.draws)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A trial's models: its own, or with folds those of its fits; and what they give.

    Attributes:
        number: The trial's.
        held_out: What its fits gave out of fold, as of `ensemble.predict_held_out`; None where
            there are no folds.
    """

    trial_id: str
    number: int
    members: tuple[Member, ...]
    held_out: Array | None = None


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
    alike = [one for one in ranked if _images(one[0]) == _images(ranked[0][0])]
    return distinct(alike, lambda one: one[0].values)[: most_candidates(section)]


def most_candidates(section: Mapping[str, Any]) -> int:
    """Return how many candidates there are at the most, whose states are kept until the end."""
    count = int(section["members"])
    return count * (_CANDIDATES if section["selection"] == "greedy" and count > 1 else 1)


def shortfall(found: Ranked, section: Mapping[str, Any]) -> str:
    """Return what to tell where there are fewer candidates than members, or nothing."""
    if len(found) >= section["members"]:
        return ""
    return (
        f"winner.members is {section['members']}, but only {len(found)} of the trials that came to "
        "a score differ in their hyperparameters: the final classifier is of no more"
    )


def setback(outcome: Outcome, best: Crowned) -> str:
    """Return what to tell where the best trial alone does better than the winner, or nothing."""
    if not best.draws or outcome.score is None:
        return ""
    objective, joined = Objective(**best.config["objective"]), best.draws[-1].joined_score
    if objective.sign * joined >= objective.sign * outcome.score:
        return ""
    return (
        f"the final classifier, {best.told}, comes to {objective.name} {joined:.4f}; the best trial"
        f" alone, shown what it was trained on, to {outcome.score:.4f}"
    )


def _images(proposal: Proposal) -> Config:
    return {key: value for key, value in proposal.values.items() if key.startswith("dataset.")}


def crown(
    found: Ranked, section: Mapping[str, Any], task: Callable[[Proposal], Task],
    store: ArtifactStore, hooks: Hooks,
) -> Crowned:  # fmt: skip
    """Return the winner with its weights, trained again on train and val if asked.

    Members, temperature and threshold are found with the trials' own weights, as is what it gives
    for val: a classifier that was trained on val too is surer of val than of other images. With
    folds, they are found on what each fit gives for the fold that it was held out of.

    Args:
        found: The candidates.
        section: The config's section `winner`.
        task: Returns the task of a trial.
        store: Where the trials' states are.
        hooks: What is told meanwhile.

    Raises:
        StateError: A state is missing or damaged, and training again would not give the same.
    """
    trained = [_load(task(proposal), proposal, outcome, section, store, hooks)
               for proposal, outcome in found]  # fmt: skip
    first = trained[0].members[0]
    if len(trained) == 1 and trained[0].held_out is None and first.is_as_trained:
        made = network.decide(first.config, first.weights, report=hooks.report)
        alone = replace(first, weights=made.weights)
        best = Crowned(first.config, (alone,), made.decision, made.probabilities)
    else:
        best = _join(trained, section, report=hooks.report)
    if not best.config["training"]["retrain"]:
        return best
    again = ensemble.retrain(best.members, best.decision.temperature, report=hooks.report)
    return replace(best, members=tuple(again))


def _load(
    task: Task, proposal: Proposal, outcome: Outcome, section: Mapping[str, Any],
    store: ArtifactStore, hooks: Hooks,
) -> _Candidate:  # fmt: skip
    about = proposal.trial_id, proposal.number
    size, epoch = section["image_size"], outcome.best_epoch
    is_other = size != task.config["model"]["image_size"]
    seen = {"flips": section["flips"], "image_size": size if is_other else None}
    if not task.config["objective"].get("folds"):
        weights = trial.best_weights(task, store, hooks)
        return _Candidate(*about, (Member(task.config, weights, epoch, **seen),))
    fits = trial.all_fits(task, store, hooks)
    models = tuple(Member(task.config, fit.best, epoch, **seen) for fit in fits)
    given = [fit.predicted for fit in fits]
    return _Candidate(*about, models, ensemble.predict_held_out(models, given, report=hooks.report))


def _join(trained: Sequence[_Candidate], section: Mapping[str, Any], *, report: Report) -> Crowned:
    """Select the members, decide how their mean decides, and note what each adds to it."""
    config = trained[0].members[0].config
    labels = held_out.labels(config)
    weights = inputs.class_weights(labels, inputs.class_rule(config))
    drawn = list(range(len(trained)))
    if section["selection"] == "greedy" and len(trained) > 1:
        given = [_predict(one, report) for one in trained]
        drawn = selection.select(labels, given, most=section["members"], weights=weights)
    places = list(dict.fromkeys(drawn))
    counts = [drawn.count(place) for place in places]
    decision, chosen, own = _decide([trained[place] for place in places], counts, config, report)
    of = dict(zip(places, own, strict=True))

    def measure(some: Sequence[int]) -> tuple[float, float]:
        p = np.mean([of[place] for place in some], axis=0)
        return ensemble.score(config, labels, p), selection.log_loss(labels, p, weights)

    is_new = config["training"]["retrain"]  # a single training of each
    draws = [
        Draw(trained[place].trial_id, trained[place].number, *measure([place]),
             *measure(drawn[:count]), 1 if is_new else len(trained[place].members),
             chosen[0].views, chosen[0].image_size)
        for count, place in enumerate(drawn, start=1)
    ]  # fmt: skip
    mean = np.mean([of[place] for place in drawn], axis=0).astype(own[0].dtype)
    is_mean = len(trained) > 1 or not all(one.is_as_trained for one in chosen)
    val = mean[-len(load_data(config).val) :]
    return Crowned(config, tuple(chosen), decision, val, tuple(draws) if is_mean else ())


def _decide(
    trained: Sequence[_Candidate], counts: Sequence[int], config: Config, report: Report
) -> tuple[Decision, list[Member], list[Array]]:
    """Return how the mean decides, its members, and what each trial gives."""
    shares = ensemble.even(counts, [len(one.members) for one in trained])
    chosen = [
        replace(one, count=share)
        for candidate, share in zip(trained, shares, strict=True)
        for one in candidate.members
    ]
    given = [one.held_out for one in trained if one.held_out is not None]
    if not given:
        return ensemble.decide(config, chosen, report=report)
    decision, chosen, own = ensemble.decide_held_out(config, chosen, given, counts)
    if config["training"]["retrain"]:  # one training on all images for each trial
        pairs = zip(trained, counts, strict=True)
        chosen = [replace(one.members[0], count=count) for one, count in pairs]
    return decision, chosen, own


def _predict(one: _Candidate, report: Report) -> Array:
    if one.held_out is not None:
        return np.mean(one.held_out, axis=0)  # type: ignore[no-any-return]
    return ensemble.predict(one.members, "val", report=report)[0]


def score(outcome: Outcome, best: Crowned) -> dict[str, float]:
    """Return the objective that the winner comes to; that of the best trial beside it.

    A trial's has its standard deviation, where there are several fits.
    """
    name, alone = best.config["objective"]["name"], outcome.score or 0.0
    own = members.BEST_TRIAL if best.draws else name
    spread = {} if outcome.spread is None else {f"{own}_std": outcome.spread}
    joined = {name: best.draws[-1].joined_score} if best.draws else {}
    return {**joined, own: alone, **spread}

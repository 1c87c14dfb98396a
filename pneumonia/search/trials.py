"""What a search says of itself: to the user before it begins, to its journal, to its report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia import tables
from pneumonia.config import presets
from pneumonia.config.search_space import GROUPS
from pneumonia.config.validate import flatten
from pneumonia.console import summary
from pneumonia.console.progress import Progress
from pneumonia.datasets.base import ImageData, Split
from pneumonia.errors import without_passwords
from pneumonia.evaluation import plots, thresholds
from pneumonia.search.executors import Failure
from pneumonia.search.oracle import Proposal
from pneumonia.search.plan import Plan
from pneumonia.search.winner import Evaluation, Winner
from pneumonia.shell import commands, shown
from pneumonia.storage.provenance import provenance
from pneumonia.training.trial import Result

Config = dict[str, Any]

_LOOKED_AT = 8  # images of a split, for their shapes


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial that has come to its end."""

    proposal: Proposal
    config: Config
    outcome: Result | Failure

    @property
    def score(self) -> float | None:
        """Its objective, or None where it failed."""
        return self.outcome.score if isinstance(self.outcome, Result) else None

    @property
    def best_epoch(self) -> int:
        """The epoch at which it had that score, or 0."""
        return self.outcome.best_epoch if isinstance(self.outcome, Result) else 0

    def row(self) -> summary.Row:
        """Return its row in the table of the best trials."""
        seconds = self.outcome.seconds if isinstance(self.outcome, Result) else 0.0
        proposal = self.proposal
        score = self.score or 0.0
        return summary.Row(proposal.number, score, proposal.values, self.best_epoch, seconds)

    def curve(self) -> plots.LearningCurve:
        """Return its learning curve."""
        past = self.outcome.history if isinstance(self.outcome, Result) else ()
        names = past[0] if past else {}
        return plots.LearningCurve(
            label=f"trial {self.proposal.number}",
            epochs=range(1, len(past) + 1),
            metrics={name: [metrics[name] for metrics in past] for name in names},
        )


def show_trial(progress: Progress, proposal: Proposal, config: Config, expected: int) -> None:
    """Show that a trial begins, of as many as are expected."""
    progress.trial(
        proposal.number,
        max(expected, proposal.number),
        proposal.values,
        epochs=proposal.epochs,
        executions=int(config["training"]["executions_per_trial"]),
    )


def show_replayed(progress: Progress, ended: Ended, objective: str) -> None:
    """Show what came of a trial that had ended before this search was gone on with."""
    outcome = ended.outcome if isinstance(ended.outcome, Result) else None
    progress.replayed(
        ended.proposal.number,
        ended.proposal.values,
        ended.score,
        epochs=ended.proposal.epochs,
        executions=int(ended.config["training"]["executions_per_trial"]),
        curve=[metrics[objective] for metrics in outcome.history] if outcome else (),
        seconds=outcome.seconds if outcome else math.nan,
    )


def distinct(ranked: Sequence[Ended]) -> list[Ended]:
    """Return the best trial of each set of hyperparameters: promoted trials repeat them."""
    found: dict[str, Ended] = {}
    for ended in ranked:
        found.setdefault(repr(sorted(ended.proposal.values.items())), ended)
    return list(found.values())


def arguments(config: Config, proposal: Proposal) -> Config:
    """Return every argument of a trial, pinned ones too, by its dotted path, and its epochs."""
    return flatten({group: config[group] for group in GROUPS}) | {"epochs": proposal.epochs}


def what_next(preset: Path, choices: Mapping[str, str], *, page: Path) -> tuple[str, str]:
    """Return the commands that come after a search, and where its report is."""
    prefix, ui = commands()
    options = presets.options(choices)
    told = summary.next_commands(shown(preset), prefix=prefix, ui=ui, options=options)
    return told, f"The report, for a browser: {shown(page)}\n"


def ending(outcome: Result | Failure) -> Config:
    """Return what the journal says of the end of a trial, beside its id."""
    if isinstance(outcome, Failure):
        told = {"reason": outcome.reason, "traceback": outcome.traceback}
        fields: Config = {name: without_passwords(text) for name, text in told.items()}
        fields |= {"score": None, "metrics": {}, "classifier": None, "seconds": 0.0}
        return {"status": "FAILED", **fields}
    return {
        "status": "COMPLETED",
        "reason": "",
        "traceback": "",
        "score": outcome.score,
        "metrics": outcome.metrics | {"best_epoch": outcome.best_epoch},
        "classifier": outcome.classifier,
        "seconds": outcome.seconds,
    }


def beginning(
    data: ImageData,
    choices: Mapping[str, str],
    params: Config,
    *,
    source: Mapping[str, str] | None = None,
) -> Config:
    """Return what the journal says first of a search, beside its id and its files.

    Args:
        data: The dataset.
        choices: The option of each config group.
        params: The flat config.
        source: Id and folder of the search that it was forked from, if any.
    """
    names = _names(choices)
    facts = {
        "class_names": json.dumps(list(data.class_names)),
        "choices": json.dumps(dict(choices)),
    }
    origin = {"forked_from": source["search_id"]} if source else {}
    return {
        "name": "-".join(names[group] for group in ("tuner", "model", "dataset")),
        "choices": dict(choices),
        "tags": names | provenance() | facts | origin,
        "forked_from": source,
        "params": params,
        "datasets": [_dataset(data, split) for split in (data.train, data.val, data.test)],
        "duplicates": dict(data.duplicates),
        "notes": list(data.notes),
    }


def prospect(
    data: ImageData,
    choices: Mapping[str, str],
    plan: Plan,
    folder: Path,
) -> str:
    """Return the lines that say, before the first trial, what is about to happen.

    Args:
        data: The dataset.
        choices: The option of each config group.
        plan: The trials, their time and their space on disk.
        folder: The folder of the search.
    """
    names = _names(choices)
    splits = (data.train, data.val, data.test)
    sizes = ", ".join(f"{len(split):,} {split.name}" for split in splits)
    lines = [plan.headline(), f"{names['dataset']}: {sizes} images from {_source(data)}"]
    for pair, count in data.duplicates.items():
        first, second = pair.split("/")
        if count:
            lines.append(f"warning: {count} images of {second} are also in {first}")
    for pair, count in data.shared_patients.items():
        first, second = pair.split("/")
        if count:
            lines.append(f"warning: {count} patients of {second} are also in {first}")
    lines += [f"warning: {note}" for note in data.notes]
    return "\n".join([*lines, plan.footprint(), f"results go to {shown(folder)}"])


def facts(data: ImageData, folder: Path) -> dict[str, object]:
    """Return what the note on a search tells beside winner and scores."""
    shared = {"Images": data.duplicates, "Patients": data.shared_patients}
    return {
        "Dataset": f"{data.name}, {_source(data)}",
        **{
            f"{what} in two splits": ", ".join(f"{n} in {pair}" for pair, n in counts.items())
            for what, counts in shared.items()
            if counts
        },
        **({"Images to look at": "; ".join(data.notes)} if data.notes else {}),
        "Folder": shown(folder),
    }


def scores_table(winner: Winner, evaluation: Evaluation) -> tables.Table:
    """Return the table of a winner's scores, at 0.5 and at its own threshold."""
    prevalence = winner.config["threshold"]["prevalence"]
    how = thresholds.decided(winner.decision, evaluation.chosen, prevalence=prevalence)
    if winner.config["training"]["retrain"]:
        how.append("Threshold and temperature are those of the trial before it was trained on val.")
    return summary.scores_table(evaluation.scores, chosen=evaluation.chosen, decision=how)


def _names(choices: Mapping[str, str]) -> dict[str, str]:
    return {group: choices.get(group, "") for group in ("dataset", "model", "tuner")}


def _dataset(data: ImageData, split: Split) -> Config:
    return {
        "name": data.name,
        "split": split.name,
        "digest": split.digest,
        "size": len(split),
        "source": _source(data),
        "positives": int(split.labels.sum()),
        "shapes": _shapes(split),
    }


def _source(data: ImageData) -> str:
    return without_passwords(data.source)


def _shapes(split: Split) -> list[list[int]]:
    """Return the different shapes of some images across a split: to read all would take long."""
    some = np.linspace(0, len(split) - 1, min(len(split), _LOOKED_AT)).astype(int)
    return sorted(map(list, {image.shape for image in split.images.read(some)}))

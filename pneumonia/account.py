"""What a search says of itself: to the user before it begins, to its journal, to its report."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumonia import plots, report
from pneumonia.config import flatten
from pneumonia.data import ImageData, Split
from pneumonia.executors import Failure
from pneumonia.oracle import Proposal
from pneumonia.provenance import provenance
from pneumonia.space import GROUPS
from pneumonia.tracking import disk_estimate, redact
from pneumonia.trial import Result
from pneumonia.winner import shown

Config = dict[str, Any]


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

    def row(self) -> report.Row:
        """Return its row in the table of the best trials."""
        seconds = self.outcome.seconds if isinstance(self.outcome, Result) else 0.0
        proposal = self.proposal
        score = self.score or 0.0
        return report.Row(proposal.number, score, proposal.values, self.best_epoch, seconds)

    def curve(self) -> plots.History:
        """Return its learning curve."""
        past = self.outcome.history if isinstance(self.outcome, Result) else ()
        names = past[0] if past else {}
        return plots.History(
            label=f"trial {self.proposal.number}",
            epochs=range(1, len(past) + 1),
            metrics={name: [metrics[name] for metrics in past] for name in names},
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


def beginning(data: ImageData, choices: Mapping[str, str], params: Config) -> Config:
    """Return what the journal says first of a search, beside its id and its files."""
    names = _names(choices)
    if uri := params.get("tracking.uri"):
        params = params | {"tracking.uri": redact(uri)}
    return {
        "name": "-".join(names[group] for group in ("tuner", "model", "dataset")),
        "choices": dict(choices),
        "tags": names | provenance() | {"class_names": json.dumps(list(data.class_names))},
        "params": params,
        "datasets": [_dataset(data, split) for split in (data.train, data.val, data.test)],
    }


def prospect(
    data: ImageData,
    choices: Mapping[str, str],
    *,
    trials: int,
    epochs: int,
    is_search: bool,
    classifier_bytes: int,
    log_models: str,
    folder: Path,
) -> str:
    """Return the lines that say, before the first trial, what is about to happen.

    Args:
        data: The dataset.
        choices: The option of each config group.
        trials: How many trials are expected; 0 if unknown.
        epochs: How many epochs at the most.
        is_search: Whether there is anything to search.
        classifier_bytes: The size of the largest classifier.
        log_models: Which classifiers are kept.
        folder: The folder of the search.
    """
    names = _names(choices)
    splits = (data.train, data.val, data.test)
    sizes = ", ".join(f"{len(split):,} {split.name}" for split in splits)
    lines = [f"{names['dataset']}: {sizes} images from {data.source}"]
    for pair, count in data.duplicates.items():
        first, second = pair.split("/")
        if count:
            lines.append(f"warning: {count} images of {second} are also in {first}")
    if is_search:
        many = f"{trials} trials, at most {epochs} epochs" if trials else "trials without an end"
        lines.append(f"{names['tuner']} over {names['model']}: {many}")
    else:
        lines.append(f"nothing to search: one training of at most {epochs} epochs")
    space = disk_estimate(max(trials, 1), classifier_bytes, log_models=log_models) / 1e6
    size = f"{space:,.{0 if space >= 10 else 1}f} MB"
    lines.append(
        f"classifiers take up to {size} on disk (tracking.log_models={log_models}); "
        f"results go to {shown(folder)}"
    )
    return "\n".join(lines)


def commands() -> tuple[str, str]:
    """Return what goes before our commands to run them from here, and the one that opens MLflow."""
    folder = Path(sys.executable).parent
    is_on_path = shutil.which("pneumonia") is not None
    prefix = "" if is_on_path else f"{shown(folder, resolve=False)}/"
    has_target = "\nui:" in _read(Path("Makefile"))
    return prefix, "make ui" if has_target else f"{prefix}pneumonia-ui"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def facts(data: ImageData, folder: Path) -> dict[str, object]:
    """Return what the note on a search tells beside winner and scores."""
    doubles = ", ".join(f"{count} in {pair}" for pair, count in data.duplicates.items())
    return {
        "Dataset": f"{data.name}, {data.source}",
        "Images in two splits": doubles,
        "Folder": shown(folder),
    }


def _names(choices: Mapping[str, str]) -> dict[str, str]:
    return {group: choices.get(group, "") for group in ("dataset", "model", "tuner")}


def _dataset(data: ImageData, split: Split) -> Config:
    return {
        "name": data.name,
        "split": split.name,
        "digest": split.digest,
        "size": len(split),
        "source": data.source,
        "positives": int(split.labels.sum()),
    }

"""What a journal says of the trials of a search, for a search that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumonia import journal
from pneumonia.checkpoint import Metrics
from pneumonia.errors import ConfigError, UserError

CONFIG = "config.yaml"


@dataclass(slots=True)
class Past:
    """What is known of one trial.

    Attributes:
        values: Its arguments, as they were recorded.
        parent: The trial that it goes on from, or None.
        epochs: The metrics of its own epochs, by execution.
        reached: The epoch that an execution has come to, counted from the very beginning.
        ended: The event that ended it, or None.
    """

    values: dict[str, Any]
    parent: str | None = None
    epochs: dict[int, list[Metrics]] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    ended: dict[str, Any] | None = None

    def count(self, execution: int) -> int:
        """Return how many epochs of an execution are recorded."""
        return len(self.epochs.get(execution, ()))

    def add(self, execution: int, epoch: int, metrics: Metrics) -> None:
        """Add an epoch; one that a crash made the trial repeat counts once."""
        if epoch > self.reached.get(execution, 0):
            self.reached[execution] = epoch
            self.epochs.setdefault(execution, []).append(metrics)


@dataclass(slots=True)
class History:
    """What is known of a search.

    Attributes:
        started: The first event, or None where there is none yet.
        trials: The trials by their id, in the order in which they started.
        is_completed: Whether the search has come to its end.
    """

    started: dict[str, Any] | None = None
    trials: dict[str, Past] = field(default_factory=dict)
    is_completed: bool = False

    def curve(self, trial_id: str, execution: int = 0) -> tuple[Metrics, ...]:
        """Return the metrics of all the epochs of a trial, those before its promotions first."""
        past = self.trials[trial_id]
        before = self.curve(past.parent, execution) if past.parent else ()
        return (*before, *past.epochs.get(execution, ()))


def read(folder: Path) -> History:
    """Return what the journal in a search's folder says."""
    history = History()
    for event in journal.read(folder):
        match event["kind"]:
            case "search_started":
                history.started = history.started or event
            case "trial_started":
                past = Past(event["values"], event["tags"].get("promoted_from"))
                history.trials.setdefault(event["trial_id"], past)
            case "epoch_ended":
                past = history.trials[event["trial_id"]]
                past.add(event["execution"], event["epoch"], event["metrics"])
            case "trial_ended":
                history.trials[event["trial_id"]].ended = event
            case "search_ended":
                history.is_completed = event["status"] == "completed"
    return history


def resumed(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Path, DictConfig, dict[str, str]]:
    """Return folder, configuration and choices of the search to go on with.

    Args:
        cfg: The configuration of the command, whose `resume` names the search.
        overrides: The command's overrides; those of tracking and executor count.

    Raises:
        ConfigError: Where there is no such search.
    """
    try:
        folder = find(str(cfg.resume), Path("outputs"))
    except FileNotFoundError as error:
        expected = "`last`, or the id of a search under outputs that has not completed"
        raise ConfigError("resume", expected, cfg.resume) from error
    own = OmegaConf.load(folder / CONFIG)
    if not isinstance(own, DictConfig):
        raise UserError(f"{folder / CONFIG} is not the configuration of a search.")
    for override in overrides:
        path = override.lstrip("+~").partition("=")[0]
        if path.split(".")[0] in ("tracking", "executor"):
            OmegaConf.update(own, path, OmegaConf.select(cfg, path), merge=False)
    choices = (read(folder).started or {}).get("choices", {})
    return folder, own, dict(choices)


def find(name: str, outputs: Path) -> Path:
    """Return the folder of a search by its id, or of the `last` one that has not completed.

    Raises:
        FileNotFoundError: Where there is none.
    """
    paths = outputs.glob(f"**/{journal.NAME}")
    folders = sorted((path.parent for path in paths), key=lambda folder: _started(folder))
    if name != "last":
        folders = [folder for folder in folders if _is_named(folder, name)]
    else:
        folders = [folder for folder in folders if not read(folder).is_completed]
    if not folders:
        raise FileNotFoundError(name)
    return folders[-1]


def _started(folder: Path) -> int:
    first = next(journal.read(folder), None)
    return int(first["time"]) if first else 0


def _is_named(folder: Path, name: str) -> bool:
    from pneumonia.tracking import search_run_id

    first = next(journal.read(folder), None)
    return first is not None and name in (first["search_id"], search_run_id(folder))

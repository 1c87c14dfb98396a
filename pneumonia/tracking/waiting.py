"""What waits to be sent of a trial, how far its epochs were sent, and what it has come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumonia.storage import search_record
from pneumonia.storage.journal import Event
from pneumonia.storage.offset import TrialRun
from pneumonia.storage.trial_record import fit_of
from pneumonia.tracking.mlflow_store import Point


@dataclass(slots=True)
class Waiting:
    """What is to be sent of one trial: together it costs less than piece by piece."""

    params: dict[str, Any] = field(default_factory=dict)
    _epochs: dict[tuple[str, int], list[Point]] = field(default_factory=dict)

    def add(self, event: Event, row: TrialRun) -> None:
        """Add an epoch, unless it was sent.

        A trial that went on from a checkpoint repeats what came after it.
        """
        fit, epoch = fit_of(event), int(event["epoch"])
        # As the files of earlier versions have it, which knew executions alone.
        key = f"{fit.fold}/{fit.execution}" if fit.fold else str(fit.execution)
        if epoch <= row.epochs.get(key, 0):
            return
        group = f"{fit.name}/" if fit.name else ""
        metrics = {group + name: value for name, value in event["metrics"].items()}
        self._epochs.setdefault((key, epoch), points_of(metrics, event["time"], step=epoch))

    def points(self) -> list[Point]:
        """Return all the points, in the order of their epochs."""
        return [point for points in self._epochs.values() for point in points]

    def note(self, row: TrialRun) -> None:
        """Note that they were sent."""
        for key, epoch in self._epochs:
            row.epochs[key] = max(epoch, row.epochs.get(key, 0))


def points_of(
    metrics: Mapping[str, Any], time: int, *, step: int = 0, model_id: str | None = None
) -> list[Point]:
    """Return a point for each metric that is a number; the time is in milliseconds since 1970."""
    found = [(name, value) for name, value in metrics.items() if isinstance(value, (int, float))]
    return [Point(name, float(value), time, step, model_id) for name, value in found]


def best_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a trial's best epoch by the names that they have in its run."""
    return {f"best_{name.removeprefix('best_')}": value for name, value in metrics.items()}


def scores_of_stopped(folder: Path, ending: Event) -> dict[str, Any]:
    """Return what a winner has won with that the budget has stopped before its own end.

    Args:
        folder: The folder of the search.
        ending: The event that ended the search.

    Returns:
        The metrics of its run; none where no winner was stopped.
    """
    search = search_record.from_journal(folder, last=ending["n"])
    if (trial := search_record.score_stopped(search)) is None:
        return {}
    metrics = search.best_curve(trial.trial_id)[trial.best_epoch - 1]
    return {"score": trial.score, **best_of(metrics), "best_epoch": trial.best_epoch}

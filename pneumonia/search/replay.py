"""What a search knows the end of without training: its own past, and that of its origin."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumonia.errors import UserError
from pneumonia.evaluation.objective import Metrics
from pneumonia.search import trials
from pneumonia.search.executors import Failure
from pneumonia.search.oracle import Proposal
from pneumonia.search.resume import Origin, needs
from pneumonia.search.trials import Ended
from pneumonia.storage import history, offset
from pneumonia.storage.history import History
from pneumonia.storage.journal import Event
from pneumonia.storage.offset import Cursor
from pneumonia.tracking.tracker import TrackingSettings, fetch_classifier
from pneumonia.training import trial
from pneumonia.training.trial import Result

Config = dict[str, Any]


def answer(past: History, proposal: Proposal, config: Config) -> Ended | None:
    """Return a trial that the journal knows the end of.

    Raises:
        UserError: Where the oracle now proposes something else than it did.
    """
    known = past.trials.get(proposal.trial_id)
    if known is None:
        return None
    if needs(known.values) != needs(trials.arguments(config, proposal)):
        raise UserError(
            f"Trial {proposal.trial_id} of this search had other values when it ran. The "
            "search cannot be resumed with this version of the program or its libraries."
        )
    if known.ended is None:
        return None
    if known.ended["status"] == "FAILED":
        return Ended(proposal, config, Failure(known.ended["reason"], known.ended["traceback"]))
    classifier = known.ended["classifier"]
    curve = past.curve(proposal.trial_id)
    return Ended(proposal, config, _result(known.ended, curve, classifier))


@dataclass(frozen=True, slots=True)
class Found:
    """A finished trial of another search with the arguments of a proposed one.

    Attributes:
        trial_id: Its name there.
        ended: The event that ended it.
        curves: The metrics of all its epochs, by execution.
    """

    trial_id: str
    ended: Event
    curves: dict[int, tuple[Metrics, ...]]

    def result(self, classifier: str | None) -> Result:
        """Return what came of it, with another file as its classifier."""
        return _result(self.ended, self.curves[0], classifier)


class Fork:
    """Owns what a search takes over from the one it was forked from.

    A trial is valid where it has come to a score and the new search proposes one with the same
    arguments, up to the same epoch. Files are shared, not moved: the other search stays whole.

    Args:
        origin: The other search.
        settings: Where its classifiers may be found that are no longer beside its journal.
        own: What is known of the new search, of a process before this one.
    """

    def __init__(self, origin: Origin, settings: TrackingSettings, own: History) -> None:
        self.origin, self._settings = origin, settings
        self._past = history.read(origin.folder)
        self._finished = {
            trial_id: past for trial_id, past in self._past.trials.items() if past.ended is not None
        }
        self._valid: dict[str, str] = {}
        for trial_id, past in self._finished.items():
            if not origin.reasons and past.ended and past.ended["status"] == "COMPLETED":
                self._valid.setdefault(_key(past.values), trial_id)
        sources = (past.source for past in own.trials.values())
        self._taken = {source.rpartition("/")[2] for source in sources if source}

    def find(self, proposal: Proposal, config: Config) -> Found | None:
        """Return the finished trial that a proposed one need not repeat."""
        trial_id = self._valid.get(_key(trials.arguments(config, proposal)))
        if trial_id is None:
            return None
        past = self._past.trials[trial_id]
        assert past.ended is not None
        curves = {e: self._past.curve(trial_id, e) for e in sorted(past.reached)}
        return Found(trial_id, past.ended, curves)

    def bring(self, found: Found, trial_id: str, folder: Path) -> str | None:
        """Share a trial's state and classifier with a search.

        Args:
            found: The trial.
            trial_id: Its name in the search that takes it over.
            folder: The folder of that search.

        Returns:
            The name of the classifier's file there; None where it is nowhere any more.
        """
        self._taken.add(found.trial_id)
        state = trial.state_path(self.origin.folder, found.trial_id)
        if state.exists():
            _share(state, trial.state_path(folder, trial_id))
        source = self._classifier(found)
        if source is None:
            return None
        name = f"classifiers/{trial_id}.keras"
        _share(source, folder / name)
        return name

    def opening(self) -> str:
        """Say what there is to take over, and what not and why."""
        count, valid = len(self._finished), len(self._valid)
        head = f"fork of {self.origin.search_id}: {valid} of its {_trials(count)} can be taken over"
        if self.origin.reasons:
            return "\n".join([f"{head}, because this has changed:", *self._indented()])
        return "\n".join([head, *(f"  not {line}" for line in self._invalid())])

    def closing(self) -> str:
        """Say what was taken over, and what was not and why."""
        head = f"taken over from {self.origin.search_id}: {_trials(len(self._taken))}"
        if self.origin.reasons:
            return f"{head}, none being valid"
        left = [
            f"trial {self._finished[trial_id].number}: this search did not ask for it"
            for trial_id in self._valid.values()
            if trial_id not in self._taken
        ]
        return "\n".join([head, *(f"  not {line}" for line in (*self._invalid(), *left))])

    def _indented(self) -> Iterator[str]:
        yield from (f"  {reason}" for reason in self.origin.reasons)

    def _invalid(self) -> Iterator[str]:
        """Yield the finished trials that cannot be taken over, each with the reason."""
        for past in self._finished.values():
            if past.ended and past.ended["status"] == "FAILED":
                yield f"trial {past.number}: it failed, and runs again"

    def _classifier(self, found: Found) -> Path | None:
        """Return the file of a trial's classifier: beside its journal, or in MLflow.

        One that decides by another threshold than the one asked for is none.
        """
        if not self.origin.decides_alike:
            return None
        name: str | None = found.ended["classifier"]
        if name and (self.origin.folder / name).exists():
            return self.origin.folder / name
        sent = self.origin.folder / offset.NAME
        row = Cursor.read(sent).trials.get(found.trial_id) if sent.exists() else None
        if row is None or row.model_id is None:
            return None
        try:
            path = fetch_classifier(f"models:/{row.model_id}", self._settings)
        except UserError:  # deleted there: the trial is worth having without it
            return None
        return path if path.exists() else None


def _result(ended: Event, curve: tuple[Metrics, ...], classifier: str | None) -> Result:
    metrics = dict(ended["metrics"])
    return Result(
        score=ended["score"],
        best_epoch=int(metrics.pop("best_epoch")),
        metrics=metrics,
        history=curve,
        seconds=ended["seconds"],
        classifier=classifier,
    )


def _key(arguments: Config) -> str:
    return json.dumps(needs(arguments), sort_keys=True)


def _share(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where it cannot have one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _trials(count: int) -> str:
    return f"{count} finished {'trial' if count == 1 else 'trials'}"

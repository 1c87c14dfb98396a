"""What a search knows the end of without training: its own past, and that of its origin."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pneumonia.artifacts import (
    FolderStore,
    SharedStore,
    classifier_key,
    shared_address,
    state_key,
    state_keys,
)
from pneumonia.errors import UserError
from pneumonia.evaluation.objective import Fit, Metrics
from pneumonia.files import StorageError
from pneumonia.search import trials
from pneumonia.search.changes import needs, searched
from pneumonia.search.resume import Origin
from pneumonia.search.trials import Proposal
from pneumonia.storage import offset, provenance, search_record
from pneumonia.storage.journal import Event
from pneumonia.storage.offset import Cursor
from pneumonia.storage.search_record import SearchRecord
from pneumonia.training.trial import Outcome

Config = dict[str, Any]
Fetch = Callable[[str], Path]


def answer(past: SearchRecord, proposal: Proposal, config: Config) -> Outcome | None:
    """Return what came of a trial, where the journal knows its end.

    Raises:
        UserError: Where the oracle now proposes something else than it did.
    """
    known = past.trials.get(proposal.trial_id)
    if known is None:
        return None
    ranges = searched(past.params)
    if needs(known.values, ranges) != needs(trials.arguments(config, proposal), ranges):
        raise UserError(
            f"Trial {proposal.trial_id} of this search had other values when it ran. The "
            "search cannot be resumed with this version of the program or its libraries."
        )
    if known.ended is None:
        return None
    curve = past.best_curve(proposal.trial_id)
    return _outcome(known.ended, proposal.trial_id, curve, known.ended["classifier"])


def _outcome(
    ended: Event, trial_id: str, curve: tuple[Metrics, ...], classifier: str | None
) -> Outcome:
    metrics = dict(ended["metrics"])
    return Outcome(
        trial_id,
        ended["status"],
        score=ended["score"],
        best_epoch=int(metrics.pop("best_epoch", 0)),
        metrics=metrics,
        history=curve if ended["status"] == "COMPLETED" else (),
        seconds=ended["seconds"],
        classifier=classifier,
        reason=ended["reason"],
        traceback=ended["traceback"],
        spread=ended.get("spread"),
    )


class Fork:
    """Owns what a search takes over from the one it was forked from.

    A trial is valid where it has come to a score and the new search proposes one with the same
    arguments, up to the same epoch. Where the new search has no other trials (`Origin.trials`),
    those that failed there, or that the budget has stopped, are valid, too. Files are shared, not
    moved: the other search stays whole.

    Args:
        origin: The other search.
        own: What is known of the new search, of a process before this one.
        fetch: Gets a classifier that is no longer beside the journal, by its URI in MLflow.
    """

    def __init__(self, origin: Origin, own: SearchRecord, fetch: Fetch | None) -> None:
        self.origin, self._fetch = origin, fetch
        self._past = search_record.from_journal(origin.folder)
        self._finished = {
            trial_id: past for trial_id, past in self._past.trials.items() if past.ended is not None
        }
        self._unrepeatable = provenance.other_machine(self._past.tags)
        self._shared = None if origin.reasons else _shared_states(self._past)
        self._valid: dict[str, str] = {}
        for trial_id, past in self._past.trials.items():
            is_known = past.ended is not None
            if origin.trials is not None and past.curves:  # the budget may have stopped it
                is_known = is_known or self._has_state(trial_id)
            if is_known and not origin.reasons and not self._why_not(trial_id):
                self._valid.setdefault(self._key(past.values), trial_id)
        self._begun = {trial_id for trial_id, past in own.trials.items() if past.curves}
        sources = (past.source for past in own.trials.values())
        self._taken = {source.rpartition("/")[2] for source in sources if source}

    def find(self, proposal: Proposal, config: Config) -> str | None:
        """Return the id of the trial that a proposed one need not repeat."""
        found = self._valid.get(self._key(trials.arguments(config, proposal)))
        has_ended = found is None or self._past.trials[found].ended is not None
        # One that was stopped there, and has begun here, has come further since.
        return found if has_ended or proposal.trial_id not in self._begun else None

    def curves(self, trial_id: str) -> dict[Fit, tuple[Metrics, ...]]:
        """Return the metrics of all the epochs of a trial there."""
        reached = sorted(self._past.trials[trial_id].reached)
        return {fit: self._past.curve(trial_id, fit) for fit in reached}

    def bring(
        self, found: str, trial_id: str, folder: Path, *, with_classifier: bool
    ) -> Outcome | None:
        """Share a trial's state and classifier with a search; return what came of it.

        Of one that the budget has stopped, that is nothing yet.

        Args:
            found: The trial.
            trial_id: Its name in the search that takes it over.
            folder: The folder of that search.
            with_classifier: Whether that search keeps the classifiers of its trials.
        """
        self._taken.add(found)
        fits = len(self._past.trials[found].reached)
        for state, own in zip(state_keys(found, fits), state_keys(trial_id, fits), strict=True):
            if (self.origin.folder / state).exists():
                _share(self.origin.folder / state, folder / own)
            elif self._shared:
                self._shared.fetch(state, folder / own)
        ended = self._past.trials[found].ended
        if ended is None:
            return None
        key = None
        if with_classifier and (source := self._classifier(found, ended["classifier"])):
            key = classifier_key(trial_id)
            _share(source, folder / key)
        return _outcome(ended, trial_id, self._past.best_curve(found), key)

    def opening(self) -> str:
        """Say what there is to take over, and what not and why."""
        count, valid = len(self._finished), len(self._finished.keys() & self._valid.values())
        head = f"fork of {self.origin.search_id}: {valid} of its {_trials(count)} can be taken over"
        if self.origin.reasons:
            reasons = (f"  {reason}" for reason in self.origin.reasons)
            return "\n".join([f"{head}, because this has changed:", *reasons])
        is_same = self.origin.trials is not None
        more = ["nothing has changed that they depend on: no others are trained"] if is_same else []
        return "\n".join([head, *self._invalid(), *more])

    def closing(self) -> str:
        """Say what was taken over, and what was not and why."""
        count = len(self._finished.keys() & self._taken)
        head = f"taken over from {self.origin.search_id}: {_trials(count)}"
        if self.origin.reasons:
            return f"{head}, none being valid"
        left = [
            f"  not trial {self._past.trials[trial_id].number}: this search did not ask for it"
            for trial_id in self._valid.values()
            if trial_id not in self._taken
        ]
        return "\n".join([head, *self._invalid(), *left])

    def _invalid(self) -> Iterator[str]:
        for trial_id, past in self._finished.items():
            if reason := self._why_not(trial_id):
                yield f"  not trial {past.number}: {reason}, and runs again"

    def _key(self, arguments: Config) -> str:
        return json.dumps(needs(arguments, self.origin.searched), sort_keys=True)

    def _why_not(self, trial_id: str) -> str:
        """Say why a trial cannot be taken over, or nothing."""
        if self._past.trials[trial_id].status == "failed":
            return "it failed" if self.origin.trials is None else ""
        # What wins without its state is trained again, which has to give the same.
        if not self._unrepeatable or self._has_state(trial_id):
            return ""
        return f"its state is gone, and {self._unrepeatable}"

    def _has_state(self, trial_id: str) -> bool:
        key = state_key(trial_id)
        is_beside = (self.origin.folder / key).exists()
        return is_beside or (self._shared is not None and self._shared.has(key))

    def _classifier(self, trial_id: str, name: str | None) -> Path | None:
        """Return the file of a trial's classifier: beside its journal, by its name, or in MLflow.

        One that decides by another threshold than the one asked for is none.
        """
        if not self.origin.decides_alike:
            return None
        if name and (self.origin.folder / name).exists():
            return self.origin.folder / name
        row = Cursor.read(self.origin.folder / offset.NAME).trials.get(trial_id)
        if row is None or row.model_id is None or self._fetch is None:
            return None
        try:
            path = self._fetch(f"models:/{row.model_id}")
        except UserError:  # deleted there: the trial is worth having without it
            return None
        return path if path.exists() else None


def _shared_states(past: SearchRecord) -> SharedStore | None:
    """Return where the machines of a search kept its states, if that can still be reached."""
    if not (address := past.params.get("executor.store")):
        return None
    place = shared_address(address, past.first["search_id"])
    with contextlib.suppress(StorageError, ImportError):
        found = SharedStore(place, folder=past.folder, others=FolderStore(past.folder))
        found.has(state_key("0000"))
        return found
    return None


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

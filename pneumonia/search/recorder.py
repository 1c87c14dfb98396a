"""What happens in a search, told to its journal by the threads in which its trials run."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pneumonia.datasets.base import ImageData, Split
from pneumonia.errors import without_passwords
from pneumonia.evaluation.objective import Fit, Metrics
from pneumonia.search import changes, trials
from pneumonia.search.trials import Proposal
from pneumonia.storage import search_folder, search_record
from pneumonia.storage.journal import Journal
from pneumonia.storage.provenance import provenance
from pneumonia.training.checkpoint import StateError
from pneumonia.training.trial import Outcome

Config = dict[str, Any]

_LOOKED_AT = 8  # images of a split, for their shapes


class Recorder:
    """Owns the journal of a search while it runs, and what is known of it by the journal.

    What a process before this one has recorded is not recorded again.

    Args:
        journal: The journal, which no other process has open.

    Attributes:
        past: What is known, kept up with.
        lock: Held while an event is recorded, and by those who read what is known, or do what has
            to follow, while trials run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.past = search_record.from_journal(journal.path.parent)
        self.lock = threading.RLock()

    def tell(self, kind: str, /, **fields: Any) -> None:
        """Record an event."""
        with self.lock:
            self.past.apply(self._journal.append(kind, **fields))

    def begin_search(
        self,
        data: ImageData,
        choices: Mapping[str, str],
        params: Config,
        *,
        source: Mapping[str, str] | None = None,
        further: Sequence[Config] = (),
    ) -> None:
        """Record that a search begins, unless it did in a process before this one.

        Args:
            data: The dataset.
            choices: The option of each config group.
            params: The flat config.
            source: Id and folder of the search that it was forked from, if any.
            further: What the images are at further places, as `changes.further_images` has it.
        """
        if self.past.started is not None:
            return
        names = {group: choices.get(group, "") for group in ("dataset", "model", "tuner")}
        facts = {
            "class_names": json.dumps(list(data.class_names)),
            "choices": json.dumps(dict(choices)),
        }
        origin = {"forked_from": source["search_id"]} if source else {}
        self.tell(
            "search_started",
            # With a letter first, no id reads as a number on the command line.
            search_id=f"s{uuid.uuid4().hex[:11]}",
            direction=params["objective.direction"],
            artifacts=[search_folder.CONFIG],
            name="-".join(names[group] for group in ("tuner", "model", "dataset")),
            choices=dict(choices),
            tags=names | provenance() | changes.code_of(params) | facts | origin,
            forked_from=source,
            params=params,
            datasets=[_dataset(data, split) for split in (data.train, data.val, data.test)],
            further_images=list(further),
            duplicates=dict(data.duplicates),
            notes=list(data.notes),
        )

    def begin_trial(self, proposal: Proposal, config: Config, **tags: str) -> None:
        """Record that a trial begins, unless it began in a process that was killed."""
        with self.lock:
            if proposal.trial_id not in self.past.trials:
                self.tell(
                    "trial_started",
                    trial_id=proposal.trial_id,
                    number=proposal.number,
                    name=f"trial {proposal.number}",
                    values=trials.arguments(config, proposal),
                    tags=proposal.tags | tags,
                )

    def add_epoch(self, trial_id: str, fit: Fit, epoch: int, metrics: Metrics) -> bool:
        """Record an epoch, unless a process that was killed has; return whether it is new."""
        with self.lock:
            if not self.past.trials[trial_id].lacks(fit, epoch):
                return False
            fields = {**fit._asdict(), "epoch": epoch, "metrics": dict(metrics)}
            self.tell("epoch_ended", trial_id=trial_id, **fields)
            return True

    def begun_at(self, trial_id: str, fit: Fit) -> int:
        """Return the epoch that a trial goes on from, which is its parent's."""
        parent = self.past.trials[trial_id].parent
        return len(self.past.curve(parent, fit)) if parent else 0

    def check_epoch(self, trial_id: str, fit: Fit, epoch: int, metrics: Metrics) -> None:
        """Compare an epoch that is trained again with the one that was recorded.

        Raises:
            StateError: It is another one.
        """
        known = self.past.curve(trial_id, fit)[epoch - 1 : epoch]
        if known and repr(known[0]) != repr(dict(metrics)):
            of = f" of {fit.name}" if fit.name else ""
            raise StateError(
                "A state of this trial is lost, and training again gives something else: epoch "
                f"{epoch}{of} is not the one in the journal."
            )

    def end_trial(self, outcome: Outcome) -> None:
        """Record what came of a trial."""
        self.tell("trial_ended", trial_id=outcome.trial_id, **ending(outcome))


def ending(outcome: Outcome) -> Config:
    """Return what the journal says of the end of a trial, beside its id."""
    has_score = outcome.status == "COMPLETED"
    return {
        "status": outcome.status,
        "reason": without_passwords(outcome.reason),
        "traceback": without_passwords(outcome.traceback),
        "score": outcome.score,
        "metrics": outcome.metrics | {"best_epoch": outcome.best_epoch} if has_score else {},
        "classifier": outcome.classifier,
        "seconds": outcome.seconds,
        **({} if outcome.spread is None else {"spread": outcome.spread}),
    }


def _dataset(data: ImageData, split: Split) -> Config:
    return {
        "name": data.name,
        "split": split.name,
        "digest": split.digest,
        "size": len(split),
        "source": without_passwords(data.source),
        "positives": int(split.labels.sum()),
        "shapes": _shapes(split),
    }


def _shapes(split: Split) -> list[list[int]]:
    """Return the different shapes of some images across a split: to read all would take long."""
    some = np.linspace(0, len(split) - 1, min(len(split), _LOOKED_AT)).astype(int)
    return sorted(map(list, {image.shape for image in split.images.read(some)}))

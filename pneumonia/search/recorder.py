"""What happens in a search, told to its journal by the threads in which its trials run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from pneumonia.search import trials
from pneumonia.search.oracle import Proposal
from pneumonia.storage import history
from pneumonia.storage.journal import Journal

Config = dict[str, Any]


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
        self.past = history.read(journal.path.parent)
        self.lock = threading.RLock()

    def tell(self, kind: str, /, **fields: Any) -> None:
        """Record an event."""
        with self.lock:
            self.past.apply(self._journal.append(kind, **fields))

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

    def add_epoch(
        self, trial_id: str, execution: int, epoch: int, metrics: Mapping[str, float]
    ) -> bool:
        """Record an epoch, unless a process that was killed has; return whether it is new."""
        with self.lock:
            if not self.past.trials[trial_id].lacks(execution, epoch):
                return False
            fields = {"execution": execution, "epoch": epoch, "metrics": dict(metrics)}
            self.tell("epoch_ended", trial_id=trial_id, **fields)
            return True

"""What listens to a search: a base class to override, and who calls it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pneumonia import terminal
from pneumonia.errors import without_passwords
from pneumonia.evaluation.objective import Fit, Metrics, Objective
from pneumonia.search.trials import Proposal

if TYPE_CHECKING:
    from pneumonia.datasets.base import ImageData
    from pneumonia.search.plan import Plan
    from pneumonia.search.winner import Won
    from pneumonia.training.trial import Outcome

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SearchInfo:
    """A search that begins, or goes on.

    Attributes:
        cfg: Its configuration, with its ranges.
        folder: Its folder.
        choices: The option of each config group.
        objective: What its trials are ranked by.
        say: Tells the user a line.
    """

    cfg: DictConfig
    folder: Path
    choices: Mapping[str, str]
    objective: Objective
    say: Callable[[str], None]


@dataclass(slots=True)
class SearchEnd:
    """How a search ends.

    Attributes:
        status: `completed`, `interrupted` or `failed`.
        reason: Why it ends before its plan does; empty where it does not.
        winner: The trial that won, or None.
        metrics: Scores, counts, seconds by phase.
        artifacts: Names of files in its folder; a listener may add some in `search_ending`.
        classifier: The file of the final classifier in its folder, or None.
        description: A note on it in Markdown, as MLflow shows it.
        won: What is known of the winner, of a search that is completed.
    """

    status: str
    reason: str = ""
    winner: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    classifier: str | None = None
    description: str = ""
    won: Won | None = None

    def fields(self) -> Config:
        """Return what the journal says of it."""
        names = ("status", "reason", "winner", "metrics", "artifacts", "classifier", "description")
        won, fields = self.won, {name: getattr(self, name) for name in names}
        evaluation = won.evaluation if won else None
        fields["test_readings"] = asdict(evaluation.readings) if evaluation else {}
        if won and won.best.draws:
            fields["members"] = [draw.fields() for draw in won.best.draws]
        return fields


class SearchCallback:
    """What is told of a search while it runs; here nothing is done with it.

    The journal has what is told already. Whatever a callback does, the search comes to the same:
    one that raises an error is warned of and called no more, but to close it. Its methods are
    called one at a time, from several threads.
    """

    name = ""

    def search_opened(self, search: SearchInfo) -> None:
        """A search begins, or goes on; nothing has been read yet."""

    def search_started(self, data: ImageData, plan: Plan, notes: Sequence[str]) -> None:
        """Its trials are about to run: the images, what there is to do, lines to tell."""

    def phase(self, text: str) -> None:
        """Something else than training goes on, as 'features of train 1200/4708'."""

    def message(self, text: str) -> None:
        """There is something to tell the user, in lines."""

    def trial_started(self, proposal: Proposal, config: Config) -> None:
        """A trial begins, or goes on; its configuration is without ranges."""

    def epoch_ended(self, proposal: Proposal, fit: Fit, epoch: int, metrics: Metrics) -> None:
        """An epoch of a trial has ended: absolute, from 1."""

    def epoch_replayed(self, proposal: Proposal, fit: Fit, epoch: int, metrics: Metrics) -> None:
        """An epoch of a trial that goes on had ended in an earlier process."""

    def trial_ended(self, proposal: Proposal, outcome: Outcome) -> None:
        """A trial has come to a score, or failed."""

    def trial_replayed(self, proposal: Proposal, config: Config, outcome: Outcome) -> None:
        """A trial had ended in an earlier process."""

    def search_ending(self, end: SearchEnd) -> None:
        """The search is about to end: what is added to `end` goes into the journal."""

    def search_ended(self, end: SearchEnd) -> None:
        """The journal has the end of the search."""

    def close(self) -> None:
        """Nothing is told any more, whatever came of the search."""


class Callbacks:
    """Owns the callbacks of a search, and calls them in their order.

    Args:
        callbacks: What listens.
        lock: Held while they are called.
    """

    def __init__(self, callbacks: Sequence[SearchCallback], lock: RLock) -> None:
        self._all, self._heard, self._lock = tuple(callbacks), list(callbacks), lock

    def tell(self, event: str, *args: object) -> None:
        """Call a method of all of them."""
        with self._lock:
            for callback in tuple(self._heard):
                self._call(callback, event, *args)

    def say(self, text: str) -> None:
        """Tell the user some lines, by those who show them."""
        with self._lock:
            shown = [one for one in self._heard if type(one).message is not SearchCallback.message]
            if not shown:
                terminal.say(text)
            for callback in shown:
                self._call(callback, "message", text)

    def close(self) -> None:
        """Close all of them, those that have failed too, whatever closing one of them raises."""
        with ExitStack() as stack:
            for callback in reversed(self._all):
                stack.callback(self._call, callback, "close")

    def _call(self, callback: SearchCallback, event: str, *args: object) -> None:
        try:
            getattr(callback, event)(*args)
        except Exception as error:  # it is no part of the search
            if callback not in self._heard:
                return  # warned of before
            self._heard.remove(callback)
            name = f"`callbacks.{callback.name}`" if callback.name else type(callback).__name__
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            reason = without_passwords(f"{type(error).__name__}: {error}")
            self.say(f"warning: {name} failed and is called no more: {reason} ({where})")

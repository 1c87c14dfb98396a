"""What trials tell and ask while they run, from the threads in which they do."""

from __future__ import annotations

from collections.abc import Mapping

from pneumonia.evaluation.objective import Fit, Metrics
from pneumonia.search.callbacks import Callbacks
from pneumonia.search.recorder import Recorder
from pneumonia.search.stopping import StopRule
from pneumonia.search.trials import Proposal
from pneumonia.training.trial import Hooks


class Listener:
    """Owns which trials are trained again for a state that is lost; the journal hears of all.

    Args:
        recorder: Of the search.
        bounds: What may stop it.
        callbacks: What is told after the journal.
        proposals: The trials by their id, added to before they run.
    """

    def __init__(
        self,
        recorder: Recorder,
        bounds: StopRule,
        callbacks: Callbacks,
        proposals: Mapping[str, Proposal],
    ) -> None:
        self._recorder, self._bounds, self._callbacks = recorder, bounds, callbacks
        self._proposals, self._lock = proposals, recorder.lock
        self._repeated: set[str] = set()

    def hooks(self, *, is_over: bool = False) -> Hooks:
        """Return what trials call; once the search is over, signals alone stop them."""
        ask = self._check_signals if is_over else self._between_epochs
        return Hooks(self._on_epoch, self._on_repeat, self.report, ask, self._on_lost)

    def report(self, text: str, done: int, total: int) -> None:
        """Take note of what goes on instead of training."""
        self._check_signals()
        self._callbacks.tell("phase", f"{text} {done}/{total}")

    def _on_epoch(self, trial_id: str, fit: Fit, epoch: int, metrics: Metrics) -> None:
        told = self._proposals[trial_id], fit, epoch, metrics
        with self._lock:
            if trial_id in self._repeated:
                self._recorder.check_epoch(trial_id, fit, epoch, metrics)
            if self._recorder.add_epoch(trial_id, fit, epoch, metrics):
                self._bounds.budget.epochs += 1
                self._callbacks.tell("epoch_ended", *told)
            elif epoch > self._recorder.begun_at(trial_id, fit):
                self._callbacks.tell("epoch_replayed", *told)

    def _on_repeat(self, trial_id: str, reason: str) -> None:
        with self._lock:
            self._repeated.add(trial_id)
            self._recorder.tell("training_repeated", trial_id=trial_id, reason=reason)
            name = f"Trial {self._proposals[trial_id].number}"
            text = f"{reason} {name} is trained again from its beginning, to the same."
            self._callbacks.say(text)

    def _on_lost(self, trial_id: str, reason: str) -> None:
        with self._lock:
            self._recorder.tell("worker_lost", trial_id=trial_id, reason=reason)
            name = f"trial {self._proposals[trial_id].number}"
            self._callbacks.say(f"warning: The worker of {name} is lost: {reason}.")

    def _check_signals(self) -> None:
        with self._lock:
            self._bounds.interruption.check()

    def _between_epochs(self) -> None:
        with self._lock:
            self._bounds.between_epochs()

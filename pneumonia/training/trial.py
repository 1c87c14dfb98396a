"""Run one trial: build what its configuration says, train it, keep its best epoch.

A trial is a function of plain values, `Task` in and `Outcome` out, so it can run in another process
or on another machine.
"""

from __future__ import annotations

import functools
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import keras
import numpy as np

from pneumonia import files
from pneumonia.artifacts import ArtifactStore, classifier_key, state_key
from pneumonia.datasets.cache import load_data
from pneumonia.errors import UserError, named
from pneumonia.evaluation.objective import Fit, Metrics, Objective
from pneumonia.training import calibration, checkpoint, compiled_loop, loop
from pneumonia.training.checkpoint import Checkpoints, FitState, StateError
from pneumonia.training.inputs import Inputs, prepare_folds
from pneumonia.training.loop import DivergedError, Limit, TooSlowError, Training
from pneumonia.training.network import trainable, write_classifier

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Report = Callable[[str, int, int], None]
Status = Literal["COMPLETED", "FAILED", "STOPPED"]


class StopTrial(BaseException):
    """Raised between two epochs: the trial ends here, with what it has come to."""


@dataclass(frozen=True, slots=True)
class Task:
    """One trial to run, in plain values.

    Attributes:
        trial_id: Its name within the search.
        config: The whole configuration, without ranges.
        epochs: The epoch up to which it is trained, counted from the trial's very beginning.
        parent: The trial that it goes on from, or None.
        has_begun: Whether epochs of it are known already, so that it has left a state.
        keeps_classifier: Whether its classifier is kept.
        unrepeatable: Why training again would give other bits; empty where it gives the same.
        together: Sections `model` of other trials, as of `inputs.prepare`.
    """

    trial_id: str
    config: Config
    epochs: int
    parent: str | None = None
    has_begun: bool = False
    keeps_classifier: bool = True
    unrepeatable: str = ""
    together: tuple[Config, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        trial_id: Its name within the search.
        status: `STOPPED` where the search had no more time for it.
        score: The objective at the best epoch, the mean over the fits; None where there is none.
        best_epoch: The best epoch of the best fit, from 1; with folds the mean of all; 0 for none.
        metrics: The metrics at that epoch; with folds the means at each fit's best.
        history: The metrics of the best fit's epochs.
        seconds: How long it took.
        classifier: The key of its classifier in the store, or None.
        reason: Why it failed, in one line.
        traceback: Where; empty where the reason says it all.
        spread: The standard deviation of the objective between the fits; None of a single one.
        fits: How many are at their end, where it was stopped; of them the score is, if any are.
    """

    trial_id: str
    status: Status = "COMPLETED"
    score: float | None = None
    best_epoch: int = 0
    metrics: Metrics = field(default_factory=dict)
    history: tuple[Metrics, ...] = ()
    seconds: float = 0.0
    classifier: str | None = None
    reason: str = ""
    traceback: str = ""
    spread: float | None = None
    fits: int = 0


def _silent(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a trial that runs tells and asks.

    Attributes:
        on_epoch: Told after every epoch: trial, fit, epoch (from 1), metrics.
        on_repeat: Told that a trial is trained again from its beginning, and why.
        report: Told a text, how much is done and how much there is to do.
        between_epochs: Called before every epoch; what it raises stops the training there.
        on_lost: Told that a trial's worker is lost, and why, by an executor that has workers.
    """

    on_epoch: Callable[[str, Fit, int, Metrics], None] = _silent
    on_repeat: Callable[[str, str], None] = _silent
    report: Report = _silent
    between_epochs: Callable[[], None] = _silent
    on_lost: Callable[[str, str], None] = _silent


@compiled_loop.hold()
def run(task: Task, store: ArtifactStore, hooks: Hooks) -> Outcome:
    """Train a trial up to its epoch; whatever goes wrong in it is its outcome.

    Several threads may run trials at once whose inputs can be shared (`inputs.is_shared`).

    Raises:
        StorageError: Where a disk is full or refuses: the trial cannot help it.
    """
    kept = Checkpoints(store, task.trial_id)
    try:
        return _run(task, store, hooks, kept)
    except Exception as error:
        fault = files.explain(error)
        if fault is error:
            raise
        if fault is not None:
            raise fault from error
        forget(task, store)  # what has failed does not go on
        if isinstance(error, UserError | DivergedError | TooSlowError):
            return Outcome(task.trial_id, "FAILED", reason=str(error))
        where = traceback.format_exc()
        return Outcome(task.trial_id, "FAILED", reason=named(error), traceback=where)


def _run(task: Task, store: ArtifactStore, hooks: Hooks, kept: Checkpoints) -> Outcome:
    started = time.monotonic()
    fits = _Fits(task, store, hooks, kept)
    try:
        fits.train()
    except StopTrial:
        reached, seconds = _at_end(task, fits.stopped), time.monotonic() - started
        return _outcome(task, reached or fits.stopped, "STOPPED", seconds=seconds)
    kept.finish(fits.done)
    key = None
    # Each fold's has seen other images: none of them stands for the trial.
    if task.keeps_classifier and task.config["objective"].get("folds") is None:
        key = classifier_key(task.trial_id)
        _keep_classifier(task.config, fits, store, key)
    seconds = time.monotonic() - started
    return _outcome(task, fits.done, "COMPLETED", seconds=seconds, classifier=key)


def _outcome(task: Task, fits: Sequence[FitState], status: Status, **more: Any) -> Outcome:
    objective = Objective(**task.config["objective"])
    # Nor that of some folds alone: they are not equally hard.
    if not fits or (objective.folds and status == "STOPPED"):
        return Outcome(task.trial_id, status, **more)
    best, measured = _best(fits, objective)
    number = objective.best_epoch(best.history)
    metrics, values = best.history[number - 1], [one[objective.name] for one in measured]
    if objective.folds:
        number = round(statistics.fmean(objective.best_epoch(fit.history) for fit in fits))
        metrics = {name: statistics.fmean(one[name] for one in measured) for name in metrics}
    return Outcome(
        task.trial_id,
        status,
        score=statistics.fmean(values),
        best_epoch=number,
        metrics=metrics,
        history=best.history,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        fits=len(_at_end(task, fits)) if status == "STOPPED" else 0,
        **more,
    )


def _at_end(task: Task, fits: Sequence[FitState]) -> list[FitState]:
    """Return the fits at their end: a mean with one that was cut off is no measure."""
    is_stopped, most = functools.partial(loop.is_stopped, config=task.config), task.epochs
    return [one for one in fits if len(one.history) >= most or is_stopped(one.history)]


def _best(fits: Sequence[FitState], objective: Objective) -> tuple[FitState, list[Metrics]]:
    """Return the best fit, the earlier of equals, and the metrics of each at its best epoch."""
    measured = [fit.history[objective.best_epoch(fit.history) - 1] for fit in fits]
    pairs = zip(fits, measured, strict=True)
    return objective.rank(pairs, lambda one: one[1][objective.name])[0][0], measured


def _keep_classifier(config: Config, fits: _Fits, store: ArtifactStore, key: str) -> None:
    best, _ = _best(fits.done, Objective(**config["objective"]))
    inputs, model = fits.inputs[0], fits.model
    made = calibration.decide(
        model, best.best, val=inputs.val, labels=inputs.val_labels, config=config
    )
    facts = made.decision.facts(load_data(config).class_names)
    store.put(
        key, lambda path: write_classifier(config, made.weights, path, facts=facts, model=model)
    )


def forget(task: Task, store: ArtifactStore) -> None:
    """Remove how far a trial has come, which does not go on."""
    Checkpoints(store, task.trial_id).drop(len(_planned(task)))


def best_weights(task: Task, store: ArtifactStore, hooks: Hooks) -> tuple[Array, ...]:
    """Return the weights of a trial's best fit, the one its score is of, after its best epoch.

    Raises:
        StateError: As `all_fits` does.
    """
    done = all_fits(task, store, hooks)
    return _best(_at_end(task, done) or done, Objective(**task.config["objective"]))[0].best


def all_fits(task: Task, store: ArtifactStore, hooks: Hooks) -> tuple[FitState, ...]:
    """Return all the fits of a trial, in the order of `Objective.fits`.

    Where its state is missing or damaged, the trial is trained again if that gives the same.

    Raises:
        StateError: It gives not the same.
    """
    try:
        done = _state(task, task.trial_id, store, hooks)
    except StateError as error:
        hint = "Put a copy in its place, or go on where the search began."
        raise StateError(f"{error} {hint}") from error
    if not done:
        fits = _Fits(replace(task, parent=None), store, hooks, None)
        fits.train()
        done = tuple(fits.done)
    return done


class _Fits:
    """Owns the fits of a trial while they are trained, one after the other.

    Attributes:
        done: Those at their end.
        stopped: Where the training was stopped: how far all of them have come.
        model: What the last one trained.
        inputs: What they are trained on, by fold.
    """

    model: keras.Model

    def __init__(
        self, task: Task, store: ArtifactStore, hooks: Hooks, kept: Checkpoints | None
    ) -> None:
        self._task, self._store, self._hooks, self._kept = task, store, hooks, kept
        self.done: list[FitState] = []
        self.stopped: tuple[FitState, ...] = ()
        self._latest: Callable[[], FitState] | None = None  # of the fit that is trained
        self._left: tuple[FitState, ...] = ()
        self.inputs: list[Inputs] = prepare_folds(
            task.config, report=hooks.report, together=task.together
        )

    def train(self) -> None:
        """Train all of them, each from where it stopped, or where the parent did."""
        task, config = self._task, self._task.config
        if self._kept is not None:
            self._left = _left(task, self._store, self._hooks)
        parent = functools.cache(lambda: _state(task, task.parent, self._store, self._hooks))
        limit = Limit(config["training"].get("max_seconds") if self._kept else None, self._pause)
        for place, fit in enumerate(_planned(task)):
            tell = functools.partial(self._hooks.on_epoch, task.trial_id, fit)
            own = self._left[place : place + 1]
            # What the process that was killed had no time to tell.
            for epoch, metrics in enumerate(own[0].history if own else (), start=1):
                tell(epoch, metrics)
            begin = next(iter(own or parent()[place : place + 1]), None)
            self.model = trainable(config, fit.execution)
            inputs, seed = self.inputs[fit.fold], config["seed"] + fit.execution
            one = Training(self.model, inputs, config, seed, limit)
            self.done.append(
                loop.train(one, task.epochs, begin=begin, tell=tell, offer=self._offer)
            )
            self._latest = None

    def _states(self) -> list[FitState]:
        found = [*self.done, *([self._latest()] if self._latest else [])]
        return [*found, *self._left[len(found) :]]

    def _offer(self, make: Callable[[], FitState]) -> None:
        self._latest = make
        if self._kept is not None:
            self._kept.offer(self._states)

    def _pause(self) -> None:
        try:
            self._hooks.between_epochs()
        except BaseException as reason:
            self.stopped = tuple(self._states())
            if self._kept is not None and (self.done or self._latest):
                try:
                    self._kept.write(self.stopped)
                except OSError as error:
                    if isinstance(reason, StopTrial):  # what it has come to may win: it is needed
                        raise
                    reason.add_note(f"How far it has come could not be kept: {error}")
            raise


def _planned(task: Task) -> list[Fit]:
    executions = task.config["training"]["executions_per_trial"]
    return Objective(**task.config["objective"]).fits(executions)


def _left(task: Task, store: ArtifactStore, hooks: Hooks) -> tuple[FitState, ...]:
    """Return what a process before this one has left of a trial."""
    if not task.has_begun:
        try:
            store.get(state_key(task.trial_id))
        except FileNotFoundError:
            return ()
    return _state(task, task.trial_id, store, hooks)


def _state(task: Task, of: str | None, store: ArtifactStore, hooks: Hooks) -> tuple[FitState, ...]:
    """Return the state of a trial that a task needs, or nothing where it is to train again.

    Raises:
        StateError: It is missing or damaged, and cannot be made again.
    """
    if of is None:
        return ()
    try:
        return checkpoint.read(store, of)
    except StateError as error:
        if task.unrepeatable:
            raise StateError(
                f"{error} Trained again it would not be the same, as {task.unrepeatable}."
            ) from error
        hooks.on_repeat(task.trial_id, str(error))
        return ()

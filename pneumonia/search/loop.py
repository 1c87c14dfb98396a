"""The loop of a search: propose, run, record, choose, evaluate, keep the winner."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from pneumonia import startup
from pneumonia.artifacts import (
    ArtifactStore,
    FolderStore,
    SharedStore,
    shared_address,
    state_keys,
)
from pneumonia.config.instantiate import build
from pneumonia.config.search_space import collapse, find
from pneumonia.config.validate import flatten
from pneumonia.datasets.base import ImageData
from pneumonia.datasets.cache import load_data
from pneumonia.errors import UserError, without_passwords
from pneumonia.evaluation.objective import Objective
from pneumonia.files import GoneError, StorageError
from pneumonia.search import changes, crown, replay, winner
from pneumonia.search import plan as planning
from pneumonia.search.callbacks import Callbacks, SearchCallback, SearchEnd, SearchInfo
from pneumonia.search.executors import Executor
from pneumonia.search.listener import Listener
from pneumonia.search.oracle import Oracle
from pneumonia.search.preflight import rehearse, sharing
from pneumonia.search.recorder import Recorder
from pneumonia.search.replay import Fetch, Fork
from pneumonia.search.resume import SearchSpec
from pneumonia.search.scheduling import Scheduler
from pneumonia.search.stopping import StopRule
from pneumonia.search.trials import Proposal, cuts
from pneumonia.storage import journal, provenance, search_folder
from pneumonia.storage.journal import Journal
from pneumonia.training.trial import Outcome, Task

Config = dict[str, Any]


def run(
    spec: SearchSpec,
    log: Journal,
    *,
    callbacks: Sequence[SearchCallback] = (),
    fetch: Fetch | None = None,
) -> None:
    """Run a search, or one training where nothing is left to search; or go on with one.

    Args:
        spec: What to run, checked.
        log: Its journal, which no other process has open.
        callbacks: What listens to it, in their order.
        fetch: Gets classifiers of another search, which this one was forked from, from MLflow.

    Raises:
        UserError: For what the user can mend.
    """
    Search(spec, log, callbacks, fetch).run()


class Search:
    """Owns the state of one search in this process, and its folder.

    It must not know how a trial trains, nor who listens.
    """

    def __init__(
        self,
        spec: SearchSpec,
        log: Journal,
        callbacks: Sequence[SearchCallback],
        fetch: Fetch | None,
    ) -> None:
        self.cfg, self.folder, self.choices = spec.cfg, spec.folder, spec.choices
        self.objective = Objective(**_plain(spec.cfg.objective))
        tuner, limits = _plain(spec.cfg.tuner), spec.cfg.get("budget") or {}
        self.space = find(spec.cfg)
        self.oracle = Oracle(self.space, tuner, self.objective)
        self.journal, self.recorder = log, Recorder(log)
        self.past, self.lock = self.recorder.past, self.recorder.lock
        most = tuner["max_consecutive_failures"]
        self.bounds = StopRule(limits, most_failures=most, journal=log, past=self.past)
        self.callbacks = Callbacks(callbacks, self.lock)
        self.fork = Fork(spec.origin, self.past, fetch) if spec.origin else None
        self.store: ArtifactStore = FolderStore(self.folder)
        self.executor: Executor = build(_plain(spec.cfg.executor), "executor")
        # Trials that run at once would share the epochs that are left: each has its turn instead.
        most = None if limits.get("epochs") is None else 1
        self.scheduler = Scheduler(self.executor, most=most, record=self._record)
        self.proposals: dict[str, Proposal] = {}
        self.listener = Listener(self.recorder, self.bounds, self.callbacks, self.proposals)
        self.outcomes: list[Outcome] = []  # of the trials that the oracle was told of
        self.stopped: list[Outcome] = []  # by the budget, before the end: they may go on
        self.replayed: set[str] = set()  # trials that a process before this one has ended
        self.kept: set[str] = set()  # trials that have ended and whose states are there
        self.unrepeatable, self.began = "", time.monotonic()
        self.seconds: dict[str, float] = {}  # of the phases in this process

    def run(self) -> None:
        """Run all the trials and what follows them."""
        with self.bounds.interruption, contextlib.closing(self.callbacks):
            opened = (self.cfg, self.folder, self.choices, self.objective, self.callbacks.say)
            self.callbacks.tell("search_opened", SearchInfo(*opened))
            try:
                data = self._prepare()
                self._begin(data)
                self._run_trials()
                self._finish(data)
            except KeyboardInterrupt as error:
                self._end(SearchEnd("interrupted", "interrupted by the user"))
                raise self.bounds.explain(error) from None
            except Exception as error:
                found = self.bounds.explain(error)
                if not isinstance(found, GoneError):
                    reason = f"{type(found).__name__}: {found}"
                    with contextlib.suppress(StorageError):  # the disk may take no more of it
                        self._end(SearchEnd("failed", without_passwords(reason)))
                if found is not error:
                    raise found from error
                raise

    def _prepare(self) -> ImageData:
        """Build what the first trials need, so that what all would fail at stops the search."""
        self.callbacks.tell("phase", "reading the images")
        data = load_data(collapse(self.cfg, self.space.start()))
        rehearse(self.cfg, self.space, report=self.listener.report)
        self.seconds["preparation"] = time.monotonic() - self.began
        return data

    def _begin(self, data: ImageData) -> None:
        source = self.fork.origin.source if self.fork else None
        further = [] if self.past.started else changes.further_images(self.cfg)
        params = flatten(self.cfg)
        self.recorder.begin_search(data, self.choices, params, source=source, further=further)
        if address := self.executor.store:
            place = shared_address(address, self.past.first["search_id"])
            self.store = SharedStore(place, folder=self.folder, others=self.store)
        self.unrepeatable = provenance.other_machine(self.past.tags)
        most = self.fork.origin.trials if self.fork else None
        plan = planning.make(self.cfg, self.oracle, self.choices, data=data, most=most)
        notes = [self.oracle.shortfall() or self.oracle.scope()]
        notes += [self.oracle.waits(self.executor.workers)] if self.executor.in_order else []
        notes.append(sharing(self.executor, reserved=self.cfg.executor.get("gpus")))
        notes += [self.fork.opening()] if self.fork else []
        notes += planning.of_ray(self.cfg, plan.seconds)
        self.callbacks.tell("search_started", data, plan, list(filter(None, notes)))
        startup.foresee()

    def _run_trials(self) -> None:
        began = time.monotonic()
        try:
            self.executor.open(self.store, self.listener.hooks(), self.cfg)
            self._run_all()
        except BaseException:
            self.executor.cancel()
            raise
        finally:
            self.executor.close()
        if self.fork:
            self.callbacks.say(self.fork.closing())
        self.seconds["trials"] = time.monotonic() - began

    def _run_all(self) -> None:
        """Run one trial after the other, or several at once where none waits for another.

        Those that began in earlier processes, or in the search that this one repeats, are asked
        for whatever the budget: they may win.
        """
        is_over, starts = False, self._known_starts()
        while True:
            left = starts[len(self.proposals) :]
            for outcome in self.scheduler.take(next(iter(left), math.inf)):
                is_over |= outcome.status == "STOPPED"
                self._settle(outcome)
            can_propose = not self.executor.in_order or self.oracle.can_propose()
            if (is_over and not left) or not self.scheduler.has_room or not can_propose:
                if not self.scheduler.wait():
                    return
            elif proposal := self.oracle.propose():
                is_over |= not self._start(proposal)
            elif self.executor.in_order or not self.scheduler.is_running:
                is_over, starts = True, []
            else:  # the oracle may wait for one that runs
                self.scheduler.wait()

    def _known_starts(self) -> list[float]:
        """Return the numbers of the events by which trials began; infinity: in another search."""
        own = [e["n"] for e in journal.read(self.folder) if e["kind"] == "trial_started"]
        most = (self.fork.origin.trials or 0) if self.fork else 0
        return [*own, *[math.inf] * (most - len(own))]

    def _start(self, proposal: Proposal) -> bool:
        """Start a trial, unless its end is known; return whether the budget allows for it."""
        config, trial_id = collapse(self.cfg, proposal.values), proposal.trial_id
        self.proposals[trial_id] = proposal
        with self.lock:
            known = replay.answer(self.past, proposal, config)
        if known is not None:
            self.replayed.add(trial_id)
            self.scheduler.add(known, at=(self.past.trials[trial_id].ended or {})["n"])
            self.callbacks.tell("trial_replayed", proposal, config, known)
            return True
        self.bounds.check_failures(self.outcomes)
        task = self._task(proposal, config)
        self.scheduler.make_room(task)
        found = self.fork.find(proposal, config) if self.fork else None
        is_same = self.fork is not None and self.fork.origin.trials is not None
        if not (task.has_begun or (found and is_same)):
            so_far = [*(one.trial_id for one in self.outcomes), *self.scheduler.trial_ids]
            if self.bounds.is_spent(so_far) or is_same:
                return False
        source = {}
        if self.fork and found:
            source["taken_over_from"] = f"{self.fork.origin.search_id}/{found}"
        self.recorder.begin_trial(proposal, config, **source)
        self.callbacks.tell("trial_started", proposal, config)
        if found and (taken := self._take_over(proposal, found)):
            self.scheduler.add(taken)
            return True
        self.scheduler.submit(replace(task, has_begun=task.has_begun or found is not None))
        return True

    def _task(self, proposal: Proposal, config: Config | None = None) -> Task:
        config = config or collapse(self.cfg, proposal.values)
        return Task(
            trial_id=proposal.trial_id,
            config=config,
            epochs=proposal.epochs,
            parent=proposal.parent,
            has_begun=bool((known := self.past.trials.get(proposal.trial_id)) and known.curves),
            keeps_classifier=self.cfg.tracking.log_models != "none",
            unrepeatable=self.unrepeatable,
            together=cuts(self.cfg, self.space, proposal.values, config["model"]),
        )

    def _take_over(self, proposal: Proposal, found: str) -> Outcome | None:
        """Take a trial over from the search this one was forked from; return and record its end."""
        assert self.fork is not None
        keeps = self.cfg.tracking.log_models != "none"
        outcome = self.fork.bring(found, proposal.trial_id, self.folder, with_classifier=keeps)
        for fit, curve in self.fork.curves(found).items():
            for epoch, metrics in enumerate(curve, start=1):
                is_new = self.recorder.add_epoch(proposal.trial_id, fit, epoch, metrics)
                self.bounds.budget.epochs += is_new
        if outcome is None:  # it has not ended
            return None
        self._record(outcome)
        return outcome

    def _record(self, outcome: Outcome) -> None:
        """Tell the journal, then who listens; one that was stopped has not ended."""
        if outcome.status != "STOPPED":
            self.recorder.end_trial(outcome)
            self.callbacks.tell("trial_ended", self.proposals[outcome.trial_id], outcome)

    def _settle(self, outcome: Outcome) -> None:
        """Take in what came of a trial."""
        if outcome.status == "STOPPED":
            self.bounds.is_spent(one.trial_id for one in self.outcomes)
            if not outcome.fits:  # none is at its end
                reached = replace(self.proposals[outcome.trial_id], epochs=len(outcome.history))
                self.proposals[outcome.trial_id] = reached
            self.stopped.append(outcome)
            return
        self.outcomes.append(outcome)
        self.kept.add(outcome.trial_id)
        self.oracle.tell(outcome.trial_id, outcome.score, step=outcome.best_epoch)
        if outcome.trial_id not in self.replayed:
            # While it replays, the search does not yet know which states are needed.
            self._drop_states()

    def _drop_states(self) -> None:
        """Remove the states of trials that have ended, and can neither win nor be gone on with."""
        found = crown.candidates(self._ranked(), self.cfg.winner)
        needed = self.oracle.promotable() | {one.trial_id for _, one in found}
        self._drop(self.kept - needed)

    def _drop(self, trial_ids: Set[str]) -> None:
        for trial_id in trial_ids:
            for key in state_keys(trial_id, len(self.past.trials[trial_id].reached)):
                self.store.drop(key)
        self.kept -= trial_ids

    def _ranked(self) -> list[tuple[Proposal, Outcome]]:
        """Return the trials that have a score, the best first, the earlier of equals first."""
        found = [(self.proposals[one.trial_id], one) for one in (*self.outcomes, *self.stopped)]
        return self.objective.rank(found, lambda one: one[1].score)

    def _finish(self, data: ImageData) -> None:
        """Choose the winner, evaluate it once on test, write and record what there is to keep."""
        ranked = self._ranked()
        if not ranked:
            text = "No trial came to a score, so there is no winner."
            raise UserError(f"{text} {self.bounds.note}".rstrip())
        (proposal, outcome), began = ranked[0], time.monotonic()
        self.callbacks.tell("phase", "evaluating the winner")
        # The budget ends trials; what is left to do of the winner only a signal ends.
        hooks = self.listener.hooks(is_over=True)
        found = crown.candidates(ranked, self.cfg.winner)
        if missing := crown.shortfall(found, self.cfg.winner):
            self.callbacks.say(missing)
        best = crown.crown(found, self.cfg.winner, self._task, self.store, hooks)
        if worse := crown.setback(outcome, best):
            self.callbacks.say(worse)
        classifier = winner.keep_classifier(best, self.folder, own=outcome.classifier)
        evaluation, drawn = winner.evaluate(best, ranked, self.folder, report=hooks.report)
        preset = winner.write_preset(best, proposal, outcome, self.choices, self.folder)
        self.seconds["evaluation"] = time.monotonic() - began
        failed = sum(one.score is None for one in self.outcomes)
        measured = {
            **crown.score(outcome, best),
            "trials": len(self.outcomes),
            "failed_trials": failed,
            "epochs": self.bounds.budget.epochs,
            **{f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()},
            "seconds": self.journal.elapsed,
            "threshold": best.decision.threshold,
            "temperature": best.decision.temperature,
            **(evaluation.metrics() if evaluation else {}),
        }
        files = [preset.name, search_folder.CONFIG, *drawn]
        told = (self.bounds.note, proposal.trial_id, measured, files, classifier)
        won = winner.Won(data, ranked, failed, best, evaluation, preset)
        self._end(SearchEnd("completed", *told, won=won))
        if evaluation and not self.bounds.note:  # otherwise there is something left to do of it
            self._drop(set(self.kept))
            shutil.rmtree(search_folder.SearchFolder(self.folder).states, ignore_errors=True)

    def _end(self, end: SearchEnd) -> None:
        if self.past.started is not None and not self.past.is_completed:
            self.callbacks.tell("search_ending", end)
            self.recorder.tell("search_ended", extension=self.past.completions, **end.fields())
            self.callbacks.tell("search_ended", end)


def _plain(section: Any) -> Config:
    return OmegaConf.to_container(section, resolve=True)  # type: ignore[return-value]

"""The loop of a search: propose, run, record, choose, evaluate, keep the winner."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from pneumonia import startup, tables
from pneumonia.config.instantiate import build
from pneumonia.config.search_space import Space, collapse, find
from pneumonia.config.validate import flatten
from pneumonia.console import summary
from pneumonia.console.progress import Progress
from pneumonia.datasets.base import ImageData
from pneumonia.datasets.cache import load_data
from pneumonia.errors import UserError, without_passwords
from pneumonia.files import GoneError, StorageError
from pneumonia.reporting import report
from pneumonia.reporting.worst_errors import Load
from pneumonia.search import plan as planning
from pneumonia.search import replay, trials, winner
from pneumonia.search.budget import BudgetSpent
from pneumonia.search.executors import Failure
from pneumonia.search.oracle import Oracle, Proposal
from pneumonia.search.preflight import rehearse
from pneumonia.search.recorder import Recorder
from pneumonia.search.replay import Fork
from pneumonia.search.resume import Job
from pneumonia.search.stopping import Bounds
from pneumonia.search.trials import Ended
from pneumonia.search.winner import Evaluation, Winner
from pneumonia.search.worker_pool import Crew
from pneumonia.storage import history
from pneumonia.storage.journal import Journal
from pneumonia.tracking.tensorboard import Logs
from pneumonia.tracking.tracker import Tracker, TrackingSettings
from pneumonia.training import trial
from pneumonia.training.trial import Result, Task

Config = dict[str, Any]


def run(job: Job, journal: Journal, *, settings: TrackingSettings) -> None:
    """Run a search, or one training where nothing is left to search; or go on with one.

    Args:
        job: What to run, checked.
        journal: Its journal, which no other process has open.
        settings: Where it is tracked.

    Raises:
        UserError: For what the user can mend.
    """
    search = Search(job, journal, settings)
    with search.bounds.interruption, Tracker(job.folder, settings):
        search.run()


class Search:
    """Owns the state of one search in this process, and its folder.

    It must not know how a trial trains, nor where its results are tracked.
    """

    def __init__(self, job: Job, journal: Journal, settings: TrackingSettings) -> None:
        self.cfg, self.folder, self.choices = job.cfg, job.folder, job.choices
        self.objective = _plain(job.cfg.objective)
        tuner = _plain(job.cfg.tuner)
        self.space: Space = find(job.cfg)
        self.oracle = Oracle(self.space, tuner, self.objective)
        most, limits = tuner["max_consecutive_failures"], job.cfg.get("budget") or {}
        self.executor = build(_plain(job.cfg.executor), "executor")
        # Trials that run at once would share the epochs that are left: each has its turn instead.
        self.runs_alone = limits.get("epochs") is not None
        self.crew: Crew[Ended | None] = Crew(self.executor.workers)
        self.recorder = Recorder(journal)
        self.past, self.lock = self.recorder.past, self.recorder.lock
        self.bounds = Bounds(limits, most_failures=most, journal=journal, past=self.past)
        self.fork = Fork(job.origin, settings, self.past) if job.origin else None
        form = job.cfg.get("progress", "auto")
        self.progress = Progress(self.objective["name"], self.objective["direction"], form=form)
        self.ended: list[Ended] = []
        self.replayed: set[str] = set()  # trials that a process before this one has ended
        self.stopped: list[Ended] = []  # by the budget, before its end: it may go on
        self.expected = 0
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.load: Load | None = None

    def run(self) -> None:
        """Run all the trials and what follows them."""
        try:
            with self.progress:
                data = self._prepare()
                self._run_trials(data)
                shown = self._finish(data)
        except KeyboardInterrupt as error:
            self._end("interrupted", reason="interrupted by the user")
            raise self.bounds.explain(error) from None
        except Exception as error:
            found = self.bounds.explain(error)
            if not isinstance(found, GoneError):
                reason = without_passwords(f"{type(found).__name__}: {found}")
                with contextlib.suppress(StorageError):  # the disk may take no more of the journal
                    self._end("failed", reason=reason)
            if found is not error:
                raise found from error
            raise
        tables.show(*shown)

    def _prepare(self) -> ImageData:
        """Build what the first trials need, so that what all would fail at stops the search."""
        self.progress.phase("reading the images")
        data = load_data(collapse(self.cfg, self.space.start()))
        rehearse(self.cfg, self.space, report=self._report)
        self.seconds["preparation"] = time.monotonic() - self.began
        return data

    def _run_trials(self, data: ImageData) -> None:
        began = time.monotonic()
        if self.past.started is None:
            self.recorder.tell(
                "search_started",
                # With a letter first, no id reads as a number on the command line.
                search_id=f"s{uuid.uuid4().hex[:11]}",
                direction=self.objective["direction"],
                artifacts=[history.CONFIG],
                **trials.beginning(
                    data,
                    self.choices,
                    flatten(self.cfg),
                    source=self.fork.origin.source if self.fork else None,
                ),
            )
        plan = planning.make(self.cfg, self.oracle, self.choices, data=data)
        self.progress.message(trials.prospect(data, self.choices, plan=plan, folder=self.folder))
        if reason := self.oracle.shortfall() or self.oracle.scope():
            self.progress.message(reason)
        if self.fork:
            self.progress.message(self.fork.opening())
        self.progress.start(plan.trials, plan.epochs)
        self.expected = plan.trials
        startup.foresee()
        with self.crew:
            self._run_all()
        if self.fork:
            self.progress.message(self.fork.closing())
        self.seconds["trials"] = time.monotonic() - began

    def _run_all(self) -> None:
        """Run one trial after the other, or several at once where none of them waits for another.

        What comes of them is told in the order in which they were proposed: so the search is the
        same, however many run at once.
        """
        is_over = False
        while True:
            for ended in self.crew.take():
                is_over |= ended is None
                if ended is not None:
                    self._settle(ended)
            if is_over or not self.crew.has_room or not self.oracle.can_propose():
                if not self.crew.wait():
                    return
            elif (proposal := self.oracle.propose()) is None or not self._start(proposal):
                is_over = True

    def _start(self, proposal: Proposal) -> bool:
        """Start a trial, unless its end is known; return whether the budget allows for it."""
        config, trial_id = collapse(self.cfg, proposal.values), proposal.trial_id
        task = self._task(proposal, config)
        with self.lock:
            known = replay.answer(self.past, proposal, config)
        if known is not None:
            trials.show_replayed(self.progress, known, self.objective["name"])
            self.replayed.add(trial_id)
            self.crew.add(trial_id, known)
            return True
        self.bounds.check_failures(self.ended)
        if is_alone := self.runs_alone or self.executor.runs_alone(task):
            self.crew.finish()
        so_far = [*(one.proposal.trial_id for one in self.ended), *self.crew.trial_ids]
        if self.bounds.is_spent(so_far):
            return False
        if taken := self._take_over(proposal, config):
            self.crew.add(trial_id, taken)
            return True
        self.recorder.begin_trial(proposal, config)
        trials.show_trial(self.progress, proposal, config, self.expected)
        if is_alone:
            self.crew.add(trial_id, self._run_trial(proposal, task))
        else:
            self.crew.start(trial_id, lambda: self._run_trial(proposal, task))
        return True

    def _task(self, proposal: Proposal, config: Config) -> Task:
        return Task(
            trial_id=proposal.trial_id,
            config=config,
            epochs=proposal.epochs,
            folder=str(self.folder),
            parent=proposal.parent,
            keeps_classifier=self.cfg.tracking.log_models != "none",
        )

    def _settle(self, ended: Ended) -> None:
        """Take in what came of a trial."""
        trial_id = ended.proposal.trial_id
        self.ended.append(ended)
        self.oracle.tell(trial_id, ended.score, step=ended.best_epoch)
        if trial_id not in self.replayed:
            # While it replays, the search does not yet know which states are needed.
            self._drop_states()

    def _take_over(self, proposal: Proposal, config: Config) -> Ended | None:
        """Record a trial that the search this one was forked from has finished."""
        found = self.fork.find(proposal, config) if self.fork else None
        if self.fork is None or found is None:
            return None
        trials.show_trial(self.progress, proposal, config, self.expected)
        source = f"{self.fork.origin.search_id}/{found.trial_id}"
        self.recorder.begin_trial(proposal, config, taken_over_from=source)
        for execution, curve in found.curves.items():
            for epoch, metrics in enumerate(curve, start=1):
                self.recorder.add_epoch(proposal.trial_id, execution, epoch, metrics)
        name = self.fork.bring(found, proposal.trial_id, self.folder)
        outcome = found.result(name if self.cfg.tracking.log_models != "none" else None)
        self._record(proposal, outcome)
        return Ended(proposal, config, outcome)

    def _run_trial(self, proposal: Proposal, task: Task) -> Ended | None:
        """Run a trial, perhaps in a thread of the crew; return None where the budget stops it."""
        trial_id, number = proposal.trial_id, proposal.number
        start = dict(self.past.trials[proposal.parent].reached) if proposal.parent else {}
        logs = Logs(self.folder, trial_id) if task.config["training"]["tensorboard"] else None

        def on_epoch(execution: int, epoch: int, metrics: Mapping[str, float]) -> None:
            if epoch <= start.get(execution, 0):
                return  # the trial that this one goes on from has it
            with self.lock:
                if self.recorder.add_epoch(trial_id, execution, epoch, metrics):
                    self.bounds.count_epoch()
                    self.progress.epoch(epoch, proposal.epochs, metrics, number=number)
            if logs is not None:
                logs.write(execution, epoch, metrics)

        try:
            outcome = self.executor.run(
                task,
                on_epoch=on_epoch,
                report=self._report,
                between_epochs=lambda: self._ask(self.bounds.between_epochs),
            )
        except BudgetSpent:
            self._set_aside(proposal, task)
            return None
        finally:
            if logs is not None:
                logs.close()
        self._record(proposal, outcome)
        return Ended(proposal, task.config, outcome)

    def _ask(self, check: Callable[[], None]) -> None:
        """Stop what runs here where the search has to: a signal is told once, and stops all."""
        with self.lock:
            self.crew.check()
            try:
                check()
            except KeyboardInterrupt:
                self.crew.dismiss()
                raise

    def _set_aside(self, proposal: Proposal, task: Task) -> None:
        """Let a trial that the budget has stopped be the winner, by its best epoch so far."""
        outcome = trial.so_far(task)
        with self.lock:
            self.bounds.is_spent(one.proposal.trial_id for one in self.ended)
            if outcome is not None:
                reached = replace(proposal, epochs=len(outcome.history))
                self.stopped.append(Ended(reached, task.config, outcome))

    def _record(self, proposal: Proposal, outcome: Result | Failure) -> None:
        fields, number = trials.ending(outcome), proposal.number
        self.progress.trial_end(fields["score"], number=number, failure=fields["reason"])
        self.recorder.tell("trial_ended", trial_id=proposal.trial_id, **fields)

    def _drop_states(self) -> None:
        """Remove the states of trials that have ended, and can neither win nor be gone on with."""
        ranked = self._ranked()
        kept = {ranked[0].proposal.trial_id} if ranked else set()
        # Of what a process before this one has begun or ended, some may not be proposed again yet.
        kept |= self.past.trials.keys() - {one.proposal.trial_id for one in self.ended}
        kept |= self.oracle.promotable()
        for path in (self.folder / "trials").glob("*.zip"):
            if path.stem not in kept:
                path.unlink()

    def _ranked(self) -> list[Ended]:
        """Return the trials that have a score, the best first, the earlier of equals first."""
        scored = [ended for ended in (*self.ended, *self.stopped) if ended.score is not None]
        sign = -1.0 if self.objective["direction"] == "max" else 1.0
        return sorted(scored, key=lambda ended: sign * (ended.score or 0.0))

    def _finish(self, data: ImageData) -> tuple[tables.Table | str, ...]:
        """Choose the winner, evaluate it once on test, write and record what there is to keep."""
        ranked = self._ranked()
        if not ranked:
            raise UserError("No trial came to a score, so there is no winner.")
        first = ranked[0]
        began = time.monotonic()
        self.progress.phase("evaluating the winner")
        best = winner.crown(
            first.proposal.trial_id,
            first.config,
            number=first.proposal.number,
            epochs=first.proposal.epochs,
            best_epoch=first.best_epoch,
            score=first.score or 0.0,
            folder=self.folder,
            report=self._report,
        )
        own = first.outcome.classifier if isinstance(first.outcome, Result) else None
        classifier = winner.keep_classifier(best, self.folder, own=own)
        self.load = lambda: trial.assemble(best.config, best.weights)
        curves = [ended.curve() for ended in trials.distinct(ranked)[:5]]
        evaluation = winner.evaluate(best, curves, self.folder, report=self._report)
        preset = winner.write_preset(best, self.choices, self.folder)
        scores = trials.scores_table(best, evaluation)
        rows, name = [ended.row() for ended in ranked], self.objective["name"]
        self.seconds["evaluation"] = time.monotonic() - began
        self._end(
            "completed",
            winner=best.trial_id,
            metrics=self._metrics(best, evaluation),
            artifacts=[preset.name, history.CONFIG, *evaluation.files],
            classifier=classifier,
            reason=self.bounds.note,
            description=summary.description(
                rows, scores, objective=name, facts=trials.facts(data, self.folder)
            ),
        )
        if not self.bounds.note:
            shutil.rmtree(self.folder / "trials", ignore_errors=True)
        failed = sum(ended.score is None for ended in self.ended)
        return (
            summary.best_table(rows, objective=name, failed=failed),
            scores,
            *trials.what_next(
                preset,
                self.choices,
                page=self.folder / report.NAME,
                classifier=self.folder / classifier,
            ),
            *([f"{self.bounds.note}\n"] if self.bounds.note else ()),
        )

    def _metrics(self, best: Winner, evaluation: Evaluation) -> dict[str, float]:
        results = [one.outcome for one in self.ended if isinstance(one.outcome, Result)]
        return {
            self.objective["name"]: best.score,
            "trials": len(self.ended),
            "failed_trials": len(self.ended) - len(results),
            "epochs": sum(past.count(0) for past in self.past.trials.values()),
            **{f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()},
            "seconds": time.monotonic() - self.began,
            "threshold": best.decision.threshold,
            "temperature": best.decision.temperature,
            **evaluation.metrics(),
        }

    def _end(self, status: str, **fields: Any) -> None:
        empty: Config = {"winner": None, "classifier": None, "reason": "", "description": ""}
        empty |= {"metrics": {}, "artifacts": []}
        if self.past.started is not None:
            ending = {"status": status, "extension": self.past.completions, **empty, **fields}
            ending["artifacts"] += report.attempt(
                self.folder, ending, load=self.load, say=self.progress.message
            )
            self.recorder.tell("search_ended", **ending)

    def _report(self, text: str, done: int, total: int) -> None:
        self._ask(self.bounds.interruption.check)
        self.progress.phase(f"{text} {done}/{total}")


def _plain(section: Any) -> Config:
    return OmegaConf.to_container(section, resolve=True)  # type: ignore[return-value]

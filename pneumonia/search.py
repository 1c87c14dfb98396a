"""The loop of a search: propose, run, record, choose, evaluate, keep the winner."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumonia import account, history, inputs, report, trial, winner
from pneumonia.account import Ended
from pneumonia.building import build
from pneumonia.config import flatten
from pneumonia.data import ImageData
from pneumonia.errors import UserError
from pneumonia.executors import Failure
from pneumonia.journal import Journal
from pneumonia.loading import load_data
from pneumonia.oracle import Oracle, Proposal
from pneumonia.progress import Progress
from pneumonia.space import Space, collapse, find
from pneumonia.tensorboard import Logs
from pneumonia.tracking import Settings, Tracker, redact
from pneumonia.trial import Result, Task
from pneumonia.winner import Evaluation, Winner

Config = dict[str, Any]


def run(cfg: DictConfig, folder: Path, *, choices: Mapping[str, str], settings: Settings) -> None:
    """Run a search, or one training where nothing is left to search; or go on with one.

    Args:
        cfg: The composed and checked configuration, with its ranges.
        folder: Where its files go.
        choices: The option of each config group.
        settings: Where it is tracked.

    Raises:
        UserError: For what the user can mend.
    """
    if history.read(folder).is_completed:
        with Tracker(folder, settings):
            return
    search = Search(cfg, folder, choices)
    with Tracker(folder, settings) as tracker:
        search.notify = tracker.notify
        search.run()


class Search:
    """Owns the state of one search in this process, and its folder.

    It must not know how a trial trains, nor where its results are tracked.
    """

    def __init__(self, cfg: DictConfig, folder: Path, choices: Mapping[str, str]) -> None:
        self.cfg, self.folder, self.choices = cfg, folder, choices
        self.objective = _plain(cfg.objective)
        tuner = _plain(cfg.tuner)
        self.space: Space = find(cfg)
        self.oracle = Oracle(self.space, tuner, self.objective)
        self.executor = build(_plain(cfg.executor), "executor")
        self.most_failures: int = tuner["max_consecutive_failures"]
        self.past = history.read(folder)
        self.journal = Journal(folder)
        self.progress = Progress(self.objective["name"], self.objective["direction"])
        self.ended: list[Ended] = []
        self.expected = 0
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.notify: Callable[[], None] = lambda: None

    def run(self) -> None:
        """Run all the trials and what follows them."""
        try:
            with self.progress:
                data = self._prepare()
                self._run_trials(data)
                shown = self._finish(data)
        except KeyboardInterrupt:
            self._end("interrupted", reason="interrupted by the user")
            raise
        except Exception as error:
            self._end("failed", reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            self.journal.close()
        report.show(*shown)

    def _prepare(self) -> ImageData:
        """Build what the first trials need, so that what all would fail at stops the search."""
        config = collapse(self.cfg, self.space.start())
        self.progress.phase("reading the images")
        data = load_data(config)
        inputs.prepare(config, report=self._report)
        self.seconds["preparation"] = time.monotonic() - self.began
        return data

    def _run_trials(self, data: ImageData) -> None:
        began = time.monotonic()
        if self.past.started is None:
            self._save_config()
            self.journal.append(
                "search_started",
                search_id=uuid.uuid4().hex[:12],
                direction=self.objective["direction"],
                artifacts=[history.CONFIG],
                **account.beginning(data, self.choices, flatten(self.cfg)),
            )
            self.notify()
        rounds = self.oracle.plan()
        start = collapse(self.cfg, self.space.start())
        executions = int(start["training"]["executions_per_trial"])
        epochs = sum(item.trials * (item.epochs - item.start) for item in rounds)
        trials = sum(item.trials for item in rounds)
        self.progress.message(self._prospect(data, trials, epochs * executions))
        if shortfall := self.oracle.shortfall():
            self.progress.message(shortfall)
        self.progress.start(trials, epochs * executions)
        self.expected = trials
        while (proposal := self.oracle.propose()) is not None:
            replayed = self._replayed(proposal)
            ended = replayed or self._run_trial(proposal)
            self.ended.append(ended)
            self.oracle.tell(proposal.trial_id, ended.score, step=ended.best_epoch)
            if replayed is None:
                # While it replays, the search does not yet know which states are needed.
                self._drop_states()
            self._check_failures()
        self.seconds["trials"] = time.monotonic() - began

    def _save_config(self) -> None:
        """Write the configuration that a resumed search reads, without a password."""
        cfg = self.cfg.copy()
        if cfg.tracking.uri is not None:
            cfg.tracking.uri = redact(cfg.tracking.uri)
        OmegaConf.save(cfg, self.folder / history.CONFIG)

    def _prospect(self, data: ImageData, trials: int, epochs: int) -> str:
        largest = collapse(self.cfg, self.space.largest())
        return account.prospect(
            data,
            self.choices,
            trials=trials,
            epochs=epochs,
            is_search=len(self.space) > 0,
            classifier_bytes=trial.classifier_bytes(largest),
            log_models=str(self.cfg.tracking.log_models),
            folder=self.folder,
        )

    def _replayed(self, proposal: Proposal) -> Ended | None:
        """Return a trial that the journal knows the end of."""
        past = self.past.trials.get(proposal.trial_id)
        if past is None:
            return None
        config = collapse(self.cfg, proposal.values)
        if past.values != json.loads(json.dumps(account.arguments(config, proposal))):
            raise UserError(
                f"Trial {proposal.trial_id} of this search had other values when it ran. The "
                "search cannot be resumed with this version of the program or its libraries."
            )
        if past.ended is None:
            return None
        if past.ended["status"] == "FAILED":
            return Ended(proposal, config, Failure(past.ended["reason"], past.ended["traceback"]))
        metrics = dict(past.ended["metrics"])
        outcome = Result(
            score=past.ended["score"],
            best_epoch=int(metrics.pop("best_epoch")),
            metrics=metrics,
            history=self.past.curve(proposal.trial_id),
            seconds=past.ended["seconds"],
            classifier=past.ended["classifier"],
        )
        return Ended(proposal, config, outcome)

    def _run_trial(self, proposal: Proposal) -> Ended:
        config = collapse(self.cfg, proposal.values)
        trial_id = proposal.trial_id
        past = self.past.trials.get(trial_id)
        if past is None:
            self.journal.append(
                "trial_started",
                trial_id=trial_id,
                number=proposal.number,
                name=f"trial {proposal.number}",
                values=account.arguments(config, proposal),
                tags=proposal.tags,
            )
            self.notify()
        expected = max(self.expected, proposal.number)
        self.progress.trial(proposal.number, expected, proposal.values)

        logs = Logs(self.folder, trial_id) if config["training"]["tensorboard"] else None

        def on_epoch(execution: int, epoch: int, metrics: Mapping[str, float]) -> None:
            if past is None or epoch > past.reached.get(execution, 0):
                fields = {"execution": execution, "epoch": epoch, "metrics": dict(metrics)}
                self.journal.append("epoch_ended", trial_id=trial_id, **fields)
                self.notify()
            self.progress.epoch(epoch, proposal.epochs, metrics)
            if logs is not None:
                logs.write(execution, epoch, metrics)

        task = Task(
            trial_id=trial_id,
            config=config,
            epochs=proposal.epochs,
            folder=str(self.folder),
            parent=proposal.parent,
            keeps_classifier=self.cfg.tracking.log_models != "none",
        )
        outcome = self.executor.run(task, on_epoch=on_epoch, report=self._report)
        if logs is not None:
            logs.close()
        self._record(proposal, outcome)
        return Ended(proposal, config, outcome)

    def _record(self, proposal: Proposal, outcome: Result | Failure) -> None:
        failed = isinstance(outcome, Failure)
        fields: Config = {"status": "FAILED" if failed else "COMPLETED", "reason": "",
                          "traceback": "", "score": None, "metrics": {}, "classifier": None,
                          "seconds": 0.0}  # fmt: skip
        if isinstance(outcome, Failure):
            fields |= {"reason": outcome.reason, "traceback": outcome.traceback}
            self.progress.trial_end(None, failure=outcome.reason)
        else:
            fields |= {
                "score": outcome.score,
                "metrics": outcome.metrics | {"best_epoch": outcome.best_epoch},
                "classifier": outcome.classifier,
                "seconds": outcome.seconds,
            }
            self.progress.trial_end(outcome.score)
        self.journal.append("trial_ended", trial_id=proposal.trial_id, **fields)
        self.notify()

    def _drop_states(self) -> None:
        """Remove the states of trials that can neither win nor be gone on with."""
        ranked = self._ranked()
        kept = {ranked[0].proposal.trial_id} if ranked else set()
        kept |= self.oracle.promotable()
        for path in (self.folder / "trials").glob("*.zip"):
            if path.stem not in kept:
                path.unlink()

    def _check_failures(self) -> None:
        """Stop where too many trials failed one after the other."""
        last = self.ended[-self.most_failures :]
        failures = [one.outcome for one in last if isinstance(one.outcome, Failure)]
        if len(failures) == self.most_failures:
            reasons = "\n".join(f"  {failure.reason}" for failure in failures)
            raise UserError(
                f"{len(failures)} trials failed one after the other, so the search has stopped "
                f"(`tuner.max_consecutive_failures`). They failed with:\n{reasons}"
            )

    def _ranked(self) -> list[Ended]:
        """Return the trials that have a score, the best first, the earlier of equals first."""
        scored = [ended for ended in self.ended if ended.score is not None]
        sign = -1.0 if self.objective["direction"] == "max" else 1.0
        return sorted(scored, key=lambda ended: sign * (ended.score or 0.0))

    def _finish(self, data: ImageData) -> tuple[report.Table | str, ...]:
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
            epochs=first.proposal.epochs,
            best_epoch=first.best_epoch,
            score=first.score or 0.0,
            folder=self.folder,
            report=self._report,
        )
        classifier = self._classifier(first, best)
        curves = [ended.curve() for ended in account.distinct(ranked)[:5]]
        evaluation = winner.evaluate(best, curves, self.folder, report=self._report)
        preset = winner.write_preset(best, self.choices, self.folder)
        rows = [ended.row() for ended in ranked]
        name = self.objective["name"]
        self.seconds["evaluation"] = time.monotonic() - began
        self._end(
            "completed",
            winner=best.trial_id,
            metrics=self._metrics(best, evaluation),
            artifacts=[preset.name, *evaluation.pictures],
            classifier=classifier,
            description=report.description(
                rows, evaluation.scores, objective=name, facts=account.facts(data, self.folder)
            ),
        )
        shutil.rmtree(self.folder / "trials", ignore_errors=True)
        failed = len(self.ended) - len(ranked)
        prefix, ui = account.commands()
        return (
            report.best_table(rows, objective=name, failed=failed),
            report.scores_table(evaluation.scores),
            report.next_commands(winner.shown(preset), prefix=prefix, ui=ui),
        )

    def _classifier(self, ended: Ended, best: Winner) -> str:
        """Return the file of the final classifier: the trial's own where that is the same."""
        outcome = ended.outcome
        own = outcome.classifier if isinstance(outcome, Result) else None
        if own and not ended.config["training"]["retrain"]:
            return own
        trial.write_classifier(best.config, best.weights, self.folder / "classifier.keras")
        return "classifier.keras"

    def _metrics(self, best: Winner, evaluation: Evaluation) -> dict[str, float]:
        results = [one.outcome for one in self.ended if isinstance(one.outcome, Result)]
        return {
            self.objective["name"]: best.score,
            "trials": len(self.ended),
            "failed_trials": len(self.ended) - len(results),
            "epochs": sum(past.count(0) for past in history.read(self.folder).trials.values()),
            **{f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()},
            "seconds": time.monotonic() - self.began,
            **evaluation.scores.flat("test_"),
        }

    def _end(self, status: str, **fields: Any) -> None:
        empty: Config = {"winner": None, "classifier": None, "reason": "", "description": ""}
        empty |= {"metrics": {}, "artifacts": []}
        if self.past.started is not None or self.journal.count:
            self.journal.append("search_ended", status=status, **{**empty, **fields})
            self.notify()

    def _report(self, text: str, done: int, total: int) -> None:
        self.progress.phase(f"{text} {done}/{total}")


def _plain(section: Any) -> Config:
    return OmegaConf.to_container(section, resolve=True)  # type: ignore[return-value]

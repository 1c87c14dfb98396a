"""The loop of a search: propose, run, record, choose, evaluate, keep the winner."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pneumonia import inputs, plots, report, trial, winner
from pneumonia.building import build
from pneumonia.config import flatten
from pneumonia.data import ImageData, Split
from pneumonia.errors import UserError
from pneumonia.executors import Failure
from pneumonia.journal import Journal
from pneumonia.oracle import Oracle, Proposal
from pneumonia.progress import Progress
from pneumonia.provenance import provenance
from pneumonia.space import GROUPS, Space, collapse, find
from pneumonia.tracking import Settings, Tracker, check
from pneumonia.trial import Result, Task
from pneumonia.winner import Evaluation, Winner

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial that has come to its end."""

    proposal: Proposal
    config: Config
    outcome: Result | Failure

    @property
    def score(self) -> float | None:
        """Its objective, or None where it failed."""
        return self.outcome.score if isinstance(self.outcome, Result) else None


def run(cfg: DictConfig, folder: Path) -> None:
    """Run a search, or one training where nothing is left to search.

    Args:
        cfg: The composed and checked configuration, with its ranges.
        folder: Where its files go.

    Raises:
        UserError: For what the user can mend.
    """
    settings = _settings(cfg)
    check(settings)
    search = Search(cfg, folder)
    with Tracker(folder, settings) as tracker:
        search.run(tracker)
    search.close()


class Search:
    """Owns the state of one search in this process, and its folder.

    It must not know how a trial trains, nor where its results are tracked.
    """

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder
        self.objective: Config = OmegaConf.to_container(cfg.objective, resolve=True)  # type: ignore[assignment]
        tuner: Config = OmegaConf.to_container(cfg.tuner, resolve=True)  # type: ignore[assignment]
        self.space: Space = find(cfg)
        self.oracle = Oracle(self.space, tuner, self.objective)
        self.executor = build(OmegaConf.to_container(cfg.executor, resolve=True), "executor")  # type: ignore[arg-type]
        self.most_failures: int = tuner["max_consecutive_failures"]
        self.journal = Journal(folder)
        self.progress = Progress(self.objective["name"], self.objective["direction"])
        self.ended: list[Ended] = []
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}

    def run(self, tracker: Tracker) -> None:
        """Run all the trials and what follows them."""
        data = self._check_first()
        self.journal.append("search_started", **self._described(data))
        tracker.notify()
        rounds = self.oracle.plan()
        self.progress.start(
            sum(item.trials for item in rounds),
            sum(item.trials * (item.epochs - item.start) for item in rounds),
        )
        while (proposal := self.oracle.propose()) is not None:
            ended = self._run_trial(proposal, tracker)
            self.ended.append(ended)
            self.oracle.tell(proposal.trial_id, ended.score, step=self._step(ended))
            self._check_failures()
        self.seconds["trials"] = time.monotonic() - self.began - sum(self.seconds.values())
        self._finish(tracker)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def _check_first(self) -> ImageData:
        """Build what the first trials need, so that what all would fail at stops the search."""
        config = self._collapsed(self.space.start())
        data = inputs.load_data(config)
        inputs.parts(config)
        inputs.prepare(config, report=self._report)
        self.seconds["preparation"] = time.monotonic() - self.began
        return data

    def _run_trial(self, proposal: Proposal, tracker: Tracker) -> Ended:
        config = self._collapsed(proposal.values)
        self.journal.append(
            "trial_started",
            trial_id=proposal.trial_id,
            number=proposal.number,
            name=f"trial {proposal.number}",
            values=_arguments(config) | {"epochs": proposal.epochs},
            tags=proposal.tags,
        )
        tracker.notify()
        expected = sum(item.trials for item in self.oracle.plan())
        self.progress.trial(proposal.number, max(expected, proposal.number), proposal.values)

        def on_epoch(execution: int, epoch: int, metrics: Mapping[str, float]) -> None:
            self.journal.append(
                "epoch_ended",
                trial_id=proposal.trial_id,
                execution=execution,
                epoch=epoch,
                metrics=dict(metrics),
            )
            tracker.notify()
            self.progress.epoch(epoch, proposal.epochs, metrics)

        task = Task(
            trial_id=proposal.trial_id,
            config=config,
            epochs=proposal.epochs,
            folder=str(self.folder),
            parent=proposal.parent,
            keeps_classifier=self.cfg.tracking.log_models != "none",
        )
        outcome = self.executor.run(task, on_epoch=on_epoch, report=self._report)
        ended = Ended(proposal, config, outcome)
        self._record(ended)
        tracker.notify()
        return ended

    def _record(self, ended: Ended) -> None:
        outcome, trial_id = ended.outcome, ended.proposal.trial_id
        if isinstance(outcome, Failure):
            self.journal.append(
                "trial_ended",
                trial_id=trial_id,
                status="FAILED",
                score=None,
                metrics={},
                reason=outcome.reason,
                traceback=outcome.traceback,
                classifier=None,
            )
            self.progress.trial_end(None, failure=outcome.reason)
            return
        self.journal.append(
            "trial_ended",
            trial_id=trial_id,
            status="COMPLETED",
            score=outcome.score,
            metrics=outcome.metrics | {"best_epoch": outcome.best_epoch},
            reason="",
            traceback="",
            classifier=outcome.classifier,
        )
        self.progress.trial_end(outcome.score)
        self._drop_states()

    def _drop_states(self) -> None:
        """Remove the states of trials that can neither win nor be gone on with."""
        if "Hyperband" in str(self.cfg.tuner._target_):
            return
        best = self._ranked()[0].proposal.trial_id
        for ended in self.ended:
            if ended.proposal.trial_id != best:
                trial.state_path(self.folder, ended.proposal.trial_id).unlink(missing_ok=True)

    def _check_failures(self) -> None:
        """Stop where too many trials failed one after the other."""
        last = self.ended[-self.most_failures :]
        if len(last) == self.most_failures and all(ended.score is None for ended in last):
            reasons = "\n".join(f"  {one.proposal.trial_id}: {_reason(one)}" for one in last)
            self._end("failed", reason=f"{len(last)} trials failed one after the other")
            raise UserError(f"The last {len(last)} trials failed:\n{reasons}")

    def _ranked(self) -> list[Ended]:
        """Return the trials that have a score, the best first, the earlier of equals first."""
        scored = [ended for ended in self.ended if ended.score is not None]
        sign = -1.0 if self.objective["direction"] == "max" else 1.0
        return sorted(scored, key=lambda ended: sign * (ended.score or 0.0))

    def _finish(self, tracker: Tracker) -> None:
        """Choose the winner, evaluate it once on test, write and record what there is to keep."""
        ranked = self._ranked()
        if not ranked:
            self._end("failed", reason="no trial has a score")
            raise UserError("No trial came to a score, so there is no winner.")
        began = time.monotonic()
        best = self._winner(ranked[0])
        classifier = self._classifier(ranked[0], best)
        curves = [_history(ended) for ended in ranked[:5]]
        evaluation = winner.evaluate(best, curves, self.folder, report=self._report)
        preset = winner.write_preset(best, self._choices(), self.folder)
        self.seconds["evaluation"] = time.monotonic() - began
        self._end(
            "completed",
            winner=best.trial_id,
            metrics=self._metrics(best, evaluation),
            artifacts=[preset.name, *evaluation.pictures],
            classifier=classifier,
            description=report.description(
                self._rows(ranked), evaluation.scores, objective=self.objective["name"]
            ),
        )
        shutil.rmtree(self.folder / "trials", ignore_errors=True)
        self.progress.stop()
        self._show(ranked, evaluation, preset)

    def _winner(self, ended: Ended) -> Winner:
        """Return the best trial with its weights, trained again on train and val if asked."""
        assert isinstance(ended.outcome, Result)
        trial_id, epoch = ended.proposal.trial_id, ended.outcome.best_epoch
        if ended.config["training"]["retrain"]:
            weights = trial.retrain(ended.config, epoch, report=self._report)
        else:
            weights = trial.best_weights(self.folder, trial_id, ended.config)
        return Winner(
            trial_id=trial_id,
            config=ended.config,
            epochs=ended.proposal.epochs,
            best_epoch=epoch,
            score=ended.outcome.score,
            weights=weights,
        )

    def _classifier(self, ended: Ended, best: Winner) -> str:
        """Return the file of the final classifier: the trial's own where that is the same."""
        assert isinstance(ended.outcome, Result)
        if ended.outcome.classifier and not ended.config["training"]["retrain"]:
            return ended.outcome.classifier
        trial.write_classifier(best.config, best.weights, self.folder / "classifier.keras")
        return "classifier.keras"

    def _metrics(self, best: Winner, evaluation: Evaluation) -> dict[str, float]:
        epochs = sum(
            len(one.outcome.history) for one in self.ended if isinstance(one.outcome, Result)
        )
        return {
            self.objective["name"]: best.score,
            "trials": len(self.ended),
            "failed_trials": sum(one.score is None for one in self.ended),
            "epochs": epochs,
            **{f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()},
            "seconds": time.monotonic() - self.began,
            **evaluation.scores.flat("test_"),
        }

    def _end(self, status: str, **fields: Any) -> None:
        empty = {"winner": None, "metrics": {}, "artifacts": [], "classifier": None, "reason": "",
                 "description": ""}
        self.journal.append("search_ended", status=status, **{**empty, **fields})

    def _rows(self, ranked: list[Ended]) -> list[Any]:
        return [(one.proposal.number, one.score, one.proposal.values) for one in ranked[:10]]

    def _show(self, ranked: list[Ended], evaluation: Evaluation, preset: Path) -> None:
        """Print what came of the search, and what comes next."""
        print(report.best_table(self._rows(ranked), objective=self.objective["name"]))
        print(report.scores_table(evaluation.scores))
        print(report.next_commands(preset))

    def _described(self, data: ImageData) -> Config:
        """Return the fields of the journal's first event."""
        choices = self._choices()
        names = {group: choices.get(group, "") for group in ("dataset", "model", "tuner")}
        OmegaConf.save(self.cfg, self.folder / "config.yaml")
        return {
            "search_id": uuid.uuid4().hex[:12],
            "name": "-".join(names[group] for group in ("tuner", "model", "dataset")),
            "direction": self.objective["direction"],
            "choices": choices,
            "tags": names | provenance(),
            "params": flatten(self.cfg),
            "datasets": [_dataset(data, split) for split in (data.train, data.val, data.test)],
            "artifacts": ["config.yaml"],
        }

    def _choices(self) -> dict[str, str]:
        """Return the chosen option of each config group."""
        chosen = HydraConfig.get().runtime.choices
        return {str(group): str(option) for group, option in chosen.items() if option is not None}

    def _collapsed(self, values: Mapping[str, Any]) -> Config:
        return collapse(self.cfg, values)

    def _step(self, ended: Ended) -> int:
        return ended.outcome.best_epoch if isinstance(ended.outcome, Result) else 0

    def _report(self, text: str, done: int, total: int) -> None:
        self.progress.phase(f"{text} {done}/{total}")


def _settings(cfg: DictConfig) -> Settings:
    section = OmegaConf.to_container(cfg.tracking, resolve=True)
    return Settings(**section)  # type: ignore[arg-type]


def _arguments(config: Config) -> Config:
    """Return every argument of a trial, pinned ones too, by its dotted path."""
    return flatten({group: config[group] for group in GROUPS})


def _dataset(data: ImageData, split: Split) -> Config:
    return {
        "name": data.name,
        "split": split.name,
        "digest": split.digest,
        "size": len(split),
        "source": data.source,
        "positives": int(split.labels.sum()),
    }


def _history(ended: Ended) -> plots.History:
    assert isinstance(ended.outcome, Result)
    history = ended.outcome.history
    return plots.History(
        label=f"trial {ended.proposal.number}",
        epochs=range(1, len(history) + 1),
        metrics={name: [metrics[name] for metrics in history] for name in history[0]},
    )


def _reason(ended: Ended) -> str:
    return ended.outcome.reason if isinstance(ended.outcome, Failure) else ""

"""What each event of a journal means in MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pneumonia.shell import command
from pneumonia.storage import journal
from pneumonia.storage.journal import Event
from pneumonia.storage.offset import Cursor, TrialRun
from pneumonia.tracking import registry
from pneumonia.tracking.mlflow_store import Point, Store, is_final, is_unwanted
from pneumonia.tracking.registry import SEARCH_ID
from pneumonia.tracking.settings import TrackingSettings
from pneumonia.tracking.ui_view import NOTE, note, version_note

EVENT = "pneumonia.event"
RUN_STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

T = TypeVar("T")


class RefusedError(ValueError):
    """The store has refused parts of some events, all else of which was sent.

    Attributes:
        parts: The number of the event, what the part is, and the reason, of each.
    """

    def __init__(self, parts: Sequence[tuple[int, str, Exception]]) -> None:
        self.parts = tuple(parts)
        super().__init__("; ".join(f"{what}: {error}" for _, what, error in parts))


@dataclass(slots=True)
class Waiting:
    """What is to be sent of one trial: together it costs less than piece by piece."""

    params: dict[str, Any] = field(default_factory=dict)
    epochs: dict[tuple[int, int], list[Point]] = field(default_factory=dict)


class Sink:
    """Owns how a search appears in MLflow: one run, with one child run per trial.

    Applying events that were already applied, wholly or in part, changes nothing, as long as
    `look_up` is given. It neither reads the journal nor saves the cursor.

    Epochs of a trial's first execution are metrics under their own names, at the absolute epoch
    as the step. Those of a further one are in a group of its own, such as
    `execution_2/val_auc`: the charts compare first executions, and `score` is the trial's.

    Args:
        store: Where to send it.
        folder: The folder of the search, with the files that events name.
        settings: Which models to keep.
        cursor: What was sent so far; kept up to date here.
    """

    def __init__(
        self, store: Store, folder: Path, settings: TrackingSettings, cursor: Cursor
    ) -> None:
        self._store = store
        self._folder = folder
        self._settings = settings
        self._cursor = cursor
        self._owned: set[str] = set()
        self._waiting: dict[str, Waiting] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self._refused: list[tuple[int, str, Exception]] = []
        self._number = 0
        self._look_up = False

    def apply(self, events: Iterable[Event], *, look_up: bool) -> None:
        """Send some events; those of one trial together.

        Args:
            events: In their order in the journal.
            look_up: Whether some may have been sent already, by an attempt that broke off.

        Raises:
            RefusedError: The store refuses what they can do without; the rest was sent.
        """
        self._look_up = look_up
        self._waiting.clear()
        self._refused.clear()
        for event in events:
            self._number = int(event["n"])
            match event["kind"]:
                case "search_started":
                    self._start_search(event)
                case "trial_started":
                    self._start_trial(event)
                case "epoch_ended":
                    self._add_epoch(event)
                case "trial_ended":
                    self._end_trial(event)
                case "search_ended":
                    self._end_search(event)
        self._flush_all()
        if self._refused:
            raise RefusedError(self._refused)

    def close(self, time: int) -> None:
        """Mark as killed whatever still runs: the search left without ending it."""
        self._kill_trials(time)
        if self._cursor.is_open and self._cursor.run_id:
            self._store.log(self._cursor.run_id, tags={"status": "interrupted"})
            self._store.end_run(self._cursor.run_id, "KILLED", time=time)
            self._cursor.is_open = False

    def _start_search(self, event: Event) -> None:
        cursor = self._cursor
        given = event.get("tags", {})
        cursor.search_id, cursor.name = str(event["search_id"]), str(event["name"])
        cursor.direction = event.get("direction", "max")
        cursor.dataset = str(given.get("dataset", ""))
        key = {"kind": "search", SEARCH_ID: cursor.search_id}
        tags = {**given, **registry.origin_tags(event), **key, "status": "running"}
        if commit := given.get("git_commit"):
            tags["mlflow.source.git.commit"] = commit
        is_new = cursor.run_id is None
        if cursor.run_id is None:
            cursor.run_id, is_new = self._open_run(cursor.name, key, tags, event["time"])
            cursor.is_open = True
        self._claim_search()
        params = self._unknown(cursor.run_id, event.get("params", {}), is_new=is_new)
        self._store.log(cursor.run_id, params=params, tags={} if is_new else _present(tags))
        run_id, data = cursor.run_id, event.get("datasets", [])
        self._part("the datasets of this search", lambda: self._store.log_datasets(run_id, data))
        self._log_files(event)

    def _start_trial(self, event: Event) -> None:
        self._claim_search()
        trial_id = str(event["trial_id"])
        row, is_new = self._cursor.trials.get(trial_id), False
        if row is None:
            key = {"kind": "trial", SEARCH_ID: self._cursor.search_id, "trial_id": trial_id}
            parent = {"mlflow.parentRunId": self._cursor.run_id}
            tags = {**event.get("tags", {}), **key, **parent}
            run_id, is_new = self._open_run(str(event["name"]), key, tags, event["time"])
            number = int(event.get("number", len(self._cursor.trials) + 1))
            row = self._cursor.trials[trial_id] = TrialRun(run_id, number)
            if not is_new:  # the run of the search may be another one by now
                self._store.log(run_id, tags=parent)
        self._claim_trial(row)
        values = event.get("values", {})
        self._values[trial_id] = values
        waiting = self._waiting.setdefault(trial_id, Waiting())
        waiting.params = self._unknown(row.run_id, values, is_new=is_new)

    def _add_epoch(self, event: Event) -> None:
        row = self._trial(event)
        execution, epoch = int(event.get("execution", 0)), int(event["epoch"])
        if epoch <= row.epochs.get(str(execution), 0):
            return  # a trial that went on from a checkpoint repeats what came after it
        prefix = f"execution_{execution + 1}/" if execution else ""
        points = _points(event["metrics"], event["time"], step=epoch, prefix=prefix)
        waiting = self._waiting.setdefault(str(event["trial_id"]), Waiting())
        waiting.epochs.setdefault((execution, epoch), points)

    def _flush(
        self, trial_id: str, scores: Sequence[Point] = (), tags: Mapping[str, Any] | None = None
    ) -> None:
        """Send what waits of a trial, and what it ended with."""
        row = self._cursor.trials[trial_id]
        self._claim_search()
        self._claim_trial(row)
        waiting = self._waiting.pop(trial_id, Waiting())
        points = [point for epoch in waiting.epochs.values() for point in epoch]
        self._store.log(row.run_id, points=[*points, *scores], params=waiting.params, tags=tags)
        for execution, epoch in waiting.epochs:
            row.epochs[str(execution)] = max(epoch, row.epochs.get(str(execution), 0))

    def _flush_all(self, *, is_over: bool = False) -> None:
        for trial_id in list(self._waiting):
            self._flush(trial_id)
        ranked = self._unranked(is_over=is_over)
        if ranked:
            self._store.log(str(self._cursor.run_id), points=[point for _, point in ranked])
        for row, _ in ranked:
            row.is_ranked = True

    def _unranked(self, *, is_over: bool) -> list[tuple[TrialRun, Point]]:
        """Return the best scores that are still to be sent, each with the trial after which it is.

        They go by the numbers of the trials, up to the first that has not ended: so they are the
        same whichever of those that run at once ends first. After one that never ends, a budget's
        say, they go on when the search is over.
        """
        best, time, found = None, 0, []
        for row in sorted(self._cursor.trials.values(), key=lambda row: row.number):
            if not row.ended and not is_over:
                break
            if row.ended:
                time = max(time, row.ended)
                best = row if self._is_better(row, best) else best
            if row.ended and best is not None and not row.is_ranked:
                [point] = _points({"best_score": best.score}, time, step=row.number)
                found.append((row, point))
        return found

    def _end_trial(self, event: Event) -> None:
        trial_id, time = str(event["trial_id"]), event["time"]
        row = self._trial(event)
        self._claim_search()
        self._claim_trial(row)
        has_failed = event["status"] == "FAILED"
        row.score = _number(event.get("score"))
        if not has_failed and event.get("classifier"):
            row.classifier, row.is_kept = str(event["classifier"]), True
        if self._wants_model(trial_id):
            params, file = self._values.get(trial_id), str(row.classifier)
            row.model_id = self._part(
                "the classifier of a trial",
                lambda: self._log_model(row.run_id, file, event, params),
            )
        scores = {
            name if name.startswith("best_") else f"best_{name}": value
            for name, value in event.get("metrics", {}).items()
        }
        points = _points({"score": row.score, **scores}, time, model_id=row.model_id)
        tags = _present({"reason": event.get("reason") or None})
        self._part("the scores of a trial", lambda: self._flush(trial_id, points, tags))
        if text := event.get("traceback"):
            self._part(
                "the traceback of a trial",
                lambda: self._store.log_text(row.run_id, text, "traceback.txt"),
            )
        self._store.end_run(row.run_id, "FAILED" if has_failed else "FINISHED", time=time)
        row.is_open, row.ended, row.epochs = False, time, {}
        self._values.pop(trial_id, None)
        self._rank(trial_id)

    def _rank(self, trial_id: str) -> None:
        """Note the best trial so far, and drop what a worse one has left."""
        cursor = self._cursor
        if self._leads(trial_id):
            cursor.best = trial_id
        if cursor.best is None:
            return
        best = cursor.trials[cursor.best]
        for row in cursor.trials.values():
            if not row.ended or row is best:
                continue
            if self._settings.log_models == "best":
                self._delete_model(row)
            if row.score != best.score:
                self._drop_file(row)

    def _end_search(self, event: Event) -> None:
        cursor, status = self._cursor, event["status"]
        run_id, time = str(cursor.run_id), event["time"]
        cursor.decision = ""
        self._flush_all(is_over=status == "completed")
        self._kill_trials(time)
        self._log_files(event)
        model_id = self._part("the classifier of this search", lambda: self._log_final_model(event))
        words = ("reason", "winner")
        tags = _present({"status": status, **{word: event.get(word) for word in words}})
        if description := event.get("description"):
            tags[NOTE] = note(description, run_id, event.get("artifacts", []))
        step = int(event.get("extension", 0))  # each step of a metric once, after more budget too
        points = _points(event.get("metrics", {}), time, step=step, model_id=model_id)
        self._part(
            "the scores of this search", lambda: self._store.log(run_id, points=points, tags=tags)
        )
        # Before the model is registered: whatever becomes of that, the search has come to its end.
        self._store.end_run(run_id, RUN_STATUS[status], time=time)
        cursor.is_open = False
        if model_id and status == "completed":
            name = self._settings.registered_model or registry.model_name(cursor.dataset)
            self._part(
                f"the registration of the classifier as {name}",
                lambda: self._register(name, model_id, event),
                is_refusal=is_unwanted,
            )
            for row in cursor.trials.values():
                if row.classifier != event["classifier"]:
                    self._drop_file(row)

    def _part(
        self,
        what: str,
        send: Callable[[], T],
        *,
        is_refusal: Callable[[Exception], bool] = is_final,
    ) -> T | None:
        """Send what an event can do without; what is refused of it is told after the rest."""
        try:
            return send()
        except Exception as error:
            if not is_refusal(error):
                raise
            self._refused.append((self._number, what, error))
            return None

    def _log_files(self, event: Event) -> None:
        run_id, names = str(self._cursor.run_id), event.get("artifacts", [])
        self._part(
            "the files of this search", lambda: self._store.log_files(run_id, self._folder, names)
        )

    def _log_final_model(self, event: Event) -> str | None:
        """Log the classifier a search ended with, unless a trial's model is the same file."""
        cursor, run_id = self._cursor, str(self._cursor.run_id)
        name, winner = event.get("classifier"), cursor.trials.get(str(event.get("winner")))
        if not name:
            return None
        is_same = winner is not None and winner.classifier == name
        if winner and is_same and winner.model_id and self._store.has_model(winner.model_id):
            model_id: str | None = winner.model_id
            if model_id != cursor.final_model:
                self._store.link_model(run_id, winner.model_id, look_up=True)
        else:
            model_id = self._log_model(run_id, name, event)
        previous, cursor.final_model = cursor.final_model, model_id
        shared = {row.model_id for row in cursor.trials.values()}
        if previous and previous != model_id and previous not in shared:
            self._store.delete_model(previous)
        return model_id

    def _register(self, name: str, model_id: str, event: Event) -> None:
        """Register what the search ended with, and note what was decided of the champion."""
        cursor, run_id = self._cursor, str(self._cursor.run_id)
        facts = {
            SEARCH_ID: cursor.search_id,
            "search_run_id": cursor.run_id,
            "dataset": cursor.dataset,
            "winner": event.get("winner"),
            **event.get("metrics", {}),
            **registry.comparison_tags(next(journal.read(self._folder)), event),
        }
        about = note(event.get("description") or "", run_id, event.get("artifacts", []))
        decision = self._store.register(
            name,
            model_id,
            run_id,
            description=version_note(cursor.name, self._store.experiment_id, run_id, about),
            tags=_present(facts),
            completion=int(event.get("extension", 0)),
        )
        how = command("pneumonia", "promote", cursor.search_id, *self._settings.elsewhere())
        cursor.decision = decision.text + ("" if decision.takes else f" To promote it: `{how}`")

    def _open_run(
        self, name: str, key: Mapping[str, str], tags: Mapping[str, Any], time: int
    ) -> tuple[str, bool]:
        """Return a run's id and whether it was made just now, not by an earlier attempt."""
        found = self._store.find_run(key) if self._look_up else None
        if found:
            return found, False
        run_id = self._store.create_run(name, _present(tags), time=time)
        self._owned.add(run_id)
        return run_id, True

    def _claim_search(self) -> None:
        cursor = self._cursor
        if cursor.run_id is None:
            raise LookupError("The journal does not begin with `search_started`.")
        if cursor.run_id not in self._owned or not cursor.is_open:
            self._store.reopen_run(cursor.run_id)
            self._store.log(cursor.run_id, tags={"status": "running"})
            self._owned.add(cursor.run_id)
            cursor.is_open = True

    def _claim_trial(self, row: TrialRun) -> None:
        if row.run_id not in self._owned or not row.is_open:
            self._store.reopen_run(row.run_id)
            self._owned.add(row.run_id)
            row.is_open = True

    def _kill_trials(self, time: int) -> None:
        for row in self._cursor.trials.values():
            if row.is_open:
                self._store.end_run(row.run_id, "KILLED", time=time)
                row.is_open = False

    def _trial(self, event: Event) -> TrialRun:
        trial_id = str(event["trial_id"])
        if trial_id not in self._cursor.trials:
            raise LookupError(f"Trial {trial_id} ends or goes on without a start.")
        return self._cursor.trials[trial_id]

    def _unknown(self, run_id: str, params: Mapping[str, Any], *, is_new: bool) -> dict[str, Any]:
        """Leave out the params a run has already: MLflow refuses to change them."""
        known = set() if is_new else self._store.known_params(run_id)
        return {name: value for name, value in params.items() if name not in known}

    def _log_model(
        self, run_id: str, name: str, event: Event, params: Mapping[str, Any] | None = None
    ) -> str | None:
        tags = {SEARCH_ID: self._cursor.search_id, EVENT: str(event["n"])}
        file = self._folder / name
        return self._store.log_model(run_id, file, tags=tags, params=params, look_up=self._look_up)

    def _wants_model(self, trial_id: str) -> bool:
        if self._cursor.trials[trial_id].classifier is None:
            return False
        match self._settings.log_models:
            case "all":
                return True
            case "best":
                return self._cursor.best == trial_id or self._leads(trial_id)
            case _:
                return False

    def _leads(self, trial_id: str) -> bool:
        """Tell whether a trial is better than the best one so far."""
        trials, best = self._cursor.trials, self._cursor.best
        return self._is_better(trials[trial_id], trials[best] if best else None)

    def _is_better(self, row: TrialRun, other: TrialRun | None) -> bool:
        """Tell whether a trial is better than another: of equal scores, the earlier trial is."""
        if row.score is None or other is None or other.score is None:
            return row.score is not None
        if row.score == other.score:
            return row.number < other.number
        return (row.score > other.score) == (self._cursor.direction == "max")

    def _delete_model(self, row: TrialRun) -> None:
        if row.model_id:
            self._store.delete_model(row.model_id)
            row.model_id = None

    def _drop_file(self, row: TrialRun) -> None:
        """Remove a trial's file from beside the journal, unless it is still to be sent."""
        is_sent = row.model_id is not None or self._settings.log_models != "all"
        if row.is_kept and row.classifier and is_sent:
            (self._folder / row.classifier).unlink(missing_ok=True)
            row.is_kept = False


def _points(
    metrics: Mapping[str, Any],
    time: int,
    *,
    step: int = 0,
    prefix: str = "",
    model_id: str | None = None,
) -> list[Point]:
    return [
        Point(prefix + name, float(value), time, step, model_id)
        for name, value in metrics.items()
        if isinstance(value, (int, float))
    ]


def _present(tags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tags.items() if value is not None}


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)

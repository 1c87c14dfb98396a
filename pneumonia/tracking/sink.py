"""What each event of a journal means in MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pneumonia.storage import journal, members
from pneumonia.storage.journal import Event
from pneumonia.storage.offset import Cursor, TrialRun
from pneumonia.tracking import registry
from pneumonia.tracking.faults import RefusedError, is_final, is_unwanted
from pneumonia.tracking.mlflow_store import Point, Store
from pneumonia.tracking.ranking import Ranking
from pneumonia.tracking.registry import SEARCH_ID
from pneumonia.tracking.settings import TrackingSettings
from pneumonia.tracking.ui_view import NOTE, note, version_note
from pneumonia.tracking.waiting import Waiting, best_of, points_of, scores_of_stopped

EVENT = "pneumonia.event"
RUN_STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

T = TypeVar("T")
Refuses = Callable[[Exception], bool]


class Sink:
    """Owns how a search appears in MLflow: one run, with one child run per trial.

    Applying events that were already applied, wholly or in part, changes nothing, as long as
    `look_up` is given. It does not save the cursor.

    Epochs of a trial's first fit are metrics under their own names, at the absolute epoch as the
    step. Those of a further one are in a group of its own, such as `execution_2/val_auc` or
    `fold_2/val_auc`: the charts compare first fits, `score` is the trial's, and the standard
    deviation between its fits is under the name of the objective, as `val_auc_std`.
    """

    def __init__(
        self, store: Store, folder: Path, settings: TrackingSettings, cursor: Cursor
    ) -> None:
        self._store, self._folder = store, folder
        self._settings, self._cursor = settings, cursor
        self._ranking = Ranking(store, folder, settings.log_models, cursor)
        self._owned: set[str] = set()
        self._waiting: dict[str, Waiting] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self._refused: list[tuple[int, str, Exception]] = []
        self._number = 0
        self._look_up = False

    def apply(self, events: Iterable[Event], *, look_up: bool) -> None:
        """Send events of the journal, in their order; those of one trial together.

        `look_up` says whether an attempt that broke off may have sent some already.

        Raises:
            RefusedError: The store refuses what they can do without; the rest was sent.
        """
        self._look_up = look_up
        self._waiting.clear()
        self._refused.clear()
        meanings = {
            "search_started": self._start_search,
            "trial_started": self._start_trial,
            "epoch_ended": self._add_epoch,
            "worker_lost": self._lose_worker,
            "trial_ended": self._end_trial,
            "search_ended": self._end_search,
        }
        for event in events:
            self._number = int(event["n"])
            if meaning := meanings.get(event["kind"]):
                meaning(event)
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
        is_new = False
        if cursor.run_id is None:
            cursor.run_id, is_new = self._open_run(cursor.name, key, tags, event["time"])
            cursor.is_open = True
        run_id, data = self._claim_search(), event.get("datasets", [])
        params = self._unknown(run_id, event.get("params", {}), is_new=is_new)
        self._store.log(run_id, params=params, tags={} if is_new else _present(tags))
        self._part("the datasets of this search", lambda: self._store.log_datasets(run_id, data))
        self._log_files(event)

    def _start_trial(self, event: Event) -> None:
        search_run = self._claim_search()
        trial_id = str(event["trial_id"])
        row, is_new = self._cursor.trials.get(trial_id), False
        if row is None:
            key = {"kind": "trial", SEARCH_ID: self._cursor.search_id, "trial_id": trial_id}
            parent = {"mlflow.parentRunId": search_run}
            tags = {**event.get("tags", {}), **key, **parent}
            run_id, is_new = self._open_run(str(event["name"]), key, tags, event["time"])
            number = int(event.get("number", len(self._cursor.trials) + 1))
            row = self._cursor.trials[trial_id] = TrialRun(run_id, number)
            if not is_new:  # the run of the search may be another one by now
                self._store.log(run_id, tags=parent)
        self._claim(row)
        values = self._values[trial_id] = event.get("values", {})
        waiting = self._waiting.setdefault(trial_id, Waiting())
        waiting.params = self._unknown(row.run_id, values, is_new=is_new)

    def _add_epoch(self, event: Event) -> None:
        row = self._trial(event)
        self._waiting.setdefault(str(event["trial_id"]), Waiting()).add(event, row)

    def _flush(
        self, trial_id: str, scores: Sequence[Point] = (), tags: Mapping[str, Any] | None = None
    ) -> None:
        """Send what waits of a trial, and what it ended with."""
        row = self._cursor.trials[trial_id]
        self._claim_search()
        self._claim(row)
        waiting = self._waiting.pop(trial_id, Waiting())
        points = [*waiting.points(), *scores]
        self._store.log(row.run_id, points=points, params=waiting.params, tags=tags)
        waiting.note(row)

    def _flush_all(self, *, is_over: bool = False) -> None:
        for trial_id in list(self._waiting):
            self._flush(trial_id)
        ranked = self._ranking.unsent(is_over=is_over)
        if ranked:
            curve = [Point("best_score", score, time, row.number) for row, score, time in ranked]
            self._store.log(str(self._cursor.run_id), points=curve)
        for row, *_ in ranked:
            row.is_ranked = True

    def _lose_worker(self, event: Event) -> None:
        row = self._trial(event)
        self._store.log(row.run_id, tags={"worker_lost": str(event["reason"])})

    def _end_trial(self, event: Event) -> None:
        trial_id, time = str(event["trial_id"]), event["time"]
        row = self._trial(event)
        self._claim_search()
        self._claim(row)
        has_failed = event["status"] == "FAILED"
        score = event.get("score")
        row.score = None if score is None or math.isnan(score) else float(score)
        if not has_failed and event.get("classifier"):
            row.classifier, row.is_kept = str(event["classifier"]), True
        if self._ranking.wants_model(trial_id):
            params, file = self._values.get(trial_id), str(row.classifier)
            row.model_id = self._part(
                "the classifier of a trial",
                lambda: self._log_model(row.run_id, file, event, params),
            )
        scores = best_of(event.get("metrics", {}))
        if event.get("spread") is not None:
            name = next(journal.read(self._folder))["params"]["objective.name"]
            scores[f"{name}_std"] = event["spread"]
        scores["score"] = row.score
        points = points_of(scores, time, step=row.score_step, model_id=row.model_id)
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
        self._ranking.add(trial_id)

    def _end_search(self, event: Event) -> None:
        cursor, status = self._cursor, event["status"]
        run_id, time = str(cursor.run_id), event["time"]
        cursor.decision = ""
        self._flush_all(is_over=status == "completed")
        self._score_winner(event)
        self._kill_trials(time)
        self._log_files(event)
        model_id = self._part("the classifier of this search", lambda: self._log_final_model(event))
        facts = {"status": status, **{name: event.get(name) for name in ("reason", "winner")}}
        facts["test_readings"] = event.get("test_readings", {}).get("times")
        tags = _present({**facts, "members": members.told(members.of_event(event)) or None})
        if description := event.get("description"):
            tags[NOTE] = note(description, run_id, event.get("artifacts", []))
        step = int(event.get("extension", 0))  # each step of a metric once, after more budget too
        points = points_of(event.get("metrics", {}), time, step=step, model_id=model_id)
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
                refuses=is_unwanted,
            )
            self._ranking.drop_files(but=event["classifier"])

    def _score_winner(self, event: Event) -> None:
        """Send what a winner has won with that the budget has stopped: its own end never came."""
        row = self._cursor.trials.get(str(event.get("winner")))
        if row is None or row.ended:
            return
        step = int(event.get("extension", 0))
        points = points_of(scores_of_stopped(self._folder, event), event["time"], step=step)
        self._part("the scores of a trial", lambda: self._store.log(row.run_id, points=points))
        row.score_step = step + 1

    def _part(self, what: str, send: Callable[[], T], *, refuses: Refuses = is_final) -> T | None:
        """Send what an event can do without; what is refused of it is told after the rest."""
        try:
            return send()
        except Exception as error:
            if not refuses(error):
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

    def _log_model(
        self, run_id: str, name: str, event: Event, params: Mapping[str, Any] | None = None
    ) -> str | None:
        tags = {SEARCH_ID: self._cursor.search_id, EVENT: str(event["n"])}
        file = self._folder / name
        return self._store.log_model(run_id, file, tags=tags, params=params, look_up=self._look_up)

    def _register(self, name: str, model_id: str, event: Event) -> None:
        """Register what the search ended with, and note what was decided of the champion."""
        cursor, run_id = self._cursor, str(self._cursor.run_id)
        facts = {
            SEARCH_ID: cursor.search_id,
            "search_run_id": run_id,
            "dataset": cursor.dataset,
            "winner": event.get("winner"),
            "members": members.told(members.of_event(event)) or None,
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
        cursor.decision, cursor.takes = decision.text, decision.takes

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

    def _claim_search(self) -> str:
        """Let the run of the search be open and this process's; return its id."""
        if self._cursor.run_id is None:
            raise LookupError("The journal does not begin with `search_started`.")
        if self._claim(self._cursor):
            self._store.log(self._cursor.run_id, tags={"status": "running"})
        return self._cursor.run_id

    def _claim(self, row: Cursor | TrialRun) -> bool:
        """Let a run be open and this process's; return whether it was not."""
        run_id = str(row.run_id)
        if run_id in self._owned and row.is_open:
            return False
        self._store.reopen_run(run_id)
        self._owned.add(run_id)
        row.is_open = True
        return True

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


def _present(tags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tags.items() if value is not None}

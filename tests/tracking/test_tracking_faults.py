"""What a disk, a lock or a clock does to the tracking: nothing is lost, nothing is sent twice."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from families import quick, slow
from test_tracker import (
    add_epochs,
    assert_whole,
    await_condition,
    client,
    edit_journal,
    end_search,
    end_trial,
    fail_trial,
    folder,
    journal,
    rows,
    runs,
    settings,
    start_search,
    start_trial,
    track,
    write_search,
)

from pneumonia.cli import compare, export, predict, ui
from pneumonia.errors import ConfigError, UserError
from pneumonia.storage import offset, search_folder, search_record
from pneumonia.storage.journal import Journal
from pneumonia.tracking import settings as mlflow_setup
from pneumonia.tracking import tracker
from pneumonia.tracking.consumer import Consumer
from pneumonia.tracking.faults import is_final, is_unwanted
from pneumonia.tracking.mlflow_store import Store, make_ready
from pneumonia.tracking.settings import TrackingSettings, open_store

__all__ = ["folder", "journal", "settings"]


def follow(folder: Path, settings: TrackingSettings) -> tuple[Consumer, list[str]]:
    told: list[str] = []
    consumer = Consumer(folder, settings, told.append)
    return consumer, told


def test_a_locked_database_gets_everything_when_it_is_free(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    consumer, told = follow(folder, settings)
    start_search(journal)
    await_condition(lambda: rows("select count(*) from runs") == [(1,)])
    with closing(sqlite3.connect("mlruns/mlflow.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        trial_id = start_trial(journal, 1)
        add_epochs(journal, trial_id, range(1, 3))
        end_trial(journal, trial_id, 0.7)
        time.sleep(1)  # the consumer has met the lock, and waits
        other.execute("rollback")
    end_search(journal, trial_id)
    assert consumer.close() == 0
    assert_whole(trials=1, epochs=2)
    assert told == []


@pytest.mark.slow  # SQLite waits for five seconds
def test_a_database_that_is_locked_at_the_start_is_one_clear_error(
    settings: TrackingSettings,
) -> None:
    began = time.monotonic()
    with closing(sqlite3.connect("mlruns/mlflow.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(
            ConfigError, match=r"`tracking\.uri`.*no other program.*database is locked"
        ):
            make_ready(settings)
    assert time.monotonic() - began < 20


def test_a_folder_that_may_only_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlruns").write_text("a file, where the folder should be")
    with pytest.raises(ConfigError, match="Make its folder writable") as caught:
        make_ready(TrackingSettings())
    assert "server" not in str(caught.value)


def test_a_clock_that_was_put_back_ends_no_run_before_it_began(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    future = time.time_ns() // 1_000_000 + 3_600_000
    journal._time = future  # as if the clock had been an hour ahead
    start_search(journal)
    start_trial(journal, 1)
    consumer, told = follow(folder, settings)
    assert consumer.close() == 0, told
    found = rows("select status, start_time, end_time from runs")
    assert [status for status, *_ in found] == ["KILLED", "KILLED"]
    assert all(future <= start <= end for _, start, end in found)


@pytest.mark.slow
def test_a_full_disk_under_mlflow_is_told_and_what_is_left_is_sent_later(
    settings: TrackingSettings, folder: Path
) -> None:
    make_ready(settings)
    write_search(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = Path("mlruns/mlflow.db").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        consumer, told = follow(folder, settings)
        await_condition(lambda: bool(told))
        assert consumer.close(timeout=1) > 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "written to; the search goes on without it" in told[0]
    assert "resume=s1" in told[-1]
    consumer._thread.join(30)  # in its own process it would be gone by now
    track(folder, settings)
    assert_whole(trials=3, epochs=2)


def test_a_clock_that_is_set_back_leaves_no_run_that_ends_before_it_begins(
    settings: TrackingSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(settings)
    now = time.time_ns
    journal = Journal(folder)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + 10**13)
        start_search(journal)
        trial_id = start_trial(journal, 1)
    add_epochs(journal, trial_id, range(1, 3))
    end_trial(journal, trial_id, 0.7)
    end_search(journal, trial_id)
    journal.close()
    track(folder, settings)
    assert_whole(trials=1, epochs=2)
    assert rows("select count(*) from runs where end_time < start_time") == [(0,)]


def test_a_damaged_note_of_what_was_sent_sends_nothing_twice(
    settings: TrackingSettings, folder: Path
) -> None:
    make_ready(settings)
    write_search(folder)
    track(folder, settings)
    for damage in ("", "[]", '{"next": 3'):
        (folder / offset.NAME).write_text(damage)
        assert not search_folder.SearchFolder(folder).is_over()
        track(folder, settings)
        assert_whole(trials=3, epochs=2)


@pytest.mark.slow
def test_what_breaks_off_in_the_end_of_a_search_repeats_no_step(
    settings: TrackingSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(settings)
    write_search(folder)
    end_run, faults = Store.end_run, [OSError(errno.ENOSPC, "No space left on device")]

    def end_or_fail(self: Store, run_id: str, status: str, *, time: int) -> None:
        if faults and rows("select count(*) from runs where status = 'FINISHED'") == [(3,)]:
            raise faults.pop()
        end_run(self, run_id, status, time=time)

    monkeypatch.setattr(Store, "end_run", end_or_fail)
    track(folder, settings)
    assert faults == []
    assert_whole(trials=3, epochs=2)
    found = rows("select step from metrics where key = 'best_score' order by step")
    assert found == [(1,), (2,), (3,)]


def delete_run(settings: TrackingSettings, kind: str, *, for_good: bool) -> None:
    """Delete runs as MLflow's UI does, or as `mlflow gc` does afterwards."""
    for run in runs(settings, kind):
        client(settings).delete_run(run.info.run_id)
        if for_good:
            for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
                execute(f"delete from {table} where run_uuid = '{run.info.run_id}'")
            execute(f"delete from inputs where '{run.info.run_id}' in (source_id, destination_id)")


def delete_all(settings: TrackingSettings, *, for_good: bool) -> None:
    for kind in ("search", "trial"):
        delete_run(settings, kind, for_good=for_good)


def execute(sql: str) -> None:
    with closing(sqlite3.connect("mlruns/mlflow.db", timeout=10)) as connection:
        connection.execute(sql)
        connection.commit()


def delete_experiment_for_good(settings: TrackingSettings) -> None:
    """Leave no experiment of that name."""
    found = client(settings).get_experiment_by_name("pneumonia").experiment_id
    client(settings).rename_experiment(found, "another")
    client(settings).delete_experiment(found)


def delete_models(settings: TrackingSettings) -> None:
    for (model_id,) in rows("select model_id from logged_models where lifecycle_stage = 'active'"):
        client(settings).delete_logged_model(model_id)


DELETIONS: dict[str, Callable[[TrackingSettings], None]] = {
    "search": lambda settings: delete_run(settings, "search", for_good=False),
    "trials": lambda settings: delete_run(settings, "trial", for_good=False),
    "search for good": lambda settings: delete_run(settings, "search", for_good=True),
    "trials for good": lambda settings: delete_run(settings, "trial", for_good=True),
    "all": lambda settings: delete_all(settings, for_good=False),
    "all for good": lambda settings: delete_all(settings, for_good=True),
    "experiment for good": delete_experiment_for_good,
    "models": delete_models,
    "version": lambda settings: client(settings).delete_model_version("pneumonia-phantom", "1"),
    "registered model": lambda one: client(one).delete_registered_model("pneumonia-phantom"),
}


@pytest.mark.parametrize("deleted", quick(DELETIONS, "trials for good", "experiment for good"))
def test_a_search_is_whole_again_whatever_was_deleted_before_it_went_on(
    settings: TrackingSettings, folder: Path, deleted: str
) -> None:
    make_ready(settings)
    write_search(folder, (0.7, 0.9))
    track(folder, settings)
    DELETIONS[deleted](settings)
    with closing(Journal(folder)) as journal:
        journal.append("search_extended", params={"tuner.max_trials": 3})
        trial_id = start_trial(journal, 3)
        add_epochs(journal, trial_id, range(1, 3))
        end_trial(journal, trial_id, 0.95)
        end_search(journal, trial_id, extension=1)
    track(folder, settings)
    (search,) = runs(settings, "search")
    assert (search.info.status, search.data.tags["winner"]) == ("FINISHED", "0003")
    trials = runs(settings, "trial")
    assert [run.data.metrics["score"] for run in trials] == [0.7, 0.9, 0.95]
    assert {run.info.status for run in trials} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {search.info.run_id}
    version = client(settings).get_model_version_by_alias("pneumonia-phantom", "champion")
    assert version.run_id == search.info.run_id
    assert search_folder.SearchFolder(folder).is_over()


@pytest.mark.parametrize(
    "deleted",
    quick(("search", "trials", "trials for good", "all for good"), "all for good"),
)
def test_a_search_is_whole_again_whatever_was_deleted_while_it_ran(
    settings: TrackingSettings, folder: Path, journal: Journal, deleted: str
) -> None:
    make_ready(settings)
    consumer, told = follow(folder, settings)
    start_search(journal)
    first = start_trial(journal, 1)
    add_epochs(journal, first, range(1, 2))
    await_condition(lambda: rows("select count(*) from metrics") == [(2,)])
    DELETIONS[deleted](settings)
    add_epochs(journal, first, range(2, 3))
    end_trial(journal, first, 0.7)
    second = start_trial(journal, 2)
    add_epochs(journal, second, range(1, 3))
    end_trial(journal, second, 0.8)
    end_search(journal, second)
    assert consumer.close() == 0
    assert_whole(trials=2, epochs=2)
    assert len(told) == 1
    assert "restored" in told[0] or "sent anew" in told[0]
    assert search_folder.SearchFolder(folder).is_over()


def test_an_experiment_that_is_deleted_meanwhile_keeps_what_is_left_for_later(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    consumer, told = follow(folder, settings)
    start_search(journal)
    trial_id = start_trial(journal, 1)
    await_condition(lambda: rows("select count(*) from runs") == [(2,)])
    found = client(settings).get_experiment_by_name("pneumonia").experiment_id
    client(settings).delete_experiment(found)
    add_epochs(journal, trial_id, range(1, 3))
    end_trial(journal, trial_id, 0.7)
    end_search(journal, trial_id)
    assert consumer.close() > 0
    assert "`tracking.experiment`" in told[0]
    assert "resume=s1" in told[-1]
    client(settings).restore_experiment(found)
    track(folder, settings)
    assert_whole(trials=1, epochs=2)


def refuse(monkeypatch: pytest.MonkeyPatch, method: str, error: Exception) -> None:
    def fail(*arguments: Any, **given: Any) -> Any:
        raise error

    monkeypatch.setattr(Store, method, fail)


def answer(code: str, text: str = "no") -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2

    return MlflowException(text, databricks_pb2.ErrorCode.Value(code))


REGISTRATION = "registration of the classifier as pneumonia-phantom"
NO_REGISTRY = "API request to endpoint /x failed with error code 404 != 200."


@pytest.mark.parametrize(
    ("method", "part", "error"),
    [
        ("register", REGISTRATION, answer("INVALID_PARAMETER_VALUE", "Invalid name")),
        slow("register", REGISTRATION, answer("INTERNAL_ERROR", NO_REGISTRY)),
        ("log_model", "classifier of a trial", answer("INVALID_PARAMETER_VALUE")),
        slow("log_files", "files of this search", answer("INVALID_PARAMETER_VALUE")),
        slow("log_text", "traceback of a trial", answer("INVALID_PARAMETER_VALUE")),
    ],
    ids=["name", "no registry", "model", "files", "text"],
)
def test_a_search_is_complete_where_a_part_is_refused_and_that_is_tried_again(
    settings: TrackingSettings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    part: str,
    error: Exception,
) -> None:
    make_ready(settings)
    write_search(folder, (0.7,))
    if method == "log_text":
        edit_journal(folder, '"traceback": null', '"traceback": "t"')
    with monkeypatch.context() as patch:
        refuse(patch, method, error)
        consumer, told = follow(folder, settings)
        assert consumer.close() > 0
        assert part in told[0]
        assert "`pneumonia resume=s1` tries again" in told[0]
        again, told = follow(folder, settings)
        assert again.close() > 0
        assert part in told[0]
    assert {run.info.status for run in runs(settings, "trial")} == {"FINISHED"}
    (search,) = runs(settings, "search")
    assert (search.info.status, search.data.tags["status"]) == ("FINISHED", "completed")
    assert not search_folder.SearchFolder(folder).is_over()
    track(folder, settings)
    assert_whole(trials=1, epochs=2)
    assert search_folder.SearchFolder(folder).is_over()


@pytest.mark.parametrize(
    ("code", "text", "is_refusal"),
    [
        ("PERMISSION_DENIED", "no", True),
        ("NOT_IMPLEMENTED", "no", True),
        ("ENDPOINT_NOT_FOUND", "no", True),
        ("INTERNAL_ERROR", "API request to endpoint /x failed with error code 500 != 200.", True),
        ("INTERNAL_ERROR", "API request to endpoint /x failed with error code 503 != 200.", False),
        ("INTERNAL_ERROR", "API request to http://h/x failed with exception Pool", False),
        ("INTERNAL_ERROR", "API request to http://h/x failed with timeout exception Pool", False),
        ("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) database is locked", False),
    ],
)
def test_what_a_store_will_not_do_and_what_it_cannot_do_now(
    code: str, text: str, is_refusal: bool
) -> None:
    assert is_unwanted(answer(code, text)) == is_refusal
    assert not is_unwanted(ConnectionError(text))


@pytest.mark.parametrize(
    ("said", "is_refusal"),
    [
        ("(psycopg2.InterfaceError) connection already closed", False),
        ("(psycopg2.DatabaseError) SSL SYSCALL error: EOF detected", False),
        ("(psycopg2.errors.ReadOnlySqlTransaction) cannot execute INSERT in a read-only", False),
        ("Can't reconnect until invalid transaction is rolled back.", False),
        ("(psycopg2.errors.StringDataRightTruncation) value too long", True),
        ("(psycopg.errors.NumericValueOutOfRange) integer out of range", True),
        ("(sqlite3.IntegrityError) FOREIGN KEY constraint failed", True),
        ("The run cannot be changed.", True),
    ],
)
def test_what_a_database_cannot_do_now_is_no_refusal(said: str, is_refusal: bool) -> None:
    # MLflow calls all that is no OperationalError of SQLAlchemy a bad request.
    assert is_final(answer("BAD_REQUEST", said)) == is_refusal


def test_texts_that_no_database_takes_hold_nothing_up(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    start_search(journal, name="brave\0owl", tags={"dataset": "phantom", "path": "x\udcff\0"})
    start_trial(journal, 1)
    fields = {"status": "FAILED", "score": None, "metrics": {}, "classifier": None}
    said = {"reason": "no\0ne", "traceback": "no\udcff\0"}
    journal.append("trial_ended", trial_id="0001", **fields, **said)
    end_trial(journal, start_trial(journal, 2), 0.9)
    end_search(journal, "0002")
    consumer, told = follow(folder, settings)
    assert consumer.close() == 0
    assert told == []
    (search,) = runs(settings, "search")
    assert search.info.run_name == r"brave\x00owl"
    assert search.data.tags["path"] == r"x\udcff\x00"
    assert runs(settings, "trial")[0].data.tags["reason"] == r"no\x00ne"


@pytest.mark.slow
def test_a_registry_that_is_away_is_waited_for(
    settings: TrackingSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(settings)
    write_search(folder)
    text = "API request to http://h/api failed with exception HTTPConnectionPool"
    with monkeypatch.context() as patch:
        refuse(patch, "register", answer("INTERNAL_ERROR", text))
        consumer, told = follow(folder, settings)
        await_condition(lambda: bool(told))
        assert consumer.close(timeout=2) > 0
    assert "cannot be reached" in told[0]
    # Whatever becomes of the model; an attempt that is under way opens the run, and ends it again.
    await_condition(lambda: {run.info.status for run in runs(settings, "search")} == {"FINISHED"})
    consumer._thread.join(30)
    track(folder, settings)
    assert_whole(trials=3, epochs=2)


def test_what_is_registered_late_leaves_the_alias_to_a_later_search(
    settings: TrackingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(settings)
    for name in ("a", "b"):
        with closing(Journal(tmp_path / name)) as journal:
            start_search(journal, search_id=name)
            end_trial(journal, start_trial(journal, 1), 0.9)
            end_search(journal, "0001")
        time.sleep(0.01)
    with monkeypatch.context() as patch:
        refuse(patch, "register", answer("PERMISSION_DENIED"))
        consumer, _ = follow(tmp_path / "a", settings)
        assert consumer.close() == 1
    track(tmp_path / "b", settings)
    track(tmp_path / "a", settings)
    assert rows("select count(*) from model_versions") == [(2,)]
    champion = client(settings).get_model_version_by_alias("pneumonia-phantom", "champion")
    assert client(settings).get_run(champion.run_id).data.tags["pneumonia.search_id"] == "b"


ORDERS = {
    "one at a time": "s1 e1 s2 e2 s3 e3 s4 f4 s5 e5",
    "two at a time": "s1 s2 e2 s3 e3 e1 s4 s5 e5 f4",
    "backwards": "s1 s2 s3 s4 s5 e5 f4 e3 e2 e1",
    "interrupted": "s1 s2 e2 i e1 s3 s4 f4 s5 i e5 e3",
}
OFTEN = {("interrupted", "best")}  # the others are slow


@pytest.mark.parametrize(
    ("order", "log_models"),
    [
        (order, kept) if (order, kept) in OFTEN else slow(order, kept)
        for order in ORDERS
        for kept in ("all", "best")
    ],
)
def test_the_curve_of_best_scores_is_the_same_whichever_trial_ends_first(
    folder: Path, settings: TrackingSettings, order: str, log_models: Any
) -> None:
    settings = TrackingSettings(log_models=log_models)
    make_ready(settings)
    scores = {1: 0.6, 2: 0.7, 3: 0.7, 5: float("nan") if log_models == "all" else 0.65}
    with closing(Journal(folder)) as journal:
        start_search(journal)
        for word in ORDERS[order].split():
            number = int(word[1:] or 0)
            if word == "i":
                end_search(journal, None, "interrupted")
                track(folder, settings)
            elif word[0] == "s":
                start_trial(journal, number)
            elif word[0] == "f":
                fail_trial(journal, f"{number:04d}")
            else:
                end_trial(journal, f"{number:04d}", scores[number])
            time.sleep(0.002)
        end_search(journal, "0002")
    track(folder, settings)
    (search,) = runs(settings, "search")
    curve = client(settings).get_metric_history(search.info.run_id, "best_score")
    curve = sorted((point.step, point.value, point.timestamp) for point in curve)
    assert [point[:2] for point in curve] == [(1, 0.6), (2, 0.7), (3, 0.7), (4, 0.7), (5, 0.7)]
    times = [point[2] for point in curve]
    assert times == sorted(times)
    assert search.data.metrics["best_score"] == 0.7
    kept = rows("select count(*) from logged_models where lifecycle_stage = 'active'")
    assert kept == [(1 if log_models == "best" else 4,)]


def test_the_curve_goes_on_after_a_trial_that_a_budget_has_stopped(
    folder: Path, settings: TrackingSettings
) -> None:
    make_ready(settings)
    with closing(Journal(folder)) as journal:
        start_search(journal)
        for number in (1, 2):
            start_trial(journal, number)
        end_trial(journal, "0002", 0.7)
        end_search(journal, "0002")
        track(folder, settings)
        end_trial(journal, "0001", 0.6)
        end_search(journal, "0002", extension=1)
    track(folder, settings)
    found = rows("select step, value from metrics where key = 'best_score' order by step")
    assert found == [(1, 0.6), (2, 0.7)]


class Sidecar:
    """Stands for the other process, in this one."""

    def check(self, settings: TrackingSettings) -> Sidecar:
        make_ready(settings)
        return self


def search(monkeypatch: pytest.MonkeyPatch) -> int:
    """Do what a search does with its store before it begins."""
    monkeypatch.setattr(tracker, "current", Sidecar)
    try:
        tracker.check(TrackingSettings())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


FORM = "expected the URI of an MLflow store (sqlite:///mlruns/mlflow.db, http://host:5000, ...)"
REACHED = "expected an MLflow store that can be reached"


@pytest.mark.parametrize(
    ("uri", "fragment"),
    [
        ("./mlruns", FORM),
        ("mlruns", FORM),
        ("file:///tmp/mlruns", FORM),
        ("ftp://host", FORM),
        ("uc:profile", FORM),
        (" ", FORM),
        ("sqlite://mlflow.db", FORM),
        ("http://", FORM),
        ("http:///path", FORM),
        ("http://host:port", FORM),
        ("http://127.0.0.1:99999", FORM),
        ("http://127.0.0.1:1/?token=hush", FORM),
        ("http://bob:hu/sh@127.0.0.1:1", FORM),
        ("http://bob:hu@sh@127.0.0.1:1", FORM),
        ("http://bob:hu#sh@127.0.0.1:1", FORM),
        ("http://bob:hu sh@127.0.0.1:1", FORM),
        ("http://hu/sh@127.0.0.1:1", FORM),
        ("http://bob:hush", FORM),
        ("http:/bob:hush@host", FORM),
        ("bob:hush@host:5000", FORM),
        ("postgresql://bob:hu/sh@127.0.0.1/mlflow", FORM),
        slow("databricks", REACHED),  # a second to import
        ("sqlite:///folder", "expected the file of a SQLite database"),
        ("sqlite:///", "expected the file of a SQLite database"),
        ("sqlite:////", "expected the file of a SQLite database"),
        ("sqlite:///x.png", "expected the file of a SQLite database"),
        ("sqlite:///pipe", "expected the file of a SQLite database"),
        ("sqlite:///blocked.db", REACHED),
        ("sqlite:///future.db", "expected a database that this version of MLflow knows"),
        ("http://nowhere.invalid", REACHED),
        ("http://127.0.0.1:1", "refused"),
        ("https://bob:hush@127.0.0.1:1/mlflow", "refused"),
        ("postgresql://bob:hush@127.0.0.1:1/mlflow?sslmode=require", "refused"),
        ("mysql+pymysql://127.0.0.1:1/mlflow?password=hush", "refused"),
    ],
)
def test_every_command_says_the_same_of_a_store_that_is_none(
    settings: TrackingSettings,
    uri: str,
    fragment: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from PIL import Image

    Image.new("L", (40, 40)).save("x.png")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    shutil.copy("mlruns/mlflow.db", "blocked.db")
    Path("blocked.db-journal").mkdir()
    Path("mlruns/mlflow.db").rename("future.db")
    with closing(sqlite3.connect("future.db")) as connection:
        connection.execute("update alembic_version set version_num = 'future'")
        connection.commit()
    commands: list[Callable[[], int]] = [
        lambda: search(monkeypatch),
        lambda: predict.main(["x.png"]),
        lambda: export.main([]),
        lambda: compare.main([]),
        lambda: ui.main([]),
    ]
    told = set()
    for command in commands:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert command() == 2
        said = capsys.readouterr()
        assert said.out == ""
        told.add(said.err)
    (message,) = told
    assert message.startswith(f"`tracking.uri`: {fragment}") or fragment in message
    assert message.count("\n") == 1
    assert not any(part in message for part in ("hu/", "sh@", "hush", "hu@", "hu#", "bob"))


def test_only_a_search_makes_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").touch()
    assert (predict.main(["x.png"]), export.main([]), compare.main([]), ui.main([])) == (2,) * 4
    assert len(set(capsys.readouterr().err.splitlines())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


EXPERIMENT = json.dumps({"experiment": {"experiment_id": "0", "name": "Default"}}).encode()


class Fake(BaseHTTPRequestHandler):
    """Answers every request in one way."""

    how, paths = "", []  # type: ignore[var-annotated]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        how, text = self.how, EXPERIMENT
        if how == "hangs later":
            how = "" if len(self.paths) < 3 else "hangs"
        if how in ("hangs", "stalls", "drips"):
            if how != "hangs":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while how == "drips":
                self.wfile.write(b"{")
                time.sleep(0.1)
            time.sleep(2)
            return
        status, _, body = how.partition(" ")
        if how == "old":
            text = b"2.9.2" if self.path == "/version" else EXPERIMENT
        self.send_response(int(status) if status.isdigit() else 200)
        if status in ("301", "302"):
            self.send_header("Location", "http://login.invalid/?token=hush")
        self.end_headers()
        self.wfile.write(body.encode() if status.isdigit() else text)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[str]:
    kind = type("Fake", (Fake,), {"how": request.param, "paths": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("fake", "fragment"),
    [
        ("hangs", "There was no answer within 0.3 seconds"),
        ("stalls", "There was no answer within 0.3 seconds"),
        ("drips", "There was no answer within 0.3 seconds"),
        ("hangs later", "There was no answer within 0.5 seconds"),
        ("200 {}", "no MLflow server: status 200"),
        ("200 []", "no MLflow server: status 200"),
        ("200", "no MLflow server: status 200"),
        ('200 {"experiment": null}', "no MLflow server: status 200"),
        ('200 {"experiment": {"experiment_id": null}}', "no MLflow server: status 200"),
        ("200 <html>It works</html>", "no MLflow server: status 200"),
        ("404 <html>none</html>", "no MLflow server: status 404"),
        ("500 <html>oh</html>", "no MLflow server: status 500"),
        ("503 wait", "no MLflow server: status 503"),
        ("301", "no MLflow server: status 301"),
        ("302", "no MLflow server: status 302"),
        ("401 who", "It does not let us in. Set MLFLOW_TRACKING_USERNAME"),
        ("403 who", "It does not let us in. Set MLFLOW_TRACKING_USERNAME"),
        ("old", "Its MLflow is 2.9.2, older than 3.0"),
    ],
    indirect=["fake"],
)
def test_what_is_no_mlflow_server_is_told_in_seconds(
    fake: str, fragment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_setup, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(mlflow_setup, "CONTACT_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    import mlflow  # noqa: F401 - not part of the time

    began = time.monotonic()
    with pytest.raises(ConfigError, match=REACHED) as caught:
        open_store(TrackingSettings(uri=fake))
    assert time.monotonic() - began < 2
    assert fragment in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("fake", ["", "404 " + json.dumps({"error_code": "X"})], indirect=True)
def test_what_answers_as_mlflow_does_is_taken(fake: str) -> None:
    mlflow_setup.probe(fake)
    mlflow_setup.probe(f"{fake.replace('//', '//anna:hush%2F@')}/prefix/")


def test_a_name_that_is_looked_up_for_ever_is_told_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlflow_setup, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    for uri in ("http://host:5000", "postgresql://host/db"):
        with pytest.raises(ConfigError, match=r"no answer within 0\.2 seconds"):
            mlflow_setup.probe(uri)


def test_a_database_that_hangs_or_has_no_driver_is_told_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlflow_setup, "PROBE_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"postgresql://anna:hush@127.0.0.1:{server.getsockname()[1]}/mlflow"
        with pytest.raises(ConfigError, match=REACHED) as caught:
            mlflow_setup.probe(uri)
    assert "hush" not in str(caught.value)


def test_a_driver_that_is_missing_is_named_with_one_that_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # SQLAlchemy's own choice since 2.1
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"postgresql://anna:hush@127.0.0.1:{server.getsockname()[1]}/mlflow"
        with pytest.raises(ConfigError, match=REACHED) as caught:
            mlflow_setup.probe(uri)
    assert "`pip install 'psycopg2-binary>=2.9'`, and tracking.uri=postgresql+psycopg2://" in str(
        caught.value
    )
    assert "Start the server" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("fake", ["hangs"], indirect=True)
def test_a_server_that_hangs_meanwhile_holds_up_no_search(fake: str, folder: Path) -> None:
    write_search(folder)
    consumer, told = follow(folder, TrackingSettings(uri=fake))
    time.sleep(0.2)
    began = time.monotonic()
    assert consumer.close(timeout=0.5) > 0
    assert time.monotonic() - began < 2
    assert f"resume={folder}` sends them" in told[-1]


def test_a_journal_that_is_damaged_while_it_is_followed_stops_the_tracking(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    consumer, told = follow(folder, settings)
    start_search(journal)
    trial_id = start_trial(journal, 1)
    await_condition(lambda: rows("select count(*) from runs") == [(2,)])
    add_epochs(journal, trial_id, range(1, 3))
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([*lines[:3], b"5\n"]))
    assert consumer.close() == 0
    assert told == [f"The tracking has stopped. {error_of(folder)}"]
    consumer, told = follow(folder, settings)  # and so does the next one
    assert consumer.close() == 0
    assert told == [f"The tracking has stopped. {error_of(folder)}"]


def error_of(folder: Path) -> str:
    with pytest.raises(UserError, match="damaged in line 4: it is no event") as caught:
        search_record.from_journal(folder)
    return str(caught.value)


def test_a_journal_that_has_lost_its_end_is_sent_again_to_the_same_runs(
    settings: TrackingSettings, folder: Path
) -> None:
    write_search(folder)
    track(folder, settings)
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]))
    with closing(Journal(folder)) as journal:
        for line in lines[-3:]:
            event = json.loads(line)
            kind = event.pop("kind")
            journal.append(kind, **{k: v for k, v in event.items() if k not in TIMES})
    consumer, told = follow(folder, settings)
    assert consumer.close() == 0
    assert told == ["The journal of this search has lost events that it had. They come again."]
    assert rows("select count(*) from runs") == [(4,)]
    assert rows("select count(*) from runs where status != 'FINISHED'") == [(0,)]
    # Points that come again have another time, and the same value.
    points = "select count(distinct value) from metrics group by run_uuid, key, step"
    assert set(rows(points)) == {(1,)}


TIMES = ("n", "time", "seconds_elapsed", "crc")

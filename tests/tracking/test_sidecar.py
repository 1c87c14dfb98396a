"""The process beside a search: real processes that are killed, and a real SQLite store."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from pneumonia.errors import UserError
from pneumonia.storage.journal import Journal
from pneumonia.tracking import tracker
from pneumonia.tracking.sidecar import Sidecar, current
from pneumonia.tracking.tracker import Tracker, TrackingSettings

ROOT = Path(__file__).parents[2]
SEARCH = """
import json, os, signal, sys
from pathlib import Path
from pneumonia.tracking import tracker as tracking
from pneumonia.tracking.sidecar import current
from pneumonia.storage.journal import Journal

folder = Path("outputs/search")
tracking.check(tracking.TrackingSettings()).result()
journal = Journal(folder)
with tracking.Tracker(folder, tracking.TrackingSettings()):
    journal.append("search_started", search_id="s1", name="owl", tags={}, params={}, datasets=[])
    journal.append("trial_started", trial_id="1", name="trial 1", values={"dense.units": 3})
    print(current().pid, "mlflow" in sys.modules, flush=True)
    if sys.argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    journal.append("trial_ended", trial_id="1", status="COMPLETED", score=0.9, metrics={})
    journal.append("search_ended", status="completed", winner="1", metrics={})
"""


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder without a store."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(bare: Path, empty_store: Path) -> Path:
    (bare / "mlruns").mkdir()
    shutil.copyfile(empty_store, bare / "mlruns" / "mlflow.db")
    return bare


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SEARCH, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=90, check=False
    )


def statuses() -> list[str]:
    with closing(sqlite3.connect("file:mlruns/mlflow.db?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("select status from runs")]


def are_running() -> bool:
    try:
        return statuses() == ["RUNNING", "RUNNING"]
    except sqlite3.OperationalError:  # no tables yet
        return False


def await_condition(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; who is to ask for its status may take half a minute."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_search(folder: Path) -> Journal:
    journal = Journal(folder)
    event = {"search_id": folder.name, "name": "owl", "tags": {}, "params": {}, "datasets": []}
    journal.append("search_started", **event)
    journal.append("trial_started", trial_id="1", name="trial 1", values={"dense.units": 3})
    return journal


def end_search(journal: Journal) -> None:
    journal.append("trial_ended", trial_id="1", status="COMPLETED", score=0.9, metrics={})
    journal.append("search_ended", status="completed", winner="1", metrics={})
    journal.close()


def test_a_search_is_sent_whole_without_importing_mlflow(bare: Path) -> None:
    done = run("live")
    assert (done.returncode, done.stderr) == (0, "")
    pid, has_mlflow = done.stdout.split()
    assert has_mlflow == "False"
    assert statuses() == ["FINISHED", "FINISHED"]
    await_condition(lambda: is_gone(int(pid)))


def test_the_runs_of_a_killed_search_are_closed_at_once(project: Path) -> None:
    done = run("die")
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Not by the next search: by the process that outlived this one.
    await_condition(lambda: statuses() == ["KILLED", "KILLED"])
    await_condition(lambda: is_gone(int(done.stdout.split()[0])))


def test_a_sidecar_that_dies_is_replaced(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = project / "search"
    journal = start_search(folder)
    with Tracker(folder, TrackingSettings()):
        first = current().pid
        await_condition(are_running)
        os.kill(first, signal.SIGKILL)
        end_search(journal)
    assert current().pid != first
    assert statuses() == ["FINISHED", "FINISHED"]
    assert not caplog.records


def test_one_sidecar_serves_many_searches_out_of_the_reach_of_the_terminal(
    project: Path,
) -> None:
    pids = set()
    for name in ("a", "b"):
        journal = start_search(project / name)
        with Tracker(project / name, TrackingSettings()):
            end_search(journal)
        pids.add(current().pid)
    assert len(pids) == 1
    assert os.getpgid(pids.pop()) != os.getpgid(0)
    assert statuses() == ["FINISHED"] * 4


def test_what_is_wrong_with_a_store_comes_back(project: Path) -> None:
    Path("mlruns/mlflow.db").write_text("no database, but long enough to look at" * 9)
    with pytest.raises(UserError, match=r"tracking\.uri.*SQLite database"):
        tracker.check(TrackingSettings()).result()


def test_warnings_of_the_other_process_are_shown_here(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = project / "search"
    journal = start_search(folder)
    journal.append("trial_ended", trial_id="nobody", status="COMPLETED", score=1.0, metrics={})
    with caplog.at_level(logging.WARNING), Tracker(folder, TrackingSettings()):
        end_search(journal)
    assert "MLflow has refused a part of this search (trial_ended)" in caplog.text


def test_a_sidecar_that_cannot_start_says_why(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mlflow.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", f"{project}{os.pathsep}{ROOT}")
    answer = Sidecar().check(TrackingSettings())
    with pytest.raises(ChildProcessError, match="no such luck"):
        answer.result(timeout=60)


@pytest.mark.slow
def test_a_second_follower_of_a_folder_waits_for_the_first(project: Path) -> None:
    folder = project / "search"
    journal = start_search(folder)
    end_search(journal)
    others = [current(), Sidecar()]
    for other in others:
        other.follow(folder, TrackingSettings())
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda other: other.close(folder, 30), others))
    assert statuses() == ["FINISHED", "FINISHED"]
    assert json.loads((folder / "tracking.json").read_text())["next"] == 4


@pytest.mark.slow  # as one that dies later
def test_a_sidecar_that_is_killed_at_the_very_start_is_replaced(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.prepare()
    checked = tracker.check(TrackingSettings())
    first = current()
    os.kill(first.pid, signal.SIGKILL)
    checked.result()
    assert current() is not first
    folder = project / "search"
    journal = start_search(folder)
    with Tracker(folder, TrackingSettings()):
        end_search(journal)
    assert statuses() == ["FINISHED", "FINISHED"]
    assert not caplog.records


def test_sidecars_that_cannot_start_are_one_message(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mlflow.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", f"{project}{os.pathsep}{ROOT}")
    monkeypatch.setattr("pneumonia.tracking.sidecar._current", None)
    with pytest.raises(UserError, match="talks to MLflow has died: ImportError: no such luck"):
        tracker.check(TrackingSettings()).result()
    monkeypatch.setattr("pneumonia.tracking.sidecar._current", None)

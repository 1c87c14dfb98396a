"""What a worker of Ray says while a trial runs, and what it makes of the answers; without Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_trial import config

from pneumonia import startup
from pneumonia.artifacts import FolderStore
from pneumonia.search import ray_worker
from pneumonia.search.ray_nodes import Needs
from pneumonia.search.ray_worker import CANCEL, FAIL, STOP, VALUE, Worker
from pneumonia.training import trial
from pneumonia.training.trial import Hooks, Outcome, Task


class Driver:
    """Answers as the executor does, without Ray."""

    def __init__(self, folder: Path) -> None:
        self.worker = Worker(str(folder), threads=startup.threads(), shared=None, scratch=None)
        self.worker.prepare(Needs())
        self.kept: dict[str, np.ndarray[Any, Any]] = {}
        self.said: list[tuple[Any, ...]] = []
        self.instead: dict[str, tuple[Any, ...]] = {}

    def run(self, task: Task) -> tuple[Any, ...]:
        said = self.worker.run(task)
        while said[0] not in (ray_worker.ENDED, ray_worker.CANCELLED, ray_worker.STOPPED):
            assert said[0] != ray_worker.BROKEN, said[1]
            self.said.append(said)
            said = self.worker.answer(*self.answer(*said))
        return said

    def answer(self, name: str, *args: Any) -> tuple[Any, ...]:
        if name in self.instead:
            return self.instead[name]
        if name == "put":
            self.kept[args[0]] = args[1]
        if name == "get":
            return VALUE, self.kept.get(args[0])
        if name == "drop":
            self.kept.pop(args[0], None)
        return (VALUE,)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.chdir(tmp_path)
    # The dataset is kept already, as by an earlier trial.
    monkeypatch.setattr("pneumonia.search.ray_worker.Worker._fetch_data", lambda *_: None)
    yield Driver(tmp_path)
    monkeypatch.undo()
    os.chdir(Path(__file__).parent)


def task(folder: Path, epochs: int = 2, **more: Any) -> Task:
    from pneumonia.datasets.cache import load_data

    cfg = config(folder, "cnn")
    load_data(cfg)
    return Task("0000", cfg, epochs, **more)


def test_a_trial_comes_to_the_same_as_here(driver: Driver, tmp_path: Path) -> None:
    one, told = task(tmp_path), []
    here = trial.run(one, FolderStore(tmp_path), Hooks(lambda *args: told.append(args)))
    kind, outcome = driver.run(one)
    assert kind == ray_worker.ENDED
    assert isinstance(outcome, Outcome)
    assert outcome.history == here.history
    assert [said[1:] for said in driver.said if said[0] == "on_epoch"] == told
    # Each epoch was asked for, kept and told before the next.
    order = [said[0] for said in driver.said if said[0] != "report"]
    assert order[:4] == ["get", "between_epochs", "put", "on_epoch"]
    for key in ("trials/0000.zip", "classifiers/0000.keras"):
        assert driver.kept[key].tobytes()[:2] == (tmp_path / key).read_bytes()[:2] == b"PK"


def test_it_goes_on_from_what_the_driver_keeps(driver: Driver, tmp_path: Path) -> None:
    driver.run(task(tmp_path, 2))
    driver.said.clear()
    child = Task("0001", task(tmp_path).config, 4, parent="0000")
    _, outcome = driver.run(child)
    assert [said[3] for said in driver.said if said[0] == "on_epoch"] == [3, 4]
    assert len(outcome.history) == 4


def test_a_search_that_has_no_more_time_keeps_what_there_is(driver: Driver, tmp_path: Path) -> None:
    driver.run(task(tmp_path, 1))
    driver.said.clear()
    driver.instead["between_epochs"] = (STOP,)
    _, outcome = driver.run(task(tmp_path, 3, has_begun=True))
    assert (outcome.status, len(outcome.history)) == ("STOPPED", 1)
    assert list(driver.kept) == ["trials/0000.zip", "classifiers/0000.keras"]


def test_a_search_that_stops_elsewhere_cancels(driver: Driver, tmp_path: Path) -> None:
    driver.instead["between_epochs"] = (CANCEL,)
    assert driver.run(task(tmp_path)) == (ray_worker.CANCELLED,)


def test_what_the_driver_refuses_fails_the_trial(driver: Driver, tmp_path: Path) -> None:
    driver.instead["on_epoch"] = (FAIL, "epoch 1 is not the one in the journal")
    _, outcome = driver.run(task(tmp_path))
    assert outcome == Outcome("0000", "FAILED", reason="epoch 1 is not the one in the journal")
    assert driver.kept == {}


def test_a_disk_that_is_full_there_stops_the_search(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "features")

    monkeypatch.setattr("pneumonia.training.trial._Fits", fail)
    kind, text = driver.run(task(tmp_path))
    assert kind == ray_worker.STOPPED
    assert text == "features: No space left on device."


@pytest.mark.parametrize("call", ["put_file", "rm_file"])
def test_a_store_that_cannot_be_reached_stops_the_search(
    call: str, driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    if call == "rm_file":  # a trial fails for another reason, and what it has come to is removed
        monkeypatch.setattr("pneumonia.training.trial._Fits", lambda *_: {}["no such key"])
    monkeypatch.setattr(MemoryFileSystem, call, refuse)
    monkeypatch.setattr("pneumonia.artifacts._PAUSES", (0.0,))
    driver.worker._shared = f"memory://{tmp_path}"
    kind, text = driver.run(task(tmp_path))
    assert kind == ray_worker.STOPPED
    reason = "ConnectionResetError: [Errno 104] Connection reset by peer"
    assert text == f"`executor.store`: memory://{tmp_path} cannot be used: {reason}."

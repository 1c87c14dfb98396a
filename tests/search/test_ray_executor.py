"""What the executor of Ray keeps, and what it does when Ray itself is gone; without starting it."""

from __future__ import annotations

import contextlib
import errno
import gc
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_trial import config

from pneumonia.artifacts import FolderStore
from pneumonia.errors import UserError
from pneumonia.search import ray_worker
from pneumonia.storage import provenance
from pneumonia.training import trial
from pneumonia.training.trial import Hooks, Outcome, Task

ray = pytest.importorskip("ray")
executor = pytest.importorskip("pneumonia.search.ray_executor")

PHANTOM = {
    "_target_": "pneumonia.datasets.chest_phantom.phantom",
    **{"val": 12, "test": 12, "image_size": 32},
}


@pytest.fixture
def made() -> Any:
    options: dict[str, Any] = {"in_order": True, "cpus": 1, "gpus": 0, "address": None}
    return executor.RayExecutor(1, **options, retries=0, store=None)


def test_it_ends_when_ray_is_gone(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def wait(*_: object, **__: object) -> None:
        asked.append(None)
        if len(asked) > 3:
            raise KeyboardInterrupt("it asks for ever")
        raise ray.exceptions.RaySystemError("Broken pipe")

    monkeypatch.setattr(executor.ray, "wait", wait)
    made._waiting = {object(): executor._Seat(None, executor._Job(Task("0000", {}, 1)))}
    with pytest.raises(ray.exceptions.RaySystemError):
        made.wait()
    made.close()
    assert len(asked) == 1


@pytest.mark.slow
def test_of_datasets_it_keeps_as_many_as_a_process(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reference:
        """What Ray keeps as long as somebody has a reference to it."""

    alive: weakref.WeakSet[Reference] = weakref.WeakSet()

    def put(value: object) -> Reference:
        alive.add(made := Reference())
        return made

    monkeypatch.setattr(executor.ray, "put", put)
    monkeypatch.setattr(executor.shipping, "read_files", lambda packed, number: [])
    sizes = [12, 14, 16, 18]
    tasks = [Task("0000", {"dataset": {**PHANTOM, "train": size}}, 1) for size in sizes]
    for task in tasks:
        _, reference, _ = made._packed(task)
        assert made._packed(task)[1] is reference
        assert made._ship_files(task, 0) is made._ship_files(task, 0)
        made._ship_files(task, 1)
    del reference
    gc.collect()
    assert len(alive) == 2 * 3  # the dataset, and the files of two sources


@pytest.mark.parametrize("changed", [{}, {"version.tensorflow": "2.0"}, {"code": "0"}])
def test_a_node_with_other_libraries_or_code_is_refused(
    made: Any, changed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = provenance.deciding()
    monkeypatch.setattr(executor.ray, "wait", lambda waiting, **_: (waiting, []))
    monkeypatch.setattr(executor.ray, "get", lambda _: {**own, **changed})
    made._waiting = {object(): executor._Seat(None)}
    told = [f"{key}: {own[key]} → {value}" for key, value in changed.items()]
    with pytest.raises(UserError, match=told[0]) if told else contextlib.nullcontext():
        made._hear()
    assert len(made._free) == (not told)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (ModuleNotFoundError("No module named 'tensorflow'"), UserError),
        (PermissionError(13, "Permission denied", "/home/far"), UserError),
        (ZeroDivisionError("division by zero"), ZeroDivisionError),  # a fault of the program
    ],
)
def test_what_a_node_lacks_is_told_without_a_traceback(
    made: Any, cause: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ray.exceptions.RayTaskError("prepare", "Traceback: ...", cause).as_instanceof_cause()

    def get(_: object) -> None:
        raise error

    monkeypatch.setattr(executor.ray, "wait", lambda waiting, **_: (waiting, []))
    monkeypatch.setattr(executor.ray, "get", get)
    made._waiting = {object(): executor._Seat(None)}
    with pytest.raises(kind) as raised:
        made._hear()
    assert (str(cause) in str(raised.value)) == (kind is UserError)
    assert raised.value.__cause__ is not raised.value  # who looks for causes comes to an end


class Actor:
    """A worker that says one thing after the other, whatever it is told; an error is its end."""

    def __init__(self, *says: Any) -> None:
        self.says, self.told = list(says), list[Any]()
        self.prepare = self.run = self.answer = self

    def remote(self, *told: Any) -> Any:
        self.told.append(told)
        return partial(self.say)

    def say(self) -> Any:
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


LOST = ray.exceptions.ActorDiedError()
OWN = provenance.deciding()
ENDED = (ray_worker.ENDED, Outcome("0000"))


@pytest.fixture
def lost(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let an executor be open; return the trials whose workers it says are lost."""
    told: list[str] = []
    made._store = FolderStore(tmp_path)
    made._hooks = Hooks(on_lost=lambda trial_id, _: told.append(trial_id))
    monkeypatch.setattr(executor.ray, "wait", lambda waiting, **_: (waiting[:1], []))
    monkeypatch.setattr(executor.ray, "get", lambda reference: reference())
    monkeypatch.setattr(executor.ray, "kill", lambda _: None)
    return told


def hire(made: Any, *says: Any) -> Actor:
    actor = Actor(OWN, *says)
    made._waiting[actor.prepare.remote()] = executor._Seat(actor)
    return actor


def test_workers_that_die_while_they_are_idle_cost_no_retry(
    made: Any, lost: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made.workers = 3
    for _ in range(3):
        hire(made, LOST)
        made._hear()
    monkeypatch.setattr(made, "_hire", lambda: hire(made, ("report", ""), ENDED))
    made.submit(Task("0000", {}, 1))
    assert made.wait() == ENDED[1]
    assert lost == []


def test_a_trial_that_every_idle_worker_dies_of_fails(
    made: Any, lost: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hire_idle() -> None:
        made._free.append(executor._Seat(Actor(LOST), was_idle=True))

    for _ in range(2):
        hire_idle()
    monkeypatch.setattr(made, "_hire", hire_idle)
    made.submit(Task("0000", config(tmp_path), 1))
    assert (made.wait().status, lost) == ("FAILED", ["0000"])


@pytest.mark.parametrize("says", [[LOST], [("report", ""), LOST]])
@pytest.mark.parametrize("is_idle", [False, True])
def test_a_worker_that_dies_of_its_trial_costs_a_retry(
    says: list[Any],
    is_idle: bool,
    made: Any,
    lost: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = Task("0000", config(tmp_path), 1)
    hire(made, *says)
    if is_idle:
        made._hear()
    made.submit(task)
    # Whatever comes of the first one, the second has the trial as soon as it can begin.
    monkeypatch.setattr(made, "_hire", lambda: hire(made, LOST))
    outcome = made.wait()
    assert (outcome.status, lost) == ("FAILED", ["0000"])
    assert outcome.reason.startswith("Its worker was lost once (`executor.retries=0`)")


def broken() -> None:
    """A dataset of a user that raises."""
    raise KeyError("no such column")


def full() -> None:
    """A dataset that writes to a disk that is full."""
    raise OSError(errno.ENOSPC, "No space left on device", "cache")


def ask(made: Any, monkeypatch: pytest.MonkeyPatch, task: Task) -> Actor:
    """Let a worker run a trial whose dataset it has not got."""
    here = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(executor.ray, "get_runtime_context", lambda: here)
    actor = hire(made, ("data",), (ray_worker.CANCELLED,))
    made.submit(task)
    return actor


def test_a_dataset_that_raises_fails_its_trial_as_in_this_process(
    made: Any, lost: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = {**config(tmp_path), "dataset": {"_target_": f"{__name__}.broken"}}
    task = Task("0000", cfg, 1)
    expected = trial.run(task, FolderStore(tmp_path), Hooks())
    actor = ask(made, monkeypatch, task)
    outcome = made.wait()
    assert replace(outcome, traceback="") == replace(expected, traceback="")
    assert outcome.reason == "KeyError: 'no such column'"
    for one in (outcome, expected):
        assert "in broken" in one.traceback
    assert [seat.actor for seat in made._free] == [actor]
    assert actor.told[-1] == (ray_worker.CANCEL, None)


def test_a_full_disk_where_a_dataset_is_read_stops_the_search(
    made: Any, lost: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = {**config(tmp_path), "dataset": {"_target_": f"{__name__}.full"}}
    ask(made, monkeypatch, Task("0000", cfg, 1))
    with pytest.raises(OSError, match="No space left"):
        made.wait()

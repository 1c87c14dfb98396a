"""What the executor of Ray keeps, and what it does when Ray itself is gone; without starting it."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import Any

import pytest

from pneumonia.errors import UserError
from pneumonia.storage import provenance
from pneumonia.training.trial import Task

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

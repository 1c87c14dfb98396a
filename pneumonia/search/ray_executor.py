"""Trials run by actors of Ray: processes that live on, on this machine or on those of a cluster."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from omegaconf import DictConfig

from pneumonia import files, startup
from pneumonia.artifacts import ArtifactStore, SharedStore
from pneumonia.datasets import shipping
from pneumonia.datasets.cache import Kept, load_data
from pneumonia.errors import UserError, named, without_passwords
from pneumonia.files import StorageError
from pneumonia.search import ray_nodes, ray_session, ray_worker
from pneumonia.search.ray_worker import CANCEL, FAIL, STOP, VALUE, Message
from pneumonia.storage import provenance
from pneumonia.training import trial
from pneumonia.training.trial import Hooks, Outcome, StopTrial, Task

Array = np.ndarray[Any, Any]

# How often it is looked whether the search has to stop, while no worker has said anything yet.
_PATIENCE = 1.0
_CANNOT = "`executor=ray`: no worker can begin"
_READING = ("data", "files")  # calls for a dataset


@dataclass(slots=True, eq=False)
class _Job:
    """A trial to run, and how many workers it has lost."""

    task: Task
    losses: int = 0
    misses: int = 0  # workers that had been idle, and were lost before it began there
    failed: Outcome | None = None  # what came of it where its dataset cannot be read here


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker, by Ray's handle of it, and what it runs, if anything."""

    actor: Any
    job: _Job | None = None
    was_idle: bool = False  # and has said nothing since: it may be lost since then


class RayExecutor:
    """Runs each trial in an actor; what it calls for, hooks and artifacts, is done here.

    A worker waits for the answer to each thing it says. So what it has told is recorded before it
    goes on, and it stops where a trial of this process would. All happens in the thread that calls
    `wait`; while it does something else, workers train on to the end of their epochs.

    Args:
        workers: How many there are.
        in_order: As of `Executor`.
        cpus: CPUs that Ray reserves for each.
        gpus: GPUs likewise; a worker sees no others.
        address: Of a cluster; None begins one here.
        retries: How often a trial is tried again, each time from where it was kept last, when its
            worker is lost.
        store: As of `Executor`.
    """

    def __init__(
        self,
        workers: int,
        *,
        in_order: bool,
        cpus: float,
        gpus: float,
        address: str | None,
        retries: int,
        store: str | None,
    ) -> None:
        self.workers, self.in_order, self.store = workers, in_order, store
        self._cpus, self._gpus, self._address, self._retries = cpus, gpus, address, retries
        self._jobs: list[_Job] = []  # those that wait for a worker
        self._free: list[_Seat] = []
        self._misses = 0  # workers in a row that were lost before they could begin
        self._waiting: dict[Any, _Seat] = {}  # by the reference of what it will say next
        # Of each dataset the references, with those to its files: Ray keeps what they refer to.
        self._data: Kept[tuple[shipping.Packed, Any, dict[int, Any]]] = Kept(2)
        self._own = provenance.deciding()  # what is changed later has no part in this process
        self._stack, self._is_over = contextlib.ExitStack(), False

    def open(self, store: ArtifactStore, hooks: Hooks, cfg: DictConfig) -> None:
        """Start Ray and the workers, which import TensorFlow meanwhile."""
        self._store, self._hooks, self._needs = store, hooks, ray_nodes.find(cfg)
        self._own |= ray_nodes.have(self._needs)
        if isinstance(store, SharedStore):
            self._own |= ray_nodes.write_mark(store)
            self._stack.callback(ray_nodes.drop_mark, store)
        hooks.report("starting workers", 0, self.workers)
        each = {"workers": self.workers, "cpus": self._cpus, "gpus": self._gpus}
        session = ray_session.session(self._address, **each)  # type: ignore[arg-type]
        self._scratch = self._stack.enter_context(session)
        kind = ray.remote(ray_worker.Worker)
        # A call that fails for lack of a worker is told here, and never made again by Ray.
        self._kind = kind.options(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0)
        for _ in range(self.workers):
            self._hire()

    def capacity(self, task: Task) -> int:
        """Return the workers: each is a process of its own."""
        return self.workers

    def submit(self, task: Task) -> None:
        """Let a worker begin a trial."""
        self._jobs.append(_Job(task))
        self._assign()

    def wait(self) -> Outcome:
        """Wait for the next trial that ends."""
        while True:
            if (outcome := self._hear()) is not None:
                return outcome

    def cancel(self) -> None:
        """Let every training stop before its next epoch."""
        self._is_over = True

    def close(self) -> None:
        """Wait until nothing runs any more; a second signal ends what does."""
        self._is_over = True
        with self._stack, contextlib.suppress(KeyboardInterrupt):
            # One that still imports TensorFlow has nothing to keep.
            self._waiting = {ref: seat for ref, seat in self._waiting.items() if seat.job}
            while self._waiting:
                # Why the search ends is known already; how far a trial has come is kept if it can.
                with contextlib.suppress(Exception):
                    self._hear()

    def _hire(self) -> None:
        """Begin a worker, on whatever node Ray finds room for it."""
        shared = self._store.address if isinstance(self._store, SharedStore) else None
        own = {"threads": startup.threads(), "shared": shared, "scratch": self._scratch}
        actor = self._kind.remote(str(Path.cwd()), **own)
        self._waiting[actor.prepare.remote(self._needs)] = _Seat(actor)

    def _assign(self) -> None:
        while self._jobs and self._free and not self._is_over:
            seat = self._free.pop()
            seat.job = self._jobs.pop(0)
            self._waiting[seat.actor.run.remote(seat.job.task)] = seat

    def _answer(self, seat: _Seat, kind: str, value: Any = None) -> None:
        self._waiting[seat.actor.answer.remote(kind, value)] = seat

    def _hear(self) -> Outcome | None:
        """Do what a worker calls for; return what came of a trial if it is over."""
        if not (ready := self._ready()):
            if self._jobs:
                up = self.workers - sum(seat.job is None for seat in self._waiting.values())
                self._hooks.report("starting workers", up, self.workers)
            return None
        seat = self._waiting.pop(ready[0])
        try:
            said: Message = ray.get(ready[0])
        except ray.exceptions.RayTaskError as error:  # raised there, not by a worker's end
            _explain(error, seat)
            raise  # a fault of the program
        except ray.exceptions.RayError as error:
            return self._lose(seat, _why(error))
        seat.was_idle = False
        if seat.job is None:
            self._misses = 0
            ray_nodes.check_same(self._own, said, store=self.store)  # type: ignore[arg-type]
            return self._dismiss(seat)
        name, *args = said
        match name:
            case ray_worker.ENDED:
                return self._dismiss(seat, *args)
            case ray_worker.CANCELLED:
                return self._dismiss(seat, seat.job.failed)
            case ray_worker.STOPPED:
                raise StorageError(*args)
            case ray_worker.BROKEN:
                raise RuntimeError(f"A worker has failed:\n{args[0]}")
        self._serve(seat, seat.job, name, args)
        return None

    def _ready(self) -> list[Any]:
        """Return the reference of something that a worker has said, if any has."""
        try:
            return ray.wait(list(self._waiting), timeout=_PATIENCE)[0]  # type: ignore[no-any-return]
        except ray.exceptions.RayError:  # Ray itself is gone, and the workers with it
            self._waiting.clear()
            raise

    def _dismiss(self, seat: _Seat, outcome: Outcome | None = None) -> Outcome | None:
        """Let a worker begin the next trial that waits for one."""
        seat.job = None
        self._free.append(seat)
        self._assign()
        seat.was_idle = seat.job is None
        return outcome

    def _serve(self, seat: _Seat, job: _Job, name: str, args: list[Any]) -> None:
        """Answer a call with what it comes to here."""
        if self._is_over and name in ("between_epochs", "report"):
            self._answer(seat, CANCEL)
            return
        try:
            self._answer(seat, VALUE, self._calls(job.task)[name](*args))
        except StopTrial:
            self._answer(seat, STOP)
        except BaseException as error:
            if isinstance(error, UserError) and not isinstance(error, StorageError):
                self._answer(seat, FAIL, str(error))
                return
            self._answer(seat, CANCEL)
            if name not in _READING or _stops(error):
                raise
            trial_id, where = job.task.trial_id, traceback.format_exc()
            job.failed = Outcome(trial_id, "FAILED", reason=named(error), traceback=where)

    def _calls(self, task: Task) -> dict[str, Callable[..., Any]]:
        hooks, store = self._hooks, self._store
        return {
            "on_epoch": hooks.on_epoch,
            "on_repeat": hooks.on_repeat,
            "report": hooks.report,
            "between_epochs": hooks.between_epochs,
            "put": lambda key, content: store.put(key, partial(_write, content)),
            "get": self._read,
            "drop": store.drop,
            "data": partial(self._ship, task),
            "files": partial(self._ship_files, task),
        }

    def _read(self, key: str) -> Array | None:
        try:
            return np.fromfile(self._store.get(key), np.uint8)
        except FileNotFoundError:
            return None

    def _ship(self, task: Task) -> tuple[str, Any]:
        """Return the node that this is, and a reference to the dataset of a trial."""
        return ray.get_runtime_context().get_node_id(), self._packed(task)[1]

    def _packed(self, task: Task) -> tuple[shipping.Packed, Any, dict[int, Any]]:
        def make() -> tuple[shipping.Packed, Any, dict[int, Any]]:
            packed = shipping.pack(load_data(task.config))
            return packed, ray.put(packed), {}

        return self._data.get(task.config["dataset"], make)

    def _ship_files(self, task: Task, number: int) -> Any:
        """Return a reference, which comes out as what it refers to where it is an argument."""
        packed, _, kept = self._packed(task)
        if number not in kept:
            kept[number] = ray.put(shipping.read_files(packed, number))
        return kept[number]

    def _lose(self, seat: _Seat, reason: str) -> Outcome | None:
        """Begin a worker for one that is lost; whichever is free first tries its trial again."""
        job, seat.job = seat.job, None
        if self._is_over:
            return None
        with contextlib.suppress(ray.exceptions.RayError):  # where it is only out of reach
            ray.kill(seat.actor)
        if job is None:
            self._misses += 1
            if self._misses > self._retries:
                raise UserError(f"{_CANNOT}: {reason}.")
            self._hire()
            return None
        if seat.was_idle and job.misses < self.workers:
            job.misses += 1
        else:
            job.losses += 1
            self._hooks.on_lost(job.task.trial_id, reason)
        self._hire()
        if job.losses <= self._retries:
            self._jobs.insert(0, job)
            self._assign()
            return None
        trial.forget(job.task, self._store)  # what has failed does not go on
        times = "once" if job.losses == 1 else f"{job.losses} times"
        told = f"Its worker was lost {times} (`executor.retries={self._retries}`): {reason}."
        return Outcome(job.task.trial_id, "FAILED", reason=told)


def _write(content: Array, path: Path) -> None:
    with files.atomic(path) as part:
        content.tofile(part)


def _stops(error: BaseException) -> bool:
    """Tell whether an error that is met when a dataset is read stops the search."""
    is_of_ray = isinstance(error, ray.exceptions.RayError)
    return is_of_ray or not isinstance(error, Exception) or files.explain(error) is not None


def _explain(error: ray.exceptions.RayTaskError, seat: _Seat) -> None:
    """Refuse a node that lacks something, where it is that a worker has met."""
    if isinstance(error.cause, StorageError):
        raise StorageError(str(error.cause)) from error
    if seat.job is None and isinstance(error.cause, OSError | ImportError):
        raise UserError(f"{_CANNOT}: {_line(error.cause)}.") from error


def _why(error: Exception) -> str:
    """Say in a few words why a worker is lost, of the many that Ray has for it."""
    text = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in text:
        return "its machine ran out of memory"
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in text:
        return "its machine is gone"
    if "creation task" in text:
        return without_passwords(text.rpartition("creation task, ")[2])[:300]
    if isinstance(error, ray.exceptions.ActorDiedError):
        return "its process was killed, or has crashed"
    return _line(error)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return without_passwords(f"{type(error).__name__}: {text}")[:300]

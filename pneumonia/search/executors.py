"""Where trials run. An executor takes tasks, and gives back what comes of them as they end."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Protocol

from omegaconf import DictConfig

from pneumonia.artifacts import ArtifactStore
from pneumonia.search import ray_session
from pneumonia.training import inputs, trial
from pneumonia.training.trial import Hooks, Outcome, Task


class Cancelled(BaseException):
    """A training that stops between two epochs, because the search has stopped elsewhere."""


class Executor(Protocol):
    """Runs trials; it must neither choose one nor know what they are for.

    Attributes:
        workers: How many trials it can run at once.
        in_order: Whether the search hears of them in the order in which they were proposed.
        store: The address where states of trainings are kept; None for the search's folder.
    """

    workers: int
    in_order: bool
    store: str | None

    def open(self, store: ArtifactStore, hooks: Hooks, cfg: DictConfig) -> None:
        """Make ready for the trials of a configuration with its ranges.

        What they keep goes to the store, what they tell and ask to the hooks.
        """

    def capacity(self, task: Task) -> int:
        """Return how many trials may run at once, if this is one of them."""

    def submit(self, task: Task) -> None:
        """Run a trial, of no more than `capacity` at once; this may return when it is over."""

    def wait(self) -> Outcome:
        """Wait for the next trial that ends, and return what came of it.

        Raises:
            BaseException: What has stopped a trial that came to nothing: a signal, a disk.
        """

    def cancel(self) -> None:
        """Let every training stop before its next epoch."""

    def close(self) -> None:
        """Wait until nothing runs any more."""


class LocalExecutor:
    """Runs trials in this process: in threads, or here where one cannot run beside others.

    Args:
        workers: How many run at once.
        in_order: As of `Executor`.
    """

    def __init__(self, workers: int = 1, *, in_order: bool = True) -> None:
        self.workers, self.in_order = workers, in_order
        self.store: str | None = None
        self._pool = ThreadPoolExecutor(workers, "trial") if workers > 1 else None
        self._ended: SimpleQueue[Future[Outcome]] = SimpleQueue()
        self._running = 0
        self._is_over, self._lock = threading.Event(), threading.Lock()

    def open(self, store: ArtifactStore, hooks: Hooks, cfg: DictConfig) -> None:
        """Make ready."""
        self._store = store
        self._hooks = replace(
            hooks,
            between_epochs=functools.partial(self._guard, hooks.between_epochs),
            report=functools.partial(self._guard, hooks.report),
        )

    def capacity(self, task: Task) -> int:
        """Return the workers, or 1 for a trial whose inputs cannot be shared."""
        try:
            is_alone = self.workers > 1 and not inputs.is_shared(task.config)
            return 1 if is_alone else self.workers
        except Exception:  # it fails at it when it runs, and tells why
            return self.workers

    def submit(self, task: Task) -> None:
        """Run a trial."""
        if self._pool is not None and self.capacity(task) > 1:
            self._running += 1
            future = self._pool.submit(self._run, task)
            future.add_done_callback(self._ended.put)
            return
        future = Future()
        future.set_result(self._run(task))
        self._running += 1
        self._ended.put(future)

    def wait(self) -> Outcome:
        """Wait for the next trial that ends."""
        while True:
            future = self._ended.get()
            self._running -= 1
            error = future.exception()
            # One that was cancelled may be quicker than the one with the reason for it.
            if not isinstance(error, Cancelled) or not self._running:
                return future.result()

    def cancel(self) -> None:
        """Let every training stop before its next epoch."""
        self._is_over.set()

    def close(self) -> None:
        """Wait until nothing runs any more."""
        while self._pool is not None:
            try:
                self._pool.shutdown()
            except KeyboardInterrupt:
                continue  # who cannot wait for the end of an epoch ends the process
            break

    def _run(self, task: Task) -> Outcome:
        return trial.run(task, self._store, self._hooks)

    def _guard(self, call: Callable[..., None], *args: object) -> None:
        """Stop what runs here where the search has to: a signal is told once, and stops all."""
        with self._lock:
            if self._is_over.is_set():
                raise Cancelled
            try:
                call(*args)
            except KeyboardInterrupt:
                self.cancel()
                raise


def local(*, workers: int = 1, in_order: bool = True) -> LocalExecutor:
    """Return the executor of this process.

    Args:
        workers: Trials at a time.
        in_order: Whether the tuner hears of trials in the order in which it proposed them.
    """
    return LocalExecutor(workers, in_order=in_order)


def ray(
    *,
    workers: int = 2,
    in_order: bool = True,
    cpus: float = 1,
    gpus: float = 0,
    address: str | None = None,
    retries: int = 2,
    store: str | None = None,
) -> Executor:
    """Return an executor that runs trials as actors of Ray.

    Args:
        workers: As of `local`.
        in_order: As of `local`.
        cpus: CPUs for each trial.
        gpus: GPUs for each trial.
        address: Of a Ray cluster; None for this machine alone.
        retries: How often a trial is tried again when its worker is lost.
        store: As of `Executor`.
    """
    ray_session.configure(address)
    from pneumonia.search.ray_executor import RayExecutor

    return RayExecutor(
        workers,
        in_order=in_order,
        cpus=cpus,
        gpus=gpus,
        address=address,
        retries=retries,
        store=store,
    )

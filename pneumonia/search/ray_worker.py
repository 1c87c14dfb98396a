"""What runs on a worker of Ray: one trial after the other, each told to the driver as it goes.

TensorFlow is imported by `Worker.prepare`, and nothing here may import it before.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumonia import files, startup
from pneumonia.artifacts import ArtifactStore, SharedStore
from pneumonia.errors import UserError
from pneumonia.search import ray_nodes, ray_session
from pneumonia.search.ray_nodes import Needs
from pneumonia.shell import as_path
from pneumonia.storage import provenance

if TYPE_CHECKING:
    from pneumonia.training.trial import Hooks, Outcome, Task

# What a worker says: a name, then arguments. After these, the trial is over; all others are calls,
# which the driver answers.
ENDED, CANCELLED, STOPPED, BROKEN = "ended", "cancelled", "stopped", "broken"
# How the driver answers: with a value, or with what the trial meets there.
VALUE, STOP, CANCEL, FAIL = "value", "stop", "cancel", "fail"
Message = tuple[Any, ...]
Call = Callable[..., Any]


class Worker:
    """Owns a thread that trains, and hands over what it calls the driver for.

    The driver calls `prepare` once; for each trial `run`, then `answer` for whatever comes back,
    until it is over. So all that a trial tells is with the driver before it goes on. Values alone
    travel, as an exception of ours may not survive the way.

    Args:
        project: The folder that relative paths of the configuration count from; made on a machine
            that has none.
        threads: What TensorFlow computes with.
        shared: The address of states of trainings, as of `SharedStore`; None where the driver keeps
            them.
        scratch: Where temporary files go; None for the system's folder.
    """

    def __init__(
        self, project: str, *, threads: int, shared: str | None, scratch: str | None
    ) -> None:
        self._project, self._threads = Path(project), threads
        self._shared, self._scratch = shared, scratch
        self._said: SimpleQueue[Message] = SimpleQueue()
        self._answers: SimpleQueue[Message] = SimpleQueue()
        # One thread for all the trials: it keeps the programs that it has traced.
        self._pool = ThreadPoolExecutor(1, "trial")

    def prepare(self, needs: Needs) -> dict[str, str]:
        """Import what trains; return what decides results here, and whether states are in reach."""
        ray_session.remove_abandoned()
        self._project.mkdir(parents=True, exist_ok=True)
        os.chdir(self._project)
        startup.use_threads(self._threads)
        startup.start()
        mark = ray_nodes.read_mark(self._shared, scratch=self._scratch)
        return provenance.deciding() | ray_nodes.have(needs) | mark

    def run(self, task: Task) -> Message:
        """Begin a trial; return the first thing that it says."""
        self._pool.submit(self._run, task)
        return self._said.get()

    def answer(self, kind: str, value: Any = None) -> Message:
        """Answer what the trial has called; return the next thing that it says."""
        self._answers.put((kind, value))
        return self._said.get()

    def _run(self, task: Task) -> None:
        from pneumonia.search.executors import Cancelled

        try:
            self._said.put((ENDED, self._train(task)))
        except Cancelled:
            self._said.put((CANCELLED,))
        except files.StorageError as error:
            self._said.put((STOPPED, str(error)))
        except BaseException:
            self._said.put((BROKEN, traceback.format_exc()))

    def _train(self, task: Task) -> Outcome:
        from pneumonia.datasets.cache import load_data
        from pneumonia.training import trial

        try:
            load_data(task.config, fetch=partial(self._fetch_data, task.config))
        except UserError as error:
            if isinstance(error, files.StorageError):
                raise
            return trial.Outcome(task.trial_id, "FAILED", reason=str(error))
        prefix = f"{ray_session.PREFIX}{os.getpid()}-"
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix=prefix) as folder:
            store: ArtifactStore = DriverStore(Path(folder), self._call)
            if self._shared is not None:
                store = SharedStore(self._shared, folder=Path(folder), others=store)
            return trial.run(task, store, self._hooks())

    def _hooks(self) -> Hooks:
        from pneumonia.training.trial import Hooks

        names = ("on_epoch", "on_repeat", "report", "between_epochs")
        return Hooks(**{name: partial(self._call, name) for name in names})

    def _call(self, name: str, *args: Any) -> Any:
        """Let the driver do something; return what it answers, or meet what it says."""
        from pneumonia.search.executors import Cancelled
        from pneumonia.training.trial import StopTrial

        self._said.put((name, *args))
        kind, value = self._answers.get()
        match kind:
            case "stop":
                raise StopTrial
            case "cancel":
                raise Cancelled
            case "fail":
                raise UserError(value)
        return value

    def _fetch_data(self, config: dict[str, Any]) -> Any:
        """Return the dataset as the driver has read it."""
        import ray

        from pneumonia.datasets import shipping

        node, reference = self._call("data")
        is_here = node == ray.get_runtime_context().get_node_id()

        fetch = None if is_here else partial(self._call, "files")
        folder = as_path(config["features"]["folder"])
        return shipping.unpack(ray.get(reference), folder, fetch=fetch)


class DriverStore:
    """Keeps artifacts with the driver; here is a copy of each for as long as a trial runs."""

    def __init__(self, folder: Path, call: Call) -> None:
        self._folder, self._call = folder, call

    def put(self, key: str, write: Callable[[Path], object]) -> None:
        """Keep what `write` makes; once this returns, the driver has it."""
        path = self._path(key)
        write(path)
        self._call("put", key, np.fromfile(path, np.uint8))
        path.unlink()

    def get(self, key: str) -> Path:
        """Return the path of a copy."""
        found, path = self._call("get", key), self._path(key)
        if found is None:
            raise FileNotFoundError(key)
        found.tofile(path)
        return path

    def drop(self, key: str) -> None:
        """Let the driver remove it."""
        self._call("drop", key)

    def _path(self, key: str) -> Path:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

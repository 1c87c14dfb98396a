"""How far the training of a trial has come, in memory and on disk."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia import files
from pneumonia.evaluation.objective import Metrics

Array = np.ndarray[Any, Any]

_KINDS = ("model", "optimizer", "best")
# Writing may take this part of the time that training takes, but where epochs are slow.
_SHARE = 0.025
_SLOW = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one execution of a trial has come.

    Attributes:
        model: The values of the model's variables after the last epoch.
        optimizer: The values of the optimizer's variables after the last epoch.
        best: The values of the model's variables after the best epoch.
        history: The metrics of the epochs, the first epoch's first.
    """

    model: tuple[Array, ...]
    optimizer: tuple[Array, ...]
    best: tuple[Array, ...]
    history: tuple[Metrics, ...]


class Checkpoints:
    """Owns the file of a trial while it is trained: when it is written, and what is left of it.

    It is written after every epoch that takes a second or more. Where epochs are faster, it is
    written after every epoch as well, as long as all the writing together takes no more than a
    fortieth of the time: a trial that is killed loses no more than forty times what one writing
    takes, a tenth of a second for a small head.

    Args:
        path: The file.
        clock: Tells the time in seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._cost, self._count = 0.0, 0
        self._offered = self._written = clock()

    def offer(self, make: Callable[[], Sequence[Progress]]) -> bool:
        """Write the executions that `make` returns, if it is time to; return whether it was."""
        now = self._clock()
        is_slow = now - self._offered >= _SLOW
        self._offered = now
        if not is_slow and self._cost > _SHARE * (now - self._written):
            self._count = 0
            return False
        executions = make()
        save(self._path, executions)
        self._offered = self._written = self._clock()
        self._cost, self._count = self._written - now, len(executions)
        return True

    def write(self, executions: Sequence[Progress]) -> None:
        """Write the executions, however long ago they were written: the training stops here."""
        save(self._path, executions)

    def finish(self, executions: Sequence[Progress]) -> None:
        """Write all the executions at their end, unless they were written after the last epoch."""
        if self._count != len(executions):
            save(self._path, executions)

    def drop(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def save(path: Path, executions: Sequence[Progress]) -> None:
    """Write the executions of a trial to one file, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as part, zipfile.ZipFile(part, "w") as archive:
        archive.writestr("history.json", json.dumps([_about(e) for e in executions]))
        for number, execution in enumerate(executions):
            for kind in _KINDS:
                for position, array in enumerate(getattr(execution, kind)):
                    buffer = io.BytesIO()
                    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
                    name = f"{number}/{kind}/{position:04d}.npy"
                    archive.writestr(name, buffer.getbuffer())


def find(path: Path) -> tuple[Progress, ...]:
    """Read what `save` wrote; nothing where the file is missing or damaged."""
    try:
        return load(path)
    except Exception:  # what a damaged file makes its readers raise depends on where it is damaged
        return ()


def load(path: Path) -> tuple[Progress, ...]:
    """Read what `save` wrote.

    Raises:
        OSError, zipfile.BadZipFile, LookupError: Where the file is missing or damaged.
    """
    with zipfile.ZipFile(path) as archive:

        def array(number: int, kind: str, position: int) -> Array:
            buffer = io.BytesIO(archive.read(f"{number}/{kind}/{position:04d}.npy"))
            found: Array = np.lib.format.read_array(buffer, allow_pickle=False)
            return found

        return tuple(
            Progress(
                tuple(array(number, "model", i) for i in range(about["model"])),
                tuple(array(number, "optimizer", i) for i in range(about["optimizer"])),
                tuple(array(number, "best", i) for i in range(about["best"])),
                tuple(about["history"]),
            )
            for number, about in enumerate(json.loads(archive.read("history.json")))
        )


def _about(execution: Progress) -> dict[str, Any]:
    """Return the metrics of an execution, and how many arrays there are of each kind."""
    counts = {kind: len(getattr(execution, kind)) for kind in _KINDS}
    return {"history": list(execution.history), **counts}

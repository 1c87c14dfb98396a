"""How far the training of a trial has come, in memory and on disk."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Metrics = dict[str, float]


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


def save(path: Path, executions: Sequence[Progress]) -> None:
    """Write the executions of a trial to one file, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            archive.writestr("history.json", json.dumps([list(e.history) for e in executions]))
            for number, execution in enumerate(executions):
                for kind in ("model", "optimizer", "best"):
                    for position, array in enumerate(getattr(execution, kind)):
                        buffer = io.BytesIO()
                        np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
                        name = f"{number}/{kind}/{position:04d}.npy"
                        archive.writestr(name, buffer.getbuffer())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> tuple[Progress, ...]:
    """Read what `save` wrote.

    Raises:
        OSError, zipfile.BadZipFile: Where the file is missing or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        histories = json.loads(archive.read("history.json"))
        names = sorted(archive.namelist())

        def arrays(number: int, kind: str) -> tuple[Array, ...]:
            prefix = f"{number}/{kind}/"
            return tuple(
                np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in names
                if name.startswith(prefix)
            )

        return tuple(
            Progress(
                arrays(number, "model"),
                arrays(number, "optimizer"),
                arrays(number, "best"),
                tuple(history),
            )
            for number, history in enumerate(histories)
        )

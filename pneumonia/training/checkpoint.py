"""How far the training of a trial has come, in memory and on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia import files
from pneumonia.artifacts import ArtifactStore
from pneumonia.errors import UserError
from pneumonia.evaluation.objective import Metrics

Array = np.ndarray[Any, Any]

_KINDS = ("model", "optimizer", "best")
# Writing may take this part of the time that training takes, but where epochs are slow.
_SHARE = 0.025
_SLOW = 1.0


class StateError(UserError):
    """The state of a trial that is missing or damaged, where it is needed."""


@dataclass(frozen=True, slots=True)
class FitState:
    """How far one fit of a trial has come.

    Attributes:
        model: The values of the model's variables after the last epoch.
        optimizer: The values of the optimizer's variables after the last epoch.
        best: The values of the model's variables after the best epoch.
        history: The metrics of the epochs, the first epoch's first.
        predicted: The probabilities, float32 (n,), that the best epoch gave for the images that
            were held out.
    """

    model: tuple[Array, ...]
    optimizer: tuple[Array, ...]
    best: tuple[Array, ...]
    history: tuple[Metrics, ...]
    predicted: Array = field(default_factory=lambda: np.empty(0, np.float32), compare=False)


class Checkpoints:
    """Owns the state of a trial while it is trained: when it is written, and what is left of it.

    It is written after every epoch that takes a second or more. Where epochs are faster, it is
    written after every epoch as well, as long as all the writing together takes no more than a
    fortieth of the time: a trial that is killed loses no more than forty times what one writing
    takes, a tenth of a second for a small head.

    Args:
        store: Where it is kept.
        key: Its key there.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, store: ArtifactStore, key: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._key, self._clock = store, key, clock
        self._cost, self._count = 0.0, 0
        self._offered = self._written = clock()

    def offer(self, make: Callable[[], Sequence[FitState]]) -> bool:
        """Write the fits that `make` returns, if it is time to; return whether it was."""
        now = self._clock()
        is_slow = now - self._offered >= _SLOW
        self._offered = now
        if not is_slow and self._cost > _SHARE * (now - self._written):
            self._count = 0
            return False
        fits = make()
        self.write(fits)
        self._offered = self._written = self._clock()
        self._cost, self._count = self._written - now, len(fits)
        return True

    def write(self, fits: Sequence[FitState]) -> None:
        """Write the fits, however long ago they were written: the training stops here."""
        self._store.put(self._key, lambda path: save(path, fits))

    def finish(self, fits: Sequence[FitState]) -> None:
        """Write all the fits at their end, unless they were written after the last epoch."""
        if self._count != len(fits):
            self.write(fits)

    def drop(self) -> None:
        """Remove what is kept."""
        self._store.drop(self._key)


def save(path: Path, fits: Sequence[FitState]) -> None:
    """Write the fits of a trial to one file, at once or not at all."""
    about: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, fit in enumerate(fits):
        about.append({"history": list(fit.history)})
        arrays[f"{number}/predicted"] = fit.predicted
        for kind in _KINDS:
            values = getattr(fit, kind)
            about[-1][kind] = len(values)
            arrays |= {f"{number}/{kind}/{i}": np.asarray(one) for i, one in enumerate(values)}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    with files.atomic(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> tuple[FitState, ...]:
    """Read what `save` wrote; what a damaged file raises depends on where it is damaged."""
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        found = []
        for number, about in enumerate(json.loads(file["about"].tobytes())):
            model, optimizer, best = (
                tuple(file[f"{number}/{kind}/{i}"] for i in range(about[kind])) for kind in _KINDS
            )
            history, predicted = tuple(about["history"]), file[f"{number}/predicted"]
            found.append(FitState(model, optimizer, best, history, predicted))
        return tuple(found)


def read(store: ArtifactStore, key: str) -> tuple[FitState, ...]:
    """Return the fits of a trial that are kept.

    Raises:
        StateError: They are missing or damaged.
    """
    try:
        path = store.get(key)
    except FileNotFoundError as error:
        raise StateError(f"{key} is missing.") from error
    try:
        return load(path)
    except Exception as error:  # whatever numpy or zipfile make of the damage
        raise StateError(f"{key} is damaged.") from error

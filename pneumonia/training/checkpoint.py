"""How far the training of a trial has come, in memory and on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia import files
from pneumonia.artifacts import ArtifactStore, state_key, state_keys
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
    takes, a tenth of a second for a small head. A fit that is over is written once.

    Args:
        store: Where it is kept.
        trial_id: The trial.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, store: ArtifactStore, trial_id: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._trial_id, self._clock = store, trial_id, clock
        self._cost, self._count, self._over = 0.0, 0, 0
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
        *over, last = fits
        for place in range(self._over, len(over)):
            self._store.put(state_key(self._trial_id, place), partial(save, fit=over[place]))
        self._over = len(over)
        self._store.put(state_key(self._trial_id), partial(save, fit=last, before=len(over)))

    def finish(self, fits: Sequence[FitState]) -> None:
        """Write all the fits at their end, unless they were written after the last epoch."""
        if self._count != len(fits):
            self.write(fits)

    def drop(self, fits: int) -> None:
        """Remove what is kept of a trial of so many fits."""
        for key in state_keys(self._trial_id, fits):
            self._store.drop(key)


def save(path: Path, fit: FitState, *, before: int = 0) -> None:
    """Write a fit to one file, at once or not at all; and how many fits of its trial are over."""
    about: dict[str, Any] = {"history": list(fit.history), "before": before}
    arrays: dict[str, Array] = {"predicted": fit.predicted}
    for kind in _KINDS:
        values = getattr(fit, kind)
        about[kind] = len(values)
        arrays |= {f"{kind}/{i}": np.asarray(one) for i, one in enumerate(values)}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    with files.atomic(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> tuple[FitState, int]:
    """Read what `save` wrote; what a damaged file raises depends on where it is damaged."""
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        about = json.loads(file["about"].tobytes())
        model, optimizer, best = (
            tuple(file[f"{kind}/{i}"] for i in range(about[kind])) for kind in _KINDS
        )
        history, predicted = tuple(about["history"]), file["predicted"]
        return FitState(model, optimizer, best, history, predicted), about["before"]


def read(store: ArtifactStore, trial_id: str) -> tuple[FitState, ...]:
    """Return the fits of a trial that are kept.

    Raises:
        StateError: They are missing or damaged.
    """
    last, before = _read(store, state_key(trial_id))
    return (*(_read(store, state_key(trial_id, place))[0] for place in range(before)), last)


def _read(store: ArtifactStore, key: str) -> tuple[FitState, int]:
    try:
        path = store.get(key)
    except FileNotFoundError as error:
        raise StateError(f"{key} is missing.") from error
    try:
        return load(path)
    except Exception as error:  # whatever numpy or zipfile make of the damage
        raise StateError(f"{key} is damaged.") from error

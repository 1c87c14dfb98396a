"""Searches whose trials are looked up in the journal of a real one, on a clock of their own.

The oracle, the loop, the scheduler, the journal and what happens between them are the program's
own, and what they take is measured while they run: one process, which does one thing after the
other. Only the training is replaced, by `SimulatedExecutor`, named in the config as any executor.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from pneumonia.artifacts import ArtifactStore
from pneumonia.config.validate import flatten
from pneumonia.evaluation.importance import position
from pneumonia.evaluation.objective import FIRST
from pneumonia.search.loop import Search
from pneumonia.search.resume import SearchSpec
from pneumonia.storage import journal, search_record
from pneumonia.storage.journal import Journal
from pneumonia.storage.search_record import SearchRecord
from pneumonia.training.trial import Hooks, Outcome, Task

_NEIGHBOURS = 5
_CLOSEST = 0.05  # on the way through all the values of a hyperparameter


@dataclass(frozen=True, slots=True)
class Past:
    """A real trial.

    Attributes:
        place: Its hyperparameters, each from 0 to 1.
        values: The logits of the objective after each epoch.
        beside: Seconds that it took beside its epochs.
        epochs: Seconds that each of its epochs took.
    """

    place: np.ndarray
    logits: np.ndarray
    beside: float
    epochs: tuple[float, ...]


class Landscape:
    """Tells what would come of a trial, by the trials of a real search, trained to their end.

    A trial's curve is the mean of those of the five real trials that are nearest to it, in logits,
    weighted by the inverse square of the distance. It is moved as a whole by an error drawn from
    those that this makes of each real trial by the others. It takes the time of one of the five.
    What is drawn depends on the hyperparameters alone: a trial that goes on stays on its curve.

    Args:
        folder: The folder of the real search, of an objective between 0 and 1.
    """

    def __init__(self, folder: Path) -> None:
        self.record = search_record.read(folder)
        self.name, self.sign = self.record.objective.name, self.record.objective.sign
        times = spans(folder)
        self.past = [
            Past(self._place(trial.values), self._logits(trial.trial_id), *times[trial.trial_id])
            for trial in self.record.trials.values()
            if trial.score is not None and trial.trial_id in times
        ]
        self._places = np.stack([one.place for one in self.past])
        self.errors = [self._error(index) for index in range(len(self.past))]

    def trial(self, config: Mapping[str, Any]) -> tuple[list[float], Past]:
        """Return the objective after each epoch, and a real trial that takes as long."""
        place = self._place({item.path: _find(config, item.path) for item in self.record.ranges})
        digest = hashlib.sha256(place.tobytes()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        logits = self._curve(place) + self.errors[rng.integers(len(self.errors))]
        near = np.argsort(self._distances(place))[:_NEIGHBOURS]
        return (1 / (1 + np.exp(-logits))).tolist(), self.past[int(rng.choice(near))]

    def _error(self, index: int) -> float:
        """Return by how much a real trial ends above what the others make of it."""
        own, mean = self.past[index].logits, self._curve(self.past[index].place, without=index)
        last = min(len(mean), len(own)) - 1
        return float(own[last] - mean[last])

    def _curve(self, place: np.ndarray, without: int = -1) -> np.ndarray:
        away = self._distances(place)
        if without >= 0:
            away[without] = math.inf
        near = np.argsort(away)[:_NEIGHBOURS]
        weights = (away[near] + _CLOSEST) ** -2.0
        length = max(len(self.past[index].logits) for index in near)
        # One that early stopping has ended stays where it was.
        rows = [np.pad(logits, (0, length - len(logits)), "edge")
                for logits in (self.past[index].logits for index in near)]  # fmt: skip
        return np.average(rows, axis=0, weights=weights)

    def _distances(self, place: np.ndarray) -> np.ndarray:
        return np.sqrt(((self._places - place) ** 2).sum(axis=1))

    def _logits(self, trial_id: str) -> np.ndarray:
        curve = [metrics[self.name] for metrics in self.record.curve(trial_id, FIRST)]
        values = np.clip(curve, 1e-4, 1 - 1e-4)
        return np.log(values / (1 - values))

    def _place(self, values: Mapping[str, Any]) -> np.ndarray:
        shares = []
        for item in self.record.ranges:
            low, high = (position(item, end) for end in (item.extremes[0], item.extremes[-1]))
            share = (position(item, values.get(item.path, ...)) - low) / ((high - low) or 1)
            shares.append(max(share, -1.0))
        return np.array(shares)


landscape = cache(Landscape)


def _find(config: Mapping[str, Any], path: str) -> Any:
    """Return what a config holds at a dotted path; an ellipsis where there is no such key."""
    found: Any = config
    for key in path.split("."):
        found = found.get(key, ...) if isinstance(found, Mapping) else ...
    return found


def spans(folder: Path) -> dict[str, tuple[float, tuple[float, ...]]]:
    """Return the seconds that each trial took beside its epochs, and those of each epoch.

    The first epoch pays for what a trial begins with: it counts as the median of the others.
    """
    moments: dict[str, list[float]] = {}
    found = {}
    for event in journal.read(folder):
        if event["kind"] in ("trial_started", "epoch_ended", "trial_ended"):
            moments.setdefault(event["trial_id"], []).append(event["seconds_elapsed"])
        if event["kind"] == "trial_ended" and len(moments[event["trial_id"]]) > 3:
            steps = np.diff(moments[event["trial_id"]])
            usual = float(np.median(steps[1:-1]))
            beside = max(0.0, float(steps[0]) - usual) + float(steps[-1])
            found[event["trial_id"]] = beside, (usual, *map(float, steps[1:-1]))
    return found


class SimulatedExecutor:
    """Runs trials on workers of its own clock, and counts what the search itself takes meanwhile.

    The clock goes on by the CPU seconds of the process between two calls, by a measured time for
    each event that the journal has flushed to the disk, and by waiting. A worker begins when it is
    told to and has started; the search hears of an epoch or an end when it has time for it.

    Args:
        folder: The folder of the real search.
        workers: How many there are.
        in_order: As of `Executor`.
        startup: Seconds until a worker can begin its first trial.
        flush: Seconds that the disk takes for an event of the journal.
        transfer: Seconds that a trial's state takes to the search, which does nothing else then.
        slowdown: How much longer a trial takes than in the real search.
    """

    def __init__(
        self,
        folder: str,
        workers: int,
        *,
        in_order: bool = True,
        startup: float = 0.0,
        flush: float = 0.0,
        transfer: float = 0.0,
        slowdown: float = 1.0,
    ) -> None:
        self.workers, self.in_order = workers, in_order
        self.now = self.driven = self.worked = 0.0
        self.ended: list[tuple[float, float, int]] = []  # when, score, epochs trained
        self._past = landscape(Path(folder))
        self._flush, self._transfer, self._slowdown = flush, transfer, slowdown
        self._free = [startup] * workers
        self._coming: list[tuple[float, int, Callable[[], Outcome | None]]] = []
        self._numbers = itertools.count()
        self._reached: dict[str, int] = {}
        self._mark = time.thread_time()

    def open(self, store: ArtifactStore, hooks: Hooks, cfg: DictConfig) -> None:
        """Make ready."""
        self._hooks, self._mark = hooks, time.thread_time()

    def capacity(self, task: Task) -> int:
        """Return the workers."""
        return self.workers

    def submit(self, task: Task) -> None:
        """Let the worker that is free first train a trial."""
        self._drive(events=1)  # that it has begun
        curve, past = self._past.trial(task.config)
        began = max(self.now, heapq.heappop(self._free))
        first = self._reached[task.parent] if task.parent else 0
        last = min(task.epochs, max(len(curve), first))
        self._reached[task.trial_id] = last
        moment = began + past.beside * self._slowdown
        for epoch in range(first + 1, last + 1):
            moment += past.epochs[(epoch - 1) % len(past.epochs)] * self._slowdown
            self._add(moment, self._epoch, task.trial_id, epoch, curve[epoch - 1])
        heapq.heappush(self._free, moment)
        self.worked += moment - began
        scores = [self._past.sign * value for value in curve[:last]]
        best = scores.index(max(scores))
        self._add(moment, self._end, task.trial_id, curve[best], best + 1, last - first)
        self._mark = time.thread_time()

    def wait(self) -> Outcome:
        """Go on to the next end, with the epochs before it."""
        while True:
            self._drive()
            moment, _, happen = heapq.heappop(self._coming)
            self.now = max(self.now, moment)
            if outcome := happen():
                self._mark = time.thread_time()
                return outcome

    def cancel(self) -> None:
        """Do nothing: nothing runs."""

    def close(self) -> None:
        """Count what came after the last end."""
        self._drive()

    def _epoch(self, trial_id: str, epoch: int, value: float) -> None:
        self._hooks.on_epoch(trial_id, FIRST, epoch, {self._past.name: value})
        self._drive(events=1)

    def _end(self, trial_id: str, score: float, epoch: int, trained: int) -> Outcome:
        self._pass(self._transfer + self._flush)
        self.ended.append((self.now, score, trained))
        measured = {self._past.name: score}
        return Outcome(trial_id, score=score, best_epoch=epoch, metrics=measured)

    def _add(self, moment: float, call: Callable[..., Outcome | None], *args: Any) -> None:
        heapq.heappush(self._coming, (moment, next(self._numbers), lambda: call(*args)))

    def _drive(self, *, events: int = 0) -> None:
        """Let the clock go on by what the search has taken since it was last looked at."""
        mark = time.thread_time()
        self._pass(mark - self._mark + events * self._flush)
        self._mark = mark

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.driven += seconds


@dataclass(frozen=True, slots=True)
class Run:
    """What a simulated search came to.

    Attributes:
        trials: How many.
        epochs: How many, of all of them.
        makespan: Seconds from its beginning to its end.
        utilisation: The share of that which the workers trained, on the average.
        driven: The share of it in which the search itself was busy.
        best: When the best score so far changed, in seconds, and what it was then.
    """

    trials: int
    epochs: int
    makespan: float
    utilisation: float
    driven: float
    best: Sequence[tuple[float, float]]

    def seconds_to(self, score: float, sign: int) -> float:
        """Return when it had a score as good as this; infinity where it never had."""
        found = (moment for moment, value in self.best if sign * value >= sign * score)
        return next(found, math.inf)


def simulate(
    real: Path, folder: Path, *, tuner: Mapping[str, Any], workers: int, **executor: Any
) -> Run:
    """Run a search of the space of a real one.

    Args:
        real: The folder of the real search.
        folder: Where the simulated one keeps its journal; it must not exist.
        tuner: The tuner's section of the config.
        workers: How many.
        **executor: Arguments of `SimulatedExecutor`.
    """
    cfg = OmegaConf.load(real / "config.yaml")
    target = f"{__name__}.{SimulatedExecutor.__name__}"
    section = {"_target_": target, "folder": str(real), "workers": workers, **executor}
    OmegaConf.update(cfg, "tuner", dict(tuner), merge=False)
    OmegaConf.update(cfg, "executor", section, merge=False)
    OmegaConf.update(cfg, "budget", dict.fromkeys(cfg.budget), merge=False)
    log = Journal(folder)
    log.claim()
    search = Search(SearchSpec(cfg, folder, {}), log, (), None)  # type: ignore[arg-type]
    began = _first_event(landscape(real).record)
    search.recorder.tell("search_started", **began | {"params": flatten(cfg)})  # type: ignore[arg-type]
    search._run_trials()
    log.close()
    made: Any = search.executor
    best, sign = list[tuple[float, float]](), landscape(real).sign
    for moment, score, _ in made.ended:
        if not best or sign * score > sign * best[-1][1]:
            best.append((moment, score))
    epochs = sum(trained for *_, trained in made.ended)
    share = made.worked / (made.now * workers)
    return Run(len(made.ended), epochs, made.now, share, made.driven / made.now, best)


def _first_event(record: SearchRecord) -> dict[str, Any]:
    own = ("n", "kind", "time", "seconds_elapsed", "params")
    fields = {name: value for name, value in record.first.items() if name not in own}
    return dict(json.loads(json.dumps(fields)))

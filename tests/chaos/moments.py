"""Kill a search at a moment that its folder shows: nothing in the search knows of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PHASES = ("fresh", "start", "extraction", "training", "checkpoint", "logging", "evaluation")
SEARCH, SIDECAR, BOTH = VICTIMS = ("search", "sidecar", "search and sidecar")
WORKER = "worker"  # of Ray
PAUSE = 0.0004
LONGEST = 240.0


@dataclass(frozen=True)
class Moment:
    """When to kill a search.

    Attributes:
        phase: One of `PHASES`.
        text: What the moment is, for people.
        sign: Tells of a project folder whether it is there.
        count: How often the sign has to come first.
        delay: How many seconds later.
        victim: One of `VICTIMS`, or `WORKER`; the sidecar is the process that talks to MLflow.
    """

    phase: str
    text: str
    sign: Callable[[Path], bool]
    count: int = 1
    delay: float = 0.0
    victim: str = SEARCH


def draw(phase: str, rng: random.Random) -> Moment:
    """Draw a moment of a phase."""
    alone, count = rng.random() < 0.5, 1
    if phase == "start":
        return Moment(phase, "while it starts", lambda project: True, 1, rng.uniform(0.2, 12.0))
    if phase == "extraction":
        sign, text, delay = _is_extracting, "features are written", rng.uniform(0, 0.15)
    elif phase == "training":
        least = rng.randint(1, 8)
        sign, text = _has_grown(b'"epoch_ended"', least), f"{least} epochs on"
        delay = rng.uniform(0, 0.05)
    elif phase == "checkpoint":
        sign, text, delay = _is_saving, "a checkpoint is written", rng.choice([0, 0, 0.0005, 0.001])
        count = rng.randint(1, 12)
    elif phase == "logging":
        sign, text, delay = _is_logging, "MLflow's database is written", rng.uniform(0, 0.01)
        alone, count = rng.random() < 0.2, rng.randint(1, 12)
    else:
        sign, text = rng.choice(ENDINGS)
        delay = rng.uniform(0, 0.08)
    return Moment(phase, text, sign, count, delay, SEARCH if alone else BOTH)


def draw_fresh(victim: str, rng: random.Random) -> Moment:
    """Draw a moment of the first seconds in a folder that holds nothing yet."""
    name = rng.choice([name for name in FIRST_FILES if victim == SEARCH or "mlruns" in name])
    delay = rng.choice([0, rng.uniform(0, 0.1), rng.uniform(0, 1)])
    return Moment("fresh", f"{name} is there", lambda p: any(p.glob(name)), 1, delay, victim)


def kill(process: subprocess.Popen[str], project: Path, moment: Moment) -> bool:
    """Wait for a moment and kill what is to die; return whether the moment came.

    Args:
        process: The search.
        project: The folder that it runs in.
        moment: When to kill it.
    """
    seen, was, deadline = 0, False, time.monotonic() + LONGEST
    while process.poll() is None:
        now = moment.sign(project)
        seen += now and not was
        was = now
        if seen >= moment.count:
            time.sleep(moment.delay)
            if process.poll() is not None:
                return False
            if _strike(process, moment.victim):
                return True
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"The search in {project} has not ended in {LONGEST:.0f} seconds.")
        time.sleep(PAUSE)
    return False


def _strike(process: subprocess.Popen[str], victim: str) -> bool:
    if victim == WORKER:
        return _strike_worker(process.pid)
    pids = [] if victim == SEARCH else _sidecars(process.pid)
    if victim != SIDECAR:
        process.kill()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if victim != SIDECAR:
        process.wait()
    return victim != SIDECAR or bool(pids)


def _strike_worker(pid: int) -> bool:
    children = psutil.Process(pid).children(recursive=True)
    found = [one for one in children if one.name().startswith("ray::Worker")]
    for one in found[:1]:
        one.kill()
    return bool(found)


def _sidecars(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = []
    for one in children.read_text().split() if children.exists() else ():
        with suppress(OSError):  # it has ended meanwhile
            if b"sidecar" in Path(f"/proc/{one}/cmdline").read_bytes():
                found.append(int(one))
    return found


def _is_extracting(project: Path) -> bool:
    return _has_name(project / "outputs" / "features", ".part")


def _is_saving(project: Path) -> bool:
    return any(_has_name(folder / "trials", ".part") for folder in _searches(project))


def _is_logging(project: Path) -> bool:
    return (project / "mlruns" / "mlflow.db-journal").exists() and bool(_searches(project))


def _has_file(name: str) -> Callable[[Path], bool]:
    return lambda project: any((folder / name).exists() for folder in _searches(project))


def _has_ended(project: Path) -> bool:
    return any(b'"search_ended"' in _journal(folder) for folder in _searches(project))


def _has_grown(word: bytes, least: int) -> Callable[[Path], bool]:
    """Return the sign that a journal has more lines of a kind than when it was first seen."""
    start: dict[Path, int] = {}

    def sign(project: Path) -> bool:
        for folder in _searches(project):
            count = _journal(folder).count(word)
            if count >= start.setdefault(folder, count) + least:
                return True
        return False

    return sign


# What the first seconds make, roughly in its order.
FIRST_FILES = (
    *("outputs", "outputs/*/*/.hydra", "outputs/*/*/.hydra/overrides.yaml"),
    *("outputs/*/*/config.yaml*", "outputs/*/*/journal.jsonl", "mlruns", "mlruns/mlflow.lock"),
    *("mlruns/mlflow.db", "mlruns/mlflow.db-journal", "outputs/*/*/tracking.json*"),
    *("mlruns/artifacts", "outputs/features"),
)
ENDINGS = [
    (_has_file("plots/confusion_matrix.png"), "the first picture is there"),
    (_has_file("plots/errors.png"), "the last picture is there"),
    (_has_file("best.yaml"), "the winner's preset is there"),
    (_has_ended, "the journal has its end"),
]


def _searches(project: Path) -> list[Path]:
    """Return the folders of searches that have begun."""
    return [path.parent for path in project.glob("outputs/*/*/journal.jsonl")]


def _journal(folder: Path) -> bytes:
    return (folder / "journal.jsonl").read_bytes()


def _has_name(folder: Path, ending: str) -> bool:
    try:
        return any(entry.name.endswith(ending) for entry in os.scandir(folder))
    except FileNotFoundError:
        return False

"""Kill searches at random moments, resume each, compare it with one that was never interrupted.

    make chaos                       # 50 kills, over the five tuners and all phases
    python -m chaos.run --kills 8 --fresh 0 --seed 3     # with tests/ on the path
    python -m chaos.run --kills 0    # only those in the first seconds of a fresh folder
    python -m chaos.run --executor ray --fresh 0         # trials with Ray, whose workers die too

Every process is real, and so is every SIGKILL. Exits with 1 where a search did not survive.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos import compare, moments

ROOT = Path(__file__).parents[2]
SMALL = [
    "dataset=phantom", "dataset.train=120", "dataset.val=60", "dataset.test=60",
    "dataset.image_size=32", "model.image_size=32", "dense.units=8", "tuner.max_epochs=4",
    'dense.dropout="choice(0.1, 0.2, 0.3, 0.5)"',
]  # fmt: skip
FROZEN = [*SMALL, "model.layer=block2b_add"]
# One search for each tuner, each with something else that a kill may hit.
SEARCHES = {
    "hyperband": [*FROZEN, "tuner=hyperband", "training.executions_per_trial=2"],
    "asha": [*FROZEN, "tuner=asha", "tuner.max_trials=9", "tuner.factor=2"],
    "bayesian": [*FROZEN, "tuner=bayesian", "tuner.max_trials=6", "tracking.log_models=best"],
    "random": [
        *FROZEN,
        "tuner=random",
        "tuner.max_trials=6",
        "augment=blog",
        "augment.views=2",
        "objective.folds=2",
    ],
    "grid": [
        *FROZEN,
        "tuner=grid",
        "tuner.max_trials=6",
        "training.retrain=true",
        "threshold.rule=youden",
        "threshold.calibrate=true",
    ],
}
EXECUTORS = {"local": [], "ray": ["executor=ray", "executor.workers=2"]}
# What hits a search one time after the other, in the order in which it comes to it.
SERIES = (
    ("extraction", "training", "checkpoint", "logging", "evaluation"),
    ("start", "checkpoint", "logging", "training", "evaluation"),
)


@dataclass
class Story:
    """One search and what happened to it."""

    tuner: str
    kills: list[moments.Moment] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def main() -> int:
    """Run what is asked for; return the exit status."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=40)
    arguments.add_argument("--fresh", type=int, default=10, help="kills in a fresh folder")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--workers", type=int, default=2, help="searches at a time")
    arguments.add_argument("--executor", default="local", choices=list(EXECUTORS))
    arguments.add_argument("--only", default=",".join(SEARCHES), help="tuners")
    given = arguments.parse_args()
    for overrides in SEARCHES.values():
        overrides += EXECUTORS[given.executor]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.workers) as pool:
        fresh = itertools.islice(itertools.cycle(SEARCHES), given.fresh)
        shared = [*((tuner, ("fresh",)) for tuner in fresh), *_share(given.kills)]
        series = [one for one in shared if one[0] in given.only.split(",")]
        tuners = list(dict.fromkeys(tuner for tuner, _ in series))
        projects = [Path(folder) / f"whole-{tuner}" for tuner in tuners]
        whole = dict(zip(tuners, pool.map(_run_whole, tuners, projects), strict=True))
        jobs = [
            pool.submit(
                _torment,
                Story(tuner),
                Path(folder) / f"{tuner}-{number}",
                phases=phases,
                whole=whole[tuner],
                rng=random.Random(f"{given.seed} {tuner} {number}"),
                kills_workers=given.executor == "ray",
                victim=moments.VICTIMS[number % len(moments.VICTIMS)],
            )
            for number, (tuner, phases) in enumerate(series)
        ]
        stories = [job.result() for job in jobs]
    wanted = sum(len(phases) for _, phases in series)
    return _report(stories, wanted, time.monotonic() - began)


def _share(kills: int) -> list[tuple[str, tuple[str, ...]]]:
    """Share the kills among the tuners and the series of phases."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for phases, tuner in itertools.cycle(itertools.product(SERIES, SEARCHES)):
        if kills <= 0:
            return found
        found.append((tuner, phases[:kills]))
        kills -= len(phases)
    return found


def _start(project: Path, overrides: Sequence[str]) -> subprocess.Popen[str]:
    project.mkdir(exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "MLFLOW"))}
    with (project / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pneumonia", *overrides],
            cwd=project,
            env={**inherited, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _run_whole(tuner: str, project: Path) -> Path:
    """Run a search without interrupting it; return its project."""
    if _start(project, SEARCHES[tuner]).wait(moments.LONGEST) != 0:
        raise RuntimeError((project / "output.txt").read_text())
    return project


def _torment(
    story: Story,
    project: Path,
    *,
    phases: Sequence[str],
    whole: Path,
    rng: random.Random,
    victim: str,
    kills_workers: bool,
) -> Story:
    """Kill one search once in every phase, resume it each time, compare it at its end."""

    def draw(phase: str) -> moments.Moment:
        if phase == "fresh":
            return moments.draw_fresh(victim, rng)
        moment = moments.draw(phase, rng)
        is_worker = kills_workers and phase in ("training", "checkpoint") and rng.random() < 0.5
        return replace(moment, victim=moments.WORKER) if is_worker else moment

    process = None
    for phase in phases:
        moment = draw(phase)
        process = process or _start(project, _command(story.tuner, project))
        while not moments.kill(process, project, moment):
            # It was over before the moment came: another search of the same is killed there.
            process.wait(moments.LONGEST)
            story.differences += _ended_well(project, whole)
            project = project.with_name(f"{project.name}x")
            moment = draw(phase)
            process = _start(project, _command(story.tuner, project))
        story.kills.append(moment)
        _tell(story)
        if moment.victim == moments.WORKER:
            continue  # the search itself goes on
        if moment.victim == moments.SIDECAR:
            if process.wait(moments.LONGEST) != 0:
                story.differences.append(f"without its sidecar: {process.returncode}")
            story.differences += _ended_well(project, whole)
            return story
        process = None
        if phase == "fresh":
            story.differences += _others(project)
    process = process or _start(project, _command(story.tuner, project))
    status = process.wait(moments.LONGEST)
    if status != 0:
        story.differences.append(f"exit status {status}")
    story.differences += _ended_well(project, whole)
    return story


def _others(project: Path) -> list[str]:
    """Run the commands that read the store; return those that a kill has made useless."""
    found = []
    for arguments in (["compare"], ["predict", "model=m", __file__]):
        done = subprocess.run(
            [sys.executable, "-m", "pneumonia", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 2) or "Traceback" in done.stderr:
            found.append(f"{arguments[0]}: exit status {done.returncode}\n{done.stderr}")
    return found


def _command(tuner: str, project: Path) -> list[str]:
    """Return how to go on: there is nothing to resume of what was killed before it had a folder."""
    return ["resume=last"] if compare.searches(project) else SEARCHES[tuner]


def _ended_well(project: Path, whole: Path) -> list[str]:
    found = list(compare.differences(project, whole))
    if found:
        found.append((project / "output.txt").read_text()[-3000:])
    return found


def _tell(story: Story) -> None:
    moment = story.kills[-1]
    print(f"{story.tuner:<10}{moment.phase:<11} {moment.victim} killed: {moment.text}", flush=True)


def _report(stories: Sequence[Story], wanted: int, seconds: float) -> int:
    phases = Counter(kill.phase for story in stories for kill in story.kills)
    survived = sum(len(story.kills) for story in stories if not story.differences)
    for story in stories:
        for line in story.differences:
            print(f"{story.tuner}: {line}", file=sys.stderr)
    listed = ", ".join(f"{phases[phase]} in {phase}" for phase in moments.PHASES if phases[phase])
    print(f"\nkilled {sum(phases.values())} times ({listed}), in {seconds:.0f} s")
    print(f"survived {survived} of {wanted}")
    return 0 if survived == wanted else 1


if __name__ == "__main__":
    sys.exit(main())

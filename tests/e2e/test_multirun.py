"""Sweeps in processes of their own: killed, stopped, on Hydra's launchers, with another sweeper."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from chaos import compare
from test_search import Store, assert_nothing_repeats_or_runs

from pneumonia.storage import jobs, journal

ROOT = Path(__file__).parents[2]
SMALL = (
    *("model.image_size=32", "model.layer=block2b_add", "dense.units=8", "progress=plain"),
    *("tuner=random", "tuner.max_trials=2", "tuner.max_epochs=3"),
)
PHANTOM = (
    *("dataset=phantom", "dataset.train=120", "dataset.val=60", "dataset.test=60"),
    "dataset.image_size=32",
)
# Kills itself, as the system would, in the middle of the second job.
KILLED = """
import os, signal, sys
from pneumonia.cli import main as cli
from pneumonia.storage import journal
append = journal.Journal.append
def append_and_die(self, kind, /, **fields):
    event = append(self, kind, **fields)
    if self.path.parent.name == "1" and kind == "epoch_ended" and event["n"] >= 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return event
journal.Journal.append = append_and_die
sys.exit(cli.main())
"""

pytestmark = pytest.mark.slow


def start(project: Path, *arguments: str, code: str = "") -> subprocess.Popen[str]:
    """Begin a command as a shell does: in a group of its own, which a terminal's Ctrl-C reaches."""
    project.mkdir(exist_ok=True)
    how = ["-c", code] if code else ["-m", "pneumonia"]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "MLFLOW"))}
    return subprocess.Popen(
        [sys.executable, *how, *arguments],
        cwd=project,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit status of a command, and what it wrote to standard error."""
    _, told = process.communicate(timeout=400)
    return process.returncode, told


def ended(project: Path) -> dict[str, str]:
    """Return the status that the journal of each job of a project's only sweep ends with."""
    [sweep] = [path.parent for path in project.rglob(jobs.SWEEP)]
    found = {}
    for path in sorted(sweep.glob("*/journal.jsonl")):
        *_, last = journal.read(path.parent)
        found[path.parent.name] = last.get("status", last["kind"])
    return found


def npz(path: Path, *, val: int = 60) -> None:
    """Write a dataset of bright and dark noise."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", 120), ("val", 60), ("test", 60)):
        labels = (np.arange(size) % 2).astype(np.uint8)[:, None]
        images = rng.integers(0, 120, (size, 32, 32)) + 60 * labels[:, :, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    np.savez(path, **arrays | {"val_images": arrays["val_images"][:val]})


def test_a_sweep_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    sweep = ("-m", *PHANTOM, *SMALL, "seed=1,2,3", "hydra.sweep.dir=outputs/sweep")
    status, told = finish(start(killed, *sweep, code=KILLED))
    assert status == -signal.SIGKILL, told
    assert ended(killed) == {"0": "completed", "1": "epoch_ended"}
    first = (killed / "outputs/sweep/0/journal.jsonl").read_bytes()

    status, told = finish(start(killed, "-m", "resume=last"))
    assert status == 0, told
    assert told.startswith("outputs/sweep/0: complete\n")
    assert (killed / "outputs/sweep/0/journal.jsonl").read_bytes() == first
    assert ended(killed) == {"0": "completed", "1": "completed", "2": "completed"}
    assert (killed / "outputs/sweep/report.html").exists()

    assert finish(start(whole, *sweep))[0] == 0
    for number in "012":
        one, other = (project / "outputs/sweep" / number for project in (killed, whole))
        assert list(compare.journals(compare.events(one), compare.events(other))) == []
        assert list(compare.files(one, other)) == []
    assert_nothing_repeats_or_runs(Store(killed))
    assert len(Store(killed).runs("search")) == 3


@pytest.mark.parametrize("launcher", ["processes", "submitit_local"])
def test_jobs_on_a_launcher(tmp_path: Path, launcher: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    npz(project / "good.npz")
    npz(project / "bad.npz", val=3)
    data = ("dataset=npz", "dataset.path=bad.npz,good.npz")
    process = start(project, "-m", f"hydra/launcher={launcher}", *data, *SMALL, "seed=1,2")
    status, told = finish(process)
    assert status == 2, told
    # Each that fails is told once while others run, and at the end.
    failed = re.findall(r"^job (\d) \((.*)\) failed: `dataset.path`", told, re.MULTILINE)
    assert sorted(number for number, _ in failed) == ["0", "1"]
    assert all("dataset.path=bad.npz" in overrides for _, overrides in failed)
    assert "2 of 4 failed:\n  job 0 (" in told
    assert ended(project) == {"2": "completed", "3": "completed"}
    assert len(list((project / "outputs/features").glob("*.npy"))) == 3
    store = Store(project)
    assert_nothing_repeats_or_runs(store)
    assert [run.info.status for run in store.runs("search")] == ["FINISHED"] * 2
    [page] = project.rglob("outputs/*/*/report.html")
    assert "Failed: 2" in page.read_text()
    logs = [path.read_text() for path in page.parent.glob(".submitit/*/*.err")]
    computed = re.findall(r"features of (\w+)", "\n".join([told, *logs]))
    assert sorted(computed) == ["test", "train", "val"]

    # What was wrong is mended: what is complete stays as it is.
    shutil.copyfile(project / "good.npz", project / "bad.npz")
    before = [(page.parent / name / journal.NAME).read_bytes() for name in "23"]
    command = told.partition("To run them again: ")[2].split("\n")[0]
    status, told = finish(start(project, *shlex.split(command)[1:]))
    assert status == 0, told
    assert ended(project) == dict.fromkeys("0123", "completed")
    assert before == [(page.parent / name / journal.NAME).read_bytes() for name in "23"]
    assert "Failed: " not in page.read_text()


def test_ctrl_c_stops_the_jobs_of_a_launcher_after_their_epochs(tmp_path: Path) -> None:
    project = tmp_path / "project"
    long = ("tuner.max_trials=500", "tuner.max_epochs=50")
    launched = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=4")
    process = start(project, "-m", *launched, *PHANTOM, *SMALL, *long, "seed=1,2")
    deadline = time.monotonic() + 300
    while sum(path.stat().st_size > 4000 for path in project.rglob(journal.NAME)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    status, told = finish(process)
    assert status == 130, told
    assert "Traceback" not in told
    assert ended(project) == {"0": "interrupted", "1": "interrupted"}
    last = told.splitlines()[-1]
    assert last.startswith("Interrupted. 0 of 2 jobs have come to their end. To go on: pneumonia r")
    assert {run.info.status for run in Store(project).runs("search")} == {"KILLED"}

    plan = start(project, *shlex.split(last.partition("To go on: ")[2])[1:], "--dry-run")
    said, told = plan.communicate(timeout=100)
    assert plan.returncode == 0, told
    assert said.count("goes on: ") == 2


def test_a_process_of_a_launcher_that_dies(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "own").mkdir(parents=True)
    # As the system does where memory runs out.
    code = "import os, signal\nfrom pneumonia.search.callbacks import SearchCallback\n"
    code += "class Kill(SearchCallback):\n    def trial_started(self, proposal, config):\n"
    code += "        os.kill(os.getpid(), signal.SIGKILL)\n"
    (project / "fatal.py").write_text(code)
    fatal = ("+callbacks.fatal._target_=fatal.Kill", "hydra/launcher=processes")
    status, told = finish(start(project, "-m", *fatal, *PHANTOM, *SMALL, "seed=1,2"))
    assert status == 1
    assert "The launcher has failed: TerminatedWorkerError: " in told
    assert "\n0 of 2 jobs have come to their end, not 0, 1. To go on: pneumonia resume=" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("launcher", ["processes", "submitit_local", "slurm"])
def test_a_plan_launches_nothing(tmp_path: Path, launcher: str) -> None:
    process = start(tmp_path, "-m", f"hydra/launcher={launcher}", *PHANTOM, "plan=true", "seed=1,2")
    said, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert said.count("nothing was run or written") == 2
    assert list(tmp_path.iterdir()) == []


SWEEPER = """
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class Halving(Sweeper):
    def __init__(self, direction):
        self.sign = {"maximize": 1, "minimize": -1}[direction]

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        first = [[*arguments, f"seed={seed}"] for seed in (1, 2)]
        scores = [one.return_value for one in self.launcher.launch(first, initial_job_idx=0)]
        best = max((1, 2), key=lambda seed: self.sign * scores[seed - 1])
        [last] = self.launcher.launch([[*arguments, f"seed={best}0"]], initial_job_idx=2)
        print("told", *scores, last.return_value, flush=True)


@dataclass
class Conf:
    _target_: str = "hydra_plugins.halving.sweeper.Halving"
    direction: str = "maximize"


ConfigStore.instance().store(group="hydra/sweeper", name="halving", node=Conf, provider="halving")
"""


def test_a_sweeper_that_learns_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "plugins" / "hydra_plugins" / "halving"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    (plugin / "sweeper.py").write_text(SWEEPER)
    monkeypatch.setitem(globals(), "ROOT", f"{ROOT}:{tmp_path / 'plugins'}")
    project = tmp_path / "project"
    goal = ("objective.name=val_loss", "objective.direction=min")
    sweep = ("-m", "hydra/sweeper=halving", "hydra.sweeper.direction=minimize", *goal)
    assert finish(start(project, *sweep, *PHANTOM, *SMALL, code=KILLED))[0] == -signal.SIGKILL
    process = start(project, "-m", "resume=last")
    said, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert ended(project) == {"0": "completed", "1": "completed", "2": "completed"}
    [line] = [line for line in said.splitlines() if line.startswith("told")]
    [sweep_folder] = [path.parent for path in project.rglob(jobs.SWEEP)]
    scores = [list(journal.read(sweep_folder / n))[-1]["metrics"]["val_loss"] for n in "012"]
    assert [float(text) for text in line.split()[1:]] == scores
    record = json.loads((sweep_folder / jobs.NAME).read_text().splitlines()[-1])
    assert record["overrides"].endswith(f"seed={1 if scores[0] < scores[1] else 2}0")

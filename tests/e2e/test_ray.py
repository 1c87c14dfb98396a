"""Whole searches whose trials run as actors of Ray: the same as here, whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from test_at_once import by_trial, without_workers
from test_ending import epochs
from test_search import (
    SEARCH,
    SMALL,
    Ran,
    assert_nothing_repeats_or_runs,
    assert_same_weights,
    searches,
    start,
    with_store,
)

from pneumonia.models import backbones
from pneumonia.search.ray_session import PREFIX
from pneumonia.storage import journal

pytestmark = pytest.mark.slow  # Ray, and each of its workers, takes ten seconds to begin

RAY = ("executor=ray", "executor.workers=2")
# Networks that train for some seconds, in many epochs.
LONG = (
    *(item for item in SMALL if not item.startswith("model.")),
    *("model=cnn", "model.image_size=32", "model.blocks=4", "model.filters=4"),
    *("tuner=random", "tuner.max_trials=4", "tuner.max_epochs=50"),
    *("training.early_stopping=null", 'dense.dropout="choice(0.1, 0.2, 0.3, 0.4, 0.5)"'),
)


# A dataset of a user, which does not take all that it says it takes.
PICKY = """
from pneumonia.datasets.chest_phantom import phantom
def picky(*, difficulty: float):
    if difficulty == 0.4:
        raise KeyError("no such column")
    return phantom(train=120, val=60, test=60, image_size=32, difficulty=difficulty)
"""


def finish(process: subprocess.Popen[str], project: Path) -> Ran:
    stdout, stderr = process.communicate(timeout=900)
    return Ran(project, searches(project)[-1], process.returncode, stdout, stderr)


def run(project: Path, *arguments: str) -> Ran:
    ran = finish(start(project, *arguments), project)
    assert ran.status == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Ran:
    """What the search of the other tests comes to in one process."""
    return run(with_store(tmp_path_factory.mktemp("local") / "project", empty_store), *LONG)


def wait_for(process: subprocess.Popen[str], what: Callable[[], object]) -> None:
    """Wait until a search that runs has come to something."""
    end = time.monotonic() + 600
    while not what():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it did not come to it"
        time.sleep(0.05)


def trained(project: Path) -> list[str]:
    """Return the trial of each epoch so far."""
    folders = [path.parent for path in (project / "outputs").rglob(journal.NAME)]
    events = (event for folder in folders for event in journal.read(folder))
    return [event["trial_id"] for event in events if event["kind"] == "epoch_ended"]


def workers(pid: int) -> list[psutil.Process]:
    return [
        one for one in psutil.Process(pid).children(recursive=True) if "ray::Worker" in title(one)
    ]


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def listening(pid: int) -> Iterator[str]:
    """Yield the addresses at which a process and those that it began wait for others."""
    every = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for one in every:
        for connection in one.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                yield connection.laddr.ip.removeprefix("::ffff:")


def left_behind(pid: int) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{PREFIX}{pid}-*"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster of three nodes on this machine, of which two have a processor each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        yield made
        made.shutdown()


def write_images(folder: Path) -> Path:
    """Write images of two classes that can be told apart, if not well."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("normal", "pneumonia")):
        (folder / name).mkdir(parents=True)
        for index in range(100):
            pixels = np.clip(rng.normal(110 + 15 * number, 60, (32, 32)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.mark.parametrize("count", [1, 2])
def test_a_hyperband_is_the_same(count: int, tmp_path: Path, empty_store: Path) -> None:
    here, there = (with_store(tmp_path / name, empty_store) for name in ("here", "there"))
    alone = run(here, *SEARCH)
    process = start(there, *SEARCH, "executor=ray", f"executor.workers={count}")
    ran = finish(process, there)
    assert ran.status == 0, ran.stderr
    assert any("promoted_from" in event["tags"] for event in ran.of("trial_started"))
    first, *_ = events = [without_workers(one) for one in (alone, ran)]
    for one in events:
        one[0]["params"] = {k: v for k, v in one[0]["params"].items() if "executor" not in k}
        one[0]["choices"].pop("executor")
        one[0]["tags"].pop("choices")
    assert events[1] == first
    assert_same_weights(alone, ran)
    assert_nothing_repeats_or_runs(ran.store)
    assert "ray" not in ran.stdout.lower().replace("x-ray", "")
    assert left_behind(process.pid) == []


def test_a_worker_that_is_killed_costs_no_trial(
    local: Ran, tmp_path: Path, empty_store: Path
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    process = start(project, *LONG, *RAY)
    wait_for(process, lambda: len(trained(project)) > 20)
    assert set(listening(process.pid)) == {"127.0.0.1"}
    victim = workers(process.pid)[0]
    victim.send_signal(signal.SIGKILL)
    ran = finish(process, project)
    assert ran.status == 0, ran.stderr
    (lost,) = ran.of("worker_lost")
    assert lost["reason"] == "its process was killed, or has crashed"
    assert ran.stderr.count(f"The worker of trial {int(lost['trial_id']) + 1} is lost") == 1
    assert ran.of("training_repeated") == []
    told = [event for event in by_trial(ran) if event["kind"] != "worker_lost"]
    assert told == by_trial(local)
    assert_same_weights(ran, local)
    assert_nothing_repeats_or_runs(ran.store)


def test_a_trial_fails_when_its_retries_are_used_up(tmp_path: Path, empty_store: Path) -> None:
    project = with_store(tmp_path / "project", empty_store)
    options = ("tuner.max_trials=2", "executor.workers=1", "executor.retries=0")
    process = start(project, *LONG, *RAY, *options)
    wait_for(process, lambda: len(trained(project)) > 10)
    workers(process.pid)[0].send_signal(signal.SIGKILL)
    ran = finish(process, project)
    assert ran.status == 0, ran.stderr
    failed, completed = ran.of("trial_ended")
    assert failed["reason"] == (
        "Its worker was lost once (`executor.retries=0`): its process was killed, or has crashed."
    )
    assert (failed["status"], completed["status"]) == ("FAILED", "COMPLETED")
    assert [one["trial_id"] for one in ran.of("worker_lost")] == [failed["trial_id"]]


@pytest.mark.parametrize(("killed", "resumed"), [("ray", "local"), ("local", "ray")])
def test_a_killed_driver_leaves_nothing_and_another_executor_goes_on(
    killed: str, resumed: str, local: Ran, tmp_path: Path, empty_store: Path
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    process = start(project, *LONG, *(RAY if killed == "ray" else ()))
    wait_for(process, lambda: len(trained(project)) > 20)
    begun = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    # Ray's agents look every two seconds whether their daemon is gone, five times.
    _, alive = psutil.wait_procs(begun, timeout=180)
    assert alive == []
    ran = run(project, "resume=last", *(RAY if resumed == "ray" else ("executor=local",)))
    assert by_trial(ran) == by_trial(local)
    assert_same_weights(ran, local)
    assert_nothing_repeats_or_runs(ran.store)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_in_order(
    name: str, local: Ran, tmp_path: Path, empty_store: Path
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    process = start(project, *LONG, *RAY)
    wait_for(process, lambda: len(set(trained(project))) > 1)
    begun = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(getattr(signal, name))
    ran = finish(process, project)
    assert ran.status == 130
    assert "Interrupted. To go on: pneumonia resume=" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert psutil.wait_procs(begun, timeout=180)[1] == []
    assert left_behind(process.pid) == []
    states = {path.stem for path in (ran.folder / "trials").glob("*.zip")}
    assert states >= set(trained(project)) - {e["trial_id"] for e in ran.of("trial_ended")}
    assert len(states) >= 2
    again = run(project, "resume=last")
    assert by_trial(again) == by_trial(local)
    assert_same_weights(again, local)


def test_a_budget_of_epochs_is_kept_to_the_epoch(tmp_path: Path, empty_store: Path) -> None:
    project = with_store(tmp_path / "project", empty_store)
    ran = run(project, *LONG, *RAY, "tuner.max_epochs=3", "budget.epochs=4")
    assert epochs(ran) == [3, 1]
    assert ran.end["status"] == "completed"


def test_workers_that_die_while_they_are_idle_use_up_no_retry(
    tmp_path: Path, empty_store: Path
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    # Trials of a budget of epochs run one after the other: the second worker has nothing to do.
    options = ("executor.retries=1", "budget.epochs=60")
    process = start(project, *LONG, *RAY, *options)

    def is_ready() -> bool:
        titles = [title(one) for one in workers(process.pid)]
        begins = any(name in one for one in titles for name in ("prepare", "__init__"))
        return len(titles) == 2 and not begins and len(trained(project)) > 5

    wait_for(process, is_ready)
    for one in workers(process.pid):
        one.send_signal(signal.SIGKILL)
    ran = finish(process, project)
    assert ran.status == 0, ran.stderr
    assert len(ran.of("worker_lost")) == 1
    assert epochs(ran) == [50, 10]


def test_a_store_that_is_gone_for_a_while_costs_no_trial(
    local: Ran, tmp_path: Path, empty_store: Path
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    process = start(project, *LONG, *RAY, f"executor.store=file://{tmp_path}/states")
    wait_for(process, lambda: len(trained(project)) > 20)
    (folder,) = (tmp_path / "states").glob("*/trials")
    folder.rename(tmp_path / "kept")
    folder.write_bytes(b"no folder")
    ran = finish(process, project)
    assert ran.status == 2
    assert "`executor.store`: file://" in ran.stderr
    assert "When that is mended, the search goes on: pneumonia resume=" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [event for event in ran.of("trial_ended") if event["status"] == "FAILED"] == []
    folder.unlink()
    (tmp_path / "kept").rename(folder)
    again = run(project, "resume=last")
    assert by_trial(again) == by_trial(local)
    assert_same_weights(again, local)


def test_a_dataset_that_raises_fails_the_same_trials_as_in_one_process(
    tmp_path: Path, empty_store: Path
) -> None:
    options = [item for item in LONG if not item.startswith(("dataset", "tuner", "dense.drop"))]
    options += ["dense.dropout=0.2", "optimizer.learning_rate=0.003"]
    options += ["dataset=mine", "--config-dir", "conf", "tuner=grid", "tuner.max_epochs=2"]
    ends = []
    for executor in ("local", "ray"):
        project = with_store(tmp_path / executor, empty_store)
        (project / "my_images.py").write_text(PICKY)
        (project / "conf" / "dataset").mkdir(parents=True)
        text = "_target_: my_images.picky\ndifficulty: choice(0.2, 0.4, 0.6)\n"
        (project / "conf" / "dataset" / "mine.yaml").write_text(text)
        ran = run(project, *options, f"executor={executor}")
        ended = sorted(ran.of("trial_ended"), key=lambda one: str(one["trial_id"]))
        assert [one["status"] for one in ended] == ["COMPLETED", "FAILED", "COMPLETED"]
        assert "in picky" in ended[1]["traceback"]
        ends.append([(one["reason"], one["score"]) for one in ended])
    assert ends[0] == ends[1]


def test_nodes_need_no_common_files_and_one_may_go(
    cluster: Any, tmp_path: Path, empty_store: Path
) -> None:
    images = write_images(tmp_path / "images")
    options = [item for item in LONG if not item.startswith("dataset")]
    options += ["dataset=image_folder", f"dataset.path={images}"]
    alone = run(with_store(tmp_path / "alone", empty_store), *options)
    project = with_store(tmp_path / "project", empty_store)
    there = (f"executor.address={cluster.address}", f"executor.store=file://{tmp_path}/states")
    process = start(project, *options, *RAY, *there)
    wait_for(process, lambda: len(set(trained(project))) > 1 and len(trained(project)) > 20)
    assert any((tmp_path / "states").rglob("*.zip"))
    cluster.remove_node(cluster.nodes[0], allow_graceful=False)
    ran = finish(process, project)
    assert ran.status == 0, ran.stderr
    assert len(ran.of("worker_lost")) >= 1
    told = [event for event in by_trial(ran) if event["kind"] != "worker_lost"]
    assert told == by_trial(alone)
    assert_same_weights(ran, alone)
    # The node has copies of its own, and what was kept for the search is gone.
    copies = {path.parent for path in (project / "outputs" / "features").rglob("*.png")}
    assert len(copies) == 3
    assert [path for path in (tmp_path / "states").rglob("*") if path.is_file()] == []


def test_a_store_that_the_workers_do_not_reach_is_refused(
    tmp_path: Path, empty_store: Path
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    # What is in the memory of a process no other one reads, as with disks of several machines.
    ran = finish(start(project, *LONG, *RAY, "executor.store=memory://states"), project)
    assert ran.status == 2
    assert "`executor.store`: expected the address of a folder that every node" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert trained(project) == []


def test_a_node_without_the_weights_of_the_config_is_refused(
    cluster: Any, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # the nodes have another one
    network = backbones.cnn(image_size=32, blocks=4, filters=4)
    network.save_weights(tmp_path / "own.weights.h5")
    project = with_store(tmp_path / "project", empty_store)
    options = ("model.weights='~/own.weights.h5'", f"executor.address={cluster.address}")
    ran = finish(start(project, *LONG, *RAY, *options, "executor.workers=1"), project)
    assert ran.status == 2
    assert re.search(r"on one of them:\n  ~/own\.weights\.h5: [0-9a-f]{12} → None\n", ran.stderr)
    assert "Traceback" not in ran.stderr
    assert trained(project) == []


def test_more_workers_than_there_is_room_for_are_refused(
    cluster: Any, tmp_path: Path, empty_store: Path
) -> None:
    project = with_store(tmp_path / "project", empty_store)
    more = (f"executor.address={cluster.address}", "executor.gpus=1")
    ran = finish(start(project, *LONG, *RAY, *more), project)
    assert ran.status == 2
    assert "`executor.workers`: expected at most 0. Received: 2." in ran.stderr
    assert "Traceback" not in ran.stderr

"""Eight searches at the same time, on one store and one feature cache."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from test_search import Ran, Store, assert_nothing_repeats_or_runs, finish, searches, start

TRIALS = 2
SEARCH = (
    *("dataset=phantom", "dataset.train=120", "dataset.val=60", "dataset.test=60"),
    *("dataset.image_size=32", "model.image_size=32", "model.layer=block2b_add", "dense.units=8"),
    *("tuner=random", f"tuner.max_trials={TRIALS}", "tuner.max_epochs=2"),
)


@pytest.mark.slow
def test_eight_searches_at_the_same_time(tmp_path: Path) -> None:
    project = tmp_path / "project"
    processes = [start(project, *SEARCH, f"seed={seed % 4}") for seed in range(8)]
    ran = [finish(process, project) for process in processes]
    assert [one.status for one in ran] == [0] * 8, "\n".join(one.stderr for one in ran)
    folders = searches(project)
    assert len(folders) == 8

    store = Store(project)
    assert_nothing_repeats_or_runs(store)
    parents = store.runs("search")
    assert [run.info.status for run in parents] == ["FINISHED"] * 8
    assert len(store.runs("trial")) == 8 * TRIALS
    for folder in folders:
        one = Ran(project, folder, 0)
        assert one.end["status"] == "completed"
        assert len(one.children) == TRIALS
        assert one.parent.data.metrics["test_auc"] == pytest.approx(one.end["metrics"]["test_auc"])
        for child in one.children.values():
            assert child.info.status == "FINISHED"
            assert len(child.outputs.model_outputs) == 1
            assert store.steps(child, "val_auc") == [1, 2]
    # The same seed is the same search, whatever ran beside it.
    aucs = Counter(Ran(project, folder, 0).end["metrics"]["test_auc"] for folder in folders)
    assert all(count % 2 == 0 for count in aucs.values())

    # Each of the three splits was computed by one of them; the others waited for it.
    computed = re.findall(r"features of (\w+)", "\n".join(one.stderr for one in ran))
    assert sorted(computed) == ["test", "train", "val"]
    assert len(list((project / "outputs" / "features").glob("*.npy"))) == 3

"""TensorFlow's threads are a part of a result, wherever it is computed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from pneumonia.storage import journal
from pneumonia.storage.search_folder import SearchFolder

ROOT = Path(__file__).parents[2]
SMALL = (
    *("dataset=phantom", "dataset.train=200", "dataset.val=40", "dataset.test=20", "model=cnn"),
    *("model.image_size=28", "tuner=random", "tuner.max_trials=2", "tuner.max_epochs=2"),
    *("tracking.log_models=none", "callbacks=none"),
)


def run(
    project: Path, *arguments: str, processors: set[int] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pneumonia", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=(lambda: os.sched_setaffinity(0, processors)) if processors else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def epochs(project: Path, threads: str, **options: set[int]) -> tuple[list[str], int]:
    """Run a search; return what its epochs came to, and the threads in its journal."""
    folder = project / "outputs" / f"{threads}{len(options)}"
    ran = run(project, *SMALL, f"training.threads={threads}", f"hydra.run.dir={folder}", **options)
    assert ran.returncode == 0, ran.stderr
    events = list(journal.read(folder))
    number = events[0]["params"]["training.threads"]
    assert yaml.safe_load(SearchFolder(folder).preset.read_text())["training"]["threads"] == number
    return [repr(one["metrics"]) for one in events if one["kind"] == "epoch_ended"], number


@pytest.mark.slow
def test_a_result_depends_on_its_threads_and_not_on_the_processors(tmp_path: Path) -> None:
    own = os.sched_getaffinity(0)
    if len(own) < 2:
        pytest.skip("needs two processors")
    one, other = epochs(tmp_path, "1"), epochs(tmp_path, "3")
    assert (one[1], other[1]) == (1, 3)
    assert one[0] != other[0]
    assert epochs(tmp_path, "3", processors={min(own)}) == other
    assert epochs(tmp_path, "null", processors={min(own)}) == one
    refused = run(tmp_path, "resume=outputs/30", "training.threads=2", "tuner.max_trials=3")
    assert refused.returncode == 2
    assert "training.threads: 3 → 2\n" in refused.stderr
    assert "training.threads=3." in refused.stderr

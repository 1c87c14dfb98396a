"""What goes wrong in a trial is its result; what all trials share stops the search."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from test_trial import config

from pneumonia.artifacts import FolderStore
from pneumonia.config.instantiate import build
from pneumonia.files import StorageError
from pneumonia.search.executors import LocalExecutor, local
from pneumonia.training.trial import Hooks, Outcome, Task


def run(task: Task, hooks: Hooks | None = None) -> Outcome:
    executor = LocalExecutor()
    store = FolderStore(Path(task.config["features"]["folder"]).parent)
    executor.open(store, hooks or Hooks(), DictConfig(task.config))
    executor.submit(task)
    return executor.wait()


def task(folder: Path, **changes: Any) -> Task:
    return Task("0000", config(folder, "cnn", **changes), 1, keeps_classifier=False)


def test_a_trial_that_works_gives_its_result(tmp_path: Path) -> None:
    result = run(task(tmp_path))
    assert result.status == "COMPLETED"
    assert result.best_epoch == len(result.history) == 1


def test_a_trial_that_breaks_gives_reason_and_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumonia.training.checkpoint._KINDS", {1j})
    outcome = run(task(tmp_path))
    assert outcome.status == "FAILED"
    assert outcome.reason.startswith("TypeError: ")
    assert "\n" not in outcome.reason
    assert "attribute name must be string" in outcome.reason
    assert outcome.traceback.startswith("Traceback")
    assert "checkpoint.py" in outcome.traceback


def test_a_file_where_a_folder_belongs_stops_the_search(tmp_path: Path) -> None:
    cfg = task(tmp_path).config
    (tmp_path / "trials").write_text("a file where a folder belongs")
    with pytest.raises(StorageError, match=r"trials.*: (File exists|Not a directory)"):
        run(Task("0001", cfg, 2))


def test_a_reason_is_one_line_also_of_an_error_without_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, expected in [
        (RuntimeError("one\ntwo"), "RuntimeError: one"),
        (MemoryError(), "MemoryError"),
    ]:

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("pneumonia.training.trial._run", fail)
        outcome = run(task(tmp_path))
        assert outcome.status == "FAILED"
        assert outcome.reason == expected


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_training_that_diverges_needs_no_traceback(tmp_path: Path) -> None:
    one = task(tmp_path, dense__activation="linear")
    one.config["optimizer"] = {"_target_": "keras.optimizers.SGD", "learning_rate": 1e30}
    outcome = run(Task("0000", one.config, 5))
    assert outcome.status == "FAILED"
    assert "diverged" in outcome.reason
    assert outcome.traceback == ""


def undefined(labels: Any, probabilities: Any) -> float:
    """A metric that is never defined, as a user may write one."""
    return float("nan")


def test_an_objective_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    one = task(tmp_path)
    metric = {"_target_": f"{__name__}.undefined", "_partial_": True}
    one.config["training"]["metrics"]["odd"] = metric
    one.config["objective"]["name"] = "val_odd"
    outcome = run(one)
    reason = "The training diverged: its val_odd is nan in epoch 1."
    assert outcome == Outcome("0000", "FAILED", reason=reason)


def test_predictions_that_are_no_numbers_are_a_failure_whatever_the_objective(
    tmp_path: Path,
) -> None:
    # One step of an epoch: its loss is that of the first weights, and a number.
    one = task(tmp_path, training__batch_size=120, dense__activation="linear")
    one.config["optimizer"] = {"_target_": "keras.optimizers.SGD", "learning_rate": 1e38}
    one.config["objective"]["name"] = "val_accuracy"
    outcome = run(one)
    assert outcome.status == "FAILED"
    assert outcome.reason == "The training diverged: its val_loss is nan in epoch 1."


def test_a_trial_that_takes_too_long_says_how_long_it_took(tmp_path: Path) -> None:
    one = task(tmp_path, training__max_seconds=0.05)
    outcome = run(Task("0000", one.config, 500))
    assert outcome.status == "FAILED"
    assert re.fullmatch(
        r"The training was stopped after \d+\.\d s, at epoch [1-9]\d* of 500: "
        r"`training\.max_seconds` is 0\.05\.",
        outcome.reason,
    )
    enough = Task("0000", one.config, 1, keeps_classifier=False)
    assert run(enough).status == "COMPLETED"  # nothing is lost by stopping after the last epoch


def greedy(labels: Any, probabilities: Any) -> float:
    """A metric that wants more memory than there is."""
    return float(np.empty(2**50).sum())


def test_a_trial_that_runs_out_of_memory_is_a_failure(tmp_path: Path) -> None:
    one = task(tmp_path)
    one.config["training"]["metrics"]["greedy"] = {
        "_target_": f"{__name__}.greedy",
        "_partial_": True,
    }
    outcome = run(one)
    assert outcome.status == "FAILED"
    assert outcome.reason.startswith("MemoryError: Unable to allocate 8.00 PiB")
    assert "in greedy" in outcome.traceback


@pytest.mark.slow  # TensorFlow tries for ten seconds
def test_a_trial_too_large_for_tensorflow_is_a_failure(tmp_path: Path) -> None:
    outcome = run(task(tmp_path, dense__units=10**14))
    assert outcome.status == "FAILED"
    assert outcome.reason.startswith("ResourceExhaustedError: ")
    assert "Traceback" in outcome.traceback
    assert run(task(tmp_path)).status == "COMPLETED"  # the next one has its memory


def test_a_full_disk_is_no_failure_of_a_trial(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            run(task(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_values_that_cannot_be_built_are_a_failure_without_traceback(tmp_path: Path) -> None:
    outcome = run(task(tmp_path, model__blocks=9))
    assert outcome.status == "FAILED"
    assert "`model." in outcome.reason
    assert outcome.traceback == ""


def test_an_interruption_is_no_failure(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(task(tmp_path), Hooks(interrupt))


def test_options_of_the_group() -> None:
    built = build({"_target_": "pneumonia.search.executors.local", "workers": 1}, "executor")
    assert isinstance(built, LocalExecutor)
    assert (built.workers, local(workers=3).workers) == (1, 3)

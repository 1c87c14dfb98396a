"""What goes wrong in a trial is its result; what all trials share stops the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_trial import config

from pneumonia.building import build
from pneumonia.errors import UserError
from pneumonia.executors import Failure, LocalExecutor, local, ray
from pneumonia.trial import Result, Task


def run(task: Task) -> Result | Failure:
    return LocalExecutor().run(task, on_epoch=lambda *_: None, report=lambda *_: None)


def task(folder: Path, **changes: Any) -> Task:
    cfg = config(folder, "cnn", **changes)
    return Task("0000", cfg, 1, str(folder), keeps_classifier=False)


def test_a_trial_that_works_gives_its_result(tmp_path: Path) -> None:
    result = run(task(tmp_path))
    assert isinstance(result, Result)
    assert result.best_epoch == len(result.history) == 1


def test_a_trial_that_breaks_gives_reason_and_traceback(tmp_path: Path) -> None:
    cfg = task(tmp_path).config
    outcome = run(Task("0001", cfg, 2, str(tmp_path), parent="gone"))
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("FileNotFoundError: ")
    assert "\n" not in outcome.reason
    assert "gone.zip" in outcome.reason
    assert outcome.traceback.startswith("Traceback")
    assert "checkpoint.py" in outcome.traceback


def test_a_reason_is_one_line_also_of_an_error_without_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, expected in [
        (RuntimeError("one\ntwo"), "RuntimeError: one"),
        (MemoryError(), "MemoryError"),
    ]:

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("pneumonia.trial.run", fail)
        outcome = run(task(tmp_path))
        assert isinstance(outcome, Failure)
        assert outcome.reason == expected


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_training_that_diverges_needs_no_traceback(tmp_path: Path) -> None:
    one = task(tmp_path, dense__activation="linear")
    one.config["optimizer"] = {"_target_": "keras.optimizers.SGD", "learning_rate": 1e30}
    outcome = run(Task("0000", one.config, 5, str(tmp_path)))
    assert isinstance(outcome, Failure)
    assert "diverged" in outcome.reason
    assert outcome.traceback == ""


def test_values_that_cannot_be_built_are_a_failure_without_traceback(tmp_path: Path) -> None:
    outcome = run(task(tmp_path, model__blocks=9))
    assert isinstance(outcome, Failure)
    assert "`model." in outcome.reason
    assert outcome.traceback == ""


def test_an_interruption_is_no_failure(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalExecutor().run(task(tmp_path), on_epoch=interrupt, report=lambda *_: None)


def test_options_of_the_group() -> None:
    built = build({"_target_": "pneumonia.executors.local", "workers": 1}, "executor")
    assert isinstance(built, LocalExecutor)
    with pytest.raises(UserError, match=r"`executor\.workers`: expected 1.*Received: 2"):
        local(workers=2)
    with pytest.raises(UserError, match="`executor`: expected local"):
        ray()

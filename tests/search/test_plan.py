"""What a search is about to do: its rounds, its pace, its space on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from test_trial import config

from pneumonia.config.search_space import find
from pneumonia.formatting import megabytes
from pneumonia.search import disk_usage
from pneumonia.search.disk_usage import Cost
from pneumonia.search.oracle import Round
from pneumonia.search.plan import Pace, Plan, _times
from pneumonia.storage import journal
from pneumonia.training import trial
from pneumonia.training.trial import Task

ONE = (Round(None, 0, 1, 0, 2),)
IMAGES = {"train": 120, "val": 60, "test": 40}
BRACKETS = (
    *(Round(2, 0, 9, 0, 1), Round(2, 1, 3, 1, 3), Round(2, 2, 1, 3, 9)),
    *(Round(1, 0, 5, 0, 3), Round(1, 1, 2, 3, 9)),
    Round(0, 0, 3, 0, 9),
)


def plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "tuner": "hyperband",
        "model": "cnn",
        "is_search": True,
        "rounds": BRACKETS,
        "executions": 1,
        "trials": 23,
        "epochs": 75,
        "pace": None,
        "max_seconds": None,
        "cost": Cost(72_000_000, 900_000, 4_900_000, 4_800_000),
        "free": 10**9,
        "log_models": "all",
    }
    return Plan(**(fields | changes))


def estimate(
    folder: Path, rounds: tuple[Round, ...] = ONE, *, model: str = "features", **changes: Any
) -> Cost:
    cfg = config(folder, model)
    for path, value in changes.items():
        group, _, key = path.partition("__")
        cfg[group] = {**cfg[group], key: value} if key else value
    cfg |= {"when": {}, "tracking": {"log_models": "all"}, "tuner": {"max_epochs": 2}}
    made = OmegaConf.create(cfg)
    found = disk_usage.estimate(made, find(made), rounds, epochs=2, images=IMAGES)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "hyperband over cnn: 23 trials, at most 75 epochs, time unknown until the first"),
        ({"trials": 1, "epochs": 1}, "hyperband over cnn: 1 trial, at most 1 epoch, time unknown"),
        ({"trials": 0, "epochs": 0}, "hyperband over cnn: trials without an end, time unknown"),
        ({"is_search": False, "epochs": 9}, "nothing to search: one training of at most 9 epochs"),
        (
            {"pace": Pace(1.0, 2.0, 3)},
            "about 2:01 by the fastest of 3 earlier searches of the same model and images",
        ),
        ({"pace": Pace(2.0, 0.0, 1)}, "about 2:30 by an earlier search"),
        ({"pace": Pace(2.0, 0.0, 1), "max_seconds": 60}, "about 1:00 by"),
    ],
)
def test_the_first_line_says_how_much_there_is_to_do(
    changes: dict[str, Any], expected: str
) -> None:
    assert expected in plan(**changes).headline()


def test_the_table_shows_the_brackets_and_their_sum() -> None:
    table = plan(executions=2).table()
    assert table.rows[0] == ("2", "0", "9", "0", "1", "18")
    assert table.rows[-1] == ("", "sum", "23", "", "", "150")
    assert "every trial is trained 2 times" in str(table)


def test_the_footprint_warns_of_a_disk_that_is_too_small() -> None:
    assert plan().footprint() == (
        "takes up to 83 MB on disk: classifiers 72 (tracking.log_models=all), features 0.9, "
        "states while it runs 4.9, logs 4.8"
    )
    assert "warning: only 50 MB are free there" in plan(free=50_000_000).footprint()
    assert "unknown" in plan(cost=None).footprint()
    assert (megabytes(1_234_567_890), megabytes(9_900_000)) == ("1,235", "9.9")


@pytest.mark.parametrize("model", ["features", "cnn", "fine"])
def test_what_is_estimated_is_what_a_trial_takes(model: str, tmp_path: Path) -> None:
    expected = estimate(tmp_path, model=model)
    cfg = config(tmp_path, model)
    trial.run(Task("0", cfg, 2, str(tmp_path)), on_epoch=lambda *_: None, report=lambda *_: None)
    test = 0 if model == "cnn" else 40 * expected.features / 220  # not computed by a trial
    cached = sum(path.stat().st_size for path in (tmp_path / "features").glob("*.npy"))
    state = trial.state_path(tmp_path, "0").stat().st_size
    classifier = (tmp_path / "classifiers" / "0.keras").stat().st_size
    assert cached == pytest.approx(expected.features - test, rel=0.02, abs=300)
    assert 0.7 * expected.states < 2 * state < expected.states + 20_000
    assert 0.5 * expected.classifiers < 2 * classifier < 1.5 * expected.classifiers + 200_000


def test_features_are_counted_by_their_sets(tmp_path: Path) -> None:
    many = (Round(None, 0, 30, 0, 2),)
    one = estimate(tmp_path).features
    assert estimate(tmp_path, many).features == one
    layers = "choice(block2b_add, block3b_add)"
    widths = (24 + 40) / (2 * 40)
    both = estimate(tmp_path, many, model__layer=layers).features
    assert both == pytest.approx(one * 180 / 220 * 2 * widths + one * 40 / 220, rel=0.1)
    blog = {
        "_target_": "pneumonia.training.augment.geometric",
        "flip": True,
        "rotation": 10,
        "zoom": 0.1,
    }
    views = estimate(tmp_path, augment={**blog, "views": 4}).features
    assert views == pytest.approx(one * (4 * 120 + 60 + 40) / 220)
    online = estimate(tmp_path, augment={**blog, "views": "online"}).features
    assert online == pytest.approx(one * (2 * 120 + 60 + 40) / 220)
    assert estimate(tmp_path, many, features__max_gb=1e-6).features == 1000


def test_states_are_kept_for_one_bracket_at_a_time(tmp_path: Path) -> None:
    one = estimate(tmp_path).states / 2  # the best trial's and the one that runs
    assert estimate(tmp_path, BRACKETS).states == (9 + 3 + 2) * one
    assert estimate(tmp_path, (*BRACKETS, *BRACKETS)).states == (9 + 3 + 2) * one


def test_a_model_that_cannot_be_built_is_left_out(tmp_path: Path) -> None:
    assert estimate(tmp_path, model__layer="choice(block3b_add, nothing)").features > 0


def test_trials_that_ran_at_once_have_their_shares_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(journal.Journal, "elapsed", property(lambda _: float(next(clock))))
    log = journal.Journal(tmp_path)
    log.append("search_started")
    for trial_id in ("a", "b"):
        log.append("trial_started", trial_id=trial_id, tags={})
    for _ in range(3):
        log.append("epoch_ended", trial_id="a")
        log.append("epoch_ended", trial_id="b")
    log.append("trial_ended", trial_id="a", status="COMPLETED")
    log.append("trial_ended", trial_id="b", status="FAILED")
    log.append("trial_started", trial_id="c", tags={"taken_over_from": "other/a"})
    log.append("epoch_ended", trial_id="c")
    log.append("trial_ended", trial_id="c", status="COMPLETED")
    log.append("trial_started", trial_id="d", tags={})
    log.append("search_ended")
    log.append("epoch_ended", trial_id="d")
    log.close()
    epochs, trials = _times(tmp_path)
    assert epochs == [1.0] * 4
    assert trials == [(4.0, 3)]

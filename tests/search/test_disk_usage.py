"""What a search is about to do: its rounds, its pace, its space on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families import slow
from omegaconf import OmegaConf
from test_trial import config

from pneumonia.artifacts import FolderStore, state_key
from pneumonia.config.search_space import find
from pneumonia.errors import ConfigError
from pneumonia.search import disk_usage
from pneumonia.search.disk_usage import Cost
from pneumonia.search.oracle import Round
from pneumonia.search.plan import _times
from pneumonia.storage import journal
from pneumonia.training import trial
from pneumonia.training.trial import Hooks, Task

ONE = (Round(None, 0, 1, 0, 2),)
IMAGES = {"train": 120, "val": 60, "test": 40}
BRACKETS = (
    *(Round(2, 0, 9, 0, 1), Round(2, 1, 3, 1, 3), Round(2, 2, 1, 3, 9)),
    *(Round(1, 0, 5, 0, 3), Round(1, 1, 2, 3, 9)),
    Round(0, 0, 3, 0, 9),
)


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


@pytest.mark.parametrize("model", ["features", slow("cnn"), slow("fine")])
def test_what_is_estimated_is_what_a_trial_takes(model: str, tmp_path: Path) -> None:
    expected = estimate(tmp_path, model=model)
    cfg = config(tmp_path, model)
    trial.run(Task("0", cfg, 2), FolderStore(tmp_path), Hooks())
    test = 0 if model == "cnn" else 40 * expected.features / 220  # not computed by a trial
    cached = sum(path.stat().st_size for path in (tmp_path / "features").glob("*.npy"))
    state = (tmp_path / state_key("0")).stat().st_size
    classifier = (tmp_path / "classifiers" / "0.keras").stat().st_size
    assert cached == pytest.approx(expected.features - test, rel=0.02, abs=300)
    assert 0.7 * expected.states < 2 * state < expected.states + 20_000
    assert 0.5 * expected.classifiers < 2 * classifier < 1.5 * expected.classifiers + 200_000


@pytest.mark.slow
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
    # The final classifier's, of other images and of mirror images: of val and test alone.
    assert estimate(tmp_path, winner__flips=True).features == one * (120 + 2 * 100) / 220
    assert estimate(tmp_path, winner__image_size=64).features == one * (220 + 60) / 220
    fine = estimate(tmp_path, model="fine").features  # what is frozen ends in a map
    larger = estimate(tmp_path, model="fine", winner__image_size=64).features
    assert larger == fine * (180 + 4 * 100) / 220
    with pytest.raises(ConfigError, match=r"`winner\.image_size`: expected an integer from 32"):
        estimate(tmp_path, winner__image_size=31)


def test_states_are_kept_for_one_bracket_at_a_time(tmp_path: Path) -> None:
    one = estimate(tmp_path).states / 2  # the best trial's and the one that runs
    assert estimate(tmp_path, BRACKETS).states == (9 + 3 + 2) * one
    assert estimate(tmp_path, (*BRACKETS, *BRACKETS)).states == (9 + 3 + 2) * one


def test_what_may_be_averaged_is_kept_until_the_end(tmp_path: Path) -> None:
    alone = estimate(tmp_path, BRACKETS)
    several = estimate(tmp_path, BRACKETS, winner__members=3, winner__selection="greedy")
    assert several.states == alone.states * (9 + 3 + 2 + 3 * 3 - 1) // (9 + 3 + 2)
    assert several.classifiers > alone.classifiers
    best = estimate(tmp_path, ONE, winner__members=3)
    assert best == estimate(tmp_path, ONE)  # there is but one trial


def test_the_trainings_of_all_folds_are_in_the_classifier(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"training__retrain": False}
    two, four = (estimate(tmp_path, objective__folds=folds, **kept) for folds in (2, 4))
    assert four.states == 2 * two.states
    weights = two.states / 2 / 2 / 4  # two trials, two fits: last, best, and Adam's two
    assert four.classifiers - two.classifiers == 2 * weights
    again = estimate(tmp_path, objective__folds=4, training__retrain=True)
    assert again.classifiers == two.classifiers - weights
    flips = estimate(tmp_path, objective__folds=4, winner__flips=True, **kept)
    assert flips.features == 2 * four.features


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


def test_the_disk_estimate_counts_what_is_kept() -> None:
    assert disk_usage._classifiers(30, 10**7, log_models="all") > 30 * 10**7
    assert disk_usage._classifiers(30, 10**7, log_models="best") < 4 * 10**7
    assert disk_usage._classifiers(1, 10**7, log_models="none") >= 10**7

"""The simulator forecasts what can be worked out by hand, and runs the program's own searches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from simulated import Landscape, Run, simulate

from pneumonia.config import compose
from pneumonia.config.search_space import plain
from pneumonia.config.validate import flatten
from pneumonia.storage.journal import Journal

TRIALS, EPOCHS, SECONDS = 12, 9, 2.0  # of the real search, and of each epoch
SPACE = ["dataset=phantom", "dense.units=8", 'dense.dropout="interval(0.1, 0.5)"']
COMMON = {"max_epochs": EPOCHS, "seed": 3, "max_consecutive_failures": 3}
RANDOM = {"_target_": "keras_tuner.oracles.RandomSearchOracle", **COMMON}
HYPERBAND = {"_target_": "keras_tuner.oracles.HyperbandOracle", "factor": 3,
             "hyperband_iterations": 1, "max_trials": None, **COMMON}  # fmt: skip
ASHA = {"_target_": "pneumonia.search.asha.AshaOracle", "factor": 3, "min_epochs": 1, **COMMON}


def curve(dropout: float) -> list[float]:
    return [0.9 - 0.2 * dropout - 0.3 / (epoch + 1) for epoch in range(1, EPOCHS + 1)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of which each epoch took two seconds, and nothing else anything."""
    folder = tmp_path_factory.mktemp("real")
    cfg = compose.compose([*SPACE, "tuner=random", f"tuner.max_epochs={EPOCHS}"])
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain(cfg))))
    log = Journal(folder)
    now = 0.0

    def add(kind: str, after: float = 0.0, **fields: Any) -> None:
        nonlocal now
        now += after
        type(log).elapsed = property(lambda self: now)  # type: ignore[assignment]
        log.append(kind, **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "elapsed", 0.0)
        add("search_started", search_id="s1", tags={}, params=flatten(cfg), datasets=[],
            direction="max")  # fmt: skip
        for number, dropout in enumerate(np.linspace(0.1, 0.5, TRIALS)):
            name, values = f"{number:04d}", {"dense.dropout": float(dropout), "epochs": EPOCHS}
            add("trial_started", trial_id=name, number=number + 1, values=values, tags={})
            for epoch, score in enumerate(curve(dropout), start=1):
                add("epoch_ended", SECONDS, trial_id=name, fold=0, execution=0, epoch=epoch,
                    metrics={"val_auc": score})  # fmt: skip
            add("trial_ended", trial_id=name, status="COMPLETED", score=curve(dropout)[-1],
                metrics={"best_epoch": EPOCHS}, seconds=EPOCHS * SECONDS)  # fmt: skip
        log.close()
    return folder


def test_a_trial_is_made_of_its_neighbours(real: Path) -> None:
    made = Landscape(real)
    assert len(made.past) == TRIALS
    assert max(map(abs, made.errors)) < 0.3
    for dropout in (0.17, 0.3, 0.44):
        found, past = made.trial({"dense": {"dropout": dropout}})
        assert (past.beside, past.epochs) == (0.0, (SECONDS,) * EPOCHS)
        assert len(found) == EPOCHS
        assert found == sorted(found)
        assert found == pytest.approx(curve(dropout), abs=0.04)
        assert made.trial({"dense": {"dropout": dropout}})[0] == found


@pytest.mark.parametrize("workers", [1, 4])
def test_trials_that_wait_for_nothing_take_what_can_be_worked_out(
    workers: int, real: Path, tmp_path: Path
) -> None:
    run = simulate(
        real, tmp_path / "a", tuner=RANDOM | {"max_trials": 8}, workers=workers, startup=5.0
    )
    assert (run.trials, run.epochs) == (8, 8 * EPOCHS)
    expected = 5 + 8 / workers * EPOCHS * SECONDS
    assert expected < run.makespan < 1.1 * expected
    assert run.utilisation == pytest.approx(8 * EPOCHS * SECONDS / workers / run.makespan)
    assert 0 < run.driven < 0.1
    assert [value for _, value in run.best] == sorted(value for _, value in run.best)
    assert run.seconds_to(run.best[-1][1], 1) == run.best[-1][0]
    assert run.seconds_to(1.0, 1) == math.inf


def test_what_the_search_does_between_trials_counts(real: Path, tmp_path: Path) -> None:
    tuner = RANDOM | {"max_trials": 8, "max_epochs": 1}
    quick, slow = (
        simulate(real, tmp_path / str(cost), tuner=tuner, workers=8, flush=cost, transfer=cost)
        for cost in (0.0, 10.0)
    )
    # Of each trial the beginning, an epoch, the end and its state, one after the other.
    assert quick.makespan < SECONDS + 2
    assert slow.makespan == pytest.approx(8 * 4 * 10, rel=0.1)
    assert slow.driven > 0.95


@pytest.mark.slow
def test_a_round_of_hyperband_is_waited_for_and_one_of_asha_is_not(
    real: Path, tmp_path: Path
) -> None:
    def run(name: str, tuner: dict[str, Any], workers: int) -> Run:
        folder = tmp_path / f"{name}{workers}"
        return simulate(real, folder, tuner=tuner, workers=workers, in_order=False)

    alone, many = run("h", HYPERBAND, 1), run("h", HYPERBAND, 12)
    # Three brackets of 9, 5 and 3 trials: epochs 9, 6 and 6, then 15 and 12, then 27.
    assert (alone.trials, alone.epochs) == (many.trials, many.epochs) == (23, 75)
    assert alone.utilisation > 0.9 > many.utilisation
    asha = run("a", ASHA | {"max_trials": 120}, 12)
    assert asha.trials == 120
    assert asha.utilisation > 0.8

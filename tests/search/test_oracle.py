"""The oracle proposes what stock KerasTuner proposes."""

from __future__ import annotations

import functools
import math
import random
import types
from pathlib import Path
from typing import Any

import keras_tuner
import pytest
import scipy.optimize
from families import slow
from keras_tuner.src.tuners import bayesian
from omegaconf import OmegaConf
from ordered import run_in_order
from threadpoolctl import threadpool_info, threadpool_limits

from pneumonia.config.search_space import Space, find
from pneumonia.errors import ConfigError
from pneumonia.evaluation.objective import Objective
from pneumonia.search.oracle import Oracle
from pneumonia.search.trials import Proposal

OBJECTIVE = Objective("val_auc", "max")
RANGES = {
    "dense": {"units": "choice(128, 256, 512, 1024)", "dropout": "choice(0.1, 0.2, 0.3, 0.4, 0.5)"},
    "optimizer": {
        "name": "choice(adam, sgd)",
        "learning_rate": "tag(log, interval(1e-4, 1e-2))",
        "momentum": "interval(0.0, 0.9)",
    },
    "when": {"optimizer.momentum": {"optimizer.name": ["sgd"]}},
}
TUNERS = {
    "hyperband": {
        "_target_": "keras_tuner.oracles.HyperbandOracle",
        "max_epochs": 20,
        "factor": 3,
        "hyperband_iterations": 1,
        "max_trials": None,
    },
    "bayesian": {
        "_target_": "keras_tuner.oracles.BayesianOptimizationOracle",
        "max_epochs": 5,
        "max_trials": 16,
        "num_initial_points": 12,
        "alpha": 1e-4,
        "beta": 2.6,
    },
    "random": {
        "_target_": "keras_tuner.oracles.RandomSearchOracle",
        "max_epochs": 5,
        "max_trials": 25,
    },
    "grid": {"_target_": "keras_tuner.oracles.GridSearchOracle", "max_epochs": 5, "max_trials": 60},
}
STOCK = {
    "hyperband": (keras_tuner.Hyperband, ("max_epochs", "factor", "hyperband_iterations")),
    "bayesian": (keras_tuner.BayesianOptimization, ("max_trials", "num_initial_points")),
    "random": (keras_tuner.RandomSearch, ("max_trials",)),
    "grid": (keras_tuner.GridSearch, ("max_trials",)),
}


@pytest.fixture(autouse=True)
def _quick_gaussian_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the way to a Gaussian process' next point be short, for ours and for KerasTuner's own."""
    optimize = types.SimpleNamespace(
        minimize=functools.partial(scipy.optimize.minimize, options={"maxiter": 2})
    )
    monkeypatch.setattr(bayesian, "scipy", types.SimpleNamespace(optimize=optimize))


def tuner(name: str, **changes: Any) -> dict[str, Any]:
    return {**TUNERS[name], "seed": 3, "max_consecutive_failures": 3, **changes}


def space(ranges: dict[str, Any] = RANGES) -> Space:
    return find(OmegaConf.create(ranges))


def score(values: dict[str, Any]) -> float:
    """Give a smooth, made-up objective, better with more epochs."""
    rate = math.log10(values["optimizer.learning_rate"])
    epochs = values.get("tuner/epochs", values.get("epochs", 5))
    momentum = values.get("optimizer.momentum", 0.3)
    return (
        0.9
        - 0.01 * (rate + 3) ** 2
        - values["dense.dropout"] * 0.02
        + values["dense.units"] * 1e-5
        + 0.003 * epochs
        - 0.01 * (momentum - 0.5) ** 2
    )


def stock_sequence(name: str, folder: Path) -> list[dict[str, Any]]:
    """Run KerasTuner's own tuner from beginning to end."""
    tried = []

    def hypermodel(hp: keras_tuner.HyperParameters) -> None:
        raise AssertionError("run_trial does not build")

    kind, takes = STOCK[name]

    class Stock(kind):  # type: ignore[misc,valid-type]
        def _populate_initial_space(self) -> None:
            """Leave the space as it is given."""

        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            values = dict(trial.hyperparameters.values)
            tried.append(values)
            return {"val_auc": score(values)}

    options = {key: value for key, value in TUNERS[name].items() if key in takes}
    Stock(
        hypermodel=hypermodel,
        objective=keras_tuner.Objective("val_auc", "max"),
        hyperparameters=space().hyperparameters(),
        seed=3,
        directory=folder,
        project_name="stock",
        **options,
    ).search(verbose=0)
    return tried


def test_a_gaussian_process_has_one_thread_wherever_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit(*_: object) -> None:
        used.update(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")
        raise InterruptedError

    used: set[int] = set()
    oracle = Oracle(space(), tuner("bayesian"), OBJECTIVE)
    monkeypatch.setattr(bayesian.BayesianOptimizationOracle, "populate_space", fit)
    with threadpool_limits(2, "blas"), pytest.raises(InterruptedError):
        oracle.propose()
    assert used == {1}


@pytest.mark.parametrize("name", ["hyperband", "random", "grid", slow("bayesian")])
def test_proposes_what_stock_keras_tuner_proposes(name: str, tmp_path: Path) -> None:
    oracle = Oracle(space(), tuner(name), OBJECTIVE)
    ours = []
    while (proposal := oracle.propose()) is not None:
        ours.append(proposal)
        oracle.tell(proposal.trial_id, scored(proposal))
    theirs = stock_sequence(name, tmp_path)
    assert len(ours) == len(theirs) > 10
    for proposal, values in zip(ours, theirs, strict=True):
        assert proposal.values == {k: v for k, v in values.items() if not k.startswith("tuner/")}
        if name == "hyperband":
            assert proposal.epochs == values["tuner/epochs"]
            assert proposal.tags["bracket"] == str(values["tuner/bracket"])
            assert proposal.tags["round"] == str(values["tuner/round"])
            assert (proposal.parent is None) == ("tuner/trial_id" not in values)
            if proposal.parent is not None:
                assert int(proposal.parent) == int(values["tuner/trial_id"])


def scored(proposal: Proposal) -> float:
    return score({**proposal.values, "epochs": proposal.epochs})


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["hyperband", "random", "grid", "bayesian"])
def test_what_is_proposed_ahead_is_what_is_proposed_one_after_the_other(
    name: str, fails: bool
) -> None:
    rng = random.Random(5)
    few = {
        "dense": {"units": "tag(default:16, choice(8, 16, 24))", "dropout": "choice(0.1, 0.2)"},
        "optimizer": {"learning_rate": "choice(1e-4, 1e-3, 1e-2)"},
    }
    # A Gaussian process takes half a second for each trial, and warns where it has learned all.
    is_slow = name == "bayesian"
    section = tuner(name, max_trials=13) if is_slow else tuner(name)
    for ranges in (RANGES,) if is_slow else (RANGES, few):
        failing = {f"{number:04d}" for number in range(90) if fails and rng.random() < 0.3}
        expected, alone = run_in_order(
            Oracle(space(ranges), section, OBJECTIVE), 1, rng, failing, score=scored
        )
        assert alone == 1
        for workers in (3,) if is_slow else (2, 3, 7):
            oracle = Oracle(space(ranges), section, OBJECTIVE)
            found, most = run_in_order(oracle, workers, rng, failing, score=scored)
            assert found == expected
            assert most == min(workers, len(expected))


class Other(keras_tuner.oracles.RandomSearchOracle):
    """An oracle that nobody knows."""


def test_nothing_is_proposed_ahead_by_an_oracle_that_nobody_knows() -> None:
    oracle = Oracle(space(), tuner("random", _target_=f"{__name__}.Other"), OBJECTIVE)
    assert oracle.can_propose()
    first = oracle.propose()
    assert first is not None
    assert not oracle.can_propose()
    oracle.tell(first.trial_id, 0.5)
    assert oracle.can_propose()


def test_hyperband_runs_what_it_plans() -> None:
    oracle = Oracle(space(), tuner("hyperband"), OBJECTIVE)
    plan = oracle.plan()
    trials, epochs = 0, 0
    while (proposal := oracle.propose()) is not None:
        trials += 1
        starts = [
            one.start
            for one in plan
            if str(one.round) == proposal.tags["round"]
            and str(one.bracket) == proposal.tags["bracket"]
        ]
        epochs += proposal.epochs - starts[0]
        oracle.tell(proposal.trial_id, scored(proposal))
    assert trials == sum(one.trials for one in plan)
    assert epochs == sum(one.trials * (one.epochs - one.start) for one in plan)


def test_hyperband_as_completed_names_its_rounds_and_keeps_what_runs_goes_on_from() -> None:
    oracle = Oracle(space(), tuner("hyperband", max_epochs=9), OBJECTIVE)
    planned = {(str(one.bracket), str(one.round), one.epochs) for one in oracle.plan()}
    proposed, running = list[Proposal](), list[Proposal]()
    while True:
        while len(running) < 3 and (proposal := oracle.propose()) is not None:
            running.append(proposal)
            proposed.append(proposal)
        if not running:
            break
        ended = min(running, key=lambda one: one.epochs)
        running.remove(ended)
        oracle.tell(ended.trial_id, scored(ended))
        assert {one.parent for one in running} - {None} <= oracle.promotable()
    assert {(one.tags["bracket"], one.tags["round"], one.epochs) for one in proposed} <= planned
    brackets = {one.trial_id: one.tags["bracket"] for one in proposed}
    assert all(brackets[one.parent] == one.tags["bracket"] for one in proposed if one.parent)


def test_hyperband_stops_at_max_trials() -> None:
    oracle = Oracle(space(), tuner("hyperband", max_trials=10), OBJECTIVE)
    count = 0
    while (proposal := oracle.propose()) is not None:
        count += 1
        oracle.tell(proposal.trial_id, 0.5)
    assert count == 10 == sum(one.trials for one in oracle.plan())


def test_hyperband_warns_of_a_space_that_it_cannot_fill() -> None:
    few = space({"dense": {"units": "choice(64, 128)", "dropout": "choice(0.1, 0.2, 0.3)"}})
    oracle = Oracle(few, tuner("hyperband"), OBJECTIVE)
    assert "6 combinations" in oracle.shortfall()
    assert "12" in oracle.shortfall()
    count = 0
    while (proposal := oracle.propose()) is not None:
        count += 1
        oracle.tell(proposal.trial_id, 0.5)
    assert count == sum(one.trials for one in oracle.plan()) == 6
    for name in ("random", "grid"):
        assert Oracle(few, tuner(name), OBJECTIVE).shortfall() == ""
    assert Oracle(space(), tuner("hyperband"), OBJECTIVE).shortfall() == ""


@pytest.mark.parametrize("name", ["bayesian", "random", "grid"])
def test_a_space_with_fewer_combinations_than_trials_says_so(name: str) -> None:
    def scope(few: dict[str, Any], **changes: Any) -> str:
        return Oracle(space(few), tuner(name, **changes), OBJECTIVE).scope()

    two = {"dense": {"units": "choice(64, 128)"}}
    expected = "there are 2 combinations, and none is tried twice: so not the 100 of "
    assert scope(two, max_trials=100) == f"{expected}tuner.max_trials"
    assert scope({"dense": {"units": "choice(64)"}}).startswith("there is 1 combination, ")
    one_each = {
        "optimizer": {"name": "choice(adam, sgd)", "momentum": "choice(0.1, 0.9)"},
        "when": {"optimizer.momentum": {"optimizer.name": ["sgd"]}},
    }
    assert scope(one_each).startswith("there are 3 combinations, ")
    assert scope(two, max_trials=2) == scope({"dense": {}}) == ""
    oracle = Oracle(space(two), tuner(name, max_trials=100), OBJECTIVE)
    count = 0
    while (proposal := oracle.propose()) is not None:
        count += 1
        oracle.tell(proposal.trial_id, 0.5)
    assert count == 2 == sum(one.trials for one in oracle.plan())
    assert Oracle(space(two), tuner("hyperband"), OBJECTIVE).scope() == ""


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_a_gaussian_process_repeats_is_not_tried_again() -> None:
    few = {"dense": {"units": "choice(64, 128, 512)", "dropout": "choice(0.1, 0.2)"}}
    section = tuner("bayesian", seed=1, max_trials=9, num_initial_points=3)
    oracle, tried = Oracle(space(few), section, OBJECTIVE), []
    while (proposal := oracle.propose()) is not None:
        tried.append((*proposal.values.values(),))
        assert proposal.number == len(tried)
        oracle.tell(proposal.trial_id, 0.5 + len(tried) / 100, step=1)
    assert 3 < len(tried) == len(set(tried)) <= 6 == oracle.plan()[0].trials


def test_of_an_oracle_that_nobody_knows_nothing_is_promised() -> None:
    two = {"dense": {"units": "choice(64, 128)"}}
    oracle = Oracle(space(two), tuner("random", _target_=f"{__name__}.Other"), OBJECTIVE)
    assert (oracle.scope(), oracle.plan()[0].trials) == ("", 25)


@pytest.mark.parametrize(
    "value",
    [
        "interval(0.1, 0.5)",
        "tag(default:0.2, interval(0.1, 0.5))",
        "tag(log, interval(0.1, 0.5))",
        "tag(log, int(interval(16, 512)))",
    ],
)
def test_a_grid_plans_the_values_that_it_takes_of_an_interval(value: str) -> None:
    oracle = Oracle(space({"dense": {"x": value}}), tuner("grid"), OBJECTIVE)
    count = 0
    while (proposal := oracle.propose()) is not None:
        count += 1
        oracle.tell(proposal.trial_id, 0.5)
    assert count == oracle.plan()[0].trials < 12
    assert oracle.scope().startswith(f"there are {count} combinations, ")


def test_the_names_of_trials_do_not_depend_on_how_many_there_may_be() -> None:
    names = []
    for most in (9, 60, 100):
        oracle = Oracle(space(), tuner("random", max_trials=most), OBJECTIVE)
        names.append([proposal.trial_id for _ in range(3) if (proposal := oracle.propose())])
    assert names == [["0000", "0001", "0002"]] * 3


def test_seed_zero_is_a_seed() -> None:
    first, second = (Oracle(space(), tuner("random", seed=0), OBJECTIVE) for _ in range(2))
    for _ in range(5):
        one, other = first.propose(), second.propose()
        assert one is not None
        assert one == other
        first.tell(one.trial_id, 0.5)
        second.tell(one.trial_id, 0.5)


def test_starts_from_the_start_values() -> None:
    ranges = {
        "dense": {
            "units": "tag(default:512, choice(128, 256, 512))",
            "dropout": "interval(0.1, 0.5)",
        }
    }
    for name in ("random", "hyperband", "bayesian", "grid"):
        if name == "grid":
            ranges["dense"]["dropout"] = "choice(0.1, 0.2)"
        oracle = Oracle(space(ranges), tuner(name), OBJECTIVE)
        first = oracle.propose()
        assert first is not None
        assert first.values["dense.units"] == 512
        oracle.tell(first.trial_id, 0.5)
        assert oracle.propose() is not None


def test_a_failed_trial_is_not_proposed_again_nor_promoted() -> None:
    oracle = Oracle(space(), tuner("hyperband"), OBJECTIVE)
    failed = set()
    seen = []
    while (proposal := oracle.propose()) is not None:
        assert proposal.parent not in failed
        seen.append((tuple(proposal.values.items()), proposal.epochs))
        has_failed = proposal.number % 5 == 0 and proposal.parent is None
        if has_failed:
            failed.add(proposal.trial_id)
        oracle.tell(proposal.trial_id, None if has_failed else 0.5)
    assert len(failed) > 2
    assert len(set(seen)) == len(seen)


def test_nothing_to_search_is_one_trial() -> None:
    oracle = Oracle(space({"dense": {"units": 512}}), tuner("hyperband"), OBJECTIVE)
    proposal = oracle.propose()
    assert proposal is not None
    assert (proposal.number, proposal.values, proposal.epochs) == (1, {}, 20)
    oracle.tell(proposal.trial_id, 0.5)
    assert oracle.propose() is None
    assert [one.trials for one in oracle.plan()] == [1]


def test_refuses_what_is_no_oracle() -> None:
    with pytest.raises(ConfigError, match=r"tuner\._target_"):
        Oracle(space(), tuner("random", _target_="keras_tuner.oracles.Nothing"), OBJECTIVE)

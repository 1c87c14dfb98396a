"""Ranges are read as Hydra reads them, become KerasTuner's hyperparameters, and collapse again."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from pneumonia.config.ranges import Range, looks_like_range, parse
from pneumonia.config.search_space import Space, collapse, find
from pneumonia.config.suggestions import misspelt_function
from pneumonia.errors import ConfigError, ConfigErrors


def make(**groups: Any) -> DictConfig:
    return OmegaConf.create(groups)


@pytest.mark.parametrize(
    ("text", "kind", "values", "start"),
    [
        ("choice(128, 256)", "choice", (128, 256), 128),
        ("choice(0.1,0.5)", "choice", (0.1, 0.5), 0.1),
        ("choice(true, false)", "choice", (True, False), True),
        ("choice(imagenet, null)", "choice", ("imagenet", None), "imagenet"),
        ("choice('a, b', c)", "choice", ("a, b", "c"), "a, b"),
        ("choice(1, true, '1', null, 0.5)", "choice", (1, True, "1", None, 0.5), 1),
        ("tag(default:512, choice(128, 512))", "choice", (128, 512), 512),
        ("tag(default:null, choice(a, null))", "choice", ("a", None), None),
        ("tag('default:a, b', choice('a, b', c))", "choice", ("a, b", "c"), "a, b"),
        ("range(1, 4)", "choice", (1, 2, 3), 1),
        ("range(3)", "choice", (0, 1, 2), 0),
        ("range(16, 65, 16)", "choice", (16, 32, 48, 64), 16),
        ("range(5, 1, -2)", "choice", (5, 3), 5),
        ("range(0.1, 0.5, 0.1)", "choice", (0.1, 0.2, 0.3, 0.4), 0.1),
        ("sort(choice(3, 1, 2))", "choice", (1, 2, 3), 1),
        ("float(choice(1, 2))", "choice", (1.0, 2.0), 1.0),
        ("str(choice(1, 2))", "choice", ("1", "2"), "1"),
    ],
)
def test_discrete_ranges(text: str, kind: str, values: tuple[Any, ...], start: Any) -> None:
    found = parse("dense.units", text)
    assert (found.kind, found.values, found.start) == (kind, values, start)
    assert [type(value) for value in found.values] == [type(value) for value in values]
    assert found.size == len(values)


@pytest.mark.parametrize(
    ("text", "kind", "low", "high", "log", "start"),
    [
        ("interval(0.1, 0.5)", "float", 0.1, 0.5, False, 0.1),
        ("interval(1, 5)", "float", 1.0, 5.0, False, 1.0),
        ("int(interval(16, 512))", "int", 16, 512, False, 16),
        ("tag(log, interval(1e-4, 1e-2))", "float", 1e-4, 1e-2, True, 1e-4),
        ("tag(log, default:0.001, interval(1e-4, 1e-2))", "float", 1e-4, 1e-2, True, 1e-3),
        ("tag(default: 1, interval(0, 2))", "float", 0.0, 2.0, False, 1.0),
        ("int(tag(log, interval(16, 512)))", "int", 16, 512, True, 16),
        ("tag(log, default:64, int(interval(16, 512)))", "int", 16, 512, True, 64),
        ("interval(start=-1, end=1)", "float", -1.0, 1.0, False, -1.0),
    ],
)
def test_intervals(text: str, kind: str, low: float, high: float, log: bool, start: float) -> None:
    found = parse("x", text)
    assert (found.kind, found.low, found.high, found.log, found.start) == (
        kind,
        low,
        high,
        log,
        start,
    )
    assert type(found.low) is type(low)
    assert type(found.start) is type(start)
    assert parse("x", str(found)).low == low


WRONG = [
    ("choice()", "empty choice"),
    ("choice(1, 1)", "not 1 twice"),
    ("choice(1, 1.0)", "not 1.0 twice"),
    ("choice(null, null)", "not null twice"),
    ("choice(choice(1, 2), 3)", "in a choice"),
    ("choice([1, 2], 3)", "in a choice"),
    ("choice(nan, 1.0)", "finite"),
    ("choice(1, 2", "no viable alternative"),
    ("choice(1,, 2)", "no viable alternative"),
    ("choice(1, 2) and more", "mismatched input"),
    ("shuffle(choice(1, 2))", "shuffle"),
    ("glob(*)", "expected choice"),
    ("int(3)", "expected choice"),
    ("range(1, 1)", "stop is excluded"),
    ("range(5, 1)", "stop is excluded"),
    ("range(1, 5, 0)", "stop is excluded"),
    ("range(0, 1, 1e-9)", "at most 10000"),
    ("range(0, inf)", "finite"),
    ("interval(2, 1)", "low end"),
    ("interval(1, 1)", "low end"),
    ("interval(nan, 1)", "finite"),
    ("interval(0, inf)", "finite"),
    ("interval(1)", "missing a required argument"),
    ("interval(a, b)", "mismatch type"),
    ("int(interval(0.5, 3.9))", "whole numbers"),
    ("tag(log, interval(0, 1))", "above 0"),
    ("tag(log, interval(-1, 1))", "above 0"),
    ("tag(log, choice(1, 2))", "log on an interval only"),
    ("tag(log, range(1, 5))", "log on an interval only"),
    ("tag(lag, interval(1, 2))", "tags log and default"),
    ("tag(default:1, default:2, choice(1, 2))", "tags log and default"),
    ("tag(default:3, choice(1, 2))", "default that is one"),
    ("tag(default:3, interval(1, 2))", "default that is one"),
    ("tag(default:1.5, int(interval(1, 2)))", "default that is one"),
    ("tag(default:true, choice(1, 2))", "default that is one"),
    ("tag(default:, choice(1, 2))", "default that is one"),
    ("tag(log, tag(default:1, interval(1, 2)))", "single tag"),
    ("float(tag(default:2, choice(1, 2)))", "single tag"),
]


@pytest.mark.parametrize(("text", "fragment"), WRONG, ids=[text for text, _ in WRONG])
def test_wrong_ranges_name_path_and_value(text: str, fragment: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        find(make(dense={"units": text}))
    message = str(caught.value)
    assert message.startswith("`dense.units`: expected ")
    assert fragment in message
    assert repr(text) in message


def test_every_wrong_range_is_told_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        find(make(dense={"units": "choice()", "dropout": "interval(2, 1)"}, when={"a.b": {}}))
    assert [error.key for error in caught.value.errors] == [
        "dense.units",
        "dense.dropout",
        "when.a.b",
    ]


@pytest.mark.parametrize("value", ["relu", "a,b", "/data/choice(1)", 3, None, True, "x(1, 2)"])
def test_other_values_are_no_ranges(value: Any) -> None:
    assert not looks_like_range(value)
    assert len(find(make(dense={"activation": value}))) == 0


@pytest.mark.parametrize("text", ["choises(1, 2)", "Choice(1, 2)", "intervall(1, 2)", "ranges(3)"])
def test_misspelt_functions_are_noticed(text: str) -> None:
    assert misspelt_function(text) in ("choice", "interval", "range")


def test_only_some_groups_are_searched() -> None:
    cfg = make(tuner={"max_trials": "choice(1, 2)"}, training={"loss": {"x": "choice(1, 2)"}})
    assert [item.path for item in find(cfg)] == ["training.loss.x"]


# Types and KerasTuner


@pytest.mark.parametrize(
    "text",
    [
        "choice(128, 256)",
        "choice(0.1, 0.5)",
        "choice(0, 0.5)",
        "choice(true, false)",
        "tag(default:false, choice(true, false))",
        "choice(true)",
        "choice(null)",
        "choice(a, b)",
        "choice(imagenet, null)",
        "choice('null', null, '1', 1, true, 'true', 0.5)",
        "choice(false, true, layer)",
        "int(interval(3, 9))",
        "interval(1, 2)",
        "tag(log, default:64, int(interval(16, 512)))",
    ],
)
def test_values_survive_keras_tuner_with_their_types(text: str) -> None:
    import keras_tuner

    space = find(make(model={"x": text}))
    found = space.hyperparameters()
    [item] = space
    values = item.values if item.kind == "choice" else (item.low, item.high, item.start)
    for value in values:
        code = space.encode({"model.x": value})["model.x"]
        assert code is not None
        [decoded] = space.decode({"model.x": code}).values()
        assert decoded == value
        assert type(decoded) is type(value)
    # What a resumed search reads back from disk.
    again = keras_tuner.HyperParameters.from_config(found.get_config())
    assert space.decode(again.values) == space.start()
    [hp] = again.space
    for _ in range(20):
        sampled = space.decode({"model.x": hp.random_sample()})["model.x"]
        assert item.contains(sampled)
        assert any(type(sampled) is type(value) for value in values)


def test_keras_tuner_gets_kinds_scales_and_starts() -> None:
    from keras_tuner.engine import hyperparameters as hp

    space = find(
        make(
            model={"trainable": "choice(true, false)", "blocks": "range(1, 4)"},
            optimizer={
                "learning_rate": "tag(log, default:0.001, interval(1e-4, 1e-2))",
                "steps": "int(interval(1, 9))",
            },
        )
    )
    kinds = {item.name: item for item in space.hyperparameters().space}
    assert isinstance(kinds["model.trainable"], hp.Boolean)
    assert isinstance(kinds["model.blocks"], hp.Choice)
    assert kinds["model.blocks"].ordered
    assert isinstance(kinds["optimizer.steps"], hp.Int)
    rate = kinds["optimizer.learning_rate"]
    assert (rate.min_value, rate.max_value, rate.sampling, rate.default) == (
        1e-4,
        1e-2,
        "log",
        1e-3,
    )
    assert space.given_start() == {"optimizer.learning_rate": 1e-3}


def test_unknown_values_are_refused() -> None:
    [item] = find(make(dense={"units": "choice(1, 2)"}))
    with pytest.raises(ConfigError, match="a value of choice"):
        item.encode(3)
    with pytest.raises(ConfigError, match="a value of choice"):
        item.decode("1")


# Conditions

CHAIN = {
    "optimizer": {
        "name": "choice(sgd, adam, rmsprop)",
        "momentum": "choice(0.0, 0.9)",
        "nesterov": "choice(true, false)",
        "amsgrad": True,
    },
    "dense": {"units": "choice(1, 2, 3)"},
    "when": {
        # The child of a child comes first: the order of the config must not matter.
        "optimizer.nesterov": {"optimizer.momentum": [0.9]},
        "optimizer.momentum": {"optimizer.name": ["sgd"]},
        "optimizer.amsgrad": {"optimizer.name": "adam"},
    },
}


def test_parents_come_first_and_children_carry_the_chain() -> None:
    space = find(make(**CHAIN))
    assert [item.path for item in space][-2:] == ["optimizer.momentum", "optimizer.nesterov"]
    chain = space.ranges[-1].conditions
    assert [rule.parent for rule in chain] == ["optimizer.name", "optimizer.momentum"]


@pytest.mark.parametrize(
    ("values", "optimizer"),
    [
        (
            {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.nesterov": False},
            {"name": "sgd", "momentum": 0.9, "nesterov": False},
        ),
        ({"optimizer.name": "sgd", "optimizer.momentum": 0.0}, {"name": "sgd", "momentum": 0.0}),
        ({"optimizer.name": "adam"}, {"name": "adam", "amsgrad": True}),
        ({"optimizer.name": "rmsprop"}, {"name": "rmsprop"}),
    ],
)
def test_collapse_removes_what_does_not_exist(
    values: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    assert collapse(make(**CHAIN), {**values, "dense.units": 2})["optimizer"] == optimizer


def test_size_counts_conditions() -> None:
    # sgd: momentum 0, or 0.9 with two values of nesterov; adam; rmsprop. Times three units.
    assert find(make(**CHAIN)).size() == 3 * (3 + 1 + 1)
    assert find(make(dense={"units": "interval(0, 1)"})).size() == math.inf
    assert find(make(dense={"units": "int(interval(1, 5))"})).size() == 5
    assert find(make(dense={"units": 5})).size() == 1


# KerasTuner asks for the thread and its name in the old way.
@pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")
def test_grid_search_visits_each_combination_once() -> None:
    import keras_tuner

    space = find(make(**CHAIN))
    oracle = keras_tuner.oracles.GridSearchOracle(
        objective=keras_tuner.Objective("score", "max"), hyperparameters=space.hyperparameters()
    )
    oracle.verbose = 0
    oracle._save_trial = lambda trial: None
    oracle.save = lambda: None
    seen = []
    while (trial := oracle.create_trial("tuner")).status == "RUNNING":
        values = space.decode(trial.hyperparameters.values)
        seen.append(tuple(sorted(collapse(make(**CHAIN), values)["optimizer"].items())))
        seen[-1] += (("units", values["dense.units"]),)
        oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(seen) == len(set(seen)) == space.size()


def test_two_parents_must_both_hold() -> None:
    cfg = make(
        dense={"a": "choice(1, 2)", "b": "choice(x, y)", "c": "choice(5, 6)"},
        when={"dense.c": {"dense.a": [1], "dense.b": ["x"]}},
    )
    space = find(cfg)
    found = space.hyperparameters()
    assert space.size() == 5
    assert found.is_active("dense.c")
    found.values["dense.b"] = "y"
    assert not found.is_active("dense.c")


@pytest.mark.parametrize(
    ("name", "size", "optimizer"),
    [
        ("adam", 1, {"name": "adam"}),
        ("sgd", 2, {"name": "sgd", "momentum": 0.0}),
    ],
)
def test_fixed_parents_decide_at_once(name: str, size: int, optimizer: dict[str, Any]) -> None:
    cfg = make(
        optimizer={"name": name, "momentum": "choice(0.0, 0.9)"},
        when={"optimizer.momentum": {"optimizer.name": ["sgd"]}},
    )
    space = find(cfg)
    assert space.size() == size
    assert all(not item.conditions for item in space)
    assert collapse(cfg, space.start())["optimizer"] == optimizer


def test_children_of_what_never_exists_do_not_exist() -> None:
    cfg = make(
        dense={"a": 1, "b": "choice(1, 2)", "c": "choice(1, 2)"},
        when={"dense.b": {"dense.a": [2]}, "dense.c": {"dense.b": [1]}},
    )
    assert collapse(cfg)["dense"] == {"a": 1}


@pytest.mark.parametrize(
    ("when", "fragment"),
    [
        ({"dense.z": {"dense.a": [1]}}, "Received: 'dense.z'. The nearest is `dense."),
        ({"dense.b": {"dense.z": [1]}}, "Received: 'dense.z'"),
        ({"dense.b": {"dense.a": [7]}}, "`when.dense.b.dense.a`: expected values of choice(1, 2)"),
        ({"dense.b": {"dense.a": []}}, "not empty"),
        ({"dense.b": [1]}, "a mapping {parent: [values]}"),
        ({"dense.b": {}}, "a mapping {parent: [values]}"),
        ({"dense.b": {"dense.b": [1]}}, "without a circle"),
        ({"dense.a": {"dense.b": [1]}, "dense.b": {"dense.a": [1]}}, "without a circle"),
        ({"dense.b": {"dense.d": [1]}}, "not an interpolation"),
        ({"dense.b": {"dense.a": [True]}}, "values of choice(1, 2)"),
        (3, "`when`: expected a mapping"),
    ],
)
def test_wrong_conditions(when: Any, fragment: str) -> None:
    dense = {"a": "choice(1, 2)", "b": "choice(1, 2)", "d": "${dense.a}"}
    with pytest.raises(ConfigErrors) as caught:
        find(make(dense=dense, when=when))
    assert fragment in str(caught.value)


# Collapse


def test_interpolations_follow_the_trial() -> None:
    cfg = make(
        dense={"units": "choice(1, 2)", "same": "${dense.units}", "text": "u${dense.units}"},
        seed=3,
        tuner={"seed": "${seed}"},
    )
    plain = collapse(cfg, {"dense.units": 2})
    assert plain["dense"] == {"units": 2, "same": 2, "text": "u2"}
    assert plain["tuner"] == {"seed": 3}
    assert len(find(cfg)) == 1
    assert cfg.dense.units == "choice(1, 2)"


def test_a_range_may_refer_to_a_fixed_value() -> None:
    cfg = make(seed=7, dense={"units": "choice(${seed}, 9)"})
    assert find(cfg).ranges[0].values == (7, 9)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({}, "dense.units"),
        ({"dense.units": 3}, "dense.units"),
        ({"dense.units": "1"}, "dense.units"),
        ({"dense.units": 1, "dense.other": 1}, "dense.other"),
    ],
)
def test_collapse_refuses_wrong_values(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        collapse(make(dense={"units": "choice(1, 2)"}), values)
    assert caught.value.key == key


@pytest.mark.parametrize("value", ["???", "${nothing}", "${dense.momentum}"])
def test_collapse_refuses_what_is_missing(value: str) -> None:
    cfg = make(
        dense={"units": value, "name": "choice(a, b)", "momentum": 1},
        when={"dense.momentum": {"dense.name": ["b"]}},
    )
    with pytest.raises(ConfigError) as caught:
        collapse(cfg, {"dense.name": "a"})
    assert caught.value.key == "dense.units"


def test_numbers_as_keys_can_hold_ranges() -> None:
    cfg = make(training={"class_weight": {0: "choice(1.0, 2.0)", 1: 1.0}})
    assert collapse(cfg, {"training.class_weight.0": 2.0})["training"] == {
        "class_weight": {0: 2.0, 1: 1.0}
    }


def test_nothing_left_to_search_is_one_trial() -> None:
    cfg = make(dense={"units": 64}, when={})
    assert find(cfg) == Space((), {}, ())
    assert collapse(cfg) == {"dense": {"units": 64}, "when": {}}


def test_hydra_own_part_is_left_out() -> None:
    assert collapse(make(hydra={"x": "${now:%Y}"}, seed=1)) == {"seed": 1}


def test_ranges_can_be_sent_and_compared() -> None:
    import pickle

    space = find(make(**CHAIN))
    assert pickle.loads(pickle.dumps(space)) == space
    assert isinstance(space.ranges[0], Range)


def test_importing_it_imports_neither_keras_nor_mlflow() -> None:
    code = (
        "import sys, pneumonia.config.search_space, pneumonia.config.validate; "
        "import pneumonia.config.compose, pneumonia.cli.main; "
        "print([m for m in ('keras', 'keras_tuner', 'tensorflow', 'mlflow') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_condition_on_a_name_that_was_narrowed_away_never_holds() -> None:
    ranges = {
        "optimizer": {"name": "choice(adam, rmsprop)", "momentum": "interval(0.0, 0.9)"},
        "when": {"optimizer.momentum": {"optimizer.name": ["sgd"]}},
    }
    space = find(OmegaConf.create(ranges))
    assert [item.path for item in space] == ["optimizer.name"]
    trial = collapse(OmegaConf.create(ranges), {"optimizer.name": "adam"})
    assert trial["optimizer"] == {"name": "adam"}

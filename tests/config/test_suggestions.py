"""What somebody probably meant."""

from __future__ import annotations

import pytest

from pneumonia.config.suggestions import closest, closest_key, nearest, range_meant, value_meant

KEYS = [
    *("dense.units", "dense.dropout", "model.layer", "tuner.max_epochs", "tuner.max_trials"),
    *("training.batch_size", "optimizer.learning_rate", "seed", "training.early_stopping.patience"),
]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "optimizer.learning_rate"),
        ("bs", "training.batch_size"),
        ("batchsize", "training.batch_size"),
        ("epochs", "tuner.max_epochs"),
        ("training.epochs", "tuner.max_epochs"),
        ("dense/units", "dense.units"),
        ("Dense.Units", "dense.units"),
        ("dense.dropuot", "dense.dropout"),
        ("patience", "training.early_stopping.patience"),
        ("sed", "seed"),
        ("hidden", None),
    ],
)
def test_keys(key: str, meant: str | None) -> None:
    assert closest_key(key, KEYS) == meant


def test_names() -> None:
    assert closest("RELU", ["relu", "gelu"]) == "relu"
    assert nearest("rleu", ["relu", "tanh"]) == "The nearest is `relu`"
    assert nearest("xyz", ["relu", "tanh"]) == ""


@pytest.mark.parametrize(
    ("text", "of_numbers", "of_whole_ones"),
    [
        ("uniform(1, 8)", "interval(1, 8)", "int(interval(1, 8))"),
        ("quniform(1, 8, 1)", "int(interval(1, 8))", "int(interval(1, 8))"),
        ("loguniform(1,8)", "tag(log, interval(1, 8))", "tag(log, int(interval(1, 8)))"),
        ("log(uniform(1,8))", "tag(log, interval(1, 8))", "tag(log, int(interval(1, 8)))"),
        ("1e-4..1e-2", "interval(1e-4, 1e-2)", "int(interval(1e-4, 1e-2))"),
        ("1 to 8", "interval(1, 8)", "int(interval(1, 8))"),
        ("Choice(a,b)", "choice(a, b)", "choice(a, b)"),
        ("chioce(a,b)", "choice(a, b)", "choice(a, b)"),
        ("[a, b]", "choice(a, b)", "choice(a, b)"),
        ("relu", None, None),
        ("f(x)", None, None),
        ("choice(a, b)", None, None),
        (3, None, None),
    ],
)
def test_ranges(text: object, of_numbers: str | None, of_whole_ones: str | None) -> None:
    assert range_meant(text, is_whole=False) == of_numbers
    assert range_meant(text, is_whole=True) == of_whole_ones


@pytest.mark.parametrize(
    ("value", "right", "meant"),
    [
        (64.0, (64,), "64"),
        (64.5, (64,), None),
        ("0,5", (0.5,), "0.5"),
        ("none", (None,), "null"),
        ("yes", (True, False), "true"),
        ("False", (True, False), "false"),
        ("yes", (None,), None),
        ("agv", (), "avg"),
        ([1], (), None),
    ],
)
def test_values(value: object, right: tuple[object, ...], meant: str | None) -> None:
    def accepts(one: object) -> bool:
        return any(one is other or (type(one) is type(other) and one == other) for other in right)

    assert value_meant(value, ["avg", "max"], accepts) == meant

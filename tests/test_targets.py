"""Targets are read from their source, and nothing is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pneumonia import targets
from pneumonia.errors import ConfigError


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("keras.optimizers.RMSprop", "rho"),  # through an import, of a class
        ("keras.losses.BinaryCrossentropy", "label_smoothing"),
        ("keras_tuner.oracles.HyperbandOracle", "factor"),
        ("pneumonia.backbones.cnn", "blocks"),
        ("pneumonia.metrics.roc_auc", "y_true"),
        ("json.dumps", "indent"),
    ],
)
def test_arguments_are_found(target: str, name: str) -> None:
    signature = targets.inspect("x._target_", target)
    assert signature is not None
    assert name in signature.types
    assert "self" not in signature.types


def test_types_and_required_arguments() -> None:
    signature = targets.inspect("x._target_", "pneumonia.backbones.cnn")
    assert signature is not None
    assert signature.types["weights"] == "str | None"
    assert "blocks" in signature.required
    assert "weights" not in signature.required
    assert not signature.is_open


@pytest.mark.parametrize("target", ["numpy.array", "os.path.join", "time.sleep"])
def test_what_cannot_be_read_is_left_open(target: str) -> None:
    assert targets.inspect("x._target_", target) is None


@pytest.mark.parametrize(
    ("target", "fragment"),
    [
        ("keras.optimizers.RMSProp", "The nearest is keras.optimizers.RMSprop"),
        ("keras.optimizer.SGD", "The nearest is keras.optimizers"),
        ("pneumonia.backbones.cn", "of `pneumonia.backbones`"),
        ("pneumonia.backbones", "not a module"),
        ("nothing_at_all.x", "No module nothing_at_all"),
        ("cnn", "module.name"),
        ("a..b", "dotted path"),
        (3, "dotted path"),
        (None, "dotted path"),
    ],
)
def test_wrong_targets(target: object, fragment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        targets.inspect("x._target_", target)
    assert str(caught.value).startswith("`x._target_`: expected ")
    assert fragment in str(caught.value)


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from pneumonia import targets; "
        "targets.inspect('k', 'keras.optimizers.Adam'); targets.names('keras.activations'); "
        "targets.inspect('k', 'keras_tuner.oracles.GridSearchOracle'); "
        "print([m for m in ('keras', 'keras_tuner', 'tensorflow') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

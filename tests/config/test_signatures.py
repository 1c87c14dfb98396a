"""Targets are read from their source, and nothing is imported for it."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pneumonia.config import instantiate, signatures
from pneumonia.errors import ConfigError


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("keras.optimizers.RMSprop", "rho"),  # through an import, of a class
        ("keras.losses.BinaryCrossentropy", "label_smoothing"),
        ("keras_tuner.oracles.HyperbandOracle", "factor"),
        ("pneumonia.models.backbones.cnn", "blocks"),
        ("pneumonia.evaluation.metrics.roc_auc", "y_true"),
        ("json.dumps", "indent"),
    ],
)
def test_arguments_are_found(target: str, name: str) -> None:
    signature = signatures.inspect("x._target_", target)
    assert signature is not None
    assert name in signature.checks
    assert "self" not in signature.checks


def test_types_and_required_arguments() -> None:
    signature = signatures.inspect("x._target_", "pneumonia.models.backbones.cnn")
    assert signature is not None
    assert (
        signature.checks["weights"].expected
        == "null or an existing file of weights (.weights.h5, .h5, .keras)"
    )
    assert "blocks" in signature.required
    assert "weights" not in signature.required
    assert not signature.is_open


@pytest.mark.parametrize("target", ["numpy.array", "os.path.join", "time.sleep"])
def test_what_cannot_be_read_is_left_open(target: str) -> None:
    assert signatures.inspect("x._target_", target) is None


@pytest.mark.parametrize(
    ("target", "fragment"),
    [
        ("keras.optimizers.RMSProp", "The nearest is keras.optimizers.RMSprop"),
        ("keras.optimizer.SGD", "The nearest is keras.optimizers"),
        ("pneumonia.models.backbones.cn", "of `pneumonia.models.backbones`"),
        ("pneumonia.models.backbones", "not a module"),
        ("nothing_at_all.x", "No module nothing_at_all"),
        ("cnn", "module.name"),
        ("a..b", "dotted path"),
        (3, "dotted path"),
        (None, "dotted path"),
    ],
)
def test_wrong_targets(target: object, fragment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        signatures.inspect("x._target_", target)
    assert str(caught.value).startswith("`x._target_`: expected ")
    assert fragment in str(caught.value)


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from pneumonia.config import sources, signatures as targets; "
        "targets.inspect('k', 'keras.optimizers.Adam'); sources.names('keras.activations'); "
        "targets.inspect('k', 'keras_tuner.oracles.GridSearchOracle'); "
        "print([m for m in ('keras', 'keras_tuner', 'tensorflow') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules of a user and some of a stranger."""
    for name, text in {
        "own_of_test.py": "import beside_of_test\n"
        "def head(): return beside_of_test.NAME\n"
        "def late():\n    import late_of_test\n    return late_of_test.NAME\n"
        "def google():\n    import google.protobuf\n    return google.protobuf.__file__\n",
        "pack_of_test/__init__.py": "",
        "pack_of_test/sub/__init__.py": "",
        "pack_of_test/sub/heads.py": "import beside_of_test\nfrom ..base import Head\n",
        "pack_of_test/base.py": "class Head: ...\n",
        "loose_of_test/heads.py": "def head(): return 3\n",
        "beside_of_test.py": "NAME = 'beside'\n",
        "late_of_test.py": "NAME = 'late'\n",
        "stray_of_test.py": "raise RuntimeError('imported')\n",
        "google.py": "raise RuntimeError('imported')\n",
        "json.py": "raise RuntimeError('imported')\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    for name in [name for name in sys.modules if "_of_test" in name]:
        del sys.modules[name]


def test_a_named_module_of_the_current_folder_is_found(folder: Path) -> None:
    for target in ("own_of_test.head", "pack_of_test.sub.heads.Head", "loose_of_test.heads.head"):
        signatures.inspect("x._target_", target)
    assert not [name for name in sys.modules if "_of_test" in name]
    assert instantiate.build({"_target_": "own_of_test.head"}, "x") == "beside"
    assert instantiate.build({"_target_": "own_of_test.late"}, "x") == "late"
    assert instantiate.build({"_target_": "loose_of_test.heads.head"}, "x") == 3
    head = instantiate.build({"_target_": "pack_of_test.sub.heads.Head"}, "x")
    assert type(pickle.loads(pickle.dumps(head))) is type(head)
    # In another process, which has not looked at it before.
    code = (
        "from pneumonia.config.instantiate import build; "
        "print(build({'_target_': 'own_of_test.late'}, 'x'))"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert ran.stdout == "late\n"


def test_nothing_else_of_the_current_folder_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stray_of_test", "own_of_test", "late_of_test"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert instantiate.build({"_target_": "own_of_test.head"}, "x") == "beside"
    for name in ("stray_of_test", "late_of_test"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    # What is installed comes first, packages without an __init__.py too.
    for name in [name for name in sys.modules if name.partition(".")[0] == "google"]:
        # Put back afterwards: what is compiled in there cannot be loaded twice.
        monkeypatch.delitem(sys.modules, name)
    assert "site-packages" in instantiate.build({"_target_": "own_of_test.google"}, "x")
    assert instantiate.build({"_target_": "json.dumps"}, "x", 3) == "3"


def test_a_folder_that_is_on_the_path_anyway(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    assert instantiate.build({"_target_": "own_of_test.head"}, "x") == "beside"
    assert importlib.import_module("late_of_test").NAME == "late"

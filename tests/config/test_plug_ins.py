"""Plug-ins are known by their code, and by that of what they import from beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pneumonia.config import sources
from pneumonia.training import feature_cache

FILES = {
    "own_stems.py": "import json\nimport numpy\nimport own_blocks.dense\ndef stem(): ...\n",
    "own_blocks/dense.py": "from own_helper import one\nfrom . import other\n",
    "own_blocks/other.py": "",
    "own_helper.py": "def f():\n    import own_stems\n",
    "own_broken.py": "def (",
    "unrelated.py": "raise AssertionError\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_what_a_config_names() -> None:
    section = {
        "model": {"_target_": "own_stems.stem", "name": "a.b"},
        "optimizer._target_": "choice(keras.optimizers.SGD, own.adam)",
        "training.metrics.auc._target_": None,
    }
    assert sources.targets(section) == {"own_stems.stem", "keras.optimizers.SGD", "own.adam"}


def test_plug_ins_come_with_what_they_import_from_beside() -> None:
    found = sources.plugins(["own_stems.stem", "keras.layers.Dense", "functools.partial", "no.x"])
    assert list(found) == ["own_blocks", "own_helper", "own_stems"]
    assert list(sources.plugins(["own_broken.stem"])) == ["own_broken"]
    assert "sklearn" not in sources.plugins(["pneumonia.evaluation.metrics.auc"])


@pytest.mark.parametrize("changed", ["own_stems.py", "own_blocks/other.py", "own_helper.py"])
def test_other_code_has_another_digest(changed: str, folder: Path) -> None:
    section = {"_target_": "own_stems.stem"}
    before = feature_cache.digest(None, section)
    (folder / changed).write_text(f"{FILES[changed]}\n# changed\n")
    # What this process has imported stays as it is.
    assert feature_cache.digest(None, section) == before
    sources.digest.cache_clear()
    assert feature_cache.digest(None, section) != before

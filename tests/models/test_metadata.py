"""What a classifier's file says of it, and that Keras loads the file all the same."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from pneumonia.models import metadata

FACTS = {"class_names": ["normal", "pneumonia"], "threshold": 0.3125, "temperature": 1.5}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image = keras.Input((3,))
    keras.Model(image, keras.layers.Dense(1)(image)).save(tmp_path / "a.keras")
    return tmp_path / "a.keras"


def test_facts_go_in_and_come_out(file: Path) -> None:
    assert metadata.read(file) == {}
    x = np.ones((2, 3), np.float32)
    before = keras.saving.load_model(file, safe_mode=True).predict(x, verbose=0)
    with zipfile.ZipFile(file) as archive:
        usual = json.loads(archive.read("metadata.json"))
    metadata.write(file, FACTS)
    assert metadata.read(file) == FACTS
    again = {**FACTS, "threshold": 0.75}
    metadata.write(file, again)
    assert metadata.read(file) == again
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("metadata.json")) == {**usual, "pneumonia": again}
        assert archive.testzip() is None
    after = keras.saving.load_model(file, safe_mode=True).predict(x, verbose=0)
    np.testing.assert_array_equal(before, after)
    assert [path.name for path in file.parent.iterdir()] == ["a.keras"]


def test_files_without_facts(tmp_path: Path, file: Path) -> None:
    (tmp_path / "text.keras").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "list.keras", "w") as archive:
        archive.writestr("metadata.json", "[1]")
    for name in ("text.keras", "empty.keras", "list.keras", "none.keras"):
        assert metadata.read(tmp_path / name) == {}


def test_a_write_that_fails_leaves_the_file_as_it_was(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError):
        metadata.write(file, {"threshold": object()})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["a.keras"]

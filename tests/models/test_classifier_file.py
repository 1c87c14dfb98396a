"""Classifiers written from a template are what Keras would have written; what files say of them."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from families import slow

from pneumonia.models import backbones, classifier, classifier_file, heads
from pneumonia.models.classifier_file import Template

FACTS = {"class_names": ["normal", "pneumonia"], "threshold": 0.3125, "temperature": 1.5}
IMAGES = np.random.default_rng(0).integers(0, 255, (3, 40, 30, 1)).astype(np.uint8)


def parts(trainable: bool | str = False) -> tuple[keras.Model, keras.Model, keras.Model]:
    keras.utils.set_random_seed(1)
    backbone = backbones.efficientnet_lite(image_size=32, layer="block2b_add", trainable=trainable)
    head = heads.dense(backbone.output.shape[1:], units=8, dropout=0.3)
    return backbone, head, classifier.assemble(backbone, head, image_size=32)


def small() -> tuple[keras.Model, keras.Model, keras.Model]:
    keras.utils.set_random_seed(1)
    backbone = backbones.cnn(image_size=32, blocks=1, filters=4, trainable=False)
    head = heads.dense(backbone.output.shape[1:], units=8, dropout=0.3)
    return backbone, head, classifier.assemble(backbone, head, image_size=32)


def described(path: Path) -> Any:
    """Return the description in a file, without the numbers that Keras gives shared objects."""

    def strip(item: Any) -> Any:
        if isinstance(item, dict):
            return {k: strip(v) for k, v in item.items() if k != "shared_object_id"}
        return [strip(one) for one in item] if isinstance(item, list) else item

    with zipfile.ZipFile(path) as archive:
        return strip(json.loads(archive.read("config.json")))


@pytest.mark.parametrize("units", [slow(8), 33])
def test_writes_what_keras_writes(units: int, tmp_path: Path) -> None:
    backbone, head, whole = parts()
    before = [weight.numpy() for weight in head.weights]
    template = Template(whole, head.weights)
    for one, other in zip(before, head.weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    other = heads.dense(backbone.output.shape[1:], units=units, dropout=0.1)
    template.write(tmp_path / "ours.keras", other, [w.numpy() for w in other.weights])
    theirs = classifier.assemble(backbone, other, image_size=32)
    classifier.save(theirs, tmp_path / "theirs.keras")
    assert described(tmp_path / "ours.keras") == described(tmp_path / "theirs.keras")
    loaded = classifier.load(tmp_path / "ours.keras")
    np.testing.assert_array_equal(
        loaded.predict(IMAGES, verbose=0), theirs.predict(IMAGES, verbose=0)
    )
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


@pytest.mark.slow
def test_writes_trained_layers_of_the_backbone_too(tmp_path: Path) -> None:
    backbone, head, whole = parts("block2b_expand_conv")
    trained = [*backbone.trainable_weights, *head.weights]
    template = Template(whole, trained)
    values = [weight.numpy() + 0.1 for weight in trained]
    template.write(tmp_path / "a.keras", head, values)
    for weight, value in zip(trained, values, strict=True):
        weight.assign(value)
    loaded = classifier.load(tmp_path / "a.keras")
    np.testing.assert_allclose(
        loaded.predict(IMAGES, verbose=0), whole.predict(IMAGES, verbose=0), atol=1e-6
    )


def test_leaves_nothing_for_a_killed_process_to_leave_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    _, head, whole = small()
    template = Template(whole, head.weights)
    for name in ("a.keras", "b.keras"):
        template.write(tmp_path / name, head, [weight.numpy() for weight in head.weights])
        np.testing.assert_array_equal(
            classifier.load(tmp_path / name).predict(IMAGES, verbose=0),
            whole.predict(IMAGES, verbose=0),
        )
        assert list((tmp_path / "temporary").iterdir()) == []


def test_refuses_variables_that_are_not_in_the_file() -> None:
    _, head, whole = small()
    with pytest.raises(LookupError):
        Template(whole, [*head.weights, keras.Variable(np.zeros((2, 2), np.float32))])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image = keras.Input((3,))
    keras.Model(image, keras.layers.Dense(1)(image)).save(tmp_path / "a.keras")
    return tmp_path / "a.keras"


def test_facts_go_in_and_come_out(file: Path) -> None:
    assert classifier_file.read_facts(file) == {}
    x = np.ones((2, 3), np.float32)
    before = keras.saving.load_model(file, safe_mode=True).predict(x, verbose=0)
    with zipfile.ZipFile(file) as archive:
        usual = json.loads(archive.read("metadata.json"))
    classifier_file.write_facts(file, FACTS)
    assert classifier_file.read_facts(file) == FACTS
    again = {**FACTS, "threshold": 0.75}
    classifier_file.write_facts(file, again)
    assert classifier_file.read_facts(file) == again
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
        assert classifier_file.read_facts(tmp_path / name) == {}


def test_a_write_that_fails_leaves_the_file_as_it_was(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError):
        classifier_file.write_facts(file, {"threshold": object()})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["a.keras"]

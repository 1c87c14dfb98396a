"""The images that were most wrong, with heat maps of a real classifier."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import keras
import numpy as np
import pytest
from made import finished, write_images
from PIL import Image

from pneumonia.errors import DataError
from pneumonia.models import backbones, classifier, heads
from pneumonia.models.predictor import Predictor
from pneumonia.reporting import worst_errors
from pneumonia.storage import search_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = finished(tmp_path_factory.mktemp("search"))
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def model() -> keras.Model:
    backbone = backbones.cnn(image_size=32, blocks=2, filters=4, pooling="avg")
    head = heads.dense(backbone.output_shape[1:], units=4, dropout=0.0)
    return classifier.assemble(backbone, head, image_size=32)


def decode(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image)


def test_the_worst_of_each_kind_come_first(folder: Path, model: keras.Model) -> None:
    search = search_record.read(folder)
    found = worst_errors.draw(search, 0.5, load=lambda: Predictor(model))
    test = search.predictions["test"]
    wrong = (test.probabilities > 0.5) != test.labels
    for label, sign in ((1, 1), (0, -1)):
        given = [one.probability for one in found if one.truth == label]
        expected = sorted(sign * test.probabilities[wrong & (test.labels == label)])
        assert [sign * p for p in given] == expected[: worst_errors.MOST]
    assert all(len(decode(one.image).shape) == 2 for one in found)
    assert all(decode(one.heat).shape == (224, 224, 3) for one in found)


def test_without_a_classifier_there_are_images_without_heat_maps(folder: Path) -> None:
    found = worst_errors.draw(search_record.read(folder), 0.5)
    assert found
    assert not any(one.heat for one in found)


def test_the_classifier_is_read_from_its_file(folder: Path, model: keras.Model) -> None:
    classifier.save(model, folder / "classifier.keras")
    ended = {"status": "completed", "classifier": "classifier.keras"}
    search = search_record.read(folder, ending=ended)
    assert all(one.heat for one in worst_errors.draw(search, 0.5))


def test_other_images_than_the_search_had_are_not_shown(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    write_images(folder)
    with np.load(folder / "images.npz") as file:
        arrays = dict(file)
    arrays["test_images"] = arrays["test_images"][::-1]
    np.savez(folder / "images.npz", **arrays)
    with pytest.raises(DataError, match="have changed since the search"):
        worst_errors.draw(search_record.read(folder), 0.5)


def test_nothing_wrong_is_nothing_to_show(folder: Path) -> None:
    search = search_record.read(folder)
    test = search.predictions["test"]
    test.probabilities[:] = test.labels
    assert worst_errors.draw(search, 0.5) == []

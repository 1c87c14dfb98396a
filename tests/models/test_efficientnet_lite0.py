"""EfficientNet-Lite0: that it is the published network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from pneumonia.errors import DataError, UserError
from pneumonia.models import backbones, classifier, efficientnet_lite0


def raw(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("f4")


@pytest.mark.parametrize(("photo", "label"), [("china", 698), ("flower", 985)])
def test_lite0_knows_a_palace_and_a_daisy(photo: str, label: int) -> None:
    samples = load_sample_images()
    (index,) = (i for i, name in enumerate(samples.filenames) if photo in name)
    square = samples.images[index][:, 106:533]
    features = backbones.efficientnet_lite0(image_size=224)(classifier.resize([square], 224))
    tensors = efficientnet_lite0.read_imagenet()
    scores = np.asarray(features) @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert scores.argmax() == label


def test_lite0_has_the_published_size() -> None:
    model = backbones.efficientnet_lite0(image_size=32)
    top = 1280 * 1000 + 1000
    assert model.count_params() + top == 4_652_008 + 42_016
    trained = backbones.efficientnet_lite0(image_size=32, weights=None, trainable=True)
    assert sum(int(np.prod(w.shape)) for w in trained.trainable_weights) + top == 4_652_008


def test_lite0_takes_its_scaling_along() -> None:
    model = efficientnet_lite0.network(32)
    scaled = keras.Model(model.input, model.get_layer("scaling").output)
    np.testing.assert_allclose(np.asarray(scaled(raw(32))), (raw(32) - 127) / 128, atol=1e-6)


def test_says_what_to_do_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"model\.weights=<file>"):
        efficientnet_lite0.network(32, "imagenet")


def test_refuses_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / efficientnet_lite0.WEIGHTS
    file.parent.mkdir()
    file.write_bytes(b"not the published one")
    spec = importlib.util.spec_from_file_location(
        efficientnet_lite0.PACKAGE, tmp_path / "__init__.py"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="not the published file"):
        efficientnet_lite0.network(32, "imagenet")

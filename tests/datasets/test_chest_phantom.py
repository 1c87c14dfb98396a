"""Generated chest phantoms: valid, deterministic, and neither too easy nor too hard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from families import slow
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pneumonia.config.instantiate import build
from pneumonia.datasets.base import ImageData, Split
from pneumonia.datasets.chest_phantom import phantom
from pneumonia.errors import ConfigError


@pytest.fixture(scope="module")
def data() -> ImageData:
    return phantom()


def pixels(split: Split) -> np.ndarray:
    return np.asarray(split.images.read(np.arange(len(split))))


@pytest.mark.slow  # smaller ones are
def test_the_defaults_give_a_valid_dataset(data: ImageData) -> None:
    assert data.class_names == ("normal", "pneumonia")
    assert [len(split) for split in (data.train, data.val, data.test)] == [1200, 300, 400]
    for split in (data.train, data.val, data.test):
        assert pixels(split).shape == (len(split), 96, 96, 1)
        assert pixels(split).dtype == np.uint8
        assert split.labels.mean() == 0.5
    assert data.duplicates == {"train/val": 0, "train/test": 0, "val/test": 0}


@pytest.mark.parametrize("count", [60, slow(400)])
def test_images_use_the_range_of_brightness(count: int) -> None:
    images = pixels(phantom(train=2, val=2, test=count).test).reshape(count, -1)
    assert images.std(axis=1).min() > 8
    assert (images == 255).mean() < 0.05


def test_an_image_does_not_depend_on_how_many_there_are() -> None:
    few, many = phantom(train=10, val=4, test=6), phantom(train=50, val=9, test=3)
    assert np.array_equal(pixels(few.train), pixels(many.train)[:10])
    assert np.array_equal(few.train.labels, many.train.labels[:10])
    assert np.array_equal(pixels(few.val), pixels(many.val)[:4])


def test_the_seed_decides() -> None:
    a, again, b = (phantom(train=8, val=4, test=4, seed=seed) for seed in (3, 3, 4))
    assert a.train.digest == again.train.digest
    assert a.train.digest != b.train.digest


def test_only_opacities_differ_with_difficulty() -> None:
    easy, hard = (phantom(train=20, val=2, test=2, difficulty=value) for value in (0.0, 1.0))
    is_same = (pixels(easy.train) == pixels(hard.train)).all(axis=(1, 2, 3))
    assert np.array_equal(is_same, easy.train.labels == 0)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.74])
def test_the_fraction_of_positives_is_met(fraction: float) -> None:
    train = phantom(train=100, val=10, test=10, image_size=32, positive_fraction=fraction).train
    assert train.labels.mean() == pytest.approx(fraction, abs=0.01)


@pytest.mark.parametrize("image_size", [32, 64, 131])
def test_any_size(image_size: int) -> None:
    data = phantom(train=5, val=2, test=2, image_size=image_size)
    assert pixels(data.train).shape == (5, image_size, image_size, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train", 0),
        ("val", 2.5),
        ("test", "many"),
        ("image_size", 16),
        ("image_size", 4096),
        ("difficulty", 1.5),
        ("positive_fraction", 0.0),
        ("seed", -1),
        ("seed", True),
    ],
)
def test_values_out_of_range_are_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"`dataset.{key}`"):
        build({"_target_": "pneumonia.datasets.chest_phantom.phantom", key: value}, "dataset")


def test_a_split_too_small_for_both_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="both classes"):
        phantom(train=4, val=4, test=4, image_size=32, positive_fraction=0.1)


@pytest.mark.slow
def test_a_linear_model_on_pixels_does_not_solve_it(data: ImageData) -> None:
    # Means over 6 x 6 pixels: the same bound as on all pixels, in a hundredth of the time.
    x = {
        split.name: pixels(split).reshape(-1, 16, 6, 16, 6).mean(axis=(2, 4)).reshape(-1, 256) / 255
        for split in (data.train, data.val, data.test)
    }
    scores = []
    for c in (0.001, 0.01, 0.1, 1.0):
        model = LogisticRegression(C=c, max_iter=1000).fit(x["train"], data.train.labels)
        val, test = (
            roc_auc_score(split.labels, model.decision_function(x[split.name]))
            for split in (data.val, data.test)
        )
        scores.append((val, test))
    _, test = max(scores)
    assert 0.60 < test < 0.85

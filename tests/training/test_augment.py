"""Augmentation: what is random, what is not, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pneumonia.config.instantiate import build
from pneumonia.errors import ConfigError
from pneumonia.training import augment

BLOG = {"flip": True, "rotation": 10, "zoom": 0.1}
CHEST = {"crop": 0.15, "shift": 0.05, "brightness": 0.1, "contrast": 0.2}
EACH = [
    *((augment.geometric, dict.fromkeys(BLOG, 0) | {key: BLOG[key]}) for key in BLOG),
    *((augment.chest, dict.fromkeys(CHEST, 0) | {key: CHEST[key]}) for key in CHEST),
]


@pytest.fixture(scope="module")
def image() -> NDArray[np.float32]:
    gray = np.random.default_rng(0).uniform(0, 255, (24, 24, 1)).astype("f4")
    return np.repeat(gray, 3, axis=-1)


@pytest.mark.parametrize(
    ("build", "strengths"), [(augment.geometric, BLOG), (augment.chest, CHEST)]
)
def test_the_seed_decides(
    build: Callable[..., Any], strengths: dict[str, Any], image: NDArray[np.float32]
) -> None:
    images = np.stack([image] * 12)
    pipeline = build(**strengths)
    first = augment.render(pipeline, images, (1, 2, 3))
    other = augment.render(pipeline, images, (1, 2, 4))
    keras.utils.set_random_seed(7)
    keras.random.normal((3,))
    again = augment.render(pipeline, images, (1, 2, 3))
    fresh = augment.render(build(**strengths), images, (1, 2, 3))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, fresh)
    assert (first != other).any()
    assert first.dtype == np.float32
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 255


@pytest.mark.parametrize(("build", "strengths"), EACH)
def test_every_layer_changes_every_image_in_its_own_way(
    build: Callable[..., Any], strengths: dict[str, Any], image: NDArray[np.float32]
) -> None:
    pipeline = build(**strengths)
    assert len(pipeline.layers) == 1
    rendered = augment.render(pipeline, np.stack([image] * 12), 5)
    different = {one.tobytes() for one in rendered}
    assert len(different) == (2 if strengths.get("flip") else 12)
    np.testing.assert_array_equal(rendered[..., 0], rendered[..., 2])


def test_layers_do_not_share_their_draws(image: NDArray[np.float32]) -> None:
    pipeline = augment.chest(crop=0, shift=0, brightness=0.5, contrast=0.5)
    augment.render(pipeline, image[None], 5)
    states = [variable.numpy().tolist() for variable in pipeline.variables]
    assert len(states) == 2
    assert states[0] != states[1]


def test_a_strength_of_nothing_is_no_pipeline() -> None:
    assert augment.none() is None
    assert augment.geometric(flip=False, rotation=0, zoom=0) is None
    assert augment.chest(crop=0, shift=0, brightness=0, contrast=0) is None


def test_strengths_bound_the_change() -> None:
    ramp = np.tile(np.arange(64, dtype="f4")[None, :, None] * 2 + 50, (64, 1, 3))
    images = np.stack([ramp] * 32)
    brighter = augment.render(augment.chest(crop=0, shift=0, brightness=0.1, contrast=0), images, 0)
    assert 15 < np.abs(brighter - images).max() <= 25.5 + 1e-3
    shifted = augment.render(
        augment.chest(crop=0, shift=0.125, brightness=0, contrast=0), images, 0
    )
    assert 10 < np.abs(shifted - images).max() <= 16 + 1e-3
    # Cropping takes a part of the image: nothing that was not there appears at the border.
    cropped = augment.render(augment.chest(crop=0.5, shift=0, brightness=0, contrast=0), images, 0)
    widths = cropped[:, 32, -1, 0] - cropped[:, 32, 0, 0]
    assert 126 * 0.5 - 2 <= widths.min() < widths.max() <= 126 + 1e-3


@pytest.mark.parametrize(
    ("name", "strengths", "key", "value"),
    [
        ("geometric", BLOG, "rotation", 200),
        ("geometric", BLOG, "zoom", 1.0),
        ("geometric", BLOG, "zoom", -0.1),
        ("chest", CHEST, "crop", "much"),
        ("chest", CHEST, "brightness", 1.5),
    ],
)
def test_names_a_bad_strength(
    name: str, strengths: dict[str, Any], key: str, value: object
) -> None:
    section = {"_target_": f"pneumonia.training.augment.{name}", **strengths, key: value}
    with pytest.raises(ConfigError, match=f"`augment.{key}`"):
        build(section, "augment")

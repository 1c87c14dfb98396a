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
STRONG = {
    **{"scale": 0.5, "aspect": 0.2, "rotation": 10, "shift": 0.05, "brightness": 0.1},
    **{"contrast": 0.3, "gamma": 0.3, "noise": 0.1, "erasing": 1.0, "flip": True},
}
PLAIN = dict.fromkeys(STRONG, 0) | {"scale": 1, "flip": False}
EACH = [
    *((augment.geometric, dict.fromkeys(BLOG, 0) | {key: BLOG[key]}) for key in BLOG),
    *((augment.chest, dict.fromkeys(CHEST, 0) | {key: CHEST[key]}) for key in CHEST),
    *((augment.strong, PLAIN | {key: STRONG[key]}) for key in STRONG),
]


@pytest.fixture(scope="module")
def image() -> NDArray[np.float32]:
    gray = np.random.default_rng(0).uniform(0, 255, (24, 24, 1)).astype("f4")
    return np.repeat(gray, 3, axis=-1)


@pytest.mark.parametrize(
    ("build", "strengths"),
    [(augment.geometric, BLOG), (augment.chest, CHEST), (augment.strong, STRONG)],
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
    assert augment.strong(**PLAIN) is None


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


@pytest.fixture(scope="module")
def slopes() -> NDArray[np.float32]:
    """Return images (64, 33, 33, 3) whose channels tell the column, the row and one grey level."""
    line = np.arange(33, dtype="f4")
    one = np.stack([*np.meshgrid(line, line), np.full((33, 33), 80, "f4")], axis=-1)
    return np.stack([one] * 64)


def strong(images: NDArray[np.float32], **strengths: Any) -> NDArray[np.float32]:
    return augment.render(augment.strong(**PLAIN | strengths), images, 3)


def test_random_resized_crops_show_a_part_of_the_area(slopes: NDArray[np.float32]) -> None:
    shown = strong(slopes, scale=0.25, aspect=0.5)[..., :2]
    across, down = (shown[:, 16, -1, 0] - shown[:, 16, 0, 0]) / 32, shown[:, -1, 16, 1] / 32
    down = down - shown[:, 0, 16, 1] / 32
    area, ratio = across * down, across / down
    assert 0.25 - 1e-3 <= area.min() < 0.35
    assert 0.8 < area.max() <= 1
    assert 1 / 1.5 - 1e-3 <= ratio.min() < 0.8 < 1.2 < ratio.max() <= 1.5 + 1e-3
    assert shown.min() >= 0
    assert shown.max() <= 32  # nothing beyond the edges, and crops lie anywhere
    assert shown[:, 0, 0].min() < 1 < 12 < shown[:, 0, 0].max()


def test_rotation_turns_about_the_middle(slopes: NDArray[np.float32]) -> None:
    turned = strong(slopes, rotation=30)[:, :, :, :2]
    np.testing.assert_allclose(turned[:, 16, 16], 16, atol=1e-3)
    angles = np.degrees(np.arctan2(*(turned[:, 16, 20] - 16).T[::-1]))
    assert -30 - 1e-3 <= angles.min() < -20 < 20 < angles.max() <= 30 + 1e-3
    np.testing.assert_allclose(np.hypot(*(turned[:, 16, 20] - 16).T), 4, atol=1e-3)
    # As Keras' own layer does.
    share = float(angles[0]) / 360
    by_keras = keras.layers.RandomRotation((share, share), "nearest")(slopes[:1], training=True)
    np.testing.assert_allclose(turned[:1], np.asarray(by_keras)[..., :2], atol=1e-2)


def test_flips_every_other_image(slopes: NDArray[np.float32]) -> None:
    flipped = strong(slopes, flip=True)
    is_flipped = flipped[:, 0, 0, 0] > 16
    assert 16 < is_flipped.sum() < 48
    expected = np.where(is_flipped[:, None, None, None], slopes[:, :, ::-1], slopes)
    np.testing.assert_allclose(flipped, expected, atol=1e-4)


def test_gamma_bends_grey_levels_and_keeps_black_and_white(slopes: NDArray[np.float32]) -> None:
    levels = slopes.copy()
    levels[:, 0, :, 2], levels[:, 1, :, 2] = 0, 255
    bent = strong(levels, gamma=0.5)[..., 2]
    np.testing.assert_allclose(bent[:, 0], 0, atol=1e-3)
    np.testing.assert_allclose(bent[:, 1], 255, rtol=1e-5)
    power = np.log(bent[:, 5, 5] / 255) / np.log(80 / 255)
    assert 1 / 1.5 - 1e-3 <= power.min() < 0.75 < 1.3 < power.max() <= 1.5 + 1e-3


def test_noise_and_erasing(slopes: NDArray[np.float32]) -> None:
    spread = (strong(slopes, noise=0.1)[..., 2] - 80).std(axis=(1, 2)) / 255
    assert spread.min() < 0.02 < 0.08 < spread.max() < 0.11
    grey = (strong(slopes, erasing=0.5) == 127.5).all(axis=-1)
    share = grey.mean(axis=(1, 2))
    assert 16 < (share > 0).sum() < 48
    assert share.max() < 0.4


@pytest.mark.parametrize(
    ("name", "strengths", "key", "value"),
    [
        ("geometric", BLOG, "rotation", 200),
        ("geometric", BLOG, "zoom", 1.0),
        ("geometric", BLOG, "zoom", -0.1),
        ("chest", CHEST, "crop", "much"),
        ("chest", CHEST, "brightness", 1.5),
        ("strong", STRONG, "scale", 0),
        ("strong", STRONG, "noise", -0.1),
    ],
)
def test_names_a_bad_strength(
    name: str, strengths: dict[str, Any], key: str, value: object
) -> None:
    section = {"_target_": f"pneumonia.training.augment.{name}", **strengths, key: value}
    with pytest.raises(ConfigError, match=f"`augment.{key}`"):
        build(section, "augment")

"""The views of an image that a classifier's answer is the mean over."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from pneumonia.models import multicrop
from pneumonia.models.multicrop import MultiCrop, Shown


def test_the_views_are_the_image_its_corners_its_middle_and_their_mirror_images() -> None:
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1).repeat(3, axis=3)
    views = MultiCrop(flips=True, crop=0.5)
    shown = [Shown(views, index).render(image, 0) for index in range(len(views))]
    assert len(shown) == 12
    np.testing.assert_array_equal(shown[0], image)
    for one, (y, x) in zip(shown[1:6], ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)), strict=True):
        part = image[:, y : y + 4, x : x + 4]
        assert one.shape == image.shape
        # Twice as large, each pixel becomes four, which lie a quarter of a pixel around it.
        means = one.reshape(1, 4, 2, 4, 2, 3).mean((2, 4))
        np.testing.assert_allclose(means[:, 1:-1, 1:-1], part[:, 1:-1, 1:-1], rtol=1e-6)
    for one, other in zip(shown[:6], shown[6:], strict=True):
        np.testing.assert_array_equal(other, one[:, :, ::-1])


def test_without_a_change_there_is_the_image_alone() -> None:
    assert len(MultiCrop()) == 1
    assert len(MultiCrop(flips=True)) == 2
    assert len(MultiCrop(crop=0.9)) == 6
    digests = {Shown(MultiCrop(crop=crop), index).digest for crop in (0.8, 0.9) for index in (1, 2)}
    assert len(digests) == 4


@pytest.mark.parametrize(("crop", "size"), [(0.99, 28), (0.96, 28), (0.01, 28), (0.9, 3)])
def test_no_two_parts_are_the_same(crop: float, size: int) -> None:
    image = keras.Input((size, size, 3))
    model = keras.Model(image, MultiCrop(crop=crop).show(image))
    parts = [one for one in model.layers if isinstance(one, keras.layers.Cropping2D)]
    assert len({one.cropping for one in parts}) == 5
    assert min(min(one.output.shape[1:3]) for one in parts) >= 1


def test_heat_is_laid_where_the_parts_lie() -> None:
    image = keras.Input((8, 8, 3))
    for views in (MultiCrop(crop=0.5), MultiCrop(flips=True, crop=0.5)):
        model = keras.Model(image, keras.ops.concatenate(views.show(image), axis=0))
        heat = np.zeros((len(views), 4, 4), np.float32)
        heat[4] = 1.0  # the corner below, right
        if views.flips:
            heat[6 + 4, :, :1] = 1.0  # its mirror image: the right edge of that corner
        found = multicrop.join_heat(tf.constant(heat), model, flips=views.flips)[0].numpy()
        assert found.shape == (8, 8)
        assert np.all(found[:4] == 0)
        assert np.all(found[:, :4] == 0)
        assert np.all(found[4:, 4:] > 0)
        assert (found[7, 7] > found[7, 4]) == views.flips
        # In the middle other views look as well, which saw nothing.
        assert found[7, 7] > found[4, 4]

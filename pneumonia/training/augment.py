"""Augmentation: random changes of training images. One function each, named by `_target_`.

Every function takes strengths as keyword arguments and returns a pipeline from raw images
`(N, S, S, 3)` in 0..255 to the same shape, or None for no change. Every image of a batch gets a
change of its own. A strength of 0 leaves its layer out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pneumonia.config.constraints import Bounds
from pneumonia.seeding import RENDER, integer

Share: TypeAlias = Annotated[float, Bounds(0, 1)]
Cut: TypeAlias = Annotated[float, Bounds(0, 0.99)]


def none() -> None:
    """Leave the images as they are."""
    return


def geometric(
    *, flip: bool, rotation: Annotated[float, Bounds(0, 180)], zoom: Cut
) -> keras.Sequential | None:
    """Flip, rotate and zoom, as the published study does.

    Args:
        flip: Whether to flip left and right, every other image.
        rotation: Largest angle either way, in degrees, up to 180.
        zoom: Largest change of size either way, as a share, below 1.
    """
    layers = keras.layers
    return _pipeline(
        layers.RandomFlip("horizontal", name="flip") if flip else None,
        layers.RandomRotation(rotation / 360, "nearest", name="rotation") if rotation else None,
        layers.RandomZoom(zoom, fill_mode="nearest", name="zoom") if zoom else None,
    )


def chest(
    *, crop: Cut, shift: Share, brightness: Share, contrast: Share
) -> keras.Sequential | None:
    """Crop, shift and change the exposure, within what a radiograph of the same chest may show.

    Left and right are not exchanged: the heart lies on one side.

    Args:
        crop: Largest share of height and width cut off, below 1.
        shift: Largest shift either way, as a share of height and width, up to 1.
        brightness: Largest change of brightness either way, as a share of white, up to 1.
        contrast: Largest change of contrast either way, as a share, up to 1.
    """
    layers, white = keras.layers, (0, 255)
    return _pipeline(
        layers.RandomZoom((-crop, 0), fill_mode="nearest", name="crop") if crop else None,
        layers.RandomTranslation(shift, shift, "nearest", name="shift") if shift else None,
        layers.RandomBrightness(brightness, white, name="brightness") if brightness else None,
        layers.RandomContrast(contrast, white, name="contrast") if contrast else None,
    )


def strong(
    *,
    scale: Annotated[float, Bounds(above=0, high=1)],
    aspect: Share,
    rotation: Annotated[float, Bounds(0, 180)],
    shift: Share,
    brightness: Share,
    contrast: Share,
    gamma: Share,
    noise: Share,
    erasing: Share,
    flip: bool,
) -> keras.Sequential | None:
    """Change place, size, exposure and detail much more than `chest` does.

    All that moves the pixels is one affine transform, so that they are interpolated once.

    Args:
        scale: Smallest share of the image's area that is shown (random resized crop, Szegedy et
            al., 2015, https://arxiv.org/abs/1409.4842, section 6).
        aspect: Largest change of width to height, either way, as a share.
        rotation: Largest angle either way, in degrees, up to 180.
        shift: Largest shift either way, beyond the edges, as a share of height and width, up to 1.
        brightness: Largest change of brightness either way, as a share of white, up to 1.
        contrast: Largest change of contrast either way, as a share, up to 1.
        gamma: Largest change of the exponent of the grey levels either way, as a share.
        noise: Largest standard deviation of the noise, as a share of white.
        erasing: Share of the images of which a rectangle of 2 to 33 % of the area becomes grey
            (Zhong et al., 2020, https://arxiv.org/abs/1708.04896).
        flip: Whether to flip left and right, every other image.
    """
    layers, white, turn = keras.layers, (0, 255), math.radians(rotation)
    is_moved = flip or scale < 1 or aspect or rotation or shift
    move = functools.partial(
        _move, scale=scale, aspect=aspect, rotation=turn, shift=shift, flip=flip
    )
    bend, grain = functools.partial(_bend, gamma=gamma), functools.partial(_grain, noise=noise)
    erased = (erasing, erasing)
    return _pipeline(
        _Change(move, name="move") if is_moved else None,
        layers.RandomBrightness(brightness, white, name="brightness") if brightness else None,
        layers.RandomContrast(contrast, white, name="contrast") if contrast else None,
        _Change(bend, name="gamma") if gamma else None,
        _Change(grain, name="noise") if noise else None,
        layers.RandomErasing(erased, fill_value=127.5, name="erasing") if erasing else None,
    )


class _Change(keras.layers.Layer):  # type: ignore[misc]
    """Applies a function to images while training; owns the seeds of what that draws."""

    def __init__(
        self, change: Callable[[tf.Tensor, keras.random.SeedGenerator], tf.Tensor], *, name: str
    ) -> None:
        super().__init__(name=name)
        self._change, self._source = change, keras.random.SeedGenerator()

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the images (n, h, w, c) changed."""
        return self._change(images, self._source) if training else images


def _move(
    images: tf.Tensor,
    source: keras.random.SeedGenerator,
    *,
    scale: float,
    aspect: float,
    rotation: float,
    shift: float,
    flip: bool,
) -> tf.Tensor:
    """Show a part of each image, turned and shifted: where it lies in the input, as an affine map.

    A column x, a row y of the output, from the middle, is at `A (x, y) + t` of the input.
    """
    drawn = keras.random.uniform((8, tf.shape(images)[0]), -1.0, 1.0, seed=source)
    area, ratio = 1 - (1 - scale) * (drawn[0] + 1) / 2, (1 + aspect) ** drawn[1]
    # A part that is longer than the image is cut to it.
    sides = tf.minimum(tf.sqrt([area * ratio, area / ratio]), 1.0)
    middle = (tf.cast(tf.shape(images)[1:3], tf.float32)[::-1, None] - 1) / 2
    place = (1 - sides) * middle * drawn[2:4] + 2 * shift * middle * drawn[4:6]
    cos, sin = tf.cos(rotation * drawn[6]), tf.sin(rotation * drawn[6])
    width = tf.where(drawn[7] < 0, -sides[0], sides[0]) if flip else sides[0]
    (ax, ay), (bx, by) = (cos * width, -sin * sides[1]), (sin * width, cos * sides[1])
    x = middle[0] + place[0] - ax * middle[0] - ay * middle[1]
    y = middle[1] + place[1] - bx * middle[0] - by * middle[1]
    maps = tf.stack([ax, ay, x, bx, by, y, tf.zeros_like(x), tf.zeros_like(x)], axis=1)
    return keras.ops.image.affine_transform(images, maps, fill_mode="nearest")


def _bend(images: tf.Tensor, source: keras.random.SeedGenerator, *, gamma: float) -> tf.Tensor:
    """Raise grey levels, of white, to a power of each image's own."""
    shape = (tf.shape(images)[0], 1, 1, 1)
    power = (1 + gamma) ** keras.random.uniform(shape, -1.0, 1.0, seed=source)
    # By logarithms, of which processors take several at once: a third of the time of `**`.
    return tf.exp(math.log(255) + power * tf.math.log(tf.clip_by_value(images, 0, 255) / 255))


def _grain(images: tf.Tensor, source: keras.random.SeedGenerator, *, noise: float) -> tf.Tensor:
    """Add normal noise, the same to all channels: radiographs are grey."""
    shape = tf.shape(images)
    spread = keras.random.uniform((shape[0], 1, 1, 1), 0.0, 255 * noise, seed=source)
    return images + spread * keras.random.normal((*tf.unstack(shape[:3]), 1), seed=source)


@dataclass(frozen=True, slots=True)
class View:
    """One augmented rendering of all the images of a split.

    Attributes:
        pipeline: The augmentation.
        digest: Of the configuration of the augmentation.
        index: Which of the views this is.
        seed: The seed of the training.
    """

    pipeline: keras.Sequential
    digest: str
    index: int
    seed: int

    def render(self, images: NDArray[np.float32], position: int) -> NDArray[np.float32]:
        """Return the images augmented; `position` tells the parts of a split apart."""
        return render(self.pipeline, images, integer(self.seed, RENDER, self.index, position))


def render(
    pipeline: keras.Sequential, images: NDArray[np.float32], seed: int | tuple[int, ...]
) -> NDArray[np.float32]:
    """Render one view of some images: float32 `(N, S, S, 3)` in 0..255, before and after.

    The result depends on the pipeline's settings, the images and the seed only. Which change an
    image gets depends on its place in the call, and on the number of images.
    """
    states = [v for v in pipeline.variables if v.name == "seed_generator_state"]
    entropy = (seed,) if isinstance(seed, int) else seed
    words = np.random.SeedSequence(entropy).generate_state(2 * len(states)) >> 1
    for state, pair in zip(states, words.reshape(-1, 2), strict=True):
        state.assign(pair.astype(state.dtype))
    return np.asarray(_traced(pipeline, images.shape[1:])(tf.constant(images)))


@functools.lru_cache(maxsize=8)
def _traced(pipeline: keras.Sequential, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    def call(images: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(pipeline(images, training=True), 0.0, 255.0)

    # A concrete function: TensorFlow warns of many traces of what looks like one function.
    function = tf.function(call, autograph=False)
    return function.get_concrete_function(tf.TensorSpec((None, *shape), tf.float32))  # type: ignore[no-any-return]


def _pipeline(*layers: keras.layers.Layer | None) -> keras.Sequential | None:
    chosen = [layer for layer in layers if layer is not None]
    return keras.Sequential(chosen, name="augment") if chosen else None

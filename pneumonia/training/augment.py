"""Augmentation: random changes of training images. One function each, named by `_target_`.

Every function takes strengths as keyword arguments and returns a pipeline from raw images
`(N, S, S, 3)` in 0..255 to the same shape, or None for no change. Every image of a batch gets a
change of its own. A strength of 0 leaves its layer out.
"""

from __future__ import annotations

import functools
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

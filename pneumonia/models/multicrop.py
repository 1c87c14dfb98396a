"""What a classifier looks at before it decides: the image, its mirror image, parts of it.

Its answer is the mean over these views. Networks that were trained on random crops have seen things
larger than they are in whole images (Touvron et al., 2019, https://arxiv.org/abs/1906.06423); the
four corners and the middle are those of Krizhevsky et al., 2012.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

MEANS = {False: "views_mean", True: "mirrored_mean"}
"""The names of the operation that ends a mean over views: without and with mirror images."""

_CROP = "crop_"


@dataclass(frozen=True, slots=True)
class MultiCrop:
    """Which views of an image there are; the first is the whole of it.

    Attributes:
        flips: Whether each view's mirror image, left and right exchanged, is one too.
        crop: The share of height and width that five parts show: corners and middle; 1 for none.
    """

    flips: bool = False
    crop: float = 1.0

    def __len__(self) -> int:
        return (6 if self.crop < 1 else 1) * (2 if self.flips else 1)

    def show(self, x: keras.KerasTensor) -> list[keras.KerasTensor]:
        """Return the views of images (n, s, s, 3), of that shape each."""
        size = x.shape[1]
        shown = [x]
        for number, cropping in enumerate(self._croppings(size), start=1):
            part = keras.layers.Cropping2D(cropping, name=f"{_CROP}{number}")(x)
            shown.append(keras.ops.image.resize(part, (size, size)))
        return [*shown, *(keras.ops.flip(one, axis=2) for one in shown if self.flips)]

    def _croppings(self, size: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        if self.crop >= 1:
            return []
        # With less than two pixels cut off, parts would be the same.
        rest = size - max(1, min(size - 2, round(size * self.crop)))
        corners = [((y, rest - y), (x, rest - x)) for y in (0, rest) for x in (0, rest)]
        middle = rest // 2, rest - rest // 2
        return [*corners, (middle, middle)]


WHOLE = MultiCrop()


@dataclass(frozen=True, slots=True)
class Shown:
    """One of the views of a split's images, as an augmentation of them."""

    views: MultiCrop
    index: int
    seed: int = 0

    @property
    def digest(self) -> str:
        """Tells it from other renderings of the same images."""
        return repr(self)

    def render(self, images: NDArray[np.float32], position: int) -> NDArray[np.float32]:
        """Return the view of images, float32 (n, s, s, 3), wherever they stand in the split."""
        del position
        model = _view(self.views, self.index, images.shape[1])
        return np.asarray(model(tf.constant(images), training=False))


@functools.lru_cache(maxsize=16)
def _view(views: MultiCrop, index: int, size: int) -> keras.Model:
    image = keras.Input((size, size, 3))
    return keras.Model(image, views.show(image)[index])


def is_mean(operation: Any) -> bool:
    """Tell whether an operation of a classifier ends its mean over views."""
    return operation.name in MEANS.values()


def join_heat(heat: tf.Tensor, classifier: keras.Model, *, flips: bool) -> tf.Tensor:
    """Return maps (n, H, W) of images, the mean of those of all their views, laid where they lie.

    Args:
        heat: The maps (k n, h, w), in the order of the k views.
        classifier: What was shown them, which has the layers that cut parts out.
        flips: Whether the second half of the views are mirror images.
    """
    crops = [one for one in classifier.operations if one.name.startswith(_CROP)]
    parts = tf.split(heat, (1 + len(crops)) * (2 if flips else 1))
    if flips:
        half = len(parts) // 2
        pairs = zip(parts[:half], parts[half:], strict=True)
        parts = [plain + mirrored[..., ::-1] for plain, mirrored in pairs]
    return _lay(parts, crops) if crops else parts[0]


def _lay(parts: Sequence[tf.Tensor], crops: Sequence[keras.layers.Cropping2D]) -> tf.Tensor:
    size = crops[0].input.shape[1]
    total = tf.image.resize(parts[0][..., None], (size, size))
    seen = np.ones((1, size, size, 1), np.float32)
    for part, crop in zip(parts[1:], crops, strict=True):
        around = ((0, 0), *crop.cropping, (0, 0))
        side = size - sum(crop.cropping[0])
        total += tf.pad(tf.image.resize(part[..., None], (side, side)), around)
        seen = seen + np.pad(np.ones((1, side, side, 1), np.float32), around)
    return (total / seen)[..., 0]

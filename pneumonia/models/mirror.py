"""The mirror image, left and right exchanged, which a classifier may look at beside the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEAN = "mirrored_mean"
"""The name of the operation that ends the mean over an image and its mirror image."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The mirror images of a split's images, as an augmentation of them."""

    index: int = 1
    seed: int = 0

    @property
    def digest(self) -> str:
        """Tells it from other renderings of the same images."""
        return repr(self)

    def render(self, images: NDArray[np.float32], position: int) -> NDArray[np.float32]:
        """Return the mirror images of float32 (n, s, s, 3), wherever they stand in the split."""
        del position
        return np.ascontiguousarray(images[:, :, ::-1])

"""The data of a search: images, labels and where they come from, checked once and then frozen.

Nothing here knows a file format or a library of datasets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pneumonia.datasets import oddities
from pneumonia.errors import DataError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.integer]

SPLITS = ("train", "val", "test")
_BATCH = 256


class ImageSource(Protocol):
    """Images that are read when they are asked for."""

    def __len__(self) -> int: ...

    def read(self, indices: Indices) -> Sequence[Images] | Images:
        """Return uint8 images (H, W, C) with C in {1, 3}, by indices in any order, repeats allowed.

        As an array (n, H, W, C) where all have one shape, a list of n arrays otherwise.
        """
        ...


class ArraySource:
    """Images in one array: uint8 of shape (N, H, W, C) with C in {1, 3}, or (N, H, W).

    Raises:
        DataError: Where the array has another type or shape.
    """

    __slots__ = ("_images",)

    def __init__(self, images: Images) -> None:
        if images.dtype != np.uint8:
            raise DataError(f"Images: expected uint8 values. Received: {images.dtype}.")
        if images.ndim == 3:
            images = images[..., np.newaxis]
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
            raise DataError(
                "Images: expected the shape (N, H, W), (N, H, W, 1) or (N, H, W, 3). "
                f"Received: {images.shape}."
            )
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Indices) -> Images:
        """Return the images as one array (n, H, W, C)."""
        return self._images[np.asarray(indices, dtype=np.int64)]


class ChosenSource:
    """Some of the images of a source, by their indices in it, as a source."""

    __slots__ = ("_chosen", "_images")

    def __init__(self, images: ImageSource, chosen: Indices) -> None:
        self._images, self._chosen = images, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, indices: Indices) -> Sequence[Images] | Images:
        """Return the images in the order of `indices`."""
        return self._images.read(self._chosen[np.asarray(indices, dtype=np.int64)])


@dataclass(frozen=True, slots=True)
class Split:
    """The images of one split with their labels; `build_split` makes and checks it.

    Attributes:
        name: `train`, `val` or `test`.
        images: The N images.
        labels: int64 of shape (N,); 0 is the negative class, 1 the positive one.
        names: What each image is called: a file name, or `train/17`.
        digest: sha256, as 64 hexadecimal digits, of images and labels in their order.
        hashes: sha256 of each image's shape and pixels, or of its file (32 bytes each).
        blank: How many images have one value all over.
        patients: Whom each image is of, or empty where that is not known.
    """

    name: str
    images: ImageSource
    labels: Labels
    names: Sequence[str]
    digest: str
    hashes: Sequence[bytes] = ()
    blank: int = 0
    patients: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class ImageData:
    """A dataset for a binary classifier; `build_data` makes and checks it.

    Attributes:
        name: A short name, such as `pneumonia_mnist`.
        class_names: The negative class, the positive class.
        train: What a classifier is fitted to.
        val: What trials are ranked by.
        test: What the winner is scored on, and nothing is chosen by.
        source: Where the images come from, for people.
        duplicates: For `train/val`, `train/test` and `val/test`, how many images of the second
            split also occur, byte for byte, in the first.
        shared_patients: Likewise, how many patients have images in both.
        notes: A line for each thing about the images that people should know.
    """

    name: str
    class_names: tuple[str, str]
    train: Split
    val: Split
    test: Split
    source: str
    duplicates: Mapping[str, int]
    shared_patients: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def build_split(
    name: str,
    images: ImageSource,
    *,
    labels: npt.ArrayLike,
    names: Sequence[str] | None = None,
    hashes: Sequence[bytes] | None = None,
    blank: int = 0,
    patients: Sequence[str] = (),
) -> Split:
    """Check N images against labels, the integers 0 and 1 of shape (N,), and make a split of them.

    By default, names are `<split>/<index>`, hashes are of shapes and pixels, and blank images are
    counted.

    Raises:
        DataError: For an empty split, a split with one class, or labels that do not fit.
    """
    checked = _check_labels(name, np.asarray(labels), count=len(images))
    if names is None:
        names = [f"{name}/{index}" for index in range(len(images))]
    if hashes is None:
        hashes, blank = _scan(images)
    return Split(name, images, checked, names, _digest(hashes, checked), hashes, blank, patients)


def build_data(
    name: str,
    splits: Sequence[Split],
    *,
    class_names: Sequence[str],
    source: str,
    notes: Sequence[str] = (),
    shared_patients: Mapping[str, int] | None = None,
) -> ImageData:
    """Check that train, val and test, in this order, belong together; count what is odd.

    Raises:
        DataError: Where images of the splits differ in their channels, or the class names do
            not fit.
    """
    if len(class_names) != 2 or class_names[0] == class_names[1]:
        raise DataError(
            "Class names: expected two different names, the negative class first. "
            f"Received: {list(class_names)}."
        )
    channels = {split.name: split.images.read(np.array([0]))[0].shape[-1] for split in splits}
    if len(set(channels.values())) > 1:
        listed = ", ".join(f"{count} in {name}" for name, count in channels.items())
        raise DataError(f"Channels: expected one number in all splits. Received: {listed}.")
    duplicates = {
        f"{first.name}/{second.name}": sum(map(frozenset(first.hashes).__contains__, second.hashes))
        for first, second in combinations(splits, 2)
    }
    train, val, test = splits
    pair = (class_names[0], class_names[1])
    odd = (*notes, *oddities.find(splits, class_names))
    shared = shared_patients or {}
    return ImageData(name, pair, train, val, test, source, duplicates, shared, odd)


def choose(split: Split, kept: Indices) -> Split:
    """Return some images of a split, by their indices in it, as a split of the same name.

    Raises:
        DataError: Where none of a class is left.
    """
    others = ChosenSource(split.images, np.setdiff1d(np.arange(len(split)), kept))
    return build_split(
        split.name,
        ChosenSource(split.images, kept),
        labels=split.labels[kept],
        names=[split.names[index] for index in kept],
        hashes=[split.hashes[index] for index in kept],
        blank=split.blank and split.blank - _scan(others)[1],
        patients=[split.patients[index] for index in kept] if split.patients else (),
    )


def _check_labels(name: str, labels: npt.NDArray[np.generic], *, count: int) -> Labels:
    if count == 0:
        raise DataError(f"Split {name!r}: expected images. Received: none.")
    if labels.shape != (count,):
        raise DataError(
            f"Split {name!r}: expected labels of the shape ({count},), one for each image. "
            f"Received: {labels.shape}."
        )
    values = np.unique(labels)
    if labels.dtype.kind not in "biu" or not np.isin(values, (0, 1)).all():
        shown = ", ".join(str(value) for value in values[:8]) + (", …" if len(values) > 8 else "")
        raise DataError(f"Split {name!r}: expected the labels 0 and 1. Received: {shown}.")
    if len(values) == 1:
        raise DataError(
            f"Split {name!r}: expected images of both classes. "
            f"Received: {count} with the label {int(values[0])}."
        )
    return labels.astype(np.int64)


def _scan(images: ImageSource) -> tuple[list[bytes], int]:
    """Return the sha256 of each image's shape and pixels, and how many images are blank."""
    hashes, blank = [], 0
    for start in range(0, len(images), _BATCH):
        read = images.read(np.arange(start, min(start + _BATCH, len(images))))
        blank += sum(map(_count_blank, [read] if isinstance(read, np.ndarray) else read))
        for image in read:
            header = "x".join(map(str, image.shape)).encode()
            hashes.append(hashlib.sha256(header + b":" + image.tobytes()).digest())
    return hashes, blank


def _count_blank(images: Images) -> int:
    """Count images of one value all over among some (n, H, W, C), or tell of one (H, W, C)."""
    pixels = images.reshape(len(images) if images.ndim == 4 else 1, -1, images.shape[-1])
    few = pixels[:, :: 1 + pixels.shape[1] // 64]  # of most images, few pixels tell
    pixels = pixels[(few == few[:, :1]).all(axis=(1, 2))]
    return int((pixels == pixels[:, :1]).all(axis=(1, 2)).sum())


def _digest(hashes: Sequence[bytes], labels: Labels) -> str:
    """Return the sha256 of images and labels, order included, as hexadecimal digits."""
    state = hashlib.sha256(b"".join(hashes))
    state.update(labels.astype("<i8").tobytes())
    return state.hexdigest()

"""Splits and datasets: checks, digests, duplicates."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pneumonia.datasets.base import (
    ArraySource,
    ImageData,
    Split,
    build_data,
    build_split,
)
from pneumonia.errors import DataError


def draw(count: int, seed: int = 0, size: int = 12, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def split(name: str, images: np.ndarray, labels: Any = None) -> Split:
    labels = np.arange(len(images)) % 2 if labels is None else labels
    return build_split(name, ArraySource(images), labels=labels)


def build(*arrays: np.ndarray, class_names: tuple[str, ...] = ("a", "b")) -> ImageData:
    splits = [split(*pair) for pair in zip(("train", "val", "test"), arrays, strict=True)]
    return build_data("some", splits, class_names=class_names, source="here")


def test_a_split_has_int64_labels_and_default_names() -> None:
    result = split("val", draw(4), np.array([0, 1, 1, 0], dtype=np.uint8))
    assert result.labels.dtype == np.int64
    assert result.labels.tolist() == [0, 1, 1, 0]
    assert result.names == ["val/0", "val/1", "val/2", "val/3"]
    assert len(result) == len(result.images) == 4


def test_a_grey_array_without_channels_gets_one() -> None:
    images = draw(3)
    read = ArraySource(images[..., 0]).read(np.array([2, 0]))
    assert np.array_equal(read, images[[2, 0]])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (draw(2).astype(np.float32), "expected uint8 values. Received: float32"),
        (draw(2).astype(np.int64), "Received: int64"),
        (np.zeros((2, 12), np.uint8), r"Received: \(2, 12\)"),
        (np.zeros((2, 12, 12, 2), np.uint8), r"Received: \(2, 12, 12, 2\)"),
        (np.zeros((2, 12, 12, 4), np.uint8), r"Received: \(2, 12, 12, 4\)"),
        (np.zeros((2, 0, 12, 1), np.uint8), r"Received: \(2, 0, 12, 1\)"),
    ],
)
def test_images_of_another_type_or_shape_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArraySource(images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 0], "expected the labels 0 and 1. Received: 0, 1, 2"),
        ([-1, 1, 1, 1], "Received: -1, 1"),
        ([0.0, 1.0, 1.0, 0.0], "expected the labels 0 and 1"),
        (["0", "1", "1", "0"], "expected the labels 0 and 1"),
        ([1, 1, 1, 1], "both classes. Received: 4 with the label 1"),
        ([0, 0, 0, 0], "both classes. Received: 4 with the label 0"),
        ([0, 1, 1], r"shape \(4,\)"),
        ([[0], [1], [1], [0]], r"Received: \(4, 1\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split("train", draw(4), labels)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"Split 'test': expected images. Received: none"):
        split("test", draw(0))


def test_channels_must_agree_between_splits() -> None:
    with pytest.raises(DataError, match="Received: 1 in train, 3 in val, 1 in test"):
        build(draw(4), draw(4, channels=3), draw(4))


@pytest.mark.parametrize("class_names", [("a",), ("a", "b", "c"), ("a", "a")])
def test_class_names_must_be_two(class_names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="two different names"):
        build(draw(4), draw(4), draw(4), class_names=class_names)


def test_the_digest_tells_images_labels_order_and_shape_apart() -> None:
    images, labels = draw(6), np.array([0, 1, 0, 1, 0, 1])
    changed = images.copy()
    changed[3, 4, 5] ^= 1
    variants = [
        (images, labels),
        (changed, labels),
        (images, labels[::-1]),
        (images[::-1], labels[::-1]),
        (images.reshape(6, 6, 24, 1), labels),
        (images[:5], labels[:5]),
    ]
    digests = [split("train", *variant).digest for variant in variants]
    assert len(set(digests)) == len(variants)
    assert digests[0] == split("val", images.copy(), labels.astype(np.uint8)).digest
    assert all(len(digest) == 64 for digest in digests)


def test_duplicates_are_counted_for_each_pair_of_splits() -> None:
    train, val, test = draw(6, 1), draw(4, 2), draw(4, 3)
    val[0] = train[5]
    test[1] = test[2] = train[0]
    assert build(train, val, test).duplicates == {"train/val": 1, "train/test": 2, "val/test": 0}


def test_the_dataclasses_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        split("train", draw(4)).name = "val"  # type: ignore[misc]


def test_importing_the_data_modules_imports_no_framework() -> None:
    code = (
        "import sys, pneumonia.datasets.sources, pneumonia.datasets.chest_phantom;"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'tensorflow_datasets'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

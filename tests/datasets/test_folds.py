"""Folds are stratified, and hold together what belongs together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pneumonia.datasets.base import ArraySource, ImageData, build_data, build_split
from pneumonia.datasets.folds import divide
from pneumonia.errors import ConfigError


def data(train: int = 53, val: int = 20, *, copies: int = 0, patients: int = 0) -> ImageData:
    """Return noise, a quarter of it negative; the last images of val are copies of train's first.

    Of so many patients each has some images of train and some of val.
    """
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(256, size=(train, 8, 8), dtype=np.uint8)}
    images["val"] = rng.integers(256, size=(val, 8, 8), dtype=np.uint8)
    images["test"] = rng.integers(256, size=(4, 8, 8), dtype=np.uint8)
    if copies:
        images["val"][-copies:] = images["train"][:copies]
    splits = [
        build_split(
            name,
            ArraySource(pixels),
            labels=(np.arange(len(pixels)) % 4 > 0).astype(int),
            patients=[f"patient {i % patients}" for i in range(len(pixels))] if patients else (),
        )
        for name, pixels in images.items()
    ]
    return build_data("noise", splits, class_names=("normal", "ill"), source="made up")


def labels_of(given: ImageData) -> np.ndarray:
    return np.concatenate([given.train.labels, given.val.labels])


def test_folds_are_alike_in_size_and_classes() -> None:
    given = data()
    found = divide(given, 5, seed=1)
    counts = np.stack([np.bincount(labels_of(given)[found == k], minlength=2) for k in range(5)])
    assert found.shape == (73,)
    assert np.ptp(counts, axis=0).tolist() == [1, 1]
    assert np.ptp(counts.sum(axis=1)) == 1
    assert np.array_equal(found, divide(given, 5, seed=1))
    assert not np.array_equal(found, divide(given, 5, seed=2))


def test_copies_and_patients_stay_together() -> None:
    given = data(copies=3, patients=11)
    found = divide(given, 4, seed=1)
    assert np.array_equal(found[-3:], found[:3])
    of = [*given.train.patients, *given.val.patients]
    folds_of = {one: {k for k, other in zip(found, of, strict=True) if other == one} for one in of}
    assert {len(folds) for folds in folds_of.values()} == {1}
    sizes = np.bincount(found)
    assert len(sizes) == 4
    assert sizes.min() > 10


def test_splits_without_digests_are_divided_too() -> None:
    given = data()
    train, val = (dataclasses.replace(one, hashes=()) for one in (given.train, given.val))
    assert (
        len(np.bincount(divide(dataclasses.replace(given, train=train, val=val), 3, seed=0))) == 3
    )


@pytest.mark.parametrize(
    ("made", "folds", "told"),
    [
        ({"train": 8, "val": 4}, 4, "There are 3 different images of class 'normal'"),
        ({"train": 8, "val": 4, "patients": 2}, 3, "There are 1 patients or images of class"),
    ],
)
def test_more_folds_than_a_class_has_images_apart(
    made: dict[str, int], folds: int, told: str
) -> None:
    with pytest.raises(ConfigError, match=r"`objective\.folds`: expected so few folds") as caught:
        divide(data(**made), folds, seed=1)
    assert told in str(caught.value)

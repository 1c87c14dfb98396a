"""What val or test has too is named, and left out of train where that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumonia.datasets import duplicates
from pneumonia.datasets.base import ArraySource, ImageData, Split, build_data, build_split
from pneumonia.datasets.cache import load_data
from pneumonia.errors import ConfigError

ROWS = np.random.default_rng(0).integers(0, 256, (40, 9, 9, 1), dtype=np.uint8)


def split(name: str, rows: list[int], labels: list[int]) -> Split:
    return build_split(name, ArraySource(ROWS[rows]), labels=labels)


def build(
    train: tuple[list[int], list[int]], val: list[int], test: list[int], *notes: str
) -> ImageData:
    splits = [split("train", *train), split("val", val, [0, 1, 0]), split("test", test, [0, 1, 0])]
    return build_data("some", splits, class_names=("a", "b"), source="here", notes=notes)


def test_a_copy_leaves_train_and_stays_in_val_and_test() -> None:
    # Row 7 is in train twice and in val and test; 5 is in test; 1 is twice in train alone.
    rows, labels = [1, 1, 7, 3, 7, 5, 4], [0, 0, 1, 1, 1, 0, 1]
    given = build((rows, labels), [11, 7, 12], [5, 7, 13], "an own note")
    assert given.notes[0] == "an own note"
    assert any(
        note == "images that are in two splits: 'train/2' is 'val/1', 'train/5' is 'test/0', "
        "'train/2' is 'test/1', 'val/1' is 'test/1'"
        for note in given.notes
    )
    data = duplicates.drop(given)
    whole = build(([1, 1, 3, 4], [0, 0, 1, 1]), [11, 7, 12], [5, 7, 13])
    assert data.train.digest == whole.train.digest != given.train.digest
    assert data.train.names == ["train/0", "train/1", "train/3", "train/6"]
    assert np.array_equal(data.train.images.read(np.array([3, 0])), ROWS[[4, 1]])
    assert (data.val, data.test) == (given.val, given.test)
    assert data.duplicates == {"train/val": 0, "train/test": 0, "val/test": 1}
    assert data.notes[:2] == (
        "an own note",
        "left out of train, as another split has them: 2 of val, 1 of test",
    )
    assert data.notes[2:] == whole.notes
    assert duplicates.drop(whole) is whole


def test_the_patients_of_what_is_left_are_known() -> None:
    given = build(([1, 7, 3], [0, 1, 1]), [11, 7, 12], [20, 21, 22])
    train = replace(given.train, patients=["one", "two", "three"])
    data = duplicates.drop(replace(given, train=train))
    assert list(data.train.patients) == ["one", "three"]
    assert duplicates.drop(given).train.patients == ()


def test_a_copy_with_another_label_is_told() -> None:
    data = duplicates.drop(build(([1, 7, 3], [0, 0, 1]), [11, 7, 12], [20, 21, 22]))
    assert data.notes[0].endswith(
        ": 1 of val, 0 of test; 1 of them with another label there, such as 'train/1' and 'val/1'"
    )


def test_a_class_that_would_be_gone_is_one_message() -> None:
    with pytest.raises(
        ConfigError, match=r"`dataset.drop_duplicates`: expected false.*Split 'train"
    ):
        duplicates.drop(build(([1, 7], [0, 1]), [11, 7, 12], [20, 21, 22]))


def test_blank_images_are_counted_again() -> None:
    images = ROWS.copy()
    images[[1, 7]] = [[[[0]]], [[[9]]]]
    made = [
        build_split(name, ArraySource(images[rows]), labels=[0, 1, 0, 1])
        for name, rows in (("train", [1, 7, 2, 3]), ("val", range(7, 11)), ("test", range(11, 15)))
    ]
    data = duplicates.drop(build_data("x", made, class_names=("a", "b"), source="here"))
    assert (made[0].blank, data.train.blank) == (2, 1)


def test_any_dataset_takes_the_key(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {}
    for name, rows in (("train", [1, 2, 3, 4]), ("val", [4, 5]), ("test", [6, 7])):
        arrays |= {f"{name}_images": ROWS[rows, ..., 0], f"{name}_labels": np.arange(len(rows)) % 2}
    np.savez(tmp_path / "some.npz", **arrays)
    section = {"_target_": "pneumonia.datasets.sources.npz", "path": str(tmp_path / "some.npz")}
    sizes = [
        len(load_data({"dataset": {**section, **own}}).train)
        for own in ({}, {"drop_duplicates": False}, {"drop_duplicates": True})
    ]
    assert sizes == [4, 4, 3]


def test_the_copies_of_pneumonia_mnist(pneumonia_mnist: Path) -> None:
    section = {"_target_": "pneumonia.datasets.sources.npz", "path": str(pneumonia_mnist)}
    data = load_data({"dataset": {**section, "drop_duplicates": True}})
    assert len(data.train) == 4698
    assert "left out of train, as another split has them: 10 of val, 0 of test" in data.notes

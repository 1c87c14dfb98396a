"""A dataset on its way to another machine comes to the same there, without its files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumonia.datasets import duplicates, shipping
from pneumonia.datasets.base import ImageData
from pneumonia.datasets.chest_phantom import phantom
from pneumonia.datasets.sources import image_folder
from pneumonia.errors import ConfigError


def write_images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("normal", "pneumonia"):
            (folder / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 256, (20, 16 + index), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    again = folder / "train" / "normal" / "again.png"
    shutil.copyfile(folder / "val" / "normal" / "0.png", again)
    return folder


def assert_same(one: ImageData, other: ImageData) -> None:
    assert (one.name, one.notes, one.duplicates) == (other.name, other.notes, other.duplicates)
    for a, b in ((one.train, other.train), (one.val, other.val), (one.test, other.test)):
        assert (a.digest, list(a.names)) == (b.digest, list(b.names))
        np.testing.assert_array_equal(a.labels, b.labels)
        every = np.arange(len(a))
        for left, right in zip(a.images.read(every), b.images.read(every), strict=True):
            np.testing.assert_array_equal(left, right)


def sent(data: ImageData) -> shipping.Packed:
    """Pack, as it comes out at the other end: arrays are read-only there."""
    packed: shipping.Packed = pickle.loads(pickle.dumps(shipping.pack(data)))
    for array in packed.arrays:
        array.flags.writeable = False
    return packed


def test_arrays_go_as_they_are(tmp_path: Path) -> None:
    data = phantom(train=40, val=20, test=20, image_size=32)
    packed = sent(data)
    assert len(packed.text) < 40 * 32 * 32  # the images are beside it
    assert_same(shipping.unpack(packed, tmp_path, fetch=None), data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("drops", [False, True])
def test_image_files_are_copied_once(drops: bool, tmp_path: Path) -> None:
    data = image_folder(path=str(write_images(tmp_path / "images")))
    data = duplicates.drop(data) if drops else data
    packed, asked = sent(data), []
    files = [shipping.read_files(packed, number) for number in range(len(packed.files))]
    shutil.copytree(tmp_path / "images", tmp_path / "kept")
    shutil.rmtree(tmp_path / "images")

    def fetch(number: int) -> list[shipping.Array]:
        asked.append(number)
        return files[number]

    found = [shipping.unpack(packed, tmp_path / "node", fetch=fetch) for _ in range(2)]
    assert sorted(asked) == list(range(len(packed.files)))
    (tmp_path / "kept").rename(tmp_path / "images")
    for one in found:
        assert_same(one, data)


def taken(data: ImageData, node: Path) -> ImageData:
    """Return a dataset as a node gets it that may have copies of others."""
    packed = sent(data)
    return shipping.unpack(packed, node, fetch=lambda number: shipping.read_files(packed, number))


def test_files_of_other_names_are_copied_as_well(tmp_path: Path) -> None:
    images, node = write_images(tmp_path / "images"), tmp_path / "node"
    taken(image_folder(path=str(images)), node)
    for path in images.rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    data = image_folder(path=str(images))
    assert_same(taken(data, node), data)


def test_files_without_those_that_were_left_out_are_copied_as_well(tmp_path: Path) -> None:
    """The splits are the same, and the places of their images among the files are not."""
    images, node = write_images(tmp_path / "images"), tmp_path / "node"
    dropped = duplicates.drop(image_folder(path=str(images)))
    taken(dropped, node)
    (images / "train" / "normal" / "again.png").unlink()
    data = image_folder(path=str(images))
    assert data.train.digest == dropped.train.digest
    assert_same(taken(data, node), data)


def test_a_file_that_has_gone_is_told_as_where_it_is_read(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    data = image_folder(path=str(images))
    packed = sent(data)
    (images / "train" / "normal" / "0.png").unlink()
    with pytest.raises(ConfigError) as there:
        shipping.read_files(packed, 0)
    with pytest.raises(ConfigError) as here:
        data.train.images.read(np.arange(2))
    assert str(there.value).lower().startswith(str(here.value).lower().rstrip("."))

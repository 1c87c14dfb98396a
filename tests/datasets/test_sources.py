"""Files in MedMNIST's format and folders of images: valid datasets, or one clear error."""

from __future__ import annotations

import os
import re
import shlex
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_dicom import write_dicom

from pneumonia.config.instantiate import build
from pneumonia.datasets import dicom
from pneumonia.datasets.base import ImageData
from pneumonia.datasets.sources import image_folder, npz
from pneumonia.errors import ConfigError

Arrays = dict[str, Any]


def arrays(count: int = 6, shape: tuple[int, ...] = (28, 28)) -> Arrays:
    rng = np.random.default_rng(0)
    result: Arrays = {}
    for name in ("train", "val", "test"):
        result[f"{name}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        result[f"{name}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return result


def save_image(
    path: Path, value: int, *, size: tuple[int, int] = (12, 10), mode: str = "L"
) -> None:
    """Save an image that no other value has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size[::-1], value % 251, np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[-1, -1] = value // 251, value % 7, 255  # never blank
    Image.fromarray(pixels).convert(mode).save(path)


def save_folder(root: Path, splits: tuple[str, ...], count: int = 4) -> Path:
    """Save `count` images for either class of each split; '' for a folder that is not divided."""
    value = 0
    for split in splits:
        for name in ("PNEUMONIA", "NORMAL"):
            for n in range(count):
                save_image(root / split / name / f"{name.lower()}{n:03}.png", value)
                value += 1
    return root


def names(data: ImageData) -> dict[str, set[str]]:
    return {split.name: set(split.names) for split in (data.train, data.val, data.test)}


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (64, 48), (224, 224, 3)])
def test_npz_of_any_size(tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = arrays(shape=shape)
    np.savez_compressed(tmp_path / "some.npz", **content)
    data = npz(path=str(tmp_path / "some.npz"), class_names=["well", "ill"])
    assert data.name == "some"
    assert data.class_names == ("well", "ill")
    assert data.val.labels.tolist() == [0, 1, 0, 1, 0, 1]
    read = np.asarray(data.val.images.read(np.arange(6)))
    assert np.array_equal(read.reshape(content["val_images"].shape), content["val_images"])


def test_npz_with_flat_labels(tmp_path: Path) -> None:
    content = arrays()
    for name in ("train", "val", "test"):
        content[f"{name}_labels"] = content[f"{name}_labels"][:, 0].astype(np.int32)
    np.savez(tmp_path / "a.npz", **content)
    assert npz(path=str(tmp_path / "a.npz")).class_names == ("negative", "positive")


def test_npz_reads_the_official_file(pneumonia_mnist: Path) -> None:
    data = npz(path=str(pneumonia_mnist))
    assert [len(split) for split in (data.train, data.val, data.test)] == [4708, 524, 624]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_images": None}, "It lacks val_images; it holds test_images, "),
        ({"train_labels": np.arange(6)[:, None]}, "6 classes; this is a multi-class task"),
        ({"train_labels": np.zeros((6, 14), int)}, "14 per image; this is a multi-label task"),
        ({"test_labels": np.zeros((6, 1), int)}, "'test': expected images of both classes"),
        ({"test_labels": np.zeros((5, 1), int)}, r"shape \(6,\)"),
        ({"train_images": np.full((6, 28, 28), 0.5)}, r"float64 from 0 to 1; \(255 \* images\)"),
        ({"train_images": np.full((6, 28, 28), 9.0)}, "Received: float64"),
        ({"train_images": np.zeros((6, 28, 28), np.uint16)}, "Received: uint16"),
        ({"train_images": np.zeros((6, 3, 28, 28), np.uint8)}, r"images.transpose\(0, 2, 3, 1\)"),
        ({"train_images": np.zeros((6, 784), np.uint8)}, r"Received: \(6, 784\)"),
        ({"train_labels": np.eye(2, dtype=int)[[0, 1] * 3]}, r"one-hot rows: labels.argmax"),
        ({"train_labels": np.array([1, 2] * 3)}, "labels 0 and 1. Received: 1, 2"),
        ({"train_labels": np.array([0.0, 1.0] * 3)}, "integers 0 and 1. Received: float64"),
        ({"train_labels": np.array(["a", "b"] * 3)}, "integers 0 and 1. Received: <U1"),
        ({"train_labels": np.uint8(1)}, r"Received: \(\)"),
        ({"train_labels": np.array([{}] * 6, dtype=object)}, "a pickle, which is never loaded"),
        ({"train_images": np.zeros((6, 28, 28, 28), np.uint8)}, r"Received: \(6, 28, 28, 28\)"),
        ({"train_images": np.zeros((6, 28, 28, 3), np.uint8)}, "3 in train, 1 in val"),
        ({"train_images": np.zeros((6, 4, 4), np.uint8)}, "Received: 4 x 4"),
        ({"train_images": np.zeros((0, 28, 28), np.uint8)}, "'train': expected images"),
        ({"train_images": np.array([{}] * 6, dtype=object)}, "a pickle, which is never loaded"),
    ],
)
def test_npz_of_another_task_is_refused(tmp_path: Path, change: Arrays, message: str) -> None:
    content = {key: value for key, value in (arrays() | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(ConfigError, match=message) as caught:
        npz(path=str(tmp_path / "a.npz"))
    assert str(caught.value).startswith(
        "`dataset.path`: expected an .npz file in MedMNIST's format"
    )
    assert f"Received: {str(tmp_path / 'a.npz')!r}. " in str(caught.value)


@pytest.mark.parametrize("kept", [0, 100, -10, -1000])
def test_npz_that_is_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigError, match="an empty file" if kept == 0 else "cut off or damaged"):
        npz(path=str(path))


@pytest.mark.parametrize("source", [npz, image_folder])
def test_a_path_is_needed(source: Callable[..., ImageData]) -> None:
    with pytest.raises(ConfigError, match=r"`dataset\.path`"):
        build({"_target_": f"{source.__module__}.{source.__name__}", "path": None}, "dataset")


def test_folders_with_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_folder(tmp_path / "xray", ("train", "val", "test"))
    (tmp_path / "xray" / ".cache").mkdir()
    (tmp_path / "xray" / "__MACOSX").mkdir()
    (tmp_path / "xray" / "train" / "NORMAL" / "notes.txt").write_text("no image")
    (tmp_path / "xray" / "train" / "NORMAL" / "._normal000.png").write_text("no image")
    monkeypatch.chdir(tmp_path)
    data = image_folder(path="xray")
    assert data.name == "xray"
    assert data.class_names == ("NORMAL", "PNEUMONIA")
    assert [len(split) for split in (data.train, data.val, data.test)] == [8, 8, 8]
    assert data.val.names[0] == "val/NORMAL/normal000.png"
    assert data.val.labels.tolist() == [0] * 4 + [1] * 4
    assert data.train.images.read(np.array([0])).shape == (1, 10, 12, 1)
    assert data.duplicates == {"train/val": 0, "train/test": 0, "val/test": 0}


def test_the_digest_follows_the_bytes(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    first = image_folder(path=str(tmp_path))
    save_image(tmp_path / "val" / "NORMAL" / "normal002.png", 200)
    second = image_folder(path=str(tmp_path))
    assert first.train.digest == second.train.digest
    assert first.val.digest != second.val.digest


def test_duplicates_in_a_folder_are_counted(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    source = tmp_path / "train" / "NORMAL" / "normal001.png"
    (tmp_path / "test" / "NORMAL" / "copy.png").write_bytes(source.read_bytes())
    # The file counts, not its pixels.
    Image.open(source).save(tmp_path / "test" / "NORMAL" / "again.png", compress_level=0)
    assert image_folder(path=str(tmp_path)).duplicates["train/test"] == 1


def test_one_colour_image_makes_all_rgb(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    save_image(tmp_path / "test" / "NORMAL" / "colour.png", 99, mode="RGB")
    data = image_folder(path=str(tmp_path))
    assert data.train.images.read(np.array([0]))[0].shape == (10, 12, 3)


def test_a_missing_val_is_split_off_train(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "test"), count=20)
    data = image_folder(path=str(tmp_path), val_fraction=0.25)
    assert [len(split) for split in (data.train, data.val, data.test)] == [30, 10, 40]
    assert data.val.labels.mean() == 0.5
    assert not names(data)["train"] & names(data)["val"]


def test_an_undivided_folder_is_split_by_the_seed(tmp_path: Path) -> None:
    save_folder(tmp_path, ("",), count=30)
    first, again, other = (image_folder(path=str(tmp_path), seed=seed) for seed in (1, 1, 2))
    assert [len(split) for split in (first.train, first.val, first.test)] == [42, 6, 12]
    assert all(split.labels.mean() == 0.5 for split in (first.train, first.val, first.test))
    assert len(set().union(*names(first).values())) == 60
    assert names(first) == names(again)
    assert names(first) != names(other)


def test_one_more_image_hardly_changes_the_division(tmp_path: Path) -> None:
    save_folder(tmp_path, ("",), count=50)
    before = names(image_folder(path=str(tmp_path)))
    save_image(tmp_path / "NORMAL" / "aaa_new.png", 500)
    after = names(image_folder(path=str(tmp_path)))
    assert sum(len(before[name] - after[name]) for name in before) <= 2


def test_a_name_that_is_no_text_is_divided(tmp_path: Path) -> None:
    folder = save_folder(tmp_path, ("",)) / "NORMAL"
    (folder / "normal000.png").rename(folder / "f\udce9.png")
    assert "NORMAL/f\udce9.png" in set().union(*names(image_folder(path=str(tmp_path))).values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_patient_stays_in_one_split(tmp_path: Path, seed: int) -> None:
    value = 0
    for name, offset in (("NORMAL", 0), ("PNEUMONIA", 15)):
        for person in range(offset, offset + 25):  # persons 15 to 24 have images of both classes
            for n in range(1 + person % 4):
                save_image(tmp_path / name / f"person{person}_{name}_{n}.png", value)
                value += 1
    save_image(tmp_path / "NORMAL" / "unnamed.png", value)
    data = image_folder(
        path=str(tmp_path), val_fraction=0.2, seed=seed, patient_pattern=r"person(\d+)_"
    )
    patients = [
        {name.split("/")[1].split("_")[0] for name in part} for part in names(data).values()
    ]
    assert sum(len(part) for part in patients) == len(set().union(*patients)) == 41
    total = sum(len(split) for split in (data.train, data.val, data.test))
    assert total == value + 1
    assert abs(len(data.val) - 0.2 * total) < 8
    assert abs(len(data.test) - 0.2 * total) < 8
    assert data.notes[-1] == (
        f"files that dataset.patient_pattern does not match: 1 of {total}, such as "
        "'NORMAL/unnamed.png'; each counts as a patient of its own"
    )


def test_patients_in_two_given_splits_are_counted(tmp_path: Path) -> None:
    people = {"train": (1, 2, 3, 4), "val": (4, 5), "test": (1, 4, 6)}
    value = 0
    for split, numbers in people.items():
        for class_name in ("NORMAL", "PNEUMONIA"):
            for number in numbers:
                value += 1
                save_image(tmp_path / split / class_name / f"person{number}_{value}.png", value)
            save_image(tmp_path / split / class_name / "unnamed.png", value + 500)
    pattern = r"person(\d+)_"
    data = image_folder(path=str(tmp_path), patient_pattern=pattern)
    assert data.shared_patients == {"train/val": 1, "train/test": 2, "val/test": 1}
    assert len(data.train.patients) == len(data.train)
    assert any("not match: 6 of 24, such as 'train/NORMAL/unn" in note for note in data.notes)
    assert image_folder(path=str(tmp_path)).shared_patients == {}
    with pytest.raises(ConfigError, match="No file name matches"):
        image_folder(path=str(tmp_path), patient_pattern=r"patient(\d+)")
    with pytest.raises(ConfigError, match="It has no group"):
        image_folder(path=str(tmp_path), patient_pattern="person")


def test_patients_that_are_kept_together_are_shared_by_none(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "test"), count=20)
    data = image_folder(path=str(tmp_path), patient_pattern=r"(\d\d)\.png")
    assert data.shared_patients["train/val"] == 0
    assert not data.notes
    assert data.shared_patients["train/test"] > 10


def test_classes_that_are_numbers(tmp_path: Path) -> None:
    for n in range(8):
        save_image(tmp_path / str(n % 2) / f"{n}.png", n)
    assert image_folder(path=str(tmp_path), positive=0).class_names == ("1", "0")


@pytest.mark.parametrize(
    ("folders", "positive", "expected"),
    [
        (("PNEUMONIA", "NORMAL"), None, ("NORMAL", "PNEUMONIA")),
        (("PNEUMONIA", "NORMAL"), "NORMAL", ("PNEUMONIA", "NORMAL")),
        (("bacteria", "virus"), None, ("bacteria", "virus")),
        (("bacteria", "virus"), "bacteria", ("virus", "bacteria")),
        (("abnormal", "normal"), None, ("normal", "abnormal")),
        (("1", "0"), None, ("0", "1")),
        (("cat", "Healthy"), None, ("Healthy", "cat")),
        (("normal", "healthy"), None, ("healthy", "normal")),
        (("Effusion", "No Finding"), None, ("No Finding", "Effusion")),
        (("COVID", "non-COVID"), None, ("non-COVID", "COVID")),
        (("Pneumonia", "not_pneumonia"), None, ("not_pneumonia", "Pneumonia")),
        (("TB", "Without TB"), None, ("Without TB", "TB")),
        (("Normal", "Not normal"), None, ("Normal", "Not normal")),
        (("Healthy", "non-healthy"), None, ("Healthy", "non-healthy")),
        (("nodule", "notch"), None, ("nodule", "notch")),
        (("mass", "nodule"), None, ("mass", "nodule")),
    ],
)
def test_which_class_is_positive(
    tmp_path: Path, folders: tuple[str, str], positive: str | None, expected: tuple[str, str]
) -> None:
    for number, name in enumerate(folders):
        for n in range(4):
            save_image(tmp_path / name / f"{n}.png", 10 * number + n)
    data = image_folder(path=str(tmp_path), positive=positive, test_fraction=0.25)
    assert data.class_names == expected
    for label, name in zip(data.train.labels, data.train.names, strict=True):
        assert name.split("/")[0] == expected[label]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"positive": "SICK"}, "positive"),
        ({"val_fraction": 0}, "val_fraction"),
        ({"test_fraction": 1.5}, "test_fraction"),
        ({"val_fraction": "some"}, "val_fraction"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "val_fraction"),
        ({"patient_pattern": "("}, "patient_pattern"),
        ({"patient_pattern": r"\d+"}, "patient_pattern"),
        ({"patient_pattern": r"patient(\d+)"}, "patient_pattern"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tmp_path: Path, arguments: Arrays, key: str) -> None:
    save_folder(tmp_path, ("",))
    with pytest.raises(ConfigError, match=rf"`dataset\.{key}`"):
        image_folder(path=str(tmp_path), **arguments)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "expected two class folders. Received: none"),
        (["a.png"], "Received: none; the images lie in this very folder"),
        (["NORMAL/a.png"], r"expected two class folders. Received: \['NORMAL'\]"),
        (["a/1.png", "b/1.png", "c/1.png"], r"Received: \['a', 'b', 'c'\]"),
        (
            ["train/a/1.png", "train/b/1.png", "validation/a/1.png"],
            "'validation'; rename it to val",
        ),
        (["train/a/1.png", "train/b/1.png", "more/a/1.png"], "Received: 'more'"),
        (["train/a/1.png", "train/b/1.png", "Train/a/1.png"], "at most one of a kind"),
        (["training/a/1.png", "testing/a/1.png"], "'testing'; rename it to test"),
        (["val/a/1.png", "test/a/1.png"], "expected a folder train"),
        (["x/a/1.png", "x/b/1.png"], "those are in .*/x"),
        (["a/train/1.png", "b/train/1.png", "b/test/1.png"], r"\['a', 'b'\], with a train in it"),
        (["a/1.png", "b/1.jp2"], "no images, but files of the kind .jp2"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"], "the same in all"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/x.txt"], "val/b: expected PNG"),
        (["train/a/x.txt", "train/b/x.txt"], "no images"),
        (["train/a/1.png", "train/b/x.txt"], "no images"),
        (
            ["a/1.png", "b/1.png"],
            "at least 3 images to divide into train, val and test. Received: 1",
        ),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for number, name in enumerate(files):
        save_image((tmp_path / name).with_suffix(".png"), number)
        (tmp_path / name).with_suffix(".png").rename(tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        image_folder(path=str(tmp_path))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Received: '.*/nowhere'\. There is no such folder"):
        image_folder(path=str(tmp_path / "nowhere"))


def test_all_files_that_cannot_be_used_are_counted_and_a_few_named(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    for n in range(7):
        (tmp_path / "val" / "NORMAL" / f"bad{n}.png").write_bytes(b"x" * n)
    save_image(tmp_path / "test" / "NORMAL" / "tiny.png", 1, size=(2, 1))
    with pytest.raises(ConfigError) as caught:
        image_folder(path=str(tmp_path))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        "`dataset.path`: expected a folder with images in two classes. Recei"
    )
    assert lines[0].endswith("8 of 32 files cannot be used:")
    assert lines[1].endswith("bad0.png: an empty file.")
    assert len(lines) == 7
    assert lines[-1].strip() == "and 3 more."


def test_deep_images_are_read_alike_or_refused_when_the_folder_is_opened(tmp_path: Path) -> None:
    root = save_folder(tmp_path / "x", ("train", "val", "test"))
    before = image_folder(path=str(root)).train
    for path in sorted(root.rglob("*.png")):
        values = np.asarray(Image.open(path)).astype(np.uint16) * 257
        tifffile.imwrite(path, values, photometric="minisblack", metadata=None)
    after = image_folder(path=str(root)).train
    indices = np.arange(len(before.labels))
    np.testing.assert_array_equal(after.images.read(indices), before.images.read(indices))
    tifffile.imwrite(path, np.full((9, 9), np.nan, np.float32))
    with pytest.raises(ConfigError, match=f"{path.name}: cannot be decoded .pixels that are not"):
        image_folder(path=str(root))


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    root = save_folder(tmp_path / "data", ("train", "val", "test"))
    (root / "val" / "NORMAL" / "link.png").symlink_to(root / "train" / "NORMAL" / "normal000.png")
    assert image_folder(path=str(root)).duplicates["train/val"] == 1
    (tmp_path / "alias").symlink_to(root)
    assert len(image_folder(path=str(tmp_path / "alias")).val) == 9


@pytest.mark.parametrize("kind", ["file", "class folder", "folder", "split", "broken"])
def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path, kind: str) -> None:
    root = save_folder(tmp_path / "data", ("train", "val"))
    outside = save_folder(tmp_path / "outside", ("",)) / "NORMAL"
    link, target = {
        "file": (root / "val" / "NORMAL" / "link.png", outside / "normal000.png"),
        "class folder": (root / "test" / "NORMAL", outside),
        "folder": (root / "val" / "NORMAL" / "more", outside),
        "split": (root / "test", outside.parent),
        "broken": (root / "val" / "NORMAL" / "link.png", tmp_path / "nowhere.png"),
    }[kind]
    if kind == "class folder":
        save_image(root / "test" / "PNEUMONIA" / "a.png", 1)
    link.symlink_to(target)
    with pytest.raises(ConfigError, match=rf"Symbolic links: .*{link.name}"):
        image_folder(path=str(root))


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    save_image(tmp_path / "val" / "NORMAL" / "more" / "a.png", 99)
    assert "val/NORMAL/more/a.png" in image_folder(path=str(tmp_path)).val.names


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            for n in range(12):
                path = tmp_path / split / name / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.effect_noise((512, 512), 30).save(path)
    tracemalloc.start()
    data = image_folder(path=str(tmp_path))
    for start in range(0, 24, 4):
        data.train.images.read(np.arange(start, start + 4))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 512 * 512  # of 72 images of 512 x 512


def save_archive(root: Path) -> Path:
    """Save a dataset as Kaggle's archive of it is unpacked: a copy and leftovers beside it."""
    for folder in (root, root / root.name):
        save_folder(folder, ("train", "val", "test"), count=2)
        for name in (".DS_Store", "Thumbs.db", "._.DS_Store", "train/NORMAL/._normal000.jpeg"):
            (folder / name).write_bytes(b"left behind")
        for name in ("__MACOSX", "__MACOSX/train", "train/NORMAL/__MACOSX"):
            (folder / name).mkdir()
            (folder / name / "._normal000.jpeg").write_bytes(b"left behind")
        save_image(folder / "train" / "NORMAL" / ".ipynb_checkpoints" / "copy.png", 1)
        save_image(folder / "train" / "NORMAL" / "@eaDir" / "thumb.png", 1)
    return root


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("chest_xray", "chest_xray/chest_xray"),
        ("", "chest_xray/chest_xray"),
        ("chest_xray/chest_xray/train/NORMAL", "chest_xray/chest_xray"),
    ],
)
def test_of_the_kaggle_archive_the_folder_that_works_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    save_archive(tmp_path / "my archive" / "chest_xray")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        image_folder(path=str(Path("my archive", given)))
    (command,) = re.findall("those are in `(.*)`", str(caught.value))
    (word,) = shlex.split(command)
    assert word == f"dataset.path=my archive/{meant}"
    data = image_folder(path=word.removeprefix("dataset.path="))
    assert [len(split) for split in (data.train, data.val, data.test)] == [4, 4, 4]
    assert not data.notes


@pytest.mark.parametrize(
    ("files", "given", "meant"),
    [
        (["x/y/z/a/1.png", "x/y/z/b/1.png"], "x", "x/y/z"),  # one sub-folder to go into
        (["x/train/train/a/1.png", "x/train/train/b/1.png"], "x", "x/train"),
        (["x/deep/train/a/1.png", "x/deep/train/b/1.png", "x/c/1.png"], "x", "x/deep"),
        (["a/1.png", "b/1.png"], "a", ""),
        (["train/a/1.png", "train/b/1.png"], "train/b", ""),
        (["train/a/1.png", "train/b/1.png", "extra/c/1.png"], "", None),
        (["a/p/1.png", "a/q/1.png", "b/p/1.png", "c/p/1.png"], "", None),  # no two classes
    ],
)
def test_the_folder_that_works_is_looked_for(
    tmp_path: Path, files: list[str], given: str, meant: str | None
) -> None:
    for number, name in enumerate(files):
        for copy in range(3):
            save_image((tmp_path / name).with_name(f"{copy}.png"), 3 * number + copy)
    with pytest.raises(ConfigError) as caught:
        image_folder(path=str(tmp_path / given))
    found = re.findall("those are in `dataset.path=(.*)`", str(caught.value))
    assert found == ([] if meant is None else [str(tmp_path / meant)])
    assert all(len(image_folder(path=path).train) for path in found)


@pytest.mark.parametrize("name", ["pipe.png", "pipe.dcm", "pipe", "1.2.840"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    os.mkfifo(tmp_path / "val" / "NORMAL" / name)
    if name.endswith(("png", "dcm")):
        with pytest.raises(ConfigError, match=f"{name}: not a file"):
            image_folder(path=str(tmp_path))
    else:
        assert image_folder(path=str(tmp_path)).notes[0].endswith("1 without a suffix")


def test_a_zip_file_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="unpack it first"):
        image_folder(path=str(tmp_path / "a.zip"))


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    for name in ("a.gif", "b.GIF", "c.txt", "notes", "x.y z", ".hidden", "desktop.ini"):
        (tmp_path / "train" / "NORMAL" / name).write_bytes(b"no image")
    (tmp_path / "val" / "PNEUMONIA" / "d.gif").write_bytes(b"no image")
    data = image_folder(path=str(tmp_path))
    assert data.notes == (
        "files in class folders that are left out: 3 .gif, 2 without a suffix, 1 .txt",
    )


@pytest.mark.parametrize(
    ("suffix", "format"),
    [
        (".jfif", "JPEG"),
        (".jpe", "JPEG"),
        (".JIF", "JPEG"),
        (".webp", "WEBP"),
        (".apng", "PNG"),
        (".dib", "BMP"),
    ],
)
def test_images_of_rarer_suffixes_are_images(tmp_path: Path, suffix: str, format: str) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    pixels = np.linspace(0, 255, 30 * 20).reshape(30, 20).astype(np.uint8)
    path = tmp_path / "val" / "NORMAL" / f"x{suffix}"
    Image.fromarray(pixels).save(path, format=format, quality=95)
    data = image_folder(path=str(tmp_path))
    assert not data.notes
    assert len(data.val) == 9
    read = data.val.images.read(np.array([data.val.names.index(f"val/NORMAL/x{suffix}")]))[0]
    assert np.abs(read[..., 0].astype(int) - pixels).max() < 8


def test_dicom_is_trained_on_beside_other_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    ramp = np.linspace(0, 255, 30 * 20).reshape(30, 20).astype(np.uint8)
    for name in ("train/NORMAL/d.dcm", "train/NORMAL/IM000001", "val/NORMAL/1.2.840.77"):
        write_dicom(tmp_path / name, ramp)
    write_dicom(tmp_path / "test" / "NORMAL" / "named.png", ramp)
    write_dicom(tmp_path / "test" / "NORMAL" / "even.dcm", np.full((16, 16), 7, np.uint16))
    data = image_folder(path=str(tmp_path))
    assert [len(split) for split in (data.train, data.val, data.test)] == [10, 9, 10]
    assert data.notes == ("blank images, of one value all over: 1 in test",)
    for split, name in (
        (data.train, "train/NORMAL/IM000001"),
        (data.test, "test/NORMAL/named.png"),
    ):
        read = split.images.read(np.array([split.names.index(name), 5]))
        assert np.array_equal(read[0][..., 0], ramp)
    save_image(tmp_path / "train" / "NORMAL" / "colour.png", 9, mode="RGB")
    assert image_folder(path=str(tmp_path)).train.images.read(np.array([0]))[0].shape[-1] == 3
    monkeypatch.setattr(dicom, "is_supported", lambda: False)
    (tmp_path / "test" / "NORMAL" / "named.png").unlink()
    data = image_folder(path=str(tmp_path))
    assert data.notes == (
        "files in class folders that are left out: 4 DICOM",
        f"DICOM files are read with the package pydicom: {dicom.EXTRA}",
    )


def test_a_class_of_dicom_alone_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(tmp_path / "a" / "1.png", 1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "IM1").write_bytes(bytes(128) + b"DICM")
    monkeypatch.setattr(dicom, "is_supported", lambda: False)
    with pytest.raises(
        ConfigError, match=r"of the kind DICOM; pip install 'pydicom>=3' 'python-gdcm>=3.0.24'"
    ):
        image_folder(path=str(tmp_path))


def test_blank_images_and_repeated_ones_in_an_npz_are_told(tmp_path: Path) -> None:
    content = arrays(count=40)
    content["test_images"][:5] = np.arange(5, dtype=np.uint8)[:, None, None]
    content["val_images"][3] = content["val_images"][1]
    content["test_images"][10] = content["train_images"][7]  # the labels 0 and 1
    content["val_labels"][:] = 0
    content["val_labels"][4] = 1
    np.savez(tmp_path / "a.npz", **content)
    data = npz(path=str(tmp_path / "a.npz"))
    assert data.notes == (
        "blank images, of one value all over: 5 in test",
        "images that repeat another of the same split: 1 in val",
        "images that are in two splits: 'train/7' is 'test/10'",
        "images that are in both classes: 1, such as 'test/10' and 'train/7'",
        "class 'positive' has a single image in val",
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "I;16", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_blank_images_in_a_folder_are_told(tmp_path: Path, mode: str, suffix: str) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    path = tmp_path / "test" / "NORMAL" / f"even{suffix}"
    try:
        Image.fromarray(np.zeros((700, 500), np.uint8)).convert(mode).save(path)
    except OSError:
        pytest.skip("the format has no such mode")
    data = image_folder(path=str(tmp_path))
    assert data.notes == ("blank images, of one value all over: 1 in test",)


def test_an_image_in_both_class_folders_is_told(tmp_path: Path) -> None:
    save_folder(tmp_path, ("train", "val", "test"))
    source = tmp_path / "train" / "NORMAL" / "normal001.png"
    for name in ("train/PNEUMONIA/x.png", "val/PNEUMONIA/y.png", "train/NORMAL/z.png"):
        (tmp_path / name).write_bytes(source.read_bytes())
    data = image_folder(path=str(tmp_path))
    assert data.duplicates["train/val"] == 1
    assert data.notes == (
        "images that repeat another of the same split: 2 in train",
        "images that are in two splits: 'train/NORMAL/normal001.png' is 'val/PNEUMONIA/y.png'",
        "images that are in both classes: 1, such as 'train/NORMAL/normal001.png' and "
        "'train/PNEUMONIA/x.png'",
    )

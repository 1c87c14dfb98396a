"""Where images come from: one function per source, named by `_target_` in `conf/dataset/`.

A function takes plain values and returns a checked `ImageData`. Relative paths count from the
current folder, `~` is the home folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pneumonia.config import constraints
from pneumonia.config.constraints import CLASS_NAMES, FOLDER, PLACE, SEED, Bounds
from pneumonia.datasets import dicom, division, folders, npz_files, tfds
from pneumonia.datasets.base import SPLITS, ArraySource, ImageData, Split, build_data, build_split
from pneumonia.datasets.decode import FileSource, read_header
from pneumonia.datasets.folders import Files
from pneumonia.datasets.image_files import MIN_SIDE, Header
from pneumonia.errors import ConfigError, DataError

Share: TypeAlias = Annotated[float, Bounds(0, below=1)]


def pneumonia_mnist(
    *,
    data_dir: Annotated[str, PLACE] | None = None,
    manual_dir: Annotated[str, FOLDER] | None = None,
) -> ImageData:
    """Read PneumoniaMNIST through TensorFlow Datasets, which prepares it the first time.

    4,708 + 524 + 624 grey images of 28 x 28 pixels (Yang et al., MedMNIST v2, Scientific Data
    10:41, 2023; images from Kermany et al., Cell 172, 2018). Looked for in this order: prepared in
    `data_dir`, the file `pneumoniamnist.npz` in `manual_dir`, the download.

    Args:
        data_dir: Where TFDS keeps prepared datasets; by default `TFDS_DATA_DIR` of the
            environment or `~/tensorflow_datasets`.
        manual_dir: The folder of a file fetched by hand.

    Raises:
        UserError: Where it can be neither read nor prepared, or the file is not the official one.
    """
    return tfds.load(data_dir, manual_dir)


def npz(
    *,
    path: Annotated[str, constraints.path("an .npz file in MedMNIST's format that exists")],
    class_names: Annotated[Sequence[str], CLASS_NAMES] | None = None,
) -> ImageData:
    """Read a file in MedMNIST's format with two classes.

    Args:
        path: An .npz file with `train_images` and `train_labels`, the same for val and test:
            images uint8 of shape (N, H, W) or (N, H, W, 3), labels 0 and 1 of shape (N, 1) or
            (N,).
        class_names: The names of label 0 and of label 1; `negative` and `positive` by default.

    Raises:
        ConfigError: For a file that is missing, damaged, or of another task.
    """
    expected = "an .npz file in MedMNIST's format with two classes"
    file = Path(path).expanduser()
    keys = [f"{name}_{what}" for name in SPLITS for what in ("images", "labels")]
    with _told(expected, path):
        arrays = npz_files.read(file, keys)
        splits = []
        for name in SPLITS:
            images = ArraySource(_check_images(arrays[f"{name}_images"]))
            labels = _flatten_labels(arrays[f"{name}_labels"])
            splits.append(build_split(name, images, labels=labels))
        names = class_names or ("negative", "positive")
        return build_data(file.stem, splits, class_names=names, source=str(file.resolve()))


def image_folder(
    *,
    path: Annotated[str, constraints.path("a folder with images in two classes that exists")],
    val_fraction: Share = 0.1,
    test_fraction: Share = 0.2,
    seed: Annotated[int, SEED] = 0,
    patient_pattern: str | None = None,
    positive: str | int | None = None,
) -> ImageData:
    r"""Read PNG, JPEG, BMP, TIFF and WebP files from class folders, and DICOM with pydicom.

    `path` holds `train`, `val` and `test` with two class folders each, or the two class folders
    alone. What is missing of val and test is split off train. Headers are checked now, pixels are
    decoded when they are read; `image_files` says how unusual files are.

    Args:
        path: The folder.
        val_fraction: Fraction of the images for val, where the folder has no val.
        test_fraction: Fraction of the images for test, where the folder has no test.
        seed: Another seed splits in another way.
        patient_pattern: A regular expression with a group that finds the patient in a file's
            name, such as `(person\d+|IM-\d+)`; of several groups the first that matches. The
            images of a patient are not split up, and patients that given splits share are
            counted. Files without a match are patients of their own, and told.
        positive: The folder of the positive class; `folders.order_classes` says what counts
            without it.

    Raises:
        ConfigError: For what does not fit or cannot be read.
    """
    expected = "a folder with images in two classes"
    root = Path(path).expanduser()
    with _told(expected, path):
        files, left_out = folders.find_files(root)
        class_names = folders.order_classes(files, None if positive is None else str(positive))
        is_divided = len(files) > 1
        fractions = {"val": val_fraction, "test": test_fraction}
        files = _complete(files, fractions, seed=seed, pattern=patient_pattern)
        root, patients = root.resolve(), division.find_patients(files, patient_pattern)
        return build_data(
            root.name,
            _build_splits(files, class_names, patients),
            class_names=class_names,
            source=str(root),
            notes=(*_describe(left_out), *_describe_unmatched(files, patients)),
            shared_patients=division.count_shared(patients) if is_divided else {},
        )


@contextlib.contextmanager
def _told(expected: str, path: str) -> Iterator[None]:
    """Say of what is wrong with the data which key of the config leads to them."""
    try:
        yield
    except DataError as error:
        raise ConfigError("dataset.path", expected, path, str(error).rstrip(".")) from error


def _check_images(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Say of arrays that are nearly right how to put them right."""
    if images.dtype.kind == "f" and images.size and 0 <= images.min() <= images.max() <= 1:
        raise DataError(
            f"Images: expected uint8 values. Received: {images.dtype} from 0 to 1; "
            "(255 * images).round().astype('uint8') converts them."
        )
    if images.ndim == 4 and images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        raise DataError(
            "Images: expected the channels last, (N, H, W, C). "
            f"Received: {images.shape}; images.transpose(0, 2, 3, 1) puts them there."
        )
    if images.ndim in (3, 4) and min(images.shape[1:3]) < MIN_SIDE:
        height, width = images.shape[1:3]
        raise DataError(
            f"Images: expected at least {MIN_SIDE} pixels a side. Received: {width} x {height}."
        )
    return images


def _flatten_labels(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if labels.ndim == 2 and labels.shape[1] > 1:
        is_one_hot = bool(
            labels.size and (labels.max(axis=1) == 1).all() and labels.sum() == len(labels)
        )
        kind = "one-hot rows: labels.argmax(axis=1)" if is_one_hot else "this is a multi-label task"
        raise DataError(
            "Labels: expected one label per image, 0 or 1. "
            f"Received: {labels.shape[1]} per image; {kind}."
        )
    if labels.dtype.kind not in "biu":
        raise DataError(f"Labels: expected the integers 0 and 1. Received: {labels.dtype} values.")
    values = np.unique(labels)
    if labels.ndim <= 2 and len(values) > 2:
        raise DataError(
            "Labels: expected the two classes 0 and 1. "
            f"Received: {len(values)} classes; this is a multi-class task."
        )
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _complete(
    files: Files, fractions: Mapping[str, float], *, seed: int, pattern: str | None
) -> Files:
    """Split what is missing of val and test off train."""
    fractions = {name: value for name, value in fractions.items() if name not in files}
    for name, value in fractions.items():
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ConfigError(f"dataset.{name}_fraction", "a number between 0 and 1", value)
    if sum(fractions.values()) >= 1:
        expected = "less than 1 together with dataset.test_fraction"
        raise ConfigError("dataset.val_fraction", expected, fractions["val"])
    if not fractions:
        return files
    return files | division.divide(files["train"], fractions, seed=seed, pattern=pattern)


def _read_headers(paths: Sequence[Path]) -> dict[Path, Header]:
    """Check all files; name the first few that cannot be read in one error."""
    headers, faults = {}, []
    for path in paths:
        try:
            headers[path] = read_header(path)
        except DataError as error:
            faults.append(str(error))
    if faults:
        listed = folders.list_some(faults, separator="\n  ")
        raise DataError(f"{len(faults)} of {len(paths)} files cannot be used:\n  {listed}")
    return headers


def _build_splits(
    files: Files, class_names: Sequence[str], patients: Mapping[str, Sequence[str]]
) -> list[Split]:
    headers = _read_headers([file.path for name in SPLITS for file in files[name]])
    channels = 3 if any(header.is_colour for header in headers.values()) else 1
    splits = []
    for name in SPLITS:
        paths = [file.path for file in files[name]]
        split = build_split(
            name,
            FileSource(paths, channels=channels),
            labels=[class_names.index(file.class_name) for file in files[name]],
            names=[file.name for file in files[name]],
            hashes=[headers[path].sha256 for path in paths],
            blank=sum(headers[path].is_blank for path in paths),
            patients=patients.get(name, ()),
        )
        splits.append(split)
    return splits


def _describe(left_out: Mapping[str, int]) -> Iterator[str]:
    """Return a line on the files that are no images, and one that says how DICOM is read."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    if ordered:
        listed = folders.list_some([f"{count:,} {kind}" for kind, count in ordered])
        yield f"files in class folders that are left out: {listed}"
    if dicom.DICOM in left_out:
        yield f"DICOM files are read with the package pydicom: {dicom.EXTRA}"


def _describe_unmatched(files: Files, patients: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if unmatched := division.find_unmatched(files, patients):
        count, total = len(unmatched), sum(map(len, patients.values()))
        yield (
            f"files that dataset.patient_pattern does not match: {count:,} of {total:,}, such as "
            f"{unmatched[0]!r}; each counts as a patient of its own"
        )

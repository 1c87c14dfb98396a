"""Image files through a classifier, a bounded number of images in memory at a time."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pneumonia import terminal
from pneumonia.datasets import dicom, image_files
from pneumonia.errors import DataError, UserError
from pneumonia.models import overlays
from pneumonia.shell import as_path

if TYPE_CHECKING:
    import keras

Image = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Classify = Callable[[Image], Probabilities]

_WILDCARDS = frozenset("*?[")
_WORKERS = min(4, os.cpu_count() or 1)
# A batch ends where its images have so many values together: 64 MB as floats.
_BATCH_VALUES = 16_000_000
_REASON_LENGTH = 200


def find_files(names: Sequence[str]) -> list[Path]:
    """Find the files that names stand for, each once, in the order of the names.

    Args:
        names: Files; folders, with all the images below them; or patterns with `*`, `?`, `[...]`
            and `**`. In folders a file counts by its suffix or, where it has none, its being
            DICOM. In folders and patterns, names that begin with a dot do not count, nor do the
            heat maps that were made of other images.

    Raises:
        UserError: Where a name stands for nothing, or DICOM files are among those found and
            pydicom is not installed.
    """
    found: dict[Path, None] = {}
    for name in names:
        for path in _match(name):
            found.update(dict.fromkeys(_images_below(path) if path.is_dir() else [path]))
    paths = list(found)
    if not dicom.is_supported():
        needing = next((path for path in paths if dicom.is_dicom(path)), None)
        if needing is not None:
            raise UserError(
                f"{needing}: a DICOM file, which needs the package pydicom: {dicom.EXTRA}"
            )
    return paths


def decode(path: Path) -> Image:
    """Decode an image file or a DICOM file.

    Returns:
        uint8 of shape (H, W, C), C in {1, 3}.

    Raises:
        DataError: Where it cannot be; its text starts with the path.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a file.")
    return dicom.decode(path) if dicom.is_dicom(path) else image_files.decode(path, channels=3)


def decode_batches(
    paths: Sequence[Path], *, batch_size: int
) -> Iterator[list[tuple[Path, Image | DataError]]]:
    """Decode files batch by batch, in their order, as the batches are asked for.

    Args:
        paths: The files.
        batch_size: The most files in a batch; large images make smaller batches.

    Yields:
        Paths and their images, or the reason why there is none.
    """
    batch: list[tuple[Path, Image | DataError]] = []
    values = 0
    # Pillow decodes without holding the interpreter's lock.
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(paths), _WORKERS):
            chunk = paths[start : start + _WORKERS]
            for path, image in zip(chunk, pool.map(_try_decode, chunk), strict=True):
                size = image.size if isinstance(image, np.ndarray) else 0
                if batch and (len(batch) == batch_size or values + size > _BATCH_VALUES):
                    yield batch
                    batch, values = [], 0
                batch.append((path, image))
                values += size
    if batch:
        yield batch


def load_model(file: Path) -> keras.Model:
    """Load a classifier, which takes seconds where TensorFlow is not loaded yet.

    Raises:
        UserError: Where the file is not a classifier, or runs code of its own.
    """
    from pneumonia import startup

    startup.start()
    from pneumonia.models import classifier

    try:
        model = classifier.load(file)
    except Exception as error:  # Keras raises errors of many kinds
        reason = " ".join(str(error).split())[:_REASON_LENGTH]
        raise UserError(f"{file}: Keras cannot load it as a classifier ({reason}).") from error
    _check_model(file, model)
    return model


def classifying(model: keras.Model) -> Classify:
    """Return a classifier as a function.

    Returns:
        A function of uint8 images (n, H, W, C) of any one size, which gives the float32
        probabilities (n,) of the positive class.
    """
    import tensorflow as tf

    # One signature for all sizes: tracing again for each takes longer than the images do.
    call = tf.function(
        lambda images: model(images, training=False), autograph=False
    ).get_concrete_function(tf.TensorSpec((None, None, None, None), tf.uint8))
    return lambda images: np.asarray(call(tf.constant(images)), np.float32)[:, 0]


def classify_all(images: Sequence[Image], classify: Classify) -> Probabilities:
    """Return the probabilities (n,) of images of any sizes; equal sizes go together."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[image.shape].append(index)
    probabilities = np.empty(len(images), np.float32)
    for indices in groups.values():
        probabilities[indices] = classify(np.stack([images[index] for index in indices]))
    return probabilities


def _match(name: str) -> list[Path]:
    path = as_path(name)
    try:
        if path.exists():
            return [path]
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}.") from error
    if not _WILDCARDS & set(name):
        raise UserError(f"{name}: no such file or folder.")
    try:
        pattern = str(path.relative_to(path.anchor))
        found = sorted(Path(path.anchor).glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{name}: not a pattern ({error}).") from error
    visible = [one for one in found if not _is_hidden(one.name)]
    if not visible:
        raise UserError(f"{name}: the pattern matches no file.")
    return visible


def _images_below(folder: Path) -> list[Path]:
    """Return a folder's images, and those of its sub-folders, in the order of their paths."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not _is_hidden(name)]
    kinds = {path: dicom.kind_of(path) for path in found}
    images = [path for path, kind in kinds.items() if kind in (dicom.IMAGE, dicom.DICOM)]
    # Notes and tables beside images are not meant; pictures of other formats are.
    types = ((kind, mimetypes.guess_type(f"x{kind}")[0] or "") for kind in kinds.values())
    others = Counter(kind for kind, type_ in types if type_.startswith("image/"))
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    if not images:
        told = f", only {listed}, which is not read" if listed else ""
        raise UserError(f"{folder}: no image in this folder{told}.")
    if listed:
        terminal.say(f"{folder}: left out, as it is not read: {listed}.")
    return sorted(images)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.endswith(overlays.SUFFIX)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: {error.strerror}.") from error


def _try_decode(path: Path) -> Image | DataError:
    try:
        return decode(path)
    except DataError as error:
        return error
    except OSError as error:  # a folder that one may list but not enter
        return DataError(f"{path}: {error.strerror}.")


def _check_model(file: Path, model: keras.Model) -> None:
    takes = [(tensor.dtype, len(tensor.shape)) for tensor in model.inputs]
    gives = [tuple(tensor.shape) for tensor in model.outputs]
    if takes != [("uint8", 4)] or gives != [(None, 1)]:
        raise UserError(
            f"{file}: expected a classifier, from uint8 images (n, height, width, channels) to "
            f"probabilities (n, 1). Received: a model from {takes} to {gives}."
        )

"""PneumoniaMNIST through TensorFlow Datasets (TFDS): prepared once, read from then on.

TFDS left to itself waits for minutes on a host it cannot reach, so the file it needs is looked
for, checked and fetched here; the preparing and the reading are its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock

from pneumonia import files, startup
from pneumonia.datasets.base import SPLITS, ArraySource, ImageData, build_data, build_split
from pneumonia.errors import ConfigError, DataError
from pneumonia.network import within

NAME = "pneumonia_mnist"
REACH_SECONDS = 6.0
READ_SECONDS = 20.0


def load(data_dir: str | None, manual_dir: str | None) -> ImageData:
    """Prepare PneumoniaMNIST where that has not been done yet, then read it.

    `sources.pneumonia_mnist` tells of the arguments; `manual_dir` is `downloads/manual` in
    `data_dir` by default, as in TFDS. Safe for two processes at once, and after one that was
    interrupted: TFDS prepares in a folder of its own and renames it, here under a lock.
    """
    with _quiet():
        root = _root(data_dir)
        try:
            builder = _build(root)
            if not builder.is_prepared():
                root.mkdir(parents=True, exist_ok=True)
                with FileLock(root / f"{NAME}.lock"):
                    builder = _build(root)
                    if not builder.is_prepared():
                        _prepare(builder, root, manual_dir)
        except OSError as error:
            expected, reason = "a folder for prepared datasets", f"It cannot be used: {error}"
            raise ConfigError("dataset.data_dir", expected, str(root), reason) from error
        return _read(builder)


def is_prepared(data_dir: str | None) -> bool:
    """Tell whether the dataset can be read without fetching or preparing it; nothing is written."""
    with _quiet():
        return bool(_build(_root(data_dir)).is_prepared())


def _root(data_dir: str | None) -> Path:
    """Return where prepared datasets are; TFDS' own place if it is not said."""
    import tensorflow_datasets as tfds

    return Path(data_dir or tfds.core.constants.DATA_DIR).expanduser().absolute()


def _build(root: Path) -> Any:
    """Return TFDS' builder of the dataset, which knows what is prepared in `root`."""
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    try:
        return tfds.builder(NAME, data_dir=root)
    except (ParseError, ValueError) as error:
        raise _damaged(root / NAME) from error


def _prepare(builder: Any, root: Path, manual_dir: str | None) -> None:
    import tensorflow_datasets as tfds

    folder = Path(builder.data_path)
    if folder.exists():
        raise _damaged(folder)
    file = _find_file(builder, root, manual_dir)
    download_config = tfds.download.DownloadConfig(manual_dir=file.parent, try_download_gcs=False)
    startup.start()
    builder.download_and_prepare(download_config=download_config)


def _find_file(builder: Any, root: Path, manual_dir: str | None) -> Path:
    """Return the file that TFDS prepares from: fetched by hand, fetched before, or now."""
    url, expected = next(iter(builder.url_infos.items()))
    by_hand = (
        f"Pass dataset.manual_dir=<folder with {expected.filename}>, fetched by hand from {url}, "
        "or dataset=phantom, which needs nothing"
    )
    folder = Path(manual_dir or root / "downloads" / "manual").expanduser().absolute()
    file = folder / str(expected.filename)
    if not file.is_file():
        if manual_dir:
            wanted = f"a folder with {expected.filename}"
            raise ConfigError("dataset.manual_dir", wanted, str(folder), by_hand)
        try:
            fetch(url, file)
        except OSError as error:
            wanted = f"{NAME} prepared there, or {urlsplit(url).hostname} within reach"
            reason = f"The host cannot be reached ({error}). {by_hand}"
            raise ConfigError("dataset.data_dir", wanted, str(root), reason) from error
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != expected.checksum:
        raise DataError(
            f"`{file}`: expected {int(expected.size)} bytes with the sha256 {expected.checksum}. "
            f"Received: {file.stat().st_size} bytes, {sha256}. Delete it and fetch it again. "
            f"{by_hand}."
        )
    return file


def fetch(url: str, target: Path, *, seconds: float = REACH_SECONDS) -> None:
    """Download a file; it has its name only when it is whole. Its folder is made.

    Raises:
        OSError: Where the host cannot be reached in some seconds, or stops sending for
            `READ_SECONDS`.
    """
    _reach(url, seconds)
    target.parent.mkdir(parents=True, exist_ok=True)
    opener = urllib.request.build_opener()
    with (
        opener.open(url, timeout=READ_SECONDS) as response,
        files.atomic(target) as part,
        part.open("wb") as file,
    ):
        shutil.copyfileobj(response, file)
        expected = response.headers.get("Content-Length")
        if expected is not None and file.tell() != int(expected):
            raise OSError(f"{file.tell()} of {expected} bytes came")


def _reach(url: str, seconds: float) -> None:
    """Raise OSError where the host does not answer in time."""
    request = urllib.request.Request(url, method="HEAD")
    opener = urllib.request.build_opener()
    try:
        within(seconds, lambda: opener.open(request, timeout=seconds).close())
    except urllib.error.HTTPError as error:
        with error:
            if error.code not in (403, 405):  # a host may refuse HEAD and still serve GET
                raise OSError(f"HTTP status {error.code}") from error


def _read(builder: Any) -> ImageData:
    startup.start()
    import tensorflow as tf
    import tensorflow_datasets as tfds

    splits = []
    for name in SPLITS:
        try:
            examples = tfds.as_numpy(builder.as_dataset(split=name, batch_size=-1))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise _damaged(Path(builder.data_path)) from error
        if len(examples["label"]) != builder.info.splits[name].num_examples:
            raise _damaged(Path(builder.data_path))
        images = ArraySource(np.ascontiguousarray(examples["image"]))
        splits.append(build_split(name, images, labels=examples["label"]))
    class_names = [name.lower() for name in builder.info.features["label"].names]
    source = f"TensorFlow Datasets, {NAME} {builder.version}, in {builder.data_path}"
    return build_data(NAME, splits, class_names=class_names, source=source)


def _damaged(folder: Path) -> ConfigError:
    reason = "It is damaged. Delete this folder and start again"
    return ConfigError("dataset.data_dir", f"a whole {NAME} in it", str(folder), reason)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS' progress bars, its message to stdout and its warnings from the terminal."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)

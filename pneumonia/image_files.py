"""Image files: checked by their headers when a dataset is opened, decoded when they are read.

What counts is a file's content, not its name: a PNG called `x.jpg` is a PNG. How unusual files
are read:

- EXIF orientation is applied, so an image is upright as a viewer shows it.
- More than 8 bits per pixel (grey, integer or float): the image's own minimum to maximum becomes
  0 to 255, since neither PNG nor TIFF says how many of the 16 bits a scanner used.
- Alpha is composed over black; palette, CMYK and other colour spaces become RGB.
- Of several frames, the first one counts.
"""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pneumonia.errors import ConfigError, DataError

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif"}
    | {".bmp", ".dib", ".tif", ".tiff", ".webp"}
)
NAMES = "PNG, JPEG, BMP, TIFF or WebP"
MIN_SIDE = 8
MAX_PIXELS = 64_000_000
MAX_BYTES = 1_000_000_000

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
# The last bytes of a whole file: where they are missing, only decoding tells.
_ENDINGS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
# What Pillow raises for files that are not what they claim to be.
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image file before its pixels are decoded.

    Args:
        is_colour: Whether it holds colours, or a palette.
        sha256: Of the file's bytes (32 bytes).
        is_blank: Whether all pixels have one value.
    """

    is_colour: bool
    sha256: bytes
    is_blank: bool = False


class FileSource:
    """Images that are decoded each time they are read, so that memory holds only those asked for.

    Args:
        paths: The files, checked by `read_header`.
        channels: 1 for grey, 3 for RGB.
        decode: Takes a path and the number of channels; what this module decodes by default.
    """

    __slots__ = ("_channels", "_decode", "_paths")

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        channels: int,
        decode: Callable[[Path, int], npt.NDArray[np.uint8]] | None = None,
    ) -> None:
        self._paths = tuple(paths)
        self._channels = channels
        self._decode = decode or _decode

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._paths)

    def read(
        self, indices: npt.NDArray[np.integer]
    ) -> Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]:
        """Decode images to uint8 (H, W, C).

        Returns:
            An array (n, H, W, C) where all have one size, a list of n arrays otherwise.

        Raises:
            ConfigError: Where a file has gone or its content is damaged.
        """
        paths = [self._paths[index] for index in indices]
        try:
            # Pillow decodes without holding the interpreter's lock.
            with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
                images = list(pool.map(lambda path: self._decode(path, self._channels), paths))
        except DataError as error:
            path, _, reason = str(error).partition(": ")
            expected = "image files that can be decoded"
            raise ConfigError("dataset.path", expected, path, reason.rstrip(".")) from error
        if images and len({image.shape for image in images}) == 1:
            return np.stack(images)
        return images


def read_header(path: Path) -> Header:
    """Check an image file without decoding it, unless its end looks cut off.

    Raises:
        DataError: For a file that is empty, no PNG, JPEG, BMP, TIFF or WebP, cut off, smaller than
            `MIN_SIDE` pixels or larger than `MAX_PIXELS`; its text starts with the path.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: not a file.")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _open(path, file)
            if not (is_whole := _is_whole(file, image)):
                image.load()
            is_blank = _is_blank(image, path.stat().st_size, is_loaded=not is_whole)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").digest()
            return Header(image.mode not in _GREY_MODES, sha256, is_blank)
    except _FAULTS as error:
        raise _explain(path, error) from error


def decode(path: Path, *, channels: int) -> npt.NDArray[np.uint8]:
    """Decode an image file; the module's text says how unusual ones are read.

    Args:
        path: A PNG, JPEG, BMP, TIFF or WebP file.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 of shape (H, W, channels).

    Raises:
        DataError: As `read_header`, and for damaged content.
    """
    try:
        with path.open("rb") as file, _open(path, file) as image:
            pixels = _to_eight_bits(ImageOps.exif_transpose(image))
            converted = np.asarray(pixels.convert("L" if channels == 1 else "RGB"))
    except _FAULTS as error:
        raise _explain(path, error) from error
    return converted.reshape(*converted.shape[:2], channels)


def _decode(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    return decode(path, channels=channels)


def _open(path: Path, file: BinaryIO) -> Image.Image:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES:,} bytes.")
    file.seek(0)
    image = Image.open(file, formats=_FORMATS)
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{path}: {width} x {height} pixels; at least {MIN_SIDE} a side are needed."
        )
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width} x {height} pixels; the limit is {MAX_PIXELS:,} pixels.")
    return image


def _is_whole(file: BinaryIO, image: Image.Image) -> bool:
    if image.format == "WEBP":  # Pillow opens no other
        return True
    position = file.tell()
    ending = _ENDINGS.get(image.format or "")
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 1024))
    tail = file.read()
    file.seek(position)
    return ending is not None and ending in tail


def is_tiny(size: int, values: int, *, beside: int = 2048) -> bool:
    """Tell whether a compressed file of so many bytes may be blank.

    A blank image takes next to nothing: JPEG 6 bits for 64 values, the others less. What the
    headers take beside it is `beside`.
    """
    return size < beside + values / 60


def _is_blank(image: Image.Image, size: int, *, is_loaded: bool) -> bool:
    """Tell whether all pixels have one value, without decoding a file that is too large for it."""
    size -= sum(len(text) for text in image.info.values() if isinstance(text, (bytes, str)))
    values = image.width * image.height * len(image.getbands())
    beside = 256 if image.format == "PNG" and image.mode != "P" else 2048
    if not is_loaded and not is_tiny(size, values, beside=beside):
        return False
    try:
        extrema = image.getextrema()
    except _FAULTS:  # told when it is decoded
        return False
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits per channel and without alpha."""
    if image.mode in _DEEP_MODES:
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        low, high = values.min(), values.max()
        scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(scaled.round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba)
    return image


def _explain(path: Path, error: BaseException) -> DataError:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return DataError(f"{path}: too many pixels; the limit is {MAX_PIXELS:,}.")
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file.")
    if isinstance(error, PermissionError):
        return DataError(f"{path}: no permission to read it.")
    try:
        if path.stat().st_size == 0:
            return DataError(f"{path}: an empty file.")
    except OSError as fault:
        return DataError(f"{path}: {fault.strerror}.")
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{path}: not a {NAMES} image.")
    return DataError(f"{path}: cannot be decoded ({error}).")

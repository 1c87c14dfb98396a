"""Image files: checked by their headers when a dataset is opened, decoded when they are read.

What counts is a file's content, not its name: a PNG called `x.jpg` is a PNG. How unusual files
are read:

- EXIF orientation is applied, so an image is upright as a viewer shows it.
- More than 8 bits per sample, integers and floats become 8 bits as `depth` says.
- Alpha is composed over black; palette, CMYK and other colour spaces become RGB.
- What would come out wrong is refused, such as negative or infinite samples.
- Of several frames, the first one counts.
"""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps, TiffImagePlugin, UnidentifiedImageError

from pneumonia.datasets import depth
from pneumonia.errors import DataError

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif"}
    | {".bmp", ".dib", ".tif", ".tiff", ".webp"}
)
NAMES = "PNG, JPEG, BMP, TIFF or WebP"
MIN_SIDE = 8
MAX_PIXELS = 64_000_000

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16"})
# How many times larger than in the file Pillow makes the samples of grey PNG files.
_FEW_BITS = {"L;2": 85, "L;4": 17}
# The last bytes of a whole file: where they are missing, only decoding tells.
_ENDINGS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
# What Pillow raises for files that are not what they claim to be.
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_FAULTS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error),
    *_BOMBS,
)


class Header(NamedTuple):
    """What is known of an image file before its pixels are decoded."""

    is_colour: bool  # or a palette
    sha256: bytes  # of the file
    is_blank: bool = False  # all its pixels have one value


def quieten() -> None:
    """Keep the decoders' warnings to themselves: a file is decoded, or its fault is an error."""
    warnings.filterwarnings("ignore", module=r"(PIL|pydicom|pneumonia\.datasets\.dicom)\b")


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
            quieten()
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _open(path, file)
            is_grey = image.mode in _GREY_MODES or depth.png_mode(image) == depth.GREY_ALPHA
            if not (is_whole := _is_whole(file, image)):
                image.load()
            is_blank = _is_blank(image, file, is_loaded=not is_whole)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").digest()
            return Header(not is_grey, sha256, is_blank)
    except _FAULTS as error:
        raise _explain(path, error) from error


def decode(path: Path, *, channels: int) -> npt.NDArray[np.uint8]:
    """Decode an image file to uint8 (H, W, channels): 1 for grey, 3 for RGB.

    Raises:
        DataError: As `read_header`, and for damaged content.
    """
    try:
        with path.open("rb") as file, _open(path, file) as image:
            pixels = _compose(ImageOps.exif_transpose(_to_eight_bits(image, file)))
            converted = np.asarray(pixels.convert("L" if channels == 1 else "RGB"))
    except _FAULTS as error:
        raise _explain(path, error) from error
    return converted.reshape(*converted.shape[:2], channels)


def _open(path: Path, file: BinaryIO) -> Image.Image:
    if path.stat().st_size > depth.MAX_BYTES:
        raise DataError(f"{path}: larger than {depth.MAX_BYTES:,} bytes.")
    file.seek(0)
    if file.read(4) in TiffImagePlugin.PREFIXES:
        image = depth.read_tiff(file, partial(check_size, path))
        if image is not None:
            return image
    file.seek(0)
    image = Image.open(file, formats=_FORMATS)
    check_size(path, *image.size)
    if image.mode == "P" and image.palette is None:
        raise DataError(f"{path}: a palette image without its palette.")
    return image


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse an image of too few or too many pixels."""
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{path}: {width} x {height} pixels; at least {MIN_SIDE} a side are needed."
        )
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width} x {height} pixels; the limit is {MAX_PIXELS:,} pixels.")


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
    """Tell whether a compressed file of so many bytes, `beside` of them headers, may be blank.

    A blank image takes next to nothing: JPEG 6 bits for 64 values, the others less.
    """
    return size < beside + values / 60


def _is_blank(image: Image.Image, file: BinaryIO, *, is_loaded: bool) -> bool:
    """Tell whether all pixels have one value, without decoding a file that is too large for it."""
    size = os.fstat(file.fileno()).st_size
    size -= sum(len(text) for text in image.info.values() if isinstance(text, (bytes, str)))
    values = image.width * image.height * len(image.getbands())
    beside = 256 if image.format == "PNG" and image.mode != "P" else 2048
    if not is_loaded and not is_tiny(size, values, beside=beside):
        return False
    try:
        extrema = _to_eight_bits(image, file).getextrema()
    except _FAULTS:  # told when it is decoded
        return False
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def _to_eight_bits(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Return an image with 8 bits per sample, which keeps its orientation and transparency."""
    mode = depth.png_mode(image)
    if mode.endswith(";16B"):
        return depth.read_png(file)
    if mode in _FEW_BITS and "transparency" in image.info:
        # Pillow scales the samples, and not the one that is transparent.
        image.info["transparency"] *= _FEW_BITS[mode]
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        return ImageChops.invert(image)  # Pillow takes all for Adobe's, whose inks are inverted
    return image


def _compose(image: Image.Image) -> Image.Image:
    """Return an image without alpha, over black."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba)
    return image


def _explain(path: Path, error: BaseException) -> DataError:
    if isinstance(error, _BOMBS):
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
        return DataError(f"{path}: {_find_reason(path)}.")
    return DataError(f"{path}: cannot be decoded ({error}).")


def _find_reason(path: Path) -> str:
    """Say of a file that Pillow does not open why, where it knows the format."""
    with path.open("rb") as file:
        start = file.read(16)
        for name in _FORMATS:
            factory, accept = Image.OPEN[name]
            if accept is not None and accept(start):
                file.seek(0)
                try:
                    factory(file, "")
                except _FAULTS as error:
                    return f"a {name} file that cannot be decoded ({error})"
    return f"not a {NAMES} image"

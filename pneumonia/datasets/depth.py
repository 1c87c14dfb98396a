"""Samples of any depth, brought to 8 bits by one rule for all files.

A sample is divided by the full scale of the bits in use: the file's own word where it has one,
else the smallest of `DEPTHS` that holds the image's maximum. No image is stretched by itself, which
would change its exposure: a radiograph of 8 bits written with 16 (times 257) is the same picture.

What has no place between black and white, such as NaN or a negative sample, is refused.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

if TYPE_CHECKING:
    from tifffile import TiffPage

Values = npt.NDArray[Any]

DEPTHS = (8, 10, 12, 14, 16, 24, 32, 64)

# The least maximum of floats that are no shares of 1, unless they are whole.
_LEAST = 16
GREY_ALPHA = "LA;16B"
"""A `png_mode` that Pillow opens as colours."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ASSOCIATED, _UNASSOCIATED, _COREL = 1, 2, 999
_OLD_JPEG = 6
_FAX_AND_JPEG = frozenset({2, 3, 4, _OLD_JPEG, 7})
ORIENTATION = 0x0112
MAX_BYTES = 1_000_000_000

# What tifffile logs is either raised as well, or of no interest to who reads an image.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def span(
    values: Values, *, bits: int, told: int | None = None, signed: bool = False
) -> tuple[float, float]:
    """Find the samples that stand for black and for white.

    Args:
        values: The samples that are seen, integers or floats.
        bits: Bits per sample in the file; up to 8 are taken at their word.
        told: Bits per sample in use, where the file tells them.
        signed: Whether negative integers count, from the lowest of the bits in use as black.

    Raises:
        ValueError: For samples that are not finite, or below 0 where they should not be.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("pixels that are not finite")
    if low < 0 and not signed:
        raise ValueError(f"pixels from {low:g} to {high:g}; none may be below 0")
    if values.dtype.kind == "f":
        if high <= 1:
            return 0.0, 1.0
        # Shares of 1 that overshoot it, or almost black: not to be told apart.
        if high < _LEAST and (values % 1).any():
            raise ValueError(f"floats of up to {high:g}, neither shares of 1 nor of 255")
    used = told or (bits if bits <= 8 else _depth(low, high))
    if signed and (low < 0 or told):
        return -(2.0 ** (used - 1)), 2.0 ** (used - 1) - 1
    # 8 bits written with 16, so dark that they look like fewer.
    if not told and bits == 16 and 0 < high < 2**14 and not (values % 257).any():
        used = 16
    return 0.0, 2.0**used - 1


def to_eight_bits(values: Values, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Bring samples from `low` (black) to `high` (white) to 0 to 255; what is beyond is clipped."""
    exact: Values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    return ((exact - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)


def png_mode(image: Image.Image) -> str:
    """Return how the samples of a PNG that is not loaded lie in its file, as Pillow calls it."""
    args = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else ""
    return args if isinstance(args, str) else ""


def read_png(file: BinaryIO) -> Image.Image:
    """Decode a PNG of 16 bits, of which Pillow keeps the upper 8 where there are colours or alpha.

    It comes out with 8 bits, as L, LA, RGB or RGBA, with its orientation in EXIF.
    """
    file.seek(0)
    with PngImageFile(file) as image:
        key = image.info.get("transparency")
        mode = png_mode(image)
        if mode == GREY_ALPHA:
            # Two samples of two bytes are as long as four of one.
            image.tile = [tile._replace(args="RGBA") for tile in image.tile]
            samples = np.asarray(image).view(">u2")
        else:
            samples = np.asarray(image)
        orientation = image.getexif().get(ORIENTATION, 1)
    if mode.startswith("RGB"):
        file.seek(0)
        with PngImageFile(file) as image:
            # The same order of bytes reversed gives the lower ones.
            image.tile = [tile._replace(args=mode[:-1] + "L") for tile in image.tile]
            samples = samples.astype(np.uint16) << 8 | np.asarray(image)
    samples = samples.reshape(*samples.shape[:2], -1)
    count = samples.shape[2] - (samples.shape[2] in (2, 4))
    colours, alpha = samples[..., :count], samples[..., count:]
    if key is not None:
        alpha = np.where((colours == np.array(key)).all(axis=2, keepdims=True), 0, 65535)
    seen = colours[alpha[..., 0] > 0] if alpha.size else colours
    low, high = span(seen, bits=16, told=_told_by_png(seen, _find_chunk(file, b"sBIT")[:count]))
    layers = [to_eight_bits(colours, low, high), to_eight_bits(alpha, 0, 65535)]
    return _join(np.concatenate(layers, axis=2), orientation)


def read_tiff(file: BinaryIO, check: Callable[[int, int], None]) -> Image.Image | None:
    """Decode the first image of a TIFF file.

    It comes out with 8 bits, as L, LA, RGB, RGBA or CMYK, with its orientation in EXIF; None for
    fax, JPEG, YCbCr and Lab, which Pillow decodes right. `check` is called with width and height in
    pixels before anything is decoded.

    Raises:
        ValueError: For what is damaged or of a kind that is not supported.
    """
    try:
        from tifffile import TiffFile

        file.seek(0)
        with TiffFile(file) as tiff:
            page = tiff.pages.first
            check(page.imagewidth, page.imagelength)
            _check_kind(page, size=tiff.filehandle.size)
            if page.compression in _FAX_AND_JPEG or page.photometric in (_YCBCR, _LAB):
                _check_for_pillow(page)
                return None
            _check_layout(page)
            values = page.asarray()
    except ValueError:
        raise
    except Exception as error:  # damaged files and missing codecs raise errors of many kinds
        raise ValueError(" ".join(str(error).split())) from error
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    return _show(page, values.reshape(page.imagelength, page.imagewidth, -1))


def _depth(low: float, high: float) -> int:
    """Return the smallest depth that holds both; the two's complement where one is negative."""
    for depth in DEPTHS:
        if high < 2.0**depth if low >= 0 else max(-low, high + 1) <= 2.0 ** (depth - 1):
            return depth
    raise ValueError(f"pixels of up to {high:g}")


def _find_chunk(file: BinaryIO, kind: bytes) -> bytes:
    """Return a chunk of a PNG that stands before the pixels, or nothing."""
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == kind:
            return file.read(length)
        file.seek(length + 4, os.SEEK_CUR)
    return b""


def _told_by_png(seen: Values, significant: bytes) -> int | None:
    """Return the bits in use where the chunk sBIT tells them.

    PNG wants samples of fewer bits scaled up to 16. Some writers leave them as they were, which
    shows where the lower bits are in use and the upper ones are not.
    """
    bits = max(significant, default=16)
    if not 0 < bits < 16 or not seen.size:
        return None
    scaled = seen.max() >= 2**bits or not (seen % 2 ** (16 - bits) > 1).any()
    return 16 if scaled else bits


def _check_for_pillow(page: TiffPage) -> None:
    """Refuse what Pillow would decode wrongly, or not at all."""
    if page.bitspersample not in (1, 8) or page.planarconfig != 1:
        raise ValueError(_describe(page))
    if page.photometric == _YCBCR and page.compression == 1:
        grid = tuple(page.tags.valueof(530, (2, 2)))
        levels = tuple(page.tags.valueof(532, ()))
        if grid != (1, 1) or levels not in ((), (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)):
            raise ValueError(_describe(page))


def _check_layout(page: TiffPage) -> None:
    """Refuse samples that lie or mean otherwise than is supported."""
    colours = _COLOURS.get(page.photometric)
    extra = page.samplesperpixel - (colours or 0)
    if (
        colours is None
        or extra < 0
        or page.imagedepth != 1
        or (extra and not page.extrasamples and (colours, extra) != (3, 1))
        or (_alpha_of(page) is not None and page.photometric in (_WHITE_IS_ZERO, _CMYK))
        or (page.photometric == _CMYK and page.tags.valueof(332, 1) != 1)
        or (page.photometric == _PALETTE and page.colormap is None)
    ):
        raise ValueError(_describe(page))
    if page.nbytes > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes of pixels")


def _check_kind(page: TiffPage, *, size: int) -> None:
    """Refuse samples that are no numbers of one kind, or a file that is cut off."""
    if 262 not in page.tags:
        raise ValueError("a TIFF that does not tell its PhotometricInterpretation")
    kind = "" if page.dtype is None else page.dtype.kind
    if kind not in ("b", "u", "i", "f") or not isinstance(page.bitspersample, int):
        raise ValueError(_describe(page))
    ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    is_whole = len(ends) == math.prod(page.chunked) and 0 not in page.databytecounts
    if page.compression != _OLD_JPEG and not (is_whole and max(ends) <= size):
        raise ValueError("truncated")


def _describe(page: TiffPage) -> str:
    kind = getattr(page.photometric, "name", page.photometric)
    format_ = getattr(page.sampleformat, "name", page.sampleformat)
    packing = getattr(page.compression, "name", page.compression)
    return (
        f"a TIFF of {page.samplesperpixel} x {page.bitspersample} bits, {kind}, {format_}, "
        f"compression {packing}; not supported"
    )


def _alpha_of(page: TiffPage) -> int | None:
    """Return which of the samples is the alpha, if any."""
    first = _COLOURS[page.photometric]
    if page.samplesperpixel == first + 1 and not page.extrasamples:
        return first  # colours and one more, without a word what it is
    kinds = [int(kind) for kind in page.extrasamples]
    alphas = [n for n, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED, _COREL)]
    return first + alphas[0] if alphas else None


def _show(page: TiffPage, values: Values) -> Image.Image:
    """Turn samples (H, W, C) into an image of 8 bits, by what the page says of them."""
    colours = values[..., : _COLOURS[page.photometric]]
    place = _alpha_of(page)
    alpha = values[..., place : place + 1] if place is not None else values[..., :0]
    if page.photometric == _PALETTE:
        table = np.asarray(page.colormap)
        top = 65535 if table.max() > 255 else 255  # 16 bits by the standard; some writers put 8
        shown = to_eight_bits(np.moveaxis(table[:, colours[..., 0]], 0, -1), 0, top)
    else:
        seen = colours[alpha[..., 0] > 0] if alpha.size else colours
        shown = to_eight_bits(colours, *_tiff_span(page, seen))
    if page.photometric == _WHITE_IS_ZERO:
        shown = 255 - shown
    # A colour that is multiplied by its alpha is as it looks over black.
    if place is not None and _ASSOCIATED not in page.extrasamples[place - colours.shape[2] :][:1]:
        opaque = 1.0 if values.dtype.kind == "f" else 2.0**page.bitspersample - 1
        shown = np.concatenate([shown, to_eight_bits(alpha, 0, opaque)], axis=2)
    is_cmyk = page.photometric == _CMYK
    return _join(shown, page.tags.valueof(274, 1), mode="CMYK" if is_cmyk else "")


def _tiff_span(page: TiffPage, seen: Values) -> tuple[float, float]:
    most = np.max(page.tags.valueof(281, 0))
    bits = int(page.bitspersample)
    told = None
    if seen.dtype.kind != "f" and bits > 8 and seen.size and 0 < most < 2**bits - 1:
        told = _depth(0, max(float(most), float(seen.max())))
    return span(seen, bits=bits, told=told)


def _join(samples: npt.NDArray[np.uint8], orientation: int, *, mode: str = "") -> Image.Image:
    height, width, count = samples.shape
    image = Image.frombytes(mode or _MODES[count], (width, height), samples.tobytes())
    image.getexif()[ORIENTATION] = orientation
    return image

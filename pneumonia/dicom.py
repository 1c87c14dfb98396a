"""DICOM files: decoded as a viewer shows them, with the optional package pydicom.

- The modality's rescaling, then the window or the lookup table of the first view in the file,
  give 0 to 255 (PS3.3 C.11.1 and C.11.2). Without either, 8 bits stay as they are, and the minimum
  to maximum of more bits become 0 to 255, padding left out.
- MONOCHROME1, in which the lowest value is white, is inverted.
- Of several frames, the first one counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pneumonia.errors import DataError
from pneumonia.image_files import MAX_PIXELS, MIN_SIDE, Header, is_tiny
from pneumonia.image_files import SUFFIXES as IMAGE_SUFFIXES

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = frozenset({".dcm", ".dicom"})
EXTRA = "pip install 'pneumonia[dicom]'"
IMAGE, DICOM = "image", "DICOM"

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_MAGIC = b"DICM"
_PREAMBLE = 128

Values = npt.NDArray[Any]


def is_dicom(path: Path) -> bool:
    """Tell by its name or its content whether a file is meant to be DICOM."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not path.is_file():  # a pipe, which may never end
            return False
        with path.open("rb") as file:
            return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC
    except OSError:
        return False


def kind_of(path: Path) -> str:
    """Return what a file is: `IMAGE`, `DICOM`, or its suffix.

    A file whose name tells nothing is looked into: scanners and archives name DICOM files
    IM000001, or by a number with dots.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return IMAGE
    has_none = not suffix or suffix[1:].isdigit()
    if suffix in SUFFIXES or (has_none and is_dicom(path)):
        return DICOM
    return suffix if suffix[1:].isalnum() and not has_none else "without a suffix"


def is_supported() -> bool:
    """Tell whether pydicom is installed."""
    return importlib.util.find_spec("pydicom") is not None


def decode(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a DICOM file; the module's text says how.

    Returns:
        uint8 of shape (H, W, C), C in {1, 3}.

    Raises:
        DataError: For a file that is damaged, holds no image or one of a kind or size that is
            not supported; its text starts with the path.
    """
    if not is_supported():
        raise DataError(f"{path}: a DICOM file, which needs the package pydicom: {EXTRA}")
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    try:
        header = dcmread(path, stop_before_pixels=True)
        _check(path, header)
        # Read from the file once more, so that of many frames only the first is in memory.
        return _to_eight_bits(pixel_array(path, index=0), header)
    except DataError:
        raise
    except Exception as error:  # damaged files make pydicom raise errors of many kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be decoded ({reason}).") from error


def read_header(path: Path) -> Header:
    """Check a DICOM file without decoding it.

    Raises:
        DataError: As `decode`, but for what only the pixels tell.
    """
    if not is_supported():
        raise DataError(f"{path}: a DICOM file, which needs the package pydicom: {EXTRA}")
    if not path.is_file():
        raise DataError(f"{path}: not a file.")
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    try:
        header = dcmread(path, stop_before_pixels=True)
        _check(path, header)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").digest()
        is_colour = header.PhotometricInterpretation in _COLOUR
        values = header.Rows * header.Columns * header.SamplesPerPixel
        syntax = header.file_meta.get("TransferSyntaxUID")
        is_plain = syntax is None or not syntax.is_compressed
        if not is_plain and not is_tiny(path.stat().st_size, values):
            return Header(is_colour, sha256)
        pixels = pixel_array(path, index=0).reshape(values // header.SamplesPerPixel, -1)
        return Header(is_colour, sha256, bool((pixels == pixels[0]).all()))
    except DataError:
        raise
    except Exception as error:  # damaged files make pydicom raise errors of many kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be decoded ({reason}).") from error


def _check(path: Path, header: Dataset) -> None:
    """Refuse what cannot be shown, before its pixels are read."""
    kind = header.get("PhotometricInterpretation")
    height, width = header.get("Rows"), header.get("Columns")
    if not kind or not height or not width:
        raise DataError(f"{path}: a DICOM file without an image.")
    if kind not in _GREY | _COLOUR or (kind in _COLOUR and header.BitsAllocated != 8):
        bits = header.get("BitsAllocated")
        raise DataError(f"{path}: a DICOM image of the kind {kind}, {bits} bits; not supported.")
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{path}: {width} x {height} pixels; at least {MIN_SIDE} a side are needed."
        )
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width} x {height} pixels; the limit is {MAX_PIXELS:,} pixels.")


def _to_eight_bits(pixels: Values, header: Dataset) -> npt.NDArray[np.uint8]:
    if header.PhotometricInterpretation in _COLOUR:
        return pixels.astype(np.uint8)
    shares = _shares(pixels, header)
    if header.PhotometricInterpretation == "MONOCHROME1":
        shares = 1.0 - shares
    return (255.0 * shares).round().astype(np.uint8)[..., np.newaxis]


def _shares(pixels: Values, header: Dataset) -> Values:
    """Return how bright each pixel is, from 0 to 1, before any inversion."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = apply_modality_lut(pixels, header)
    if table := header.get("VOILUTSequence"):
        depth = int(table[0].LUTDescriptor[2])
        looked_up = apply_voi_lut(np.rint(values).astype(np.int32), header)
        return np.clip(looked_up / (2.0**depth - 1), 0, 1)
    center, width = _first(header, "WindowCenter"), _first(header, "WindowWidth")
    if center is not None and width is not None and width > 0:
        return _window(values, center, width, str(header.get("VOILUTFunction") or "LINEAR"))
    # Many a file names a rescaling that changes nothing, which pydicom gives as floats.
    if values.dtype == np.uint8 or (pixels.dtype == np.uint8 and np.array_equal(values, pixels)):
        return values / 255.0
    seen = values[pixels != header.PixelPaddingValue] if "PixelPaddingValue" in header else values
    if not seen.size or seen.max() == seen.min():
        return np.zeros(values.shape)
    low, high = float(seen.min()), float(seen.max())
    return np.clip((values - low) / (high - low), 0, 1)


def _window(values: Values, center: float, width: float, function: str) -> Values:
    """Apply a window as PS3.3 C.11.2.1.2 and C.11.2.1.3 define it."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _first(header: Dataset, name: str) -> float | None:
    """Return the first of the values that an element may have several of."""
    value = header.get(name)
    if value is None or value == "":
        return None
    many = isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue"
    return float(value[0] if many else value)

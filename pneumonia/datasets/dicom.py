"""DICOM files: decoded as a viewer shows them, with the optional package pydicom.

- The modality's rescaling, then the window or the lookup table of the first view in the file,
  give 0 to 255 (PS3.3 C.11.1 and C.11.2). Without either, `depth` says what black and white are;
  BitsStored is the file's own word where it is less than BitsAllocated.
- Padding does not count, and is shown black.
- MONOCHROME1, in which the lowest value is white, is inverted.
- Of several frames, the first one counts.
- A file without preamble or file meta information is read as what it looks like.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pneumonia.datasets import depth
from pneumonia.datasets.image_files import SUFFIXES as IMAGE_SUFFIXES
from pneumonia.datasets.image_files import Header, check_size, is_tiny, quieten
from pneumonia.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

SUFFIXES = frozenset({".dcm", ".dicom"})
EXTRA = "pip install 'pydicom>=3' 'python-gdcm>=3.0.24'"
NEEDED = f"{{}}: a DICOM file, which needs the package pydicom: {EXTRA}"
IMAGE, DICOM = "image", "DICOM"

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_PALETTE = "PALETTE COLOR"
_MAGIC = b"DICM"
_PREAMBLE = 128
# An element of the first groups, 2 or 8, of either order of bytes: a file without its preamble.
_FIRST_ELEMENT = re.compile(rb"[\x02\x08]\x00[\x00-\x18]\x00|\x00[\x02\x08]\x00[\x00-\x18]")

Values = npt.NDArray[Any]


def is_dicom(path: Path) -> bool:
    """Tell by its name or its content whether a file is meant to be DICOM."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        # Of a pipe, nothing may ever come.
        return path.is_file() and _starts_as_dicom(path)
    except OSError:
        return False


def kind_of(path: Path) -> str:
    """Return what a file is: `IMAGE`, `DICOM`, or its suffix.

    A file whose name tells nothing is looked into: scanners name DICOM files IM000001, or by a
    number with dots.
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
    try:
        return importlib.util.find_spec("pydicom") is not None
    except ImportError:  # kept from being imported
        return False


def decode(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a DICOM file to uint8 (H, W, C), C in {1, 3}; the module's text says how.

    Raises:
        DataError: For what is damaged or not supported; its text starts with the path.
    """
    with _explaining(path):
        header = _open(path)
        with np.errstate(all="ignore"):  # what overflows is found by its being infinite
            return _to_eight_bits(_read_pixels(path, header), header)


def read_header(path: Path) -> Header:
    """Check a DICOM file; only one that may be blank is decoded.

    Raises:
        DataError: As `decode`, but for what only the pixels tell.
    """
    with _explaining(path):
        header = _open(path)
        syntax = header.file_meta.get("TransferSyntaxUID")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").digest()
        is_colour = header.PhotometricInterpretation not in _GREY
        values = header.Rows * header.Columns * header.SamplesPerPixel
        is_packed = syntax is not None and syntax.is_compressed
        if is_packed and not is_tiny(path.stat().st_size, values):
            return Header(is_colour, sha256)
        pixels = _read_pixels(path, header).reshape(values // header.SamplesPerPixel, -1)
        return Header(is_colour, sha256, bool((pixels == pixels[0]).all()))


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Raise whatever a damaged file does to pydicom as what it is."""
    if not is_supported():
        raise DataError(NEEDED.format(path))
    quieten()
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # pydicom raises errors of many kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be decoded ({reason}).") from error


def _open(path: Path) -> Dataset:
    """Return what a file says of its image, which can be shown."""
    from pydicom import dcmread

    if not path.is_file():
        raise DataError(f"{path}: not a file.")
    if not _starts_as_dicom(path):
        raise DataError(f"{path}: not a DICOM file.")
    header = dcmread(path, stop_before_pixels=True, force=True)
    _check(path, header)
    _add_functional_groups(header)
    if syntax := header.file_meta.get("TransferSyntaxUID"):
        _check_decoder(path, syntax)
    return header


def _starts_as_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(_PREAMBLE + len(_MAGIC))
    return start[_PREAMBLE:] == _MAGIC or _FIRST_ELEMENT.match(start) is not None


def _check(path: Path, header: Dataset) -> None:
    """Refuse what cannot be shown, before its pixels are read."""
    kind = header.get("PhotometricInterpretation")
    height, width = header.get("Rows"), header.get("Columns")
    if not kind or not height or not width:
        raise DataError(f"{path}: a DICOM file without an image.")
    bits, stored = header.get("BitsAllocated"), header.get("BitsStored")
    is_deep = kind in _GREY | {"RGB"} or bits == 8
    has_table = kind != _PALETTE or "RedPaletteColorLookupTableDescriptor" in header
    if kind not in _GREY | _COLOUR | {_PALETTE} or not is_deep or not has_table:
        raise DataError(f"{path}: a DICOM image of the kind {kind}, {bits} bits; not supported.")
    if stored and header.get("HighBit", stored - 1) != stored - 1:
        raise DataError(
            f"{path}: a DICOM image with HighBit {header.HighBit} and BitsStored {stored}; "
            "not supported."
        )
    check_size(path, width, height)


def _add_functional_groups(header: Dataset) -> None:
    """Put what an enhanced file says of its first frame where other files have it."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(name) or [])[:1]:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                header.update((group.get(macro) or [{}])[0])


def _read_pixels(path: Path, header: Dataset) -> Values:
    """Decode the first frame; bits that are not in use are as the file has them."""
    from pydicom import dcmread, uid
    from pydicom.pixels.utils import pixel_array

    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax and header.preamble and syntax != uid.DeflatedExplicitVRLittleEndian:
        # Read from the file once more, so that of many frames only the first is in memory.
        return pixel_array(path, index=0, correct_unused_bits=False)
    dataset = dcmread(path, force=True)
    if not syntax:
        if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
            raise DataError(f"{path}: compressed, without a word how (no TransferSyntaxUID).")
        order = "LittleEndian" if dataset.original_encoding[1] else "BigEndian"
        kind = "Implicit" if dataset.original_encoding[0] else "Explicit"
        dataset.file_meta.TransferSyntaxUID = getattr(uid, f"{kind}VR{order}")
    return pixel_array(dataset, index=0, correct_unused_bits=False)


def _check_decoder(path: Path, syntax: UID) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DataError(f"{path}: compressed as {syntax.name}; not supported.") from None
    if not decoder.is_available:
        # The extra brings gdcm.
        is_extra = "gdcm" in str(decoder.missing_dependencies)
        hint = f", which needs a decoder: {EXTRA}" if is_extra else "; not supported."
        raise DataError(f"{path}: compressed as {syntax.name}{hint}")


def _to_eight_bits(raw: Values, header: Dataset) -> npt.NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    kind = header.PhotometricInterpretation
    pixels = _used_bits(raw, header)
    if kind == _PALETTE:
        pixels = apply_color_lut(pixels, header)[..., :3]
        bits = header.RedPaletteColorLookupTableDescriptor[2]
        return depth.to_eight_bits(pixels, *depth.span(pixels, bits=bits))
    if kind in _COLOUR:
        return depth.to_eight_bits(pixels, *_span(pixels, header))
    is_padding = _find_padding(raw, header) | _find_padding(pixels, header)
    shares = _shares(pixels, ~is_padding, header)
    if kind == "MONOCHROME1":
        shares = 1.0 - shares
    shares[is_padding] = 0
    if not np.isfinite(shares).all():
        raise ValueError("pixels that are not finite")
    return depth.to_eight_bits(shares, 0, 1)[..., np.newaxis]


def _used_bits(raw: Values, header: Dataset) -> Values:
    """Return the pixels without what older files keep in the bits that they do not use."""
    unused = 8 * raw.dtype.itemsize - (header.get("BitsStored") or 8 * raw.dtype.itemsize)
    return raw << unused >> unused if raw.dtype.kind in "ui" and unused > 0 else raw


def _find_padding(pixels: Values, header: Dataset) -> npt.NDArray[np.bool_]:
    """Tell which pixels are no part of the picture (PS3.3 C.7.5.1.1.2)."""
    first = _first(header, "PixelPaddingValue")
    if first is None or pixels.dtype.kind not in "ui":
        return np.zeros(pixels.shape, bool)
    last = _first(header, "PixelPaddingRangeLimit")
    # Some files write -2000 as 63536.
    ends = np.array([first, first if last is None else last], np.int64).astype(pixels.dtype)
    return np.asarray((pixels >= ends.min()) & (pixels <= ends.max()))


def _shares(pixels: Values, is_seen: npt.NDArray[np.bool_], header: Dataset) -> Values:
    """Return how bright each pixel is, from 0 to 1, before any inversion."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    slope = _first(header, "RescaleSlope")
    if slope == 0:
        raise ValueError("RescaleSlope 0")
    values = apply_modality_lut(pixels, header)
    if not np.isfinite(values[is_seen]).all():
        raise ValueError("pixels that are not finite")
    if views := header.get("VOILUTSequence"):
        whole = np.rint(values.clip(-(2**31), 2**31 - 1)).astype(np.int32)
        return np.clip(apply_voi_lut(whole, header) / _table_top(views[0]), 0, 1)
    center, width = _first(header, "WindowCenter"), _first(header, "WindowWidth")
    if center is not None and width is not None and width > 0:
        return _window(values, center, width, str(header.get("VOILUTFunction") or "LINEAR"))
    if tables := header.get("ModalityLUTSequence"):
        return np.clip(values / _table_top(tables[0]), 0, 1)
    # What a rescaling adds and multiplies by changes black and white in the same way.
    low, high = _span(pixels[is_seen], header)
    shares = np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1)
    return 1 - shares if slope is not None and slope < 0 else shares


def _span(pixels: Values, header: Dataset) -> tuple[float, float]:
    allocated, stored = int(header.BitsAllocated), header.get("BitsStored")
    told = stored if stored and (stored < allocated or allocated <= 8) else None
    return depth.span(
        pixels, bits=allocated, told=told, signed=header.get("PixelRepresentation") == 1
    )


def _table_top(table: Dataset) -> float:
    """Return what is white in a lookup table."""
    bits = int(table.LUTDescriptor[2])
    data = table.LUTData
    entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    return 2.0**bits - 1 if bits < 16 else depth.span(entries, bits=bits)[1]


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
    is_many = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return float(value[0] if is_many else value)

"""DICOM files, written by pydicom, decoded as a viewer shows them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from samples import Project, pixels, write_images

from pneumonia.cli import predict
from pneumonia.datasets import decode, dicom
from pneumonia.datasets.image_files import MAX_PIXELS
from pneumonia.errors import DataError, UserError

ROOT = Path(__file__).parents[2]
Spawn = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.usefixtures("started")


def write_dicom(
    path: Path, image: NDArray[Any], *, syntax: str = "", frame: bytes = b"", **elements: Any
) -> Path:
    """Write a DICOM file; elements come over those of a plain grey image.

    Args:
        path: The file.
        image: Its pixels.
        syntax: The UID of the transfer syntax; without one, explicit and little-endian.
        frame: The pixels as that compresses them.
        elements: By their keywords.
    """
    pydicom = pytest.importorskip(
        "pydicom", reason="needs pydicom: pip install 'pydicom>=3' 'python-gdcm>=3.0.24'"
    )
    uid = pydicom.uid
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax or uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid.generate_uid()
    frames = elements.get("NumberOfFrames", 1)
    rows, columns, *samples = image.shape[1:] if frames > 1 else image.shape
    bits = 8 * image.dtype.itemsize
    usual = {
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": samples[0] if samples else 1,
        "PhotometricInterpretation": "RGB" if samples else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(image.dtype.kind == "i"),
    }
    if samples:
        usual["PlanarConfiguration"] = 0
    for name, value in (usual | elements).items():
        setattr(dataset, name, value)
    dataset.PixelData = pydicom.encaps.encapsulate([frame]) if frame else image.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 and not frame else "OB"
    dataset["PixelData"].is_undefined_length = bool(frame)
    dataset.save_as(path, enforce_file_format=True)
    return path


GREY = pixels(24, 30, seed=9)
DEEP = np.linspace(0, 4095, 24 * 30).reshape(24, 30).astype(np.uint16)
LINEAR = np.clip((DEEP.astype(float) - 1999.5) / 999 + 0.5, 0, 1)
WINDOW = {"WindowCenter": 2000, "WindowWidth": 1000}
WHOLE = DEEP / 4095.0


SIGNED = DEEP.astype(np.int16) - np.int16(2048)
IS_PADDING = np.arange(720).reshape(24, 30) < 90
PADDED = np.where(IS_PADDING, 60_000 + np.arange(720).reshape(24, 30), DEEP).astype(np.uint16)
PADDING = {"PixelPaddingValue": 60_000, "PixelPaddingRangeLimit": 60_100}
INVERTED = {"PhotometricInterpretation": "MONOCHROME1"}
TWELVE = {"BitsStored": 12, "HighBit": 11}
COLOUR = pixels(24, 30, 3)
PALETTE = {"PhotometricInterpretation": "PALETTE COLOR"}


@pytest.mark.parametrize(
    ("image", "elements", "shares"),
    [
        (GREY, {}, GREY / 255),
        (GREY, {"PhotometricInterpretation": "MONOCHROME1"}, 1 - GREY / 255),
        (GREY // 4 + 60, {"RescaleSlope": 1, "RescaleIntercept": 0}, (GREY // 4 + 60) / 255),
        (DEEP, TWELVE, WHOLE),
        (DEEP, {"PhotometricInterpretation": "MONOCHROME1"}, 1 - WHOLE),
        (DEEP, WINDOW, LINEAR),
        (DEEP, {"WindowCenter": [2000, 9], "WindowWidth": [1000, 9]}, LINEAR),
        (DEEP, WINDOW | {"PhotometricInterpretation": "MONOCHROME1"}, 1 - LINEAR),
        (
            DEEP,
            {
                "RescaleSlope": 2,
                "RescaleIntercept": -100,
                "WindowCenter": 3899.5,
                "WindowWidth": 1999,
            },
            np.clip((2.0 * DEEP - 3999) / 1998 + 0.5, 0, 1),
        ),
        (DEEP, {"RescaleSlope": 2, "RescaleIntercept": -100}, WHOLE),
        (
            DEEP,
            WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
            np.clip((DEEP - 2000.0) / 1000 + 0.5, 0, 1),
        ),
        (DEEP, WINDOW | {"VOILUTFunction": "SIGMOID"}, 1 / (1 + np.exp(-(DEEP - 2000.0) / 250))),
        (DEEP, {"WindowCenter": 2000, "WindowWidth": 1}, (DEEP > 1999.5) * 1.0),
        ((DEEP.astype(np.int16) - 2048), {}, WHOLE),
        (
            np.where(np.arange(720).reshape(24, 30) < 50, 0, DEEP + 60_000).astype(np.uint16),
            {"PixelPaddingValue": 0},
            np.where(np.arange(720).reshape(24, 30) < 50, 0, (DEEP + 60_000.0) / 65535),
        ),
        (np.stack([GREY, 255 - GREY]), {"NumberOfFrames": 2}, GREY / 255),
        (np.full((9, 9), 7, np.uint16), {}, np.full((9, 9), 7 / 255)),
        # The full scale of the bits in use, the file's own word first.
        (DEEP // 4, TWELVE, DEEP // 4 / 4095),
        (DEEP // 4, {}, DEEP // 4 / 1023),
        (DEEP * 2, {}, DEEP / 2 / 4095.75),
        (GREY // 4, {"BitsStored": 6, "HighBit": 5}, GREY // 4 / 63),
        (GREY.astype(np.uint16), {"BitsStored": 8, "HighBit": 7}, GREY / 255),
        (GREY.astype(np.uint16) * 257, {}, GREY / 255),
        (GREY.astype(np.uint32) * 16, {}, GREY * (16 / 4095)),
        (SIGNED, TWELVE, WHOLE),
        (SIGNED // 4, TWELVE, (SIGNED // 4 + 2048) / 4095),
        (SIGNED & 0xFFF, TWELVE, WHOLE),
        (GREY.astype(np.int8), {}, (GREY.astype(np.int8) + 128.0) / 255),
        (DEEP.astype(np.int16), {}, WHOLE),
        (DEEP | 0x8000, TWELVE, WHOLE),  # an overlay in unused bits
        # A rescaling changes black and white as well.
        (DEEP, {"RescaleSlope": -1, "RescaleIntercept": 4095}, 1 - WHOLE),
        (DEEP, {"RescaleSlope": 0.001, "RescaleIntercept": 7}, WHOLE),
        # Padding counts for nothing, and is black.
        (PADDED, PADDING, np.where(IS_PADDING, 0, WHOLE)),
        (PADDED, PADDING | {"BitsStored": 16}, np.where(IS_PADDING, 0, WHOLE)),
        (PADDED, PADDING | INVERTED, np.where(IS_PADDING, 0, 1 - WHOLE)),
        (PADDED, PADDING | WINDOW, np.where(IS_PADDING, 0, LINEAR)),
        (PADDED, PADDING | WINDOW | INVERTED, np.where(IS_PADDING, 0, 1 - LINEAR)),
        (
            PADDED,
            {"PixelPaddingValue": 60_100, "PixelPaddingRangeLimit": 60_000},
            np.where(IS_PADDING, 0, WHOLE),
        ),
        (np.where(IS_PADDING, 60_050, DEEP), PADDING | TWELVE, np.where(IS_PADDING, 0, WHOLE)),
        (
            np.where(IS_PADDING, -32_000, SIGNED),
            {"PixelPaddingValue": -32_000},
            np.where(IS_PADDING, 0, WHOLE),
        ),
        (np.full((9, 9), 7, np.uint16), {"PixelPaddingValue": 7}, np.zeros((9, 9))),
    ],
)
def test_dicom_is_decoded_as_a_viewer_shows_it(
    image: NDArray[Any], elements: dict[str, Any], shares: NDArray[Any], tmp_path: Path
) -> None:
    path = write_dicom(tmp_path / "a.dcm", image, **elements)
    decoded = decode.decode(path)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (*shares.shape, 1)
    assert np.abs(decoded[..., 0] - 255 * shares).max() <= 0.501


def test_dicom_with_a_lookup_table(tmp_path: Path) -> None:
    pydicom = pytest.importorskip(
        "pydicom", reason="needs pydicom: pip install 'pydicom>=3' 'python-gdcm>=3.0.24'"
    )
    table = pydicom.dataset.Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 12])
    table.add_new("LUTData", "US", [4095 - 16 * index for index in range(256)])
    path = write_dicom(tmp_path / "a.dcm", GREY, VOILUTSequence=[table], **WINDOW)
    shares = (4095 - 16.0 * GREY) / 4095
    assert np.abs(decode.decode(path)[..., 0] - 255 * shares).max() <= 0.501


def test_colour_dicom(tmp_path: Path) -> None:
    image = pixels(24, 30, 3)
    path = write_dicom(tmp_path / "a.dcm", image)
    np.testing.assert_array_equal(decode.decode(path), image)


def add_table(dataset: Any, entries: list[int], bits: int, first: int = 0) -> Any:
    """Return a sequence of one lookup table."""
    dataset.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    dataset.add_new("LUTData", "US", entries)
    return [dataset]


@pytest.mark.parametrize(
    ("name", "bits", "top"),
    [
        ("VOILUTSequence", 8, 255),
        ("VOILUTSequence", 12, 4095),
        ("VOILUTSequence", 16, 4095),
        ("VOILUTSequence", 16, 65535),
        ("ModalityLUTSequence", 8, 255),
        ("ModalityLUTSequence", 16, 4095),
        ("ModalityLUTSequence", 16, 65535),
    ],
)
def test_what_is_white_in_a_table(tmp_path: Path, name: str, bits: int, top: int) -> None:
    pydicom = pytest.importorskip("pydicom")
    entries = [top * index // 255 for index in range(256)]
    table = add_table(pydicom.dataset.Dataset(), entries, bits)
    path = write_dicom(tmp_path / "a.dcm", GREY, **{name: table})
    assert np.abs(decode.decode(path)[..., 0] - GREY.astype(int)).max() <= 1


def test_the_window_of_an_enhanced_file(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")

    def holding(**elements: Any) -> Any:
        dataset = pydicom.dataset.Dataset()
        for name, value in elements.items():
            setattr(dataset, name, value)
        return dataset

    rescaling = holding(RescaleSlope=2, RescaleIntercept=0, RescaleType="US")
    window = holding(WindowCenter=3999.5, WindowWidth=1999)
    path = write_dicom(
        tmp_path / "a.dcm",
        np.stack([DEEP, DEEP]),
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=[holding(PixelValueTransformationSequence=[rescaling])],
        PerFrameFunctionalGroupsSequence=[
            holding(FrameVOILUTSequence=[window]),
            holding(FrameVOILUTSequence=[holding(WindowCenter=1, WindowWidth=1)]),
        ],
    )
    shares = np.clip((2.0 * DEEP - 3999) / 1998 + 0.5, 0, 1)
    assert np.abs(decode.decode(path)[..., 0] - 255 * shares).max() <= 0.501


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_in_dicom(tmp_path: Path, bits: int) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (3, 256))
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in zip(("Red", "Green", "Blue"), palette, strict=True):
        scaled = entries.astype(np.uint8) if bits == 8 else entries.astype("<u2") * 257
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = scaled.tobytes()
    path = write_dicom(tmp_path / "a.dcm", GREY, **elements)
    np.testing.assert_array_equal(decode.decode(path), palette.T[GREY])


@pytest.mark.parametrize(
    ("image", "elements"),
    [
        (COLOUR, {}),
        (np.moveaxis(COLOUR, -1, 0).copy().reshape(24, 30, 3), {"PlanarConfiguration": 1}),
        (COLOUR.astype(np.uint16) * 257, {}),
        (COLOUR.astype(np.uint16) * 16, TWELVE),
        (
            np.asarray(Image.fromarray(COLOUR).convert("YCbCr")),
            {"PhotometricInterpretation": "YBR_FULL"},
        ),
    ],
)
def test_colours_of_any_layout(
    tmp_path: Path, image: NDArray[Any], elements: dict[str, Any]
) -> None:
    decoded = decode.decode(write_dicom(tmp_path / "a.dcm", image, **elements)).astype(int)
    assert np.abs(decoded - COLOUR).max() <= 3


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian",
                                    "ExplicitVRBigEndian"])  # fmt: skip
@pytest.mark.parametrize("name", ["a.dcm", "IM000001"])
@pytest.mark.parametrize("kept", ["nothing", "meta", "preamble"])
@pytest.mark.filterwarnings("error")
def test_dicom_without_preamble_or_meta(tmp_path: Path, syntax: str, name: str, kept: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    uid = getattr(pydicom.uid, syntax)
    image = DEEP.astype(DEEP.dtype.newbyteorder("<" if uid.is_little_endian else ">"))
    path = write_dicom(tmp_path / name, image, syntax=uid, **TWELVE)
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    body, meta = content[144 + length :], content[132 : 144 + length]
    parts = {"nothing": body, "meta": meta + body, "preamble": content[:132] + body}
    path.write_bytes(parts[kept])
    assert dicom.is_dicom(path)
    assert np.abs(decode.decode(path)[..., 0] - 255 * WHOLE).max() <= 0.501


def compress(image: NDArray[Any], name: str) -> bytes:
    """Return a frame in one of DICOM's compressed forms."""
    bits = 8 if image.dtype == np.uint8 else 12
    if name.startswith("JPEG2000"):
        options = {"codecformat": "j2k", "reversible": True, "bitspersample": bits}
        return bytes(imagecodecs.jpeg2k_encode(image, **options))
    if name.startswith("JPEGLS"):
        return bytes(imagecodecs.jpegls_encode(image))
    if name.startswith("JPEGLossless"):
        return bytes(imagecodecs.ljpeg_encode(image, bitspersample=bits))
    return bytes(imagecodecs.jpeg_encode(image, level=100, bitspersample=bits))


COMPRESSED = ["JPEG2000Lossless", "JPEG2000", "JPEGLSLossless", "JPEGLSNearLossless",
              "JPEGLossless", "JPEGLosslessSV1"]  # fmt: skip


@pytest.mark.parametrize("name", [*COMPRESSED, "JPEGBaseline8Bit", "RLELossless",
                                  "DeflatedExplicitVRLittleEndian"])  # fmt: skip
@pytest.mark.parametrize("depth", [8, 12])
def test_compressed_dicom(tmp_path: Path, name: str, depth: int) -> None:
    pydicom = pytest.importorskip("pydicom")
    if name == "JPEGBaseline8Bit" and depth == 12:
        pytest.skip("Baseline JPEG has 8 bits")
    image, elements = (DEEP, TWELVE) if depth == 12 else (GREY, {})
    syntax = getattr(pydicom.uid, name)
    path = tmp_path / "a.dcm"
    if name == "RLELossless":
        dataset = pydicom.dcmread(write_dicom(path, image, **elements))
        dataset.compress(syntax)
        dataset.save_as(path)
    else:
        frame = b"" if name.startswith("Deflated") else compress(image, name)
        write_dicom(path, image, syntax=syntax, frame=frame, **elements)
    shares = WHOLE if depth == 12 else GREY / 255
    assert np.abs(decode.decode(path)[..., 0] - 255 * shares).max() <= 1.01


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_dicom_that_is_cut_off(tmp_path: Path, name: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    frame = compress(np.random.default_rng(0).integers(0, 4096, (32, 32), np.uint16), name)
    write_dicom(
        tmp_path / "a.dcm",
        np.zeros((32, 32), np.uint16),
        syntax=getattr(pydicom.uid, name),
        frame=frame[: len(frame) // 2],
        **TWELVE,
    )
    with pytest.raises(DataError, match=r"a\.dcm: cannot be decoded") as caught:
        decode.decode(tmp_path / "a.dcm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        ("JPEG2000", r"needs a decoder: pip install 'pydicom>=3' 'python-gdcm>=3.0.24'$"),
        ("JPEGLSLossless", r"needs a decoder: pip install 'pydicom>=3' 'python-gdcm>=3.0.24'$"),
        ("JPEGLosslessSV1", r"needs a decoder: pip install 'pydicom>=3' 'python-gdcm>=3.0.24'$"),
        ("MPEG2MPML", "compressed as MPEG2 Main Profile / Main Level; not supported"),
        ("HTJ2KLossless", "compressed as High-Throughput JPEG 2000 .*; not supported"),
    ],
)
def test_a_missing_decoder_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, message: str
) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.pixels.decoders.base import Decoder

    # What pydicom says where none of its plugins is installed.
    monkeypatch.setattr(Decoder, "is_available", property(lambda decoder: False))
    monkeypatch.setattr(
        Decoder,
        "missing_dependencies",
        property(lambda decoder: list(decoder._unavailable) + list(decoder._available)),
    )
    path = write_dicom(
        tmp_path / "a.dcm", GREY, syntax=getattr(pydicom.uid, syntax), frame=b"\xff\xd8"
    )
    with pytest.raises(DataError, match=message):
        decode.decode(path)


def test_compressed_dicom_that_does_not_say_how(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = write_dicom(
        tmp_path / "a.dcm", GREY, syntax=pydicom.uid.JPEGLSLossless, frame=compress(GREY, "JPEGLS")
    )
    content = path.read_bytes()
    path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
    with pytest.raises(DataError, match="compressed, without a word how"):
        decode.decode(path)


@pytest.mark.parametrize(
    ("elements", "fragment"),
    [
        (PALETTE, "of the kind PALETTE COLOR, 8 bits"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "of the kind YBR_PARTIAL_420, 8 bits"),
        ({"BitsStored": 6, "HighBit": 7}, "HighBit 7 and BitsStored 6; not supported"),
        ({"Rows": 9000, "Columns": 9000}, f"9000 x 9000 pixels; the limit is {MAX_PIXELS:,}"),
        ({"Rows": 4}, "30 x 4 pixels; at least 8"),
        ({"Rows": 60, "Columns": 60}, "cannot be decoded"),
        ({"Rows": None}, "without an image"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": 0}, "pixels that are not finite"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": 0} | WINDOW, "pixels that are not finite"),
        ({"RescaleSlope": 1, "RescaleIntercept": "-1e400"} | WINDOW, "not finite|decoded"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope 0"),
        ({"RescaleSlope": 0, "RescaleIntercept": 9} | WINDOW, "RescaleSlope 0"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_dicom_is_one_line(
    elements: dict[str, Any], fragment: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_dicom(tmp_path / "a.dcm", GREY, **elements)
    with pytest.raises(UserError) as caught:
        decode.decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(fragment, str(caught.value))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_dicom_is_known_by_its_content_and_predicted(
    here: Project, model: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "IM000001", GREY, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / "1.2.840.77", GREY)
    (tmp_path / "README").write_text("not looked at")
    (tmp_path / "z.dcm").write_bytes(b"no DICOM")
    assert predict.main([str(tmp_path), "model=classifier.keras", "format=json"]) == 1
    shown = capsys.readouterr()
    first, *_ = shown.err.splitlines()
    assert first == f"{tmp_path}/z.dcm: not a DICOM file."
    found = {
        Path(row["file"]).name: row["probability"] for row in json.loads(shown.out)["predictions"]
    }
    for name, image in {"IM000001": 255 - GREY, "1.2.840.77": GREY}.items():
        alone = model.predict(image[np.newaxis, ..., np.newaxis], verbose=0)[0, 0]
        assert found[name] == pytest.approx(alone, abs=1e-6)


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dicom, "is_supported", lambda: False)
    write_images(tmp_path)
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM")
    assert predict.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}/IM1: a DICOM file, which needs the package pydicom: "
        "pip install 'pydicom>=3' 'python-gdcm>=3.0.24'\n"
    )


def test_a_package_that_must_not_be_imported_is_as_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blocked:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name in ("pydicom", "tifffile"):
                raise ModuleNotFoundError(f"No module named {name!r}")

    for name in ("pydicom", "tifffile"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Blocked, *sys.meta_path])
    assert not dicom.is_supported()
    Image.fromarray(GREY).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: cannot be decoded \(No module named 'tifffile'"):
        decode.decode(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["pipe.png", "pipe.dcm", "pipe"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert dicom.is_dicom(tmp_path / name) == name.endswith(".dcm")
    with pytest.raises(DataError, match="not a file"):
        dicom.read_header(tmp_path / name)

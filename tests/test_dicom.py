"""DICOM files, written by pydicom, decoded as a viewer shows them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from samples import Project, pixels, write_images

from pneumonia import dicom, inference, predict
from pneumonia.errors import UserError
from pneumonia.image_files import MAX_PIXELS

ROOT = Path(__file__).parents[1]
Spawn = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.usefixtures("started")


def write_dicom(path: Path, image: NDArray[Any], **elements: Any) -> Path:
    """Write a DICOM file; elements come over those of a plain grey image."""
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom: pip install 'pneumonia[dicom]'")
    uid = pydicom.uid
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
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
    dataset.PixelData = image.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


GREY = pixels(24, 30, seed=9)
DEEP = np.linspace(0, 4095, 24 * 30).reshape(24, 30).astype(np.uint16)
LINEAR = np.clip((DEEP.astype(float) - 1999.5) / 999 + 0.5, 0, 1)
WINDOW = {"WindowCenter": 2000, "WindowWidth": 1000}
WHOLE = DEEP / 4095.0


@pytest.mark.parametrize(
    ("image", "elements", "shares"),
    [
        (GREY, {}, GREY / 255),
        (GREY, {"PhotometricInterpretation": "MONOCHROME1"}, 1 - GREY / 255),
        (GREY // 4 + 60, {"RescaleSlope": 1, "RescaleIntercept": 0}, (GREY // 4 + 60) / 255),
        (DEEP, {"BitsStored": 12, "HighBit": 11}, WHOLE),
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
            np.clip((DEEP - float(DEEP.flat[50])) / (4095 - float(DEEP.flat[50])), 0, 1),
        ),
        (np.stack([GREY, 255 - GREY]), {"NumberOfFrames": 2}, GREY / 255),
        (np.full((9, 9), 7, np.uint16), {}, np.zeros((9, 9))),
    ],
)
def test_dicom_is_decoded_as_a_viewer_shows_it(
    image: NDArray[Any], elements: dict[str, Any], shares: NDArray[Any], tmp_path: Path
) -> None:
    path = write_dicom(tmp_path / "a.dcm", image, **elements)
    decoded = inference.decode(path)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (*shares.shape, 1)
    assert np.abs(decoded[..., 0] - 255 * shares).max() <= 0.501


def test_dicom_with_a_lookup_table(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom: pip install 'pneumonia[dicom]'")
    table = pydicom.dataset.Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 12])
    table.add_new("LUTData", "US", [4095 - 16 * index for index in range(256)])
    path = write_dicom(tmp_path / "a.dcm", GREY, VOILUTSequence=[table], **WINDOW)
    shares = (4095 - 16.0 * GREY) / 4095
    assert np.abs(inference.decode(path)[..., 0] - 255 * shares).max() <= 0.501


def test_colour_dicom(tmp_path: Path) -> None:
    image = pixels(24, 30, 3)
    path = write_dicom(tmp_path / "a.dcm", image)
    np.testing.assert_array_equal(inference.decode(path), image)


@pytest.mark.parametrize(
    ("elements", "fragment"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "of the kind PALETTE COLOR, 8 bits"),
        ({"Rows": 9000, "Columns": 9000}, f"9000 x 9000 pixels; the limit is {MAX_PIXELS:,}"),
        ({"Rows": 4}, "30 x 4 pixels; at least 8"),
        ({"Rows": 60, "Columns": 60}, "cannot be decoded"),
        ({"Rows": None}, "without an image"),
    ],
)
def test_bad_dicom_is_one_line(elements: dict[str, Any], fragment: str, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", GREY, **elements)
    with pytest.raises(UserError) as caught:
        inference.decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dicom_is_known_by_its_content_and_predicted(
    here: Project, model: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "IM000001", GREY, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / "1.2.840.77", GREY)
    (tmp_path / "README").write_text("not looked at")
    (tmp_path / "z.dcm").write_bytes(b"no DICOM")
    assert predict.main([str(tmp_path), "model=classifier.keras", "format=json"]) == 1
    shown = capsys.readouterr()
    first, _ = shown.err.splitlines()
    assert first.startswith(f"{tmp_path}/z.dcm: cannot be decoded (File is missing DICOM")
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
        "pip install 'pneumonia[dicom]'\n"
    )

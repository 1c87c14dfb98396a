"""Files of all kinds: found, decoded batch by batch, and one picture at any depth."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from samples import Project, pixels, write_images

from pneumonia.cli import predict
from pneumonia.datasets import decode
from pneumonia.errors import UserError
from pneumonia.models.predictor import Predictor

pytestmark = pytest.mark.usefixtures("started")


def test_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("x", "x/deep", "x/.hidden", "y"):
        write_images(Path(folder))
    shutil.copyfile("y/a.png", "y/k=[1].png")
    shutil.copyfile("y/a.png", "x/.b.png")
    found = decode.find_files(["y/a.png", "x", "y/*.png", "y/k=[1].png"])
    names = [str(path) for path in found]
    assert names[:2] == ["y/a.png", "x/a.png"]
    assert len(names) == len(set(names)) == 1 + 12 + 1
    assert names[-1] == "y/k=[1].png"
    assert all(".hidden" not in name and "/.b" not in name for name in names)
    deep = decode.find_files(["x/**/*.bmp"])
    assert [str(path) for path in deep if ".hidden" not in str(path)] == ["x/d.bmp", "x/deep/d.bmp"]
    absolute = decode.find_files([f"{tmp_path}/y/*.jp*g"])
    assert [path.name for path in absolute] == ["b.jpg"]
    # A file of that name exists, so it is no `key=value` pair.
    monkeypatch.chdir("y")
    Path("k=1").write_bytes(Path("a.png").read_bytes())
    assert predict.parse(["k=1", "threshold=0.2"]).names == ("k=1",)


def test_images_are_decoded_as_batches_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels(64, 64)).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png"] * 100
    decoded: list[Path] = []

    def counted(path: Path) -> NDArray[np.uint8]:
        decoded.append(path)
        return original(path)

    original = decode.decode
    monkeypatch.setattr(decode, "decode", counted)
    batches = decode.decode_batches(paths, batch_size=8)
    assert len(next(batches)) == 8
    assert len(decoded) <= 8 + decode._WORKERS
    assert sum(map(len, batches)) == 92
    monkeypatch.setattr(decode, "_BATCH_VALUES", 3 * 64 * 64 * 3)
    sizes = [len(batch) for batch in decode.decode_batches(paths[:7], batch_size=32)]
    assert sizes == [3, 3, 1]


def test_a_picture_is_the_same_at_any_depth(here: Project, tmp_path: Path) -> None:
    grey = pixels(30, 40, seed=3) // 5  # dark, so that its maximum would need fewer bits
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "b.png")
    Image.fromarray(deep).save(tmp_path / "c.tif")
    for name, photometric, values in (
        ("d.tif", "miniswhite", 65535 - deep),
        ("e.tif", "rgb", np.repeat(deep[..., None], 3, axis=2)),
        ("f.tif", "minisblack", (grey / 255).astype(np.float32)),
    ):
        tifffile.imwrite(tmp_path / name, values, photometric=photometric, metadata=None)
    images = [decode.decode(path) for path in sorted(tmp_path.iterdir())]
    found = Predictor.load(here.classifier).predict(images)
    assert found.tolist() == [found[0]] * 6


def test_what_cannot_be_shown_is_one_line(
    here: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = np.linspace(0, 1, 900, dtype=np.float32).reshape(30, 30)
    values[3, 4] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    Image.fromarray(pixels(30, 30)).save(tmp_path / "b.png")
    assert predict.main([str(tmp_path), "model=classifier.keras"]) == predict.UNREADABLE
    first, *others = capfd.readouterr().err.splitlines()
    assert first == f"{tmp_path}/a.tif: cannot be decoded (pixels that are not finite)."
    assert not any("Warning" in line for line in others)


def test_pictures_of_other_formats_in_a_folder_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.gif", "deep/b.GIF", "c.svg", "notes.txt", "README", ".hidden.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"something")
    with pytest.raises(UserError, match=r"no image in this folder, only 2 \.gif, 1 \.svg, which"):
        decode.find_files([str(tmp_path)])
    for suffix in (".jfif", ".webp", ".jpe"):
        Image.fromarray(pixels(16, 16)).save(tmp_path / f"x{suffix}")
    assert len(decode.find_files([str(tmp_path)])) == 3
    assert capsys.readouterr().err == (
        f"{tmp_path}: left out, as it is not read: 2 .gif, 1 .svg.\n"
    )

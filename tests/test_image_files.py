"""Image files: what is refused by its header, and how unusual files are decoded."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumonia.errors import ConfigError, DataError
from pneumonia.image_files import FileSource, decode, read_header

RAMP = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))  # 16 x 24, grey


def png_with_size(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size, with next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def save(path: Path, image: Image.Image | np.ndarray, **options: object) -> Path:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".JPG"])
def test_the_formats(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", RAMP)
    assert not read_header(path).is_colour
    decoded = decode(path, channels=1)
    assert decoded.shape == (16, 24, 1)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded[..., 0].astype(int) - RAMP).max() <= (3 if "j" in suffix.lower() else 0)


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RAMP).rename(tmp_path / "a.jpg")
    read_header(path)
    assert np.array_equal(decode(path, channels=1)[..., 0], RAMP)


def test_a_file_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RAMP)
    with path.open("r+b") as file:
        file.truncate(1_000_000_001)  # with holes: it takes no space
    for read in (read_header, lambda path: decode(path, channels=1)):
        with pytest.raises(DataError, match="larger than 1,000,000,000 bytes"):
            read(path)


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RAMP)
    assert read_header(path).sha256 == hashlib.sha256(path.read_bytes()).digest()


def test_sixteen_bits_are_stretched_to_eight(tmp_path: Path) -> None:
    twelve_bits = RAMP.astype(np.uint16) * 17 + 5
    expected = np.round((RAMP - RAMP.min()) * (255 / 230)).astype(np.uint8)
    for suffix in (".png", ".tif"):
        path = save(tmp_path / f"a{suffix}", twelve_bits)
        assert not read_header(path).is_colour
        assert np.array_equal(decode(path, channels=1)[..., 0], expected)
    path = save(tmp_path / "float.tif", RAMP.astype(np.float32) / 7)
    assert np.abs(decode(path, channels=1)[..., 0].astype(int) - expected).max() <= 1
    constant = save(tmp_path / "constant.png", np.full((9, 9), 4000, np.uint16))
    assert not decode(constant, channels=3).any()


def test_palette_cmyk_and_bilevel(tmp_path: Path) -> None:
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:8, :, 0], colours[8:, :, 2] = 255, 255
    palette = save(tmp_path / "p.png", Image.fromarray(colours).quantize(4))
    assert read_header(palette).is_colour
    assert np.array_equal(decode(palette, channels=3), colours)
    cmyk = save(tmp_path / "c.tif", Image.fromarray(colours).convert("CMYK"))
    assert np.array_equal(decode(cmyk, channels=3), colours)
    bilevel = save(tmp_path / "b.png", Image.fromarray(RAMP > 100))
    assert not read_header(bilevel).is_colour
    assert np.array_equal(decode(bilevel, channels=1)[..., 0], (RAMP > 100) * np.uint8(255))


def test_alpha_is_composed_over_black(tmp_path: Path) -> None:
    rgba = np.full((10, 10, 4), 200, np.uint8)
    rgba[:5, :, 3], rgba[5:, :, 3] = 0, 255
    decoded = decode(save(tmp_path / "a.png", rgba), channels=3)
    assert not decoded[:5].any()
    assert (decoded[5:] == 200).all()
    grey_alpha = Image.fromarray(rgba).convert("LA")
    assert not decode(save(tmp_path / "la.png", grey_alpha), channels=1)[:5].any()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
    path = save(tmp_path / "a.png", RAMP, exif=exif)
    assert np.array_equal(decode(path, channels=1)[..., 0], np.rot90(RAMP, -1))


def test_grey_becomes_rgb_and_back(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RAMP)
    rgb = decode(path, channels=3)
    assert np.array_equal(rgb, np.repeat(RAMP[..., None], 3, axis=2))
    assert np.array_equal(decode(save(tmp_path / "b.png", rgb), channels=1)[..., 0], RAMP)


def test_a_file_of_several_frames_gives_the_first(tmp_path: Path) -> None:
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    path = save(tmp_path / "a.tif", frames[0], save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(path, channels=1)[..., 0], RAMP)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"hello, this is text", "not a PNG, JPEG, BMP, TIFF or WebP"),
        (b"GIF89a" + bytes(50), "not a PNG, JPEG, BMP, TIFF or WebP"),
        (b"\x89PNG\r\n\x1a\n", "not a PNG|cannot be decoded"),
        (png_with_size(1, 1), "1 x 1 pixels; at least 8"),
        (png_with_size(3000, 7), "3000 x 7 pixels; at least 8"),
        (png_with_size(9000, 9000), "9000 x 9000 pixels; the limit is 64,000,000"),
        (png_with_size(10_000, 10_000), "too many pixels; the limit is 64,000,000"),
        (png_with_size(20_000, 20_000), "too many pixels; the limit is 64,000,000"),
    ],
)
def test_the_header_suffices_to_refuse(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    start = time.perf_counter()
    for read in (read_header, lambda path: decode(path, channels=1)):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_found_at_once(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = save(tmp_path / f"a{suffix}", noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=f"a{suffix}: "):
        read_header(path)


def test_damage_inside_is_found_when_the_image_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = save(tmp_path / "a.png", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    read_header(path)
    with pytest.raises(ConfigError, match=r"`dataset\.path`: .*a\.png'\. cannot be decoded"):
        FileSource([path], channels=1).read(np.array([0]))


def test_what_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "none.png"):
        with pytest.raises(DataError, match=f"{name}: not a file"):
            read_header(tmp_path / name)


def test_a_source_reads_in_the_order_of_the_indices(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", np.full((10, 10), n, np.uint8)) for n in range(5)]
    source = FileSource(paths, channels=1)
    read = source.read(np.array([4, 0, 0, 2]))
    assert isinstance(read, np.ndarray)
    assert read[:, 0, 0, 0].tolist() == [4, 0, 0, 2]
    assert len(source) == 5


def test_a_source_of_several_sizes_reads_a_list(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", np.zeros((n, 20), np.uint8)) for n in (10, 12)]
    read = FileSource(paths, channels=3).read(np.array([1, 0]))
    assert [image.shape for image in read] == [(12, 20, 3), (10, 20, 3)]
    assert len(FileSource(paths, channels=3).read(np.array([], dtype=np.int64))) == 0


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RAMP)
    source = FileSource([path], channels=1)
    path.unlink()
    with pytest.raises(ConfigError, match=r"`dataset\.path`: .*a\.png'\. no such file"):
        source.read(np.array([0]))

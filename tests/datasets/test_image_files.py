"""Image files: what is refused by its header, and how unusual files are decoded."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pneumonia.datasets.decode import FileSource
from pneumonia.datasets.image_files import decode, read_header
from pneumonia.errors import ConfigError, DataError

RAMP = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))  # 16 x 24, grey


RAMP_12 = np.arange(0, 4096, 4).reshape(32, 32)
# Where each of the seven passes of an interlaced PNG starts, and its steps.
PASSES = [
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
]  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def png_of(header: bytes, data: bytes, chunks: bytes = b"", *, after: bytes = b"") -> bytes:
    """Return a PNG of its parts."""
    parts = [chunk(b"IHDR", header), chunks, chunk(b"IDAT", zlib.compress(data)), after]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def png_with_size(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size, with next to no pixels."""
    return png_of(struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"\0")


def write_png(
    path: Path,
    samples: NDArray[Any],
    *,
    depth: int,
    colour: int,
    interlaced: bool = False,
    chunks: bytes = b"",
    after: bytes = b"",
) -> Path:
    """Write samples (H, W, C) as a PNG of any depth and colour type, without a library."""
    height, width = samples.shape[:2]
    samples = samples.reshape(height, width, -1).astype(int)
    data = b""
    for x, y, right, down in PASSES if interlaced else [(0, 0, 1, 1)]:
        for row in samples[y::down, x::right]:
            bits = (row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
            data += b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    path.write_bytes(png_of(header, data, chunks, after=after))
    return path


def shades(values: NDArray[Any], top: float) -> NDArray[np.uint8]:
    """Return what values from 0 to `top` are in 8 bits."""
    return np.round(values * (255 / top)).astype(np.uint8)


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


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("colour", "depth"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)],
)
def test_png_of_all_colour_types_and_depths_is_one_picture(
    tmp_path: Path, colour: int, depth: int, interlaced: bool
) -> None:
    # The case of a scanner: 12 of 16 bits in use.
    values = RAMP_12 if depth == 16 else RAMP_12 >> (12 - depth)
    count = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    samples = np.repeat(values[..., None], count, axis=2)
    if colour in (4, 6):
        samples[..., -1] = 2**depth - 1
    options: dict[str, Any] = {"depth": depth, "colour": colour, "interlaced": interlaced}
    path = write_png(tmp_path / "a.png", samples, **options)
    assert read_header(path).is_colour == (colour in (2, 6))
    expected = shades(values, 4095 if depth == 16 else 2**depth - 1)
    for channels in (1, 3):
        decoded = decode(path, channels=channels)
        np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], channels, axis=2))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [b"", b"\xff\0", b"\0\x80"])
def test_a_palette_of_any_depth(tmp_path: Path, depth: int, alphas: bytes) -> None:
    indices = RAMP_12 >> (12 - depth)
    palette = np.random.default_rng(0).integers(0, 256, (2**depth, 3))
    opacity = np.full(2**depth, 255)
    opacity[: len(alphas)] = list(alphas)
    chunks = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    chunks += chunk(b"tRNS", alphas) if alphas else b""
    path = write_png(tmp_path / "a.png", indices, depth=depth, colour=3, chunks=chunks)
    expected = np.round(palette * opacity[:, None] / 255)[indices]
    assert np.abs(decode(path, channels=3) - expected).max() <= 1


def test_a_palette_image_without_its_palette_is_refused(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", RAMP_12 >> 4, depth=8, colour=3)
    for read in (read_header, lambda path: decode(path, channels=1)):
        with pytest.raises(DataError, match="without its palette"):
            read(path)


@pytest.mark.parametrize(
    ("colour", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)]
)
def test_a_transparent_value_is_background(tmp_path: Path, colour: int, depth: int) -> None:
    values = RAMP_12 if depth == 16 else RAMP_12 >> (12 - depth)
    count = 1 if colour == 0 else 3
    key = int(values[-1, -1])
    chunks = chunk(b"tRNS", struct.pack(">H", key) * count)
    samples = np.repeat(values[..., None], count, axis=2)
    path = write_png(tmp_path / "a.png", samples, depth=depth, colour=colour, chunks=chunks)
    top = 4095 if depth == 16 else 2**depth - 1
    expected = np.where(values == key, 0, shades(values, top))
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], expected)


@pytest.mark.parametrize("colour", [4, 6])
def test_what_alpha_hides_does_not_count(tmp_path: Path, colour: int) -> None:
    samples = np.repeat(RAMP_12[..., None], 2 if colour == 4 else 4, axis=2)
    samples[..., -1] = 65535
    samples[:4, :, :-1], samples[:4, :, -1] = 65535, 0
    samples[4:8, :, -1] = 32768
    path = write_png(tmp_path / "a.png", samples, depth=16, colour=colour)
    decoded = decode(path, channels=1)[..., 0].astype(int)
    expected = shades(RAMP_12, 4095)
    assert not decoded[:4].any()
    assert np.abs(decoded[4:8] - expected[4:8] / 2).max() <= 1
    np.testing.assert_array_equal(decoded[8:], expected[8:])


@pytest.mark.parametrize(
    ("high", "bits"), [(200, 8), (256, 10), (1024, 12), (4096, 14), (16384, 16)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_bits_in_use_are_the_full_scale(
    tmp_path: Path, high: int, bits: int, suffix: str
) -> None:
    values = np.linspace(high // 3, high, 32 * 32).reshape(32, 32).astype(np.uint16)
    path = save(tmp_path / f"a{suffix}", values)
    assert not read_header(path).is_colour
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], shades(values, 2**bits - 1))


@pytest.mark.parametrize("top", [255, 120, 40, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_eight_bits_written_with_sixteen_are_the_same_picture(
    tmp_path: Path, top: int, suffix: str
) -> None:
    values = (RAMP // 10 * (top // 3)).clip(0, top)
    path = save(tmp_path / f"a{suffix}", values.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], values)
    if suffix == ".png":
        colours = np.repeat(values[..., None], 3, axis=2).astype(int) * 257
        write_png(path, colours, depth=16, colour=2)
        np.testing.assert_array_equal(decode(path, channels=1)[..., 0], values)


@pytest.mark.parametrize(
    ("values", "significant", "top"),
    [
        (RAMP_12 // 4 + 1, 12, 4095),  # left as they were: the file's word counts, not the maximum
        (RAMP_12 * 16, 12, 65535),  # scaled up, as PNG wants it
        (RAMP_12 // 16 * 16, 12, 65535),  # scaled up and dark
        (RAMP_12 // 2, 16, 4095),  # no word
        (RAMP_12, 10, 65535),  # more than it says: scaled up
    ],
)
@pytest.mark.parametrize("colour", [0, 2])
def test_sbit_tells_the_bits_in_use(
    tmp_path: Path, values: NDArray[Any], significant: int, top: int, colour: int
) -> None:
    count = 1 if colour == 0 else 3
    chunks = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sBIT", bytes([significant]) * count)
    samples = np.repeat(values[..., None], count, axis=2)
    path = write_png(tmp_path / "a.png", samples, depth=16, colour=colour, chunks=chunks)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], shades(values, top))


@pytest.mark.parametrize("colour", [4, 6])
def test_the_bits_of_alpha_are_not_those_of_colours(tmp_path: Path, colour: int) -> None:
    count = 2 if colour == 4 else 4
    samples = np.repeat(RAMP_12[..., None] // 4 + 1, count, axis=2)
    samples[..., -1] = 65535
    chunks = chunk(b"sBIT", bytes([12] * (count - 1) + [16]))
    path = write_png(tmp_path / "a.png", samples, depth=16, colour=colour, chunks=chunks)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], shades(samples[..., 0], 4095))


def test_a_deep_png_is_upright_and_found_damaged(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = np.repeat(RAMP_12[..., None], 3, axis=2)
    after = chunk(b"eXIf", exif.tobytes()[6:])
    options: dict[str, Any] = {"depth": 16, "colour": 2}
    path = write_png(tmp_path / "a.png", samples, after=after, **options)
    expected = np.rot90(shades(RAMP_12, 4095), -1)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], expected)
    for kept in (0.4, 0.9):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        for read in (read_header, lambda path: decode(path, channels=3)):
            with pytest.raises(DataError, match=r"a\.png: "):
                read(path)


TIFF_KINDS = {
    "miniswhite": 1,
    "minisblack": 1,
    "rgb": 3,
    "separated": 4,
}
SHARES = np.linspace(0, 1, 40 * 48).reshape(40, 48)


@pytest.mark.parametrize("photometric", TIFF_KINDS)
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8"])
def test_tiff_of_all_interpretations_and_depths_is_one_picture(
    tmp_path: Path, photometric: str, kind: str
) -> None:
    count = TIFF_KINDS[photometric]
    shares = np.stack([SHARES ** (1 + n / 4) for n in range(count)], axis=-1)
    tops = {"u1": 255, "u2": 4095, "u4": 65535, "i2": 4095, "i4": 2**24 - 1}
    top = tops.get(kind, 1)
    values = (shares * top).round() if top > 1 else shares
    values = values.astype(kind)
    expected = (values.astype(float) * (255 / top)).round().astype(np.uint8)
    if photometric == "miniswhite":
        expected = 255 - expected
    if photometric == "separated":
        expected = np.asarray(Image.fromarray(expected, "CMYK").convert("RGB"))
    for compression, tile, order, planar in (
        (None, None, "<", "contig"),
        (None, (16, 16), ">", "separate"),
        ("lzw", None, ">", "contig"),
        ("zlib", (16, 16), "<", "separate"),
    ):
        if count == 1:
            layout: dict[str, Any] = {}
            pixels = values[..., 0]
        else:
            layout = {"planarconfig": planar}
            pixels = values if planar == "contig" else np.moveaxis(values, -1, 0)
        tifffile.imwrite(
            path := tmp_path / "a.tif",
            pixels,
            photometric=photometric,
            compression=compression,
            predictor=compression is not None,
            tile=tile,
            byteorder=order,
            metadata=None,
            **layout,
        )
        assert read_header(path).is_colour == (count > 1)
        decoded = decode(path, channels=3)
        np.testing.assert_array_equal(decoded, np.broadcast_to(expected, decoded.shape))


@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_tiff_of_packed_bits(tmp_path: Path, bits: int, photometric: str) -> None:
    values = (SHARES * (2**bits - 1) * 0.9).astype(np.uint8 if bits < 8 else np.uint16)
    path = write_tiff(tmp_path, values, bitspersample=bits, photometric=photometric)
    expected = shades(values, 2**bits - 1)
    expected = 255 - expected if photometric == "miniswhite" else expected
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], expected)


def write_tiff(folder: Path, values: NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(folder / "a.tif", values, metadata=None, **options)
    return folder / "a.tif"


@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_alpha_of_a_tiff(tmp_path: Path, alpha: str, kind: str, photometric: str) -> None:
    top = {"u1": 255, "u2": 65535, "f4": 1}[kind]
    grey = shades(SHARES, 1)
    is_opaque = np.arange(48) % 2 == np.zeros((40, 1))
    shown = np.where(is_opaque, grey, 0)
    colour = shown if alpha == "assocalpha" else grey
    layers = [colour] * (3 if photometric == "rgb" else 1) + [is_opaque * 255]
    values = (np.stack(layers, axis=-1) / 255 * top).astype(kind)
    options = {"photometric": photometric, "extrasamples": [alpha], "planarconfig": "contig"}
    path = write_tiff(tmp_path, values, **options)
    assert read_header(path).is_colour == (photometric == "rgb")
    expected = grey if alpha == "unspecified" else shown
    decoded = decode(path, channels=1)[..., 0].astype(int)
    assert np.abs(decoded - expected).max() <= (1 if kind == "f4" else 0)


def test_palettes_lab_and_ycbcr_of_a_tiff(tmp_path: Path) -> None:
    ramp = np.arange(256)
    indices = (SHARES * 255).astype(np.uint8)
    colours = np.stack([ramp, 255 - ramp, ramp // 2]).astype(np.uint16)
    expected = colours.T[indices]
    for top in (257, 1):  # 16 bits, or 8 as some write them
        palette = {"photometric": "palette", "colormap": colours * np.uint16(top)}
        path = write_tiff(tmp_path, indices, **palette)
        assert read_header(path).is_colour
        np.testing.assert_array_equal(decode(path, channels=3), expected)
    image = Image.fromarray(expected.astype(np.uint8))
    for mode, options in (("LAB", {}), ("YCbCr", {}), ("RGB", {"compression": "jpeg"})):
        image.convert(mode).save(path, **options)
        assert read_header(path).is_colour
        assert np.abs(decode(path, channels=3) - expected.astype(int)).mean() < 3


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits", None])
def test_bilevel_tiff(tmp_path: Path, compression: str | None) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(RAMP > 100), compression=compression)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], (RAMP > 100) * np.uint8(255))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_orientation_of_a_deep_tiff(tmp_path: Path, kind: type) -> None:
    values = RAMP.astype(kind) * 17
    path = write_tiff(tmp_path, values, extratags=[(274, "H", 1, 6, True)])
    expected = np.rot90(shades(values, 4095), -1)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], expected)


def test_the_largest_sample_that_a_tiff_tells_counts(tmp_path: Path) -> None:
    values = (SHARES * 900).astype(np.uint16)
    for told, top in ((4095, 4095), (100, 1023), (65535, 1023)):
        path = write_tiff(tmp_path, values, extratags=[(281, "H", 1, told, True)])
        np.testing.assert_array_equal(decode(path, channels=1)[..., 0], shades(values, top))


@pytest.mark.parametrize(("factor", "top"), [(0.5, 1), (1, 1), (255, 255), (900, 1023), (0, 1)])
def test_floats_are_shares_of_one_or_of_the_bits_in_use(
    tmp_path: Path, factor: float, top: int
) -> None:
    values = (SHARES * factor).astype(np.float32)
    path = write_tiff(tmp_path, values)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], shades(values, top))


@pytest.mark.parametrize("factor", [1.0001, 1.2, 3.7])
def test_floats_that_overshoot_one_are_not_shown_black(tmp_path: Path, factor: float) -> None:
    path = write_tiff(tmp_path, (SHARES * factor).astype(np.float32))
    with pytest.raises(DataError, match="neither shares of 1 nor of 255"):
        decode(path, channels=1)


@pytest.mark.parametrize(("constant", "shown"), [(0, 0), (7, 7), (4000, 249), (65535, 255)])
def test_a_constant_image_is_a_picture(tmp_path: Path, constant: int, shown: int) -> None:
    for suffix in (".png", ".tif"):
        path = save(tmp_path / f"a{suffix}", np.full((9, 9), constant, np.uint16))
        assert (decode(path, channels=3) == shown).all()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (SHARES - 0.1, {}, "pixels from -0.1 to 0.9; none may be below 0"),
        ((SHARES * 99).astype(np.int16) - 5, {}, "pixels from -5 to 94; none may be below 0"),
        (np.where(SHARES > 0.9, np.nan, SHARES), {}, "pixels that are not finite"),
        (np.where(SHARES > 0.9, np.inf, SHARES), {}, "pixels that are not finite"),
        (np.where(SHARES > 0.9, -np.inf, SHARES), {}, "pixels that are not finite"),
        ((SHARES * 1e30).astype(np.float32), {}, "pixels of up to 1e"),
        (SHARES.astype(np.complex64), {}, "COMPLEXIEEEFP"),
        (np.zeros((40, 48, 3), np.uint16), {"photometric": "cielab"}, "3 x 16 bits, CIELAB"),
        (np.zeros((40, 48, 3), np.uint8), {"photometric": "icclab"}, "ICCLAB"),
        (np.zeros((40, 48), np.uint16), {"photometric": "cfa"}, "CFA"),
        (
            np.zeros((40, 48, 2), np.uint16),
            {"photometric": "miniswhite", "extrasamples": [2], "planarconfig": "contig"},
            "2 x 16 bits, MINISWHITE",
        ),
        (
            np.zeros((4, 32, 32), np.uint16),
            {"photometric": "minisblack", "volumetric": True, "tile": (4, 16, 16)},
            "not supported",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_tiff_that_would_come_out_wrong_is_refused(
    tmp_path: Path,
    values: NDArray[Any],
    options: dict[str, Any],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = write_tiff(tmp_path, values, **options)
    for read in (read_header, lambda path: decode(path, channels=1)):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "jpeg"])
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_a_deep_tiff_that_is_cut_off_is_refused(
    tmp_path: Path, compression: str | None, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    kind = np.uint8 if compression == "jpeg" else np.uint16
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(kind)
    path = write_tiff(tmp_path, noise, compression=compression, rowsperstrip=16)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    for read in (read_header, lambda path: decode(path, channels=1)):
        with pytest.raises(DataError, match=r"a\.tif: "):
            read(path)
    assert capfd.readouterr() == ("", "")


def test_a_tiff_without_its_interpretation_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path, np.zeros((16, 16), np.uint16), photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        at = file.pages.first.tags[262].offset
    content = bytearray(path.read_bytes())
    content[at : at + 2] = struct.pack("<H", 263)
    path.write_bytes(content)
    with pytest.raises(DataError, match="does not tell its PhotometricInterpretation"):
        read_header(path)


def test_a_tiff_with_its_version_reversed_is_not_guessed(tmp_path: Path) -> None:
    path = write_tiff(tmp_path, np.zeros((16, 16), np.uint16), photometric="miniswhite")
    path.write_bytes(b"II\0*" + path.read_bytes()[4:])
    with pytest.raises(DataError, match="cannot be decoded"):
        read_header(path)


def test_inks_of_a_jpeg_are_inverted_only_where_adobe_wrote_it(tmp_path: Path) -> None:
    grey = np.repeat(RAMP[..., None], 3, axis=2)
    path = save(tmp_path / "a.jpg", Image.fromarray(grey).convert("CMYK"), quality=100)
    expected = decode(path, channels=3)
    assert np.abs(expected.astype(int) - grey).max() <= 3
    content = path.read_bytes()
    at = content.index(b"\xff\xee")
    length = int.from_bytes(content[at + 2 : at + 4], "big")
    path.write_bytes(content[:at] + content[at + 2 + length :])
    with Image.open(path) as image:
        inks = Image.fromarray(255 - np.asarray(image), "CMYK")
    np.testing.assert_array_equal(decode(path, channels=3), np.asarray(inks.convert("RGB")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jpg", "jpeg12", r"a JPEG file that cannot be decoded \(.*12"),
        ("a.bmp", b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 2, *[0] * 6),
         r"cannot be decoded \(.*pixel depth \(2"),
        ("a.png", png_of(struct.pack(">IIBBBBB", 9, 9, 16, 3, 0, 0, 0), b""),
         "PNG file that cannot be decoded"),
    ],
)  # fmt: skip
def test_why_a_known_format_cannot_be_decoded(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    if content == "jpeg12":
        content = imagecodecs.jpeg_encode(RAMP.astype(np.uint16) * 16, bitspersample=12)
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_header, lambda path: decode(path, channels=1)):
        with pytest.raises(DataError, match=message):
            read(path)


def test_bitmaps_of_all_depths(tmp_path: Path) -> None:
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:8, :, 0], colours[8:, :, 2], colours[:, :4] = 255, 255, 255
    image = Image.fromarray(colours)
    for mode in ("RGB", "RGBA", "P", "L", "1"):
        shown = image.quantize(4) if mode == "P" else image.convert(mode)
        path = save(tmp_path / "a.bmp", shown)
        np.testing.assert_array_equal(decode(path, channels=3), np.asarray(shown.convert("RGB")))
    for masks, kind in (((0x7C00, 0x3E0, 0x1F), 555), ((0xF800, 0x7E0, 0x1F), 565)):
        shifts = (10, 5, 0) if kind == 555 else (11, 5, 0)
        bits = (3, 3, 3) if kind == 555 else (3, 2, 3)
        words = sum(
            (colours[..., n].astype(np.uint16) >> bits[n]) << shifts[n] for n in range(3)
        ).astype("<u2")
        size = struct.pack("<IiiHHIIiiII", 40, 16, -16, 1, 16, 3, words.nbytes, 0, 0, 0, 0)
        start = struct.pack("<IHHI", 66 + words.nbytes, 0, 0, 66)
        path.write_bytes(b"BM" + start + size + struct.pack("<III", *masks) + words.tobytes())
        np.testing.assert_array_equal(decode(path, channels=3), colours)


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

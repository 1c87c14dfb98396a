"""Arrays of strangers: what is no plain array, or claims more than there is, is refused."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pneumonia.datasets import npz_files
from pneumonia.errors import DataError


def header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def write(path: Path, content: bytes, *, name: str = "a.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def test_arrays_are_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array(3.5), "c": np.zeros((0, 2), "u1")}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        read = npz_files.read(tmp_path / "x.npz", ["c", "a", "b"])
        assert list(read) == ["c", "a", "b"]
        assert all(np.array_equal(read[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((10**9, 10**9)), "a claims 1,000,000,000,000,000,128 bytes, not 128"),
        (header((10,)) + b"123", "a claims 138 bytes, not 131"),
        (header((1,)) + b"123", "a claims 129 bytes, not 131"),
        (header((-1, 4)), "damaged"),
        (header((2,), "|O") + b"\x80\x04.", "objects, a pickle, which is never loaded"),
        (b"\x93NUMPY\x03\0v\0{}", "no plain one"),
        (b"\x93NUMPY\x09\0v\0{}", "damaged|no plain one"),
        (b"", "damaged"),
        (b"not an array", "damaged"),
    ],
)
def test_what_is_not_as_it_claims_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "x.npz", content)
    tracemalloc.start()
    with pytest.raises(DataError, match=message):
        npz_files.read(path, ["a"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**7


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_files, "SUSPECT_BYTES", 10**6)
    path = write(tmp_path / "x.npz", header((4 * 10**6,)) + bytes(4 * 10**6))
    assert path.stat().st_size < 10**4
    with pytest.raises(DataError, match="a zip bomb"):
        npz_files.read(path, ["a"])


def test_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_files, "MEMORY_SHARE", 1e-6)
    path = write(tmp_path / "x.npz", header((10**6,)) + bytes(10**6))
    with pytest.raises(DataError, match=r"GB; this machine has .* GB of memory"):
        npz_files.read(path, ["a"])


def test_a_damaged_member_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).integers(0, 9, 1000))
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="It is damaged"):
        npz_files.read(path, ["a"])

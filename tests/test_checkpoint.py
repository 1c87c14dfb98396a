"""A checkpoint gives back the very values, or the file before it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pneumonia import checkpoint
from pneumonia.checkpoint import Progress


def progress(seed: int = 0, count: int = 12) -> Progress:
    rng = np.random.default_rng(seed)
    model = tuple(rng.normal(size=(number, 2)).astype(np.float32) for number in range(count))
    optimizer = (np.array(7, dtype=np.int64), np.array([[1, 2]], dtype=np.uint32), model[1] * 2)
    history = ({"loss": 0.1 + 0.2, "val_auc": 1 / 3}, {"loss": float("nan"), "val_auc": 1e-320})
    return Progress(model, optimizer, model[::-1], history)


def test_gives_back_the_very_values(tmp_path: Path) -> None:
    path = tmp_path / "trials" / "0000.zip"
    given = [progress(seed) for seed in range(11)]  # more than ten: names are no numbers
    checkpoint.save(path, given)
    found = checkpoint.load(path)
    assert len(found) == len(given)
    for one, other in zip(found, given, strict=True):
        assert repr(one.history) == repr(other.history)  # nan is not equal to itself
        for kind in ("model", "optimizer", "best"):
            for a, b in zip(getattr(one, kind), getattr(other, kind), strict=True):
                assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_a_training_that_has_not_begun(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.zip", [Progress((), (), (), ())])
    assert checkpoint.load(tmp_path / "a.zip") == (Progress((), (), (), ()),)


def test_writing_that_fails_leaves_the_file_before_it(tmp_path: Path) -> None:
    path = tmp_path / "0000.zip"
    checkpoint.save(path, [progress(1)])
    before = path.read_bytes()
    good = progress(2)
    bad = Progress(good.model, (np.array([object()]),), (), ())
    with pytest.raises(ValueError, match="pickle"):
        checkpoint.save(path, [bad])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_or_damaged_file_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "0000.zip"
    with pytest.raises(OSError, match="No such file"):
        checkpoint.load(path)
    checkpoint.save(path, [progress()])
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(zipfile.BadZipFile):
        checkpoint.load(path)
    content[content.index(progress().model[9].tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile):
        checkpoint.load(path)

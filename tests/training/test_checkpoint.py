"""A checkpoint gives back the very values, or the file before it."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pneumonia.artifacts import FolderStore, state_key, state_keys
from pneumonia.training import checkpoint
from pneumonia.training.checkpoint import Checkpoints, FitState, StateError


def progress(seed: int = 0, count: int = 12) -> FitState:
    rng = np.random.default_rng(seed)
    model = tuple(rng.normal(size=(number, 2)).astype(np.float32) for number in range(count))
    optimizer = (np.array(7, dtype=np.int64), np.array([[1, 2]], dtype=np.uint32), model[1] * 2)
    history = ({"loss": 0.1 + 0.2, "val_auc": 1 / 3}, {"loss": float("nan"), "val_auc": 1e-320})
    return FitState(model, optimizer, model[::-1], history)


def assert_same(one: FitState, other: FitState) -> None:
    assert repr(one.history) == repr(other.history)  # nan is not equal to itself
    for kind in ("model", "optimizer", "best"):
        for a, b in zip(getattr(one, kind), getattr(other, kind), strict=True):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_gives_back_the_very_values(tmp_path: Path) -> None:
    path = tmp_path / "trials" / "0000.zip"
    given = progress()
    path.parent.mkdir()
    checkpoint.save(path, given, before=2)
    found, before = checkpoint.load(path)
    assert before == 2
    assert_same(found, given)


def test_a_training_that_has_not_begun(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.zip", FitState((), (), (), ()))
    assert checkpoint.load(tmp_path / "a.zip") == (FitState((), (), (), ()), 0)


def test_writing_that_fails_leaves_the_file_before_it(tmp_path: Path) -> None:
    path = tmp_path / "0000.zip"
    checkpoint.save(path, progress(1))
    before = path.read_bytes()
    good = progress(2)
    bad = FitState(good.model, (np.array([object()]),), (), ())
    with pytest.raises(ValueError, match="pickle"):
        checkpoint.save(path, bad)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_or_damaged_file_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "0000.zip"
    with pytest.raises(OSError, match="No such file"):
        checkpoint.load(path)
    checkpoint.save(path, progress())
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(zipfile.BadZipFile):
        checkpoint.load(path)
    content[content.index(progress().model[9].tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile):
        checkpoint.load(path)


def test_every_damage_is_found(tmp_path: Path) -> None:
    store, path = FolderStore(tmp_path), tmp_path / state_key("0000")
    Checkpoints(store, "0000").write([progress(1, 3)])
    content, good = path.read_bytes(), checkpoint.read(store, "0000")
    rng = np.random.default_rng(1)
    for _ in range(1500):
        damaged = bytearray(content)
        position = int(rng.integers(len(damaged)))
        damaged[position] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.3:
            del damaged[position:]
        path.write_bytes(damaged)
        found = None
        with contextlib.suppress(StateError):
            found = checkpoint.read(store, "0000")
        # What was hit may not matter, such as a date; otherwise there is nothing.
        assert found is None or repr(found) == repr(good)


def test_what_a_killed_process_left_half_written_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "0000.zip"
    path.with_name(".0000.zip.part").write_bytes(b"half")
    checkpoint.save(path, progress())
    assert list(tmp_path.iterdir()) == [path]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def offer(clock: Clock, checkpoints: Checkpoints, *, epoch: float, writing: float) -> bool:
    """Offer the state after an epoch of some seconds, whose writing takes some."""
    clock.now += epoch

    def make() -> list[FitState]:
        clock.now += writing
        return [progress(0, 2)]

    return checkpoints.offer(make)


def test_slow_epochs_are_all_written(tmp_path: Path) -> None:
    clock = Clock()
    checkpoints = Checkpoints(FolderStore(tmp_path), "0000", clock=clock)
    assert all(offer(clock, checkpoints, epoch=1.5, writing=1.2) for _ in range(5))


@pytest.mark.parametrize(("epoch", "writing"), [(0.1, 0.002), (0.05, 0.01), (0.9, 0.5)])
def test_the_writing_of_fast_epochs_takes_little_time(
    epoch: float, writing: float, tmp_path: Path
) -> None:
    clock = Clock()
    checkpoints = Checkpoints(FolderStore(tmp_path), "0000", clock=clock)
    written = [offer(clock, checkpoints, epoch=epoch, writing=writing) for _ in range(400)]
    assert written[0]
    assert sum(written[1:]) * writing <= 0.03 * clock.now
    # And no more is lost than forty times what a writing takes.
    gaps = np.diff(np.flatnonzero(written))
    assert gaps.max() * epoch <= 40 * writing + epoch


def test_the_end_is_written_once(tmp_path: Path) -> None:
    path, clock, store = tmp_path / state_key("0000"), Clock(), FolderStore(tmp_path)
    checkpoints = Checkpoints(store, "0000", clock=clock)
    done = [progress(0, 2)]
    assert offer(clock, checkpoints, epoch=2, writing=0)
    path.unlink()
    checkpoints.finish(done)  # it was written after the last epoch
    assert not path.exists()
    checkpoints.finish([*done, *done])  # an execution that had nothing left to train
    assert len(checkpoint.read(store, "0000")) == 2
    checkpoints.drop(2)
    assert list(path.parent.iterdir()) == []


def test_a_fit_that_is_over_is_written_once(tmp_path: Path) -> None:
    class Counting(FolderStore):
        def put(self, key: str, write: Callable[[Path], object]) -> None:
            super().put(key, write)
            sizes.append(self.get(key).stat().st_size)

    sizes: list[int] = []
    store, fits = Counting(tmp_path), [progress(seed) for seed in range(3)]
    checkpoints = Checkpoints(store, "0000")
    for count in (1, 1, 2, 2, 2, 3, 3):
        checkpoints.write(fits[:count])
    assert len(sizes) == 7 + 2
    assert max(sizes) < 1.01 * min(sizes)
    for one, other in zip(checkpoint.read(store, "0000"), fits, strict=True):
        assert_same(one, other)
    for key in state_keys("0000", 3):
        content = store.get(key).read_bytes()
        store.drop(key)
        with pytest.raises(StateError, match=f"{key} is missing"):
            checkpoint.read(store, "0000")
        store.get("trials").joinpath(Path(key).name).write_bytes(content)
    assert len(checkpoint.read(store, "0000")) == 3

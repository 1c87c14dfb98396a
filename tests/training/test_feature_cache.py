"""The feature cache: computed once, found again, mended when damaged, bounded."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pneumonia import files as storage
from pneumonia.datasets.chest_phantom import phantom
from pneumonia.errors import ConfigError
from pneumonia.models import classifier
from pneumonia.training import feature_cache
from pneumonia.training.augment import View, geometric
from pneumonia.training.frozen_graph import Frozen

SIZE = 16
DATA = phantom(train=100, val=20, test=20, image_size=32, seed=1)


def backbone(seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Conv2D(8, 3, name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, x, name="backbone")


@functools.cache
def frozen(seed: int = 1) -> Frozen:
    model = backbone(seed)
    return Frozen(model, SIZE, feature_cache.digest(model, {"name": "test"}))


def compute(split: Any, part: Frozen, *, view: View | None = None, **options: Any) -> Any:
    return feature_cache.compute(split, part, views=[view], **options)[0]


class Counter:
    """Counts the images that are computed."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, text: str, done: int, total: int) -> None:
        self.images += done == total


def section(folder: Path, **changes: Any) -> dict[str, Any]:
    usual = {"max_gb": 1.0, "dtype": "float32", "precision": "float32", "cache": True}
    return {"folder": str(folder), **usual, **changes}


def test_computes_once_and_what_the_backbone_gives(tmp_path: Path) -> None:
    count, part = Counter(), frozen()
    options = {"view": None, "section": section(tmp_path), "report": count}
    first = compute(DATA.train, part, **options)
    second = compute(DATA.train, frozen(), **options)
    assert count.images == 1
    assert isinstance(second, np.memmap)
    assert first.shape == (100, 8)
    images = classifier.resize(DATA.train.images.read(np.arange(100)), SIZE)
    np.testing.assert_allclose(second, part.model.predict(images, verbose=0), atol=1e-4)


def test_every_difference_has_its_own_entry(tmp_path: Path) -> None:
    count = Counter()
    pipeline = geometric(flip=True, rotation=10, zoom=0.1)
    views = [View(pipeline, "a", 0, 1), View(pipeline, "a", 1, 1), View(pipeline, "b", 0, 1)]
    cases = [
        (DATA.train, frozen(), None, section(tmp_path)),
        (DATA.val, frozen(), None, section(tmp_path)),
        (DATA.train, frozen(seed=2), None, section(tmp_path)),
        (DATA.train, frozen(), None, section(tmp_path, dtype="float16")),
        *((DATA.train, frozen(), view, section(tmp_path)) for view in views),
        (DATA.train, frozen(), View(pipeline, "a", 0, 2), section(tmp_path)),
    ]
    for split, part, view, where in cases:
        compute(split, part, view=view, section=where, report=count)
    assert count.images == len(cases)
    assert len(list(tmp_path.glob("*.npy"))) == len(cases)


def test_views_differ_and_are_the_same_again(tmp_path: Path) -> None:
    def render(folder: str, index: int) -> Any:
        view = View(geometric(flip=True, rotation=10, zoom=0.1), "a", index, 1)
        where = section(tmp_path / folder)
        return compute(DATA.train, frozen(), view=view, section=where, report=Counter())

    np.testing.assert_array_equal(render("one", 0), render("two", 0))
    assert not np.allclose(render("one", 0), render("one", 1))


@pytest.mark.parametrize("damage", ["flip", "cut", "no note", "no data", "bad note"])
def test_a_damaged_entry_is_computed_again(damage: str, tmp_path: Path) -> None:
    count = Counter()
    options = {"view": None, "section": section(tmp_path), "report": count}
    expected = np.array(compute(DATA.val, frozen(), **options))
    path = next(tmp_path.glob("*.npy"))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-40])
    elif damage == "no note":
        path.with_suffix(".json").unlink()
    elif damage == "no data":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{")
    again = compute(DATA.val, frozen(), **options)
    assert count.images == 2
    np.testing.assert_array_equal(again, expected)


def test_an_interrupted_computation_leaves_no_entry(tmp_path: Path) -> None:
    def stop(text: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    where = section(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compute(DATA.train, frozen(), view=None, section=where, report=stop)
    assert not list(tmp_path.glob("*.npy"))
    assert not list(tmp_path.glob(".*.part"))


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    size = 100 * 8 * 4
    where = section(tmp_path, max_gb=2.5 * size / 1e9)
    count = Counter()

    def compute_with(seed: int) -> None:
        compute(DATA.train, frozen(seed), view=None, section=where, report=count)

    for seed in (1, 2, 1, 3):
        compute_with(seed)
    assert count.images == 3
    assert len(list(tmp_path.glob("*.npy"))) == 2
    compute_with(1)
    assert count.images == 3
    compute_with(2)
    assert count.images == 4


def test_refuses_what_can_never_fit(tmp_path: Path) -> None:
    where = section(tmp_path, max_gb=1e-6)
    with pytest.raises(ConfigError, match=r"features\.max_gb"):
        compute(DATA.train, frozen(), view=None, section=where, report=Counter())


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing"])
def test_a_place_that_can_be_no_folder_is_a_mistake(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = {"view": None, "section": section(tmp_path / place), "report": Counter()}
    with pytest.raises(ConfigError, match=r"`features\.folder`: expected a folder"):
        compute(DATA.train, frozen(), **options)


def test_a_folder_in_the_home_is_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    compute(DATA.val, frozen(), section=section(Path("~/features")), report=Counter())
    assert len(list((tmp_path / "home" / "features").glob("*.npy"))) == 1
    assert not Path("~").exists()


def test_threads_compute_each_entry_once(tmp_path: Path) -> None:
    count, where, meeting = Counter(), section(tmp_path), threading.Barrier(2, timeout=60)
    frozen()

    def work(split: Any) -> Any:
        meeting.wait()
        return [compute(one, frozen(), section=where, report=count) for one in (DATA.train, split)]

    with ThreadPoolExecutor() as pool:
        one, other = pool.map(work, (DATA.val, DATA.val))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)
    assert count.images == 2


@pytest.mark.slow
def test_processes_compute_each_entry_once(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}
from test_feature_cache import *
count = Counter()
where = section(Path({str(tmp_path)!r}))
print("it begins", flush=True)
for split in (DATA.train, DATA.val):
    compute(split, frozen(), view=None, section=where, report=count)
print(json.dumps(count.images))
"""
    count = Counter()
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "it begins\n"
        for split in (DATA.train, DATA.val):
            compute(split, frozen(), view=None, section=section(tmp_path), report=count)
        theirs = json.loads(other.communicate(timeout=120)[0])
    assert count.images + theirs == 2


def test_what_killed_processes_have_left_goes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = tmp_path / f"once-{gone.pid}-abc"
    left.mkdir()
    (left / "features.npy").write_bytes(b"half")
    count, part = Counter(), frozen()
    once = section(tmp_path, cache=False)
    compute(DATA.val, part, view=None, section=once, report=count)
    assert list(tmp_path.iterdir()) == []
    compute(DATA.val, part, view=None, section=section(tmp_path), report=count)
    entry = next(tmp_path.glob("*.npy"))
    files = sorted(tmp_path.iterdir())
    entry.with_suffix(".json").unlink()
    entry.with_name(f".{entry.name}.part").write_bytes(b"half")
    compute(DATA.val, part, view=None, section=section(tmp_path), report=count)
    assert sorted(tmp_path.iterdir()) == files


def about(change: Any) -> Any:
    def call(array: Path, note: Path) -> None:
        note.write_text(json.dumps(change(json.loads(note.read_text()))))

    return call


def archive(array: Path) -> None:
    np.savez(array.with_suffix(".npz"), a=np.zeros(3))
    array.with_suffix(".npz").replace(array)


def turned(array: Path, note: Path) -> None:
    """Say that the same bytes are a column after the other."""
    array.write_bytes(array.read_bytes().replace(b"False", b"True ", 1))


@pytest.mark.parametrize(
    "damage",
    [
        *(about(lambda _, made=made: made) for made in ({}, [], None, 5, "x", [1, 2])),
        *(about(lambda old, name=name: old | {name: None}) for name in ("shape", "dtype", "crc32")),
        about(lambda old: old | {"shape": [20, 100 * 8]}),
        about(lambda old: {"shape": old["shape"]}),
        lambda array, note: note.write_bytes(b"\xff\0"),
        lambda array, note: array.write_bytes(b""),
        lambda array, note: array.write_bytes(array.read_bytes()[:-40]),
        lambda array, note: array.write_bytes(array.read_bytes()[:50]),
        lambda array, note: array.write_bytes(array.read_bytes() + b"more"),
        lambda array, note: array.write_bytes(b"\0" * array.stat().st_size),
        lambda array, note: archive(array),
        lambda array, note: np.save(array, np.zeros((100, 8), np.float32)),
        lambda array, note: np.save(array, np.load(array).astype(">f4")),
        turned,
    ],
)
def test_whatever_is_wrong_with_an_entry_it_is_computed_again(damage: Any, tmp_path: Path) -> None:
    count, options = Counter(), {"view": None, "section": section(tmp_path)}
    first = np.array(compute(DATA.train, frozen(), report=count, **options))
    [array], [note] = tmp_path.glob("*.npy"), tmp_path.glob("*.json")
    damage(array, note)
    again = compute(DATA.train, frozen(), report=count, **options)
    np.testing.assert_array_equal(again, first)
    assert count.images == 2


@pytest.mark.parametrize("suffix", [".npy", ".json", ".lock", ".npy.part"])
def test_a_folder_in_the_place_of_a_file_is_named(suffix: str, tmp_path: Path) -> None:
    options = {"view": None, "section": section(tmp_path), "report": Counter()}
    compute(DATA.val, frozen(), **options)
    [array] = tmp_path.glob("*.npy")
    place = (
        array.with_name(f".{array.name}.part") if "part" in suffix else array.with_suffix(suffix)
    )
    for path in (place, array.with_suffix(".json")):
        path.unlink(missing_ok=True)
    (place / "in it").mkdir(parents=True)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - what it says is looked at
        compute(DATA.val, frozen(), **options)
    fault = storage.explain(caught.value)
    assert fault is not None
    assert place.stem in str(fault)


def test_a_name_like_that_of_features_used_once_is_left_alone(tmp_path: Path) -> None:
    others = ["once-foo", "once-", "once-²-x"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / "once-0999999999-a").mkdir()
    where = section(tmp_path, cache=False)
    compute(DATA.val, frozen(), view=None, section=where, report=Counter())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)

"""What has changed since a search began, where its images are looked for at several places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from pneumonia.config.search_space import collapse, find
from pneumonia.config.validate import flatten
from pneumonia.datasets import cache
from pneumonia.search import changes
from pneumonia.storage import provenance
from pneumonia.storage.search_record import SearchRecord


def write(name: str, *, seed: int, **more: int) -> None:
    """Write images; those of a split have another seed where one is given."""
    arrays: dict[str, Any] = {}
    for place, split in enumerate(("train", "val", "test")):
        rng = np.random.default_rng((more.get(split, seed), place))
        arrays[f"{split}_images"] = rng.integers(0, 256, (4, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(4) % 2
    np.savez(name, **arrays)
    cache._data._values.clear()  # as another process would read them


def config(path: str) -> DictConfig:
    dataset = {"_target_": "pneumonia.datasets.sources.npz", "path": path}
    return OmegaConf.create({"seed": 1, "dataset": dataset, "when": {}})


def begin(cfg: DictConfig) -> SearchRecord:
    """Return a search that has begun with a configuration."""
    data = cache.load_data(collapse(cfg, find(cfg).start()))
    event: dict[str, Any] = {
        "params": flatten(cfg),
        "tags": provenance.deciding(),
        "datasets": [
            {"split": one.name, "size": len(one), "digest": one.digest}
            for one in (data.train, data.val, data.test)
        ],
        "further_images": changes.further_images(cfg),
    }
    return SearchRecord(Path(), started=event, params=event["params"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "_data", cache.Kept(2))
    for seed, name in enumerate("ab"):
        write(f"{name}.npz", seed=seed)


TWO = "choice(a.npz, b.npz)"


def test_one_place_may_change_and_several_may_not() -> None:
    one, two = begin(config("a.npz")), begin(config(TWO))
    Path("a.npz").rename("moved.npz")
    assert list(changes.of_search(one, config("moved.npz"))) == []
    for now in ("choice(moved.npz, b.npz)", "moved.npz"):
        told = list(changes.of_search(two, config(now)))
        assert told == [f"dataset.path: {TWO} → {now}"]


def test_images_at_each_place_are_compared() -> None:
    past, now = begin(config(TWO)), config(TWO)
    assert list(changes.of_search(past, now)) == list(changes.of_results(past, now)) == []
    write("b.npz", seed=1, val=9)
    for told in (list(changes.of_search(past, now)), list(changes.of_results(past, now))):
        (line,) = told
        assert line.startswith("images of val at dataset.path=b.npz: 4 with digest ")
    Path("b.npz").unlink()
    cache._data._values.clear()
    assert len(list(changes.of_search(past, now))) == 3


@pytest.mark.parametrize(("path", "at"), [("a.npz", ""), (TWO, " at dataset.path=b.npz")])
def test_no_trial_depends_on_the_images_of_test(path: str, at: str) -> None:
    past, now = begin(config(path)), config(path)
    write("b.npz" if at else "a.npz", seed=1 if at else 0, test=9)
    (line,) = changes.of_search(past, now)
    assert line.startswith(f"images of test{at}: 4 with digest ")
    assert list(changes.of_results(past, now)) == []


def test_a_fork_takes_over_what_it_shares_with_a_search_over_several_places() -> None:
    past = begin(config(TWO))
    write("c.npz", seed=3)
    for now in ("a.npz", "choice(a.npz, c.npz)"):
        assert list(changes.of_results(past, config(now))) == []


def test_what_cannot_be_read_at_one_place_stops_nothing() -> None:
    assert changes.further_images(config("choice(a.npz, none.npz)")) == []


def test_values_of_what_is_searched_tell_trials_apart() -> None:
    one, other = ({"dataset.path": name, "dense.units": 8} for name in "ab")
    ranges = changes.searched({"dataset.path": TWO, "tracking.experiment": "range(3)"})
    assert ranges == {"dataset.path"}
    assert changes.needs(one, ranges) != changes.needs(other, ranges)
    assert changes.needs(one, set()) == changes.needs(other, set()) == {"dense.units": 8}

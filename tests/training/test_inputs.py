"""From a configuration to what a trial trains on, made once where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import slow
from test_trial import BLOG, config

from pneumonia.datasets import cache
from pneumonia.datasets.cache import Kept
from pneumonia.errors import ConfigError
from pneumonia.training import inputs
from pneumonia.training.feeds import ComputedFeed, StoredFeed, read_all


class Reports:
    """Collects what is reported."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str, done: int, total: int) -> None:
        if done == total:
            self.texts.append(text)


def test_kept_forgets_what_was_not_used_for_longest() -> None:
    kept: Kept[object] = Kept(2)
    one, two = kept.get("1", object), kept.get(["2", {"a": 1}], object)
    assert kept.get("1", object) is one
    kept.get("3", object)
    assert kept.get("1", object) is one
    assert kept.get(["2", {"a": 1}], object) is not two


def test_the_same_section_is_the_same_data_and_backbone(tmp_path: Path) -> None:
    one = config(tmp_path)
    other = config(tmp_path, dense__units=8, optimizer__learning_rate=0.1)
    assert cache.load_data(one) is cache.load_data(other)
    assert inputs.parts(one) is inputs.parts(other)
    smaller = config(tmp_path, dataset__train=100)
    assert len(cache.load_data(smaller).train) == 100
    assert inputs.parts(config(tmp_path, model__layer="block2b_add")) is not inputs.parts(one)


@pytest.mark.parametrize(
    ("model", "has_rest"), [("features", False), ("cnn", True), ("fine", True)]
)
def test_parts_divide_the_backbone(model: str, has_rest: bool, tmp_path: Path) -> None:
    built = inputs.parts(config(tmp_path, model))
    assert (built.rest is not None) == has_rest
    assert built.shape == tuple(built.backbone.output.shape[1:])
    data = cache.load_data(config(tmp_path))
    feed = inputs.plain_feed(config(tmp_path, model), data.val, report=Reports())
    assert (built.frozen.model is None) == isinstance(feed, ComputedFeed)
    x = feed.read(1, np.arange(3))
    features = x if built.rest is None else np.asarray(built.rest(x))
    assert features.shape == (3, *built.shape)


def test_reset_gives_the_initial_weights_and_draws_for_further_executions(tmp_path: Path) -> None:
    built = inputs.parts(config(tmp_path, "cnn"))
    assert built.rest is not None

    def weights(execution: int) -> Any:
        built.rest.set_weights([0 * weight for weight in built.initial])
        built.reset(execution)
        return built.rest.get_weights()[0]

    np.testing.assert_array_equal(weights(0), built.initial[0])
    assert not np.array_equal(weights(1), weights(0))
    assert not np.array_equal(weights(1), weights(2))
    np.testing.assert_array_equal(weights(2), weights(2))


def test_pretrained_weights_are_those_of_every_execution(tmp_path: Path) -> None:
    built = inputs.parts(config(tmp_path, "fine"))
    assert built.rest is not None
    built.reset(1)
    for one, other in zip(built.rest.get_weights(), built.initial, strict=True):
        np.testing.assert_array_equal(one, other)


def test_features_are_computed_once_per_folder(tmp_path: Path) -> None:
    cfg, reports = config(tmp_path), Reports()
    cfg["augment"] = {**BLOG, "views": 2}
    first = inputs.prepare(cfg, report=reports)
    assert isinstance(first.train, StoredFeed)
    assert (len(first.train), len(first.val)) == (120, 60)
    assert reports.texts == [
        "features of train, views 1, 2",
        "features of val",
    ]
    other = {**cfg, "dense": {**cfg["dense"], "units": 4}}
    again = inputs.prepare(other, report=reports)
    assert len(reports.texts) == 2
    assert again.train is first.train
    # Another process, here one that has kept nothing, finds them on the disk.
    inputs._feeds._values.clear()
    third = inputs.prepare(cfg, report=reports)
    assert len(reports.texts) == 2
    np.testing.assert_array_equal(read_all(third.train), read_all(first.train))


@pytest.mark.parametrize(
    ("changed", "texts"),
    [
        slow({"seed": 2}, ["features of train, view 1"]),
        ({"model": {"layer": "block2b_add"}}, ["features of train, view 1", "features of val"]),
        slow({"augment": {"zoom": 0.2}}, ["features of train, view 1"]),
        slow({"features": {"dtype": "float16"}}, ["features of train, view 1", "features of val"]),
        ({"optimizer": {"learning_rate": 0.1}, "training": {"batch_size": 16}}, []),
    ],
)
def test_only_what_changes_is_computed_anew(
    changed: dict[str, Any], texts: list[str], tmp_path: Path
) -> None:
    cfg, reports = config(tmp_path), Reports()
    cfg["augment"] = {**BLOG, "views": 1}
    inputs.prepare(cfg, report=reports)
    reports.texts.clear()
    for group, change in changed.items():
        cfg = {**cfg, group: {**cfg[group], **change} if isinstance(change, dict) else change}
    inputs.prepare(cfg, report=reports)
    assert reports.texts == texts


@pytest.mark.parametrize(
    ("model", "views"),
    [("features", 2), slow("features", "online"), slow("cnn", 2), ("cnn", "online")],
)
def test_joined_is_train_and_then_val_both_augmented(
    model: str, views: int | str, tmp_path: Path
) -> None:
    cfg = config(tmp_path, model, dataset__train=40, dataset__val=20)
    cfg["augment"] = {**BLOG, "views": views}
    alone = inputs.prepare(cfg, report=Reports())
    joined = inputs.prepare(cfg, report=Reports(), joined=True)
    assert (len(joined.train), len(joined.val)) == (60, 20)
    data = cache.load_data(cfg)
    labels = np.concatenate([data.train.labels, data.val.labels])
    np.testing.assert_array_equal(joined.train_labels, labels)
    np.testing.assert_array_equal(joined.val_labels, data.val.labels)
    assert joined.train_weights.shape == (60,)
    early = np.arange(8)
    np.testing.assert_array_equal(joined.train.read(3, early), alone.train.read(3, early))
    late = joined.train.read(1, np.arange(40, 60))
    assert not np.allclose(late, read_all(alone.val))


def test_features_that_do_not_fit_are_a_mistake(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    cfg["features"] |= {"folder": str(tmp_path / "f"), "max_gb": 1e-7, "dtype": "float16"}
    with pytest.raises(ConfigError, match=r"features\.max_gb"):
        inputs.prepare(cfg, report=Reports())
    assert (tmp_path / "f").is_dir()

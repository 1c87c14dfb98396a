"""Cuts of one network, and views, are computed in one reading of the images, to the same bits."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from families import slow
from test_feature_cache import DATA, SIZE, section
from test_trial import BLOG, config

from pneumonia.training import feature_cache, feeds, frozen_graph, inputs, loop, network, steps
from pneumonia.training.augment import View, geometric
from pneumonia.training.frozen_graph import Frozen


class Reads:
    """Images that count how often each of them is read."""

    def __init__(self, images: Any) -> None:
        self.images, self.count = images, 0

    def read(self, indices: Any) -> Any:
        self.count += len(indices)
        return self.images.read(indices)


def cut(depth: int, *, seed: int = 1, pooling: str = "avg", custom: Any = None) -> Frozen:
    """Return three convolutions with what follows each of them, cut after so many."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((SIZE, SIZE, 3), name="image")
    ends = []
    for _ in range(3):
        x = keras.layers.Conv2D(4, 3)(x)
        x = keras.layers.BatchNormalization(trainable=False)(x) if custom is None else custom(x)
        ends.append(x := keras.layers.Add()([keras.layers.ReLU()(x), 0.5 * x]))
    pool = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    model = keras.Model(image, pool[pooling]()(ends[depth - 1]))
    about = {"depth": depth, "pooling": pooling, "seed": seed, "custom": custom is None}
    return Frozen(model, SIZE, feature_cache.digest(model, about))


def compute(part: Frozen, folder: Path, *others: Frozen, split: Any = None, **options: Any) -> Any:
    texts: list[str] = []
    found = feature_cache.compute(
        split or DATA.val,
        part,
        views=options.pop("views", [None]),
        section=section(folder, **options),
        report=lambda text, done, total: texts.append(text),
        others=lambda: others,
    )
    return found, texts


def test_cuts_are_computed_with_the_first_and_are_what_each_alone_gives(tmp_path: Path) -> None:
    parts = [cut(2), cut(3, pooling="max"), cut(1), cut(2, pooling="max")]
    [first], texts = compute(parts[0], tmp_path / "a", *parts[1:])
    assert texts == ["features of val at 4 layers"]
    assert len(list((tmp_path / "a").glob("*.npy"))) == 4
    for part in parts:
        [alone], _ = compute(part, tmp_path / "b")
        [found], texts = compute(part, tmp_path / "a")
        assert not texts
        np.testing.assert_array_equal(found, alone)
    np.testing.assert_array_equal(first, compute(cut(2), tmp_path / "b")[0][0])


def test_what_is_common_runs_once() -> None:
    models = tuple(cut(depth).model for depth in (1, 2, 3))
    graph = frozen_graph._build(models, "float32").graph
    assert sum(operation.type == "Conv2D" for operation in graph.get_operations()) == 3


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    compute(cut(1), tmp_path)
    assert compute(cut(2), tmp_path, cut(1), cut(3))[1] == ["features of val at 2 layers"]
    assert compute(cut(2), tmp_path, cut(1, pooling="max"))[1] == []


class Half(keras.layers.Layer):
    """A layer of somebody else's, which may do what its configuration does not tell."""

    def call(self, x: Any) -> Any:
        return 0.5 * x


def half(x: Any) -> Any:
    return Half()(x)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (cut(1), cut(2, seed=2)),
        (cut(1), Frozen(cut(2).model, SIZE + 1, "another size")),
        (cut(1), cut(1, custom=lambda x: keras.layers.Dense(4)(x))),
    ],
)
def test_another_network_is_left_to_its_own_trials(
    own: Frozen, other: Frozen, tmp_path: Path
) -> None:
    assert compute(own, tmp_path, other)[1] == ["features of val"]
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_layers_of_somebody_else_are_not_taken_for_each_other(tmp_path: Path) -> None:
    parts = [cut(1, custom=half), cut(2, custom=half)]
    for part, more in zip(parts, ([parts[1]], []), strict=True):
        [found], _ = compute(part, tmp_path / "a", *more)
        np.testing.assert_array_equal(found, compute(part, tmp_path / "b")[0][0])


def test_where_bits_would_differ_each_is_computed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_graph, "agree", lambda *_: False)
    assert compute(cut(1), tmp_path, cut(2))[1] == ["features of val"]


def test_what_would_push_itself_out_of_the_cache_is_not_computed_ahead(tmp_path: Path) -> None:
    each = 20 * 4 * 4 / 1e9
    assert compute(cut(1), tmp_path, cut(2), cut(3), max_gb=4.1 * each)[1] == [
        "features of val at 2 layers"
    ]


def test_views_are_made_in_one_reading(tmp_path: Path) -> None:
    pipeline = geometric(flip=True, rotation=10, zoom=0.1)
    views = [View(pipeline, "a", index, 1) for index in range(3)]
    images = Reads(DATA.val.images)
    split = dataclasses.replace(DATA.val, images=images)
    compute(cut(2), tmp_path / "a", views=views[1:2])
    found, texts = compute(cut(2), tmp_path / "a", split=split, views=views)
    assert texts == ["features of val, views 1, 3"]
    assert images.count == 20
    for view, array in zip(views, found, strict=True):
        np.testing.assert_array_equal(array, compute(cut(2), tmp_path / "b", views=[view])[0][0])


@pytest.mark.slow  # as in test_feature_cache
def test_an_interruption_leaves_no_entry_and_no_lock(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    others = [cut(2), cut(3)]
    options = {"views": [None], "section": section(tmp_path), "others": lambda: others}
    with pytest.raises(KeyboardInterrupt):
        feature_cache.compute(DATA.val, cut(1), report=stop, **options)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}
    assert compute(cut(3), tmp_path, cut(1))[1] == ["features of val at 2 layers"]


@pytest.mark.slow
def test_those_who_ask_for_the_same_cuts_compute_them_once(tmp_path: Path) -> None:
    parts, texts = [cut(1), cut(2), cut(3)], []

    def ask(first: int) -> None:
        others = [part for part in parts if part is not parts[first]]
        texts.extend(compute(parts[first], tmp_path, *others)[1])

    threads = [threading.Thread(target=ask, args=[first]) for first in (0, 2, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == ["features of val at 3 layers"]


@pytest.mark.parametrize("frozen", [slow(False), True])
def test_a_training_is_the_same_where_its_chunks_are_made_ahead(
    frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(tmp_path, "cnn", dataset__train=40, dataset__val=20, training__batch_size=8)
    if frozen:
        cfg["model"]["trainable"] = "block2_conv"
    cfg["augment"] = {**BLOG, "views": "online"}
    cfg["training"]["early_stopping"] = {"patience": 1, "min_delta": 1.0}  # two epochs of four
    monkeypatch.setattr(steps, "_CHUNK_BYTES", 1)  # a step a chunk

    def train() -> Any:
        made = inputs.prepare(cfg, report=lambda *_: None)
        assert feeds.is_rendered(made.train) is frozen
        one = loop.Training(network.trainable(cfg, 0), made, cfg, 1)
        return loop.train(one, 4, begin=None, tell=lambda *_: None)

    ahead = train()
    names = {thread.name.partition("_")[0] for thread in threading.enumerate()}
    assert not names & {"ahead", "renders"}
    monkeypatch.setattr(steps, "ahead", lambda items: items)
    monkeypatch.setattr(steps, "is_rendered", lambda feed: False)
    cfg["features"]["folder"] = str(tmp_path / "others")
    alone = train()
    assert len(ahead.history) == 2
    assert ahead.history == alone.history
    for one, other in zip(ahead.model, alone.model, strict=True):
        np.testing.assert_array_equal(one, other)

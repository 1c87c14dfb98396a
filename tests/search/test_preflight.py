"""What every trial would hit shows before the first one; the rest is left to its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from omegaconf import OmegaConf
from test_trial import config

from pneumonia.config.search_space import collapse, find
from pneumonia.errors import ConfigError
from pneumonia.models import efficientnet_lite
from pneumonia.search import preflight
from pneumonia.search.executors import LocalExecutor
from pneumonia.search.preflight import rehearse
from pneumonia.search.trials import cuts
from pneumonia.training import inputs


def try_out(folder: Path, model: str = "cnn", **changes: Any) -> dict[str, Any]:
    cfg = OmegaConf.create({**config(folder, model, **changes), "when": {}})
    return rehearse(cfg, find(cfg), report=lambda *_: None)


def test_what_can_be_built_is_where_a_search_begins(tmp_path: Path) -> None:
    assert try_out(tmp_path, dense__units="choice(8, 16)")["dense"]["units"] == 8


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model__layer": "nothing"}, "model.layer"),
        ({"model__layer": "choice(nothing, no_more)"}, "model.layer"),
        ({"model__blocks": 9}, "model.image_size"),
        ({"optimizer__learning_rat": 0.1}, "optimizer"),
        ({"dense__unit": 1}, "dense.unit"),
        ({"winner__image_size": 2}, "winner.image_size"),  # its blocks halve it away
        ({"winner__image_size": 56}, "winner.image_size"),  # its features are the map
        ({"training__loss": {"_target_": "keras.losses.Nothing"}}, "training.loss._target_"),
        (
            {"training__metrics": {"auc": {"_target_": "pneumonia.evaluation.metrics.nothing"}}},
            "training.metrics.auc._target_",
        ),
    ],
)
def test_a_mistake_of_every_trial_is_told(
    changes: dict[str, Any], key: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        try_out(tmp_path, **changes)
    assert caught.value.key == key


@pytest.mark.slow
def test_a_network_that_is_another_one_for_larger_images_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = {"winner__image_size": 64}
    assert try_out(tmp_path, "features", **larger)["model"]["image_size"] == 32
    network = efficientnet_lite.network

    def of_its_size(variant: int, image_size: int, weights: str | None) -> keras.Model:
        made = network(variant, image_size, weights)
        made.get_layer("stem_conv").kernel.assign_add(
            made.get_layer("stem_conv").kernel * image_size
        )
        return made

    monkeypatch.setattr(efficientnet_lite, "network", of_its_size)
    with pytest.raises(
        ConfigError, match="is another network for images of another size"
    ) as caught:
        try_out(tmp_path, "features", **larger, model__layer="block2b_add")
    assert caught.value.key == "winner.image_size"
    assert try_out(tmp_path, "features", model__layer="block2b_add")


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("metrics", "F1Score", {}),
        ("metrics", "Metric", {}),
        ("metrics", "Precision", {"class_id": 3}),
        ("losses", "CategoricalCrossentropy", {}),
        ("losses", "CosineSimilarity", {}),
        ("losses", "CTC", {}),
        ("losses", "Loss", {}),
        ("losses", "BinaryCrossentropy", {"axis": 5}),
        ("losses", "BinaryCrossentropy", {"name": 5}),
    ],
)
def test_what_cannot_measure_one_probability_is_told(
    kind: str, name: str, more: dict[str, Any], tmp_path: Path
) -> None:
    section = {"_target_": f"keras.{kind}.{name}", **more}
    changes = {"loss": section} if kind == "losses" else {"metrics": {"auc": section}}
    with pytest.raises(ConfigError, match="one probability for each image") as caught:
        try_out(tmp_path, **{f"training__{key}": value for key, value in changes.items()})
    assert caught.value.key == ("training.loss" if kind == "losses" else "training.metrics.auc")


def fails(labels: Any, probabilities: Any) -> float:
    """A metric with a fault, as a user may write one."""
    raise ZeroDivisionError("a fault")


def test_a_metric_that_fails_is_found(tmp_path: Path) -> None:
    metric = {"_target_": f"{__name__}.fails", "_partial_": True}
    with pytest.raises(ZeroDivisionError):
        try_out(tmp_path, training__metrics={"auc": metric})


def test_a_wrong_value_of_a_range_is_left_to_its_trials(tmp_path: Path) -> None:
    found = try_out(tmp_path, model__layer="choice(nothing, block1_pool)")
    assert found["model"]["layer"] == "block1_pool"
    assert try_out(tmp_path, model__blocks="choice(9, 2)")["model"]["blocks"] == 2


def sections(space: dict[str, Any], values: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    cfg = OmegaConf.create({"model": {"image_size": 8, **space}, "dense": {}, "when": {}, **more})
    own = collapse(cfg, values)["model"]
    found = cuts(cfg, find(cfg), values, own)
    assert all(one["image_size"] == own["image_size"] for one in found)
    return [{name: one[name] for name in one if name != "image_size"} for one in found]


def test_cuts_of_one_network_are_found() -> None:
    layers = {"layer": "choice(a, b, c)", "image_size": "choice(8, 9)"}
    values = {"model.layer": "b", "model.image_size": 9}
    assert sections(layers, values) == [{"layer": "c"}, {"layer": "a"}]
    assert sections({"layer": "a", "image_size": "choice(8, 9)"}, {"model.image_size": 9}) == []
    both = {"layer": "choice(a, b)", "pooling": "choice(avg, max)"}
    assert len(sections(both, {"model.layer": "a", "model.pooling": "max"})) == 3


def test_conditional_cuts_are_those_of_real_trials() -> None:
    both = {"layer": "choice(a, b)", "pooling": "choice(avg, max)"}
    when = {"model.pooling": {"model.layer": ["a"]}}
    most = [{"layer": "a", "pooling": pooling} for pooling in ("avg", "max")]
    assert sections(both, {"model.layer": "b"}, when=when) == most
    values = {"model.layer": "a", "model.pooling": "avg"}
    assert sections(both, values, when=when) == [most[1], {"layer": "b"}]
    named = {"name": "choice(one, two)", "layer": "choice(a, b)"}
    when = {"model.layer": {"model.name": ["one"]}}
    assert sections(named, {"model.name": "two"}, when=when) == []
    assert sections(named, {"model.name": "one", "model.layer": "a"}, when=when) == [
        {"name": "one", "layer": "b"}
    ]


def test_the_features_of_all_cuts_are_there_before_the_first_trial(tmp_path: Path) -> None:
    layers = "choice(block1_pool, nothing, block2_pool)"
    # A network without training is the same from seed to seed, whatever it is cut at.
    changes = {"model__layer": layers, "model__trainable": False, "model__pooling": "avg"}
    started = try_out(tmp_path, **changes)
    assert len(list(tmp_path.rglob("*.npy"))) == 2 * 2  # two cuts, of train and val
    texts: list[str] = []
    other = {**started, "model": {**started["model"], "layer": "block2_pool"}}
    inputs.prepare(other, report=lambda text, *_: texts.append(text))
    assert not texts


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        (0, 2, ""),
        (1, 1, ""),
        (1, 3, "warning: 3 trials at a time share one GPU"),
        (4, 1, "the first of 4 GPUs: executor=ray executor.workers=4 executor.gpus=1 gives each"),
        (4, 4, "the first of 4 GPUs"),
    ],
)
def test_how_trials_share_gpus_is_told(
    gpus: int, workers: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * gpus)
    told = preflight.sharing(LocalExecutor(workers))
    assert expected in told
    assert bool(told) == bool(expected)


@pytest.mark.parametrize(
    ("there", "workers", "reserved", "is_told"),
    [(0, 4, 0, False), (1, 1, 0, False), (1, 2, 0, True), (2, 1, 0, True), (2, 2, 0.5, False)],
)
def test_workers_of_ray_that_reserve_no_gpu_share_the_first(
    there: int, workers: int, reserved: float, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * there)
    told = preflight.sharing(LocalExecutor(workers), reserved=reserved)
    assert ("executor.gpus=1 gives each one of its own" in told) == is_told
    assert bool(told) == is_told

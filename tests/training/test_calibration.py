"""The temperature is in the weights, the threshold in what is known of the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss
from test_trial import config

from pneumonia.artifacts import FolderStore
from pneumonia.datasets import cache
from pneumonia.evaluation.metrics import balanced_accuracy
from pneumonia.evaluation.thresholds import logit, sigmoid
from pneumonia.models import classifier, classifier_file, heads
from pneumonia.training import calibration, inputs, network, trial
from pneumonia.training.trial import Hooks, Task

Config = dict[str, Any]

YOUDEN = {"threshold__rule": "youden", "threshold__calibrate": True}


def quiet(*_: object) -> None:
    """Say nothing."""


def trained(folder: Path, model: str, **changes: Any) -> tuple[Config, Path]:
    cfg = config(folder, model, **changes)
    result = trial.run(Task("0", cfg, 4), FolderStore(folder), Hooks())
    assert result.classifier is not None
    return cfg, folder / result.classifier


@pytest.mark.slow  # as in test_winner
@pytest.mark.parametrize("model", ["features", "cnn"])
def test_a_calibrated_classifier_is_served_so(model: str, tmp_path: Path) -> None:
    cfg, path = trained(tmp_path, model, **YOUDEN)
    facts = classifier_file.read_facts(path)
    assert facts["class_names"] == ["normal", "pneumonia"]
    assert facts["rule"] == "youden"
    assert facts["temperature"] != 1
    split = cache.load_data(cfg).val
    feed = inputs.plain_feed(cfg, split, report=quiet)
    weights = trial.best_weights(Task("0", cfg, 4), FolderStore(tmp_path), Hooks())
    raw = network.predict(cfg, weights, feed)
    images = split.images.read(np.arange(len(split)))
    served = classifier.load(path).predict(images, verbose=0)[:, 0]
    np.testing.assert_allclose(served, sigmoid(logit(raw) / facts["temperature"]), atol=2e-5)
    weights = inputs.class_weights(split.labels, cfg["training"]["class_weight"])
    raw_loss, loss = (log_loss(split.labels, p, sample_weight=weights) for p in (raw, served))
    assert loss < raw_loss
    at = [balanced_accuracy(split.labels, served, threshold=t) for t in (0.5, facts["threshold"])]
    assert at[1] >= at[0]


@pytest.mark.slow
def test_a_classifier_written_without_a_template_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = trained(tmp_path, "features", **YOUDEN)
    facts = classifier_file.read_facts(path)

    def refuse(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(network, "Template", refuse)
    monkeypatch.setattr(network, "_templates", cache.Kept(1))
    _, again = trained(tmp_path, "features", **YOUDEN)
    assert classifier_file.read_facts(again) == facts
    image = np.random.default_rng(0).integers(0, 255, (1, 30, 30, 1), dtype=np.uint8)
    one, other = (classifier.load(file).predict(image, verbose=0) for file in (path, again))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_only_a_dense_sigmoid_can_be_divided() -> None:
    features = keras.Input((4,), name="features")

    def model(head: keras.Model) -> keras.Model:
        return keras.Model(features, head(features))

    dense = model(heads.dense((4,), units=3, dropout=0.1))
    assert calibration.is_foldable(dense)
    weights = tuple(np.asarray(w) for w in dense.get_weights()[:4])
    folded = calibration.fold(dense, weights, 2.0)
    assert [np.array_equal(a, b) for a, b in zip(weights, folded, strict=True)] == [
        True,
        True,
        False,
        True,  # the bias is 0
    ]
    np.testing.assert_array_equal(folded[2], weights[2] / 2)
    x = keras.Input((4,), name="features")
    y = keras.layers.Activation("sigmoid")(keras.layers.Dense(1)(x))
    other = model(keras.Model(x, y, name="head"))
    assert not calibration.is_foldable(other)
    assert calibration.fold(other, weights[:2], 1.0) == weights[:2]


def test_a_head_that_cannot_be_calibrated_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "is_foldable", lambda model: False)
    _, path = trained(tmp_path, "cnn", **YOUDEN)
    facts = classifier_file.read_facts(path)
    assert facts["temperature"] == 1
    assert "not calibrated" in facts["statement"]


def test_prevalence_is_against_the_weighted_share() -> None:
    labels = np.array([0, 1, 1, 1])
    assert inputs.positive_share(labels, None) == 0.75
    assert inputs.positive_share(labels, "balanced") == pytest.approx(0.5)
    assert inputs.positive_share(labels, {0: 3.0, 1: 2.0}) == pytest.approx(6 / 9)

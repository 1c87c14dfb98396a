"""Heads: their shapes, names and errors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from pneumonia.config.instantiate import build
from pneumonia.errors import ConfigError
from pneumonia.models import heads


def test_maps_features_to_probabilities() -> None:
    head = heads.dense((12,), units=8, dropout=0.5, activation="tanh")
    probabilities = np.asarray(head(np.random.default_rng(0).normal(size=(5, 12))))
    assert probabilities.shape == (5, 1)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert [layer.name for layer in head.layers[1:]] == ["dense", "dropout", "probability"]
    assert head.get_layer("dense").activation is keras.activations.tanh
    assert head.get_layer("dropout").rate == 0.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("units", 0),
        ("units", 2.5),
        ("units", True),
        ("units", "many"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", "0.1"),
        ("activation", "rellu"),
    ],
)
def test_names_a_bad_value(key: str, value: object) -> None:
    arguments: dict[str, Any] = {"units": 8, "dropout": 0.5, "activation": "relu", key: value}
    with pytest.raises(ConfigError, match=f"`dense.{key}`"):
        build({"_target_": "pneumonia.models.heads.dense", **arguments}, "dense", (12,))

"""The names of layers that are told without building a network are those of the built one."""

from __future__ import annotations

import keras
import pytest
from families import slow

from pneumonia.config.compatibility import layers
from pneumonia.models import backbones

SECTIONS = [
    slow({"_target_": "pneumonia.models.backbones.efficientnet_lite", "image_size": 32}),
    {"_target_": "pneumonia.models.backbones.efficientnet_lite", "image_size": 32, "variant": 2},
    slow({"_target_": "pneumonia.models.backbones.inception_v3", "image_size": 75}),
    {"_target_": "pneumonia.models.backbones.cnn", "image_size": 16, "blocks": 3, "filters": 2},
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["_target_"].split(".")[2])
def test_names(section: dict[str, object]) -> None:
    target = str(section["_target_"]).rpartition(".")[2]
    arguments = {name: value for name, value in section.items() if name != "_target_"}
    model: keras.Model = getattr(backbones, target)(**arguments, layer=None, weights=None)
    built = {layer.name for layer in model.layers} - {"pooling"}
    assert built == set(layers(section))


def test_other_networks_have_to_be_built() -> None:
    assert layers({"_target_": "my.net"}) == ()

"""Frozen models run faster, and give the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from families import slow

from pneumonia.errors import ConfigError
from pneumonia.models import backbones
from pneumonia.training import frozen_graph


def network(kind: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    if kind == "lite0":
        return backbones.efficientnet_lite(image_size=64, layer="block3b_add")
    return backbones.inception_v3(image_size=75, weights=None, layer="mixed1", pooling="avg")


IMAGES = np.random.default_rng(0).uniform(0, 255, (5, 75, 75, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", ["lite0", slow("inception")])
def test_gives_what_the_model_gives(kind: str) -> None:
    model = network(kind)
    images = IMAGES[:, : model.input.shape[1], : model.input.shape[2]]
    expected = model.predict(images, verbose=0)
    scale = np.abs(expected).max()
    for part in (images, images[:2]):
        found = frozen_graph.call((model,), part, "float32")[0].numpy()
        np.testing.assert_allclose(found, expected[: len(part)], atol=1e-4 * scale)


@pytest.mark.slow
@pytest.mark.skipif(not frozen_graph.has_bfloat16(), reason="the processor has no bfloat16")
def test_bfloat16_is_near_and_does_not_stay_on() -> None:
    model = network("inception")
    expected = model.predict(IMAGES, verbose=0)
    scale = np.abs(expected).max()
    reduced = frozen_graph.call((model,), IMAGES, "bfloat16")[0].numpy()
    again = frozen_graph.call((model,), IMAGES, "bfloat16")[0].numpy()
    np.testing.assert_array_equal(reduced, again)
    assert 1e-5 * scale < np.abs(reduced - expected).max() < 2e-2 * scale
    found = frozen_graph.call((model,), IMAGES, "float32")[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)


def test_says_where_the_processor_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_graph, "has_bfloat16", lambda: False)
    image = keras.Input((75, 75, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(ConfigError, match=r"features\.precision"):
        frozen_graph.call((model,), IMAGES, "bfloat16")


def test_a_part_of_several_gives_what_it_gives_by_itself() -> None:
    cuts = ("block1a_project_bn", "block2b_add")
    models = [backbones.efficientnet_lite(image_size=75, layer=cut) for cut in cuts]
    alone = backbones.efficientnet_lite(image_size=75, layer=cuts[0])
    expected = frozen_graph.call((alone,), IMAGES)[0].numpy()
    assert frozen_graph.agree(tuple(models), IMAGES, "float32")
    np.testing.assert_array_equal(frozen_graph.call((models[0],), IMAGES)[0].numpy(), expected)

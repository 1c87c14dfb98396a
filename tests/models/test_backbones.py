"""Backbones: shapes, cutting, freezing, splitting, weight files and errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from families import quick, slow
from numpy.typing import NDArray

from pneumonia.config import instantiate
from pneumonia.errors import ConfigError
from pneumonia.models import backbones, efficientnet_lite, keras_applications

ONCE = {
    module: functools.cache(module.network) for module in (efficientnet_lite, keras_applications)
}


@pytest.fixture(autouse=True)
def _networks_are_built_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let backbones of a test share the layers of a network: each sets what of them trains."""
    for module, network in () if "anew" in request.fixturenames else ONCE.items():
        monkeypatch.setattr(module, "network", network)


@pytest.fixture
def anew() -> None:
    """Let a test build every network itself."""


def raw(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("f4")


def trainable_layers(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.trainable_weights]


def mobilenet(**arguments: Any) -> keras.Model:
    return backbones.keras_application(name="MobileNetV2", image_size=32, weights=None, **arguments)


BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "efficientnet_lite0": lambda **a: backbones.efficientnet_lite(image_size=32, **a),
    "inception_v3": lambda **a: backbones.inception_v3(
        image_size=75, weights=None, layer="mixed2", **a
    ),
    "mobilenetv2": mobilenet,
    "cnn": lambda **a: backbones.cnn(image_size=28, blocks=2, filters=4, **a),
}


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("efficientnet_lite0", "avg"),
        ("cnn", "flatten"),
        *(slow(name, "avg") for name in BUILDERS if name != "efficientnet_lite0"),
        *(slow(name, "flatten") for name in BUILDERS if name != "cnn"),
    ],
)
def test_maps_images_to_features(name: str, pooling: str) -> None:
    model = BUILDERS[name](pooling=pooling)
    assert model.name == name
    assert model.input_shape[1:3] == (model.input_shape[1],) * 2
    features = np.asarray(model(raw(model.input_shape[1])))
    assert features.shape == (2, model.output_shape[1])
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", [slow("efficientnet_lite0"), slow("mobilenetv2"), "cnn"])
def test_the_whole_backbone_trains_or_none_of_it(name: str) -> None:
    assert BUILDERS[name](trainable=False).trainable_weights == []
    assert BUILDERS[name](trainable=True).trainable_weights != []


@pytest.mark.slow
def test_pooling_options_differ() -> None:
    maps = mobilenet(layer="block_5_add", pooling="flatten")
    values = np.asarray(maps(raw(32))).reshape(2, 4, 4, 32)
    for pooling, function in {"avg": np.mean, "max": np.max}.items():
        model = mobilenet(layer="block_5_add", pooling=pooling)
        model.set_weights(maps.get_weights())
        np.testing.assert_allclose(np.asarray(model(raw(32))), function(values, (1, 2)), atol=1e-6)


def test_joined_layers_give_the_features_of_each() -> None:
    layers = ("block2b_add", "block3b_add")
    one, other, joined = (
        backbones.efficientnet_lite(image_size=32, layer=layer)
        for layer in (*layers, "+".join(layers))
    )
    image = raw(32)
    expected = np.concatenate([np.asarray(model(image)) for model in (one, other)], axis=1)
    np.testing.assert_allclose(np.asarray(joined(image)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("anew")
def test_random_weights_follow_the_global_seed() -> None:
    def weights() -> list[NDArray[np.float32]]:
        keras.utils.set_random_seed(3)
        built: list[NDArray[np.float32]] = mobilenet(layer="block_1_expand").get_weights()
        return built

    for one, other in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("anew")
@pytest.mark.slow
def test_a_published_network_that_does_not_train_is_built_once() -> None:
    cuts = ("block1a_project_bn", "block2b_add")
    build = functools.partial(backbones.efficientnet_lite, image_size=32)
    with backbones.shared():
        short, long = (build(layer=cut) for cut in cuts)
        assert set(short.layers[:-1]) < set(long.layers)
        trained = build(layer=cuts[1], trainable=cuts[0])
        assert not set(trained.layers) & set(long.layers)
        assert trained.trainable_weights
        assert not long.trainable_weights
        fresh = [build(layer=cuts[0], weights=None).get_weights()[0] for _ in range(2)]
        assert not np.array_equal(*fresh)
    assert not set(build(layer=cuts[1]).layers) & set(long.layers)


def test_trains_from_a_layer_by_its_fixed_name(tmp_path: Path) -> None:
    model = backbones.inception_v3(image_size=75, weights=None, trainable="mixed6")
    frozen, rest = backbones.split(model)
    assert frozen is not None
    assert rest is not None
    assert frozen.output_shape[1:] == (3, 3, 768)
    assert frozen.layers[-1].name == "mixed6"
    assert not frozen.trainable_weights
    assert len(rest.trainable_weights) == len(model.trainable_weights) > 0


@pytest.mark.parametrize("suffix", [".weights.h5", slow(".keras")])
def test_weights_come_from_a_file(suffix: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    network = keras_applications.network("MobileNetV2", 32, None, "imagenet")
    file = tmp_path / f"mobilenet{suffix}"
    (network.save_weights if suffix == ".weights.h5" else network.save)(file)
    model = backbones.keras_application(
        name="MobileNetV2", image_size=48, weights=str(file), layer="block_2_add"
    )
    expected = network.get_layer("block_2_expand").get_weights()[0]
    np.testing.assert_array_equal(model.get_layer("block_2_expand").get_weights()[0], expected)


def test_trains_from_a_layer_on() -> None:
    model = backbones.efficientnet_lite(image_size=32, trainable="block7a_project_conv")
    assert trainable_layers(model) == ["block7a_project_conv", "top_conv"]


def test_batch_normalization_stays_in_inference_mode() -> None:
    model = backbones.efficientnet_lite(image_size=32, trainable=True)
    assert not any("bn" in name for name in trainable_layers(model))
    image = raw(32)
    np.testing.assert_allclose(
        np.asarray(model(image, training=True)), np.asarray(model(image)), atol=1e-5
    )
    options = {"image_size": 32, "trainable": "block7a_project_conv"}
    trained = backbones.efficientnet_lite(batch_norm="trained", **options)
    assert [name for name in trainable_layers(trained) if "bn" in name] == [
        "block7a_project_bn",
        "top_bn",
    ]
    assert (np.asarray(trained(image, training=True)) != np.asarray(trained(image))).any()
    fresh = backbones.efficientnet_lite(image_size=32, weights=None, trainable=True)
    assert "stem_bn" in trainable_layers(fresh)


SPLITS = {
    "lite0": (
        lambda: backbones.efficientnet_lite(image_size=64, trainable="block5c_project_conv"),
        "block5b_add",
    ),
    "lite0 at a cut": (
        lambda: backbones.efficientnet_lite(
            image_size=64, trainable="block6a_expand_conv", layer="block6b_add"
        ),
        "block5c_add",
    ),
    "lite0 at joined cuts": (
        lambda: backbones.efficientnet_lite(
            image_size=32, trainable="block3a_expand_conv", layer="block2b_add+block3b_add"
        ),
        "block2b_add",
    ),
    "mobilenet": (lambda: mobilenet(trainable="block_15_depthwise"), "block_14_add"),
    "mobilenet before an addition": (
        lambda: mobilenet(trainable="block_15_project_BN"),
        "block_14_add",
    ),
    "mobilenet after an addition": (
        lambda: mobilenet(trainable="block_16_expand"),
        "block_15_add",
    ),
    "cnn": (
        lambda: backbones.cnn(image_size=28, blocks=3, filters=4, trainable="block3_conv"),
        "block2_pool",
    ),
}


@pytest.mark.parametrize(
    "name",
    quick(
        SPLITS,
        "lite0 at a cut",
        "mobilenet before an addition",
        "cnn",
    ),
)
def test_split_gives_two_parts_that_are_the_whole(name: str) -> None:
    build, last = SPLITS[name]
    model = build()
    image = raw(model.input_shape[1])
    for _ in range(2):
        frozen, rest = backbones.split(model)
        assert frozen is not None
        assert rest is not None
        assert frozen.layers[-1].name == last
        assert frozen.trainable_weights == []
        assert {id(w) for w in rest.trainable_weights} == {id(w) for w in model.trainable_weights}
        assert len(frozen.weights) + len(rest.weights) == len(model.weights)
        np.testing.assert_allclose(
            np.asarray(rest(frozen(image))), np.asarray(model(image)), rtol=1e-5, atol=1e-6
        )


def test_split_shares_weights() -> None:
    model = backbones.cnn(image_size=8, blocks=2, filters=4, trainable="block2_conv")
    _, rest = backbones.split(model)
    assert rest is not None
    rest.get_layer("block2_conv").bias.assign(np.full(8, 1e3))
    assert np.asarray(model(raw(8))).min() > 500


def test_split_of_all_or_nothing() -> None:
    model = mobilenet(trainable=False)
    assert backbones.split(model) == (model, None)
    model = mobilenet(trainable=True)
    assert backbones.split(model) == (None, model)
    model = backbones.cnn(image_size=28, blocks=1, filters=4)
    assert backbones.split(model) == (None, model)


def test_cnn_grows_by_its_factor() -> None:
    for growth, expected in {1: [8, 8, 8], 2: [8, 16, 32]}.items():
        model = backbones.cnn(image_size=28, blocks=3, filters=8, growth=growth)
        convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert [conv.filters for conv in convs] == expected
    assert model.output_shape == (None, 3 * 3 * 32)


def test_cnn_looks_at_one_channel_scaled_to_1() -> None:
    model = backbones.cnn(image_size=8, blocks=1, filters=1)
    kernel = np.zeros((3, 3, 1, 1), "f4")
    kernel[1, 1] = 1
    model.get_layer("block1_conv").set_weights([kernel, np.zeros(1)])
    image = raw(8)
    features = np.asarray(model(image))
    expected = image[..., 0].reshape(2, 4, 2, 4, 2).max((2, 4)).reshape(2, 16) / 255
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    colour = backbones.cnn(image_size=8, blocks=1, filters=1, channels=3)
    assert colour.get_layer("block1_conv").kernel.shape == (3, 3, 3, 1)


@pytest.mark.parametrize(
    ("build", "arguments", "key", "hint"),
    [
        ("efficientnet_lite", {"layer": "block5c_ad"}, "model.layer", "block5c_add"),
        ("efficientnet_lite", {"layer": "block3b_add+block5c_ad"}, "model.layer", "block5c_add"),
        ("efficientnet_lite", {"layer": "stem_bn+stem_bn"}, "model.layer", "different ones"),
        ("efficientnet_lite", {"batch_norm": "off"}, "model.batch_norm", "frozen or trained"),
        ("efficientnet_lite", {"pooling": "mean"}, "model.pooling", "avg, max or flatten"),
        ("efficientnet_lite", {"trainable": "block7_expand_conv"}, "model.trainable", "block7a"),
        (
            "efficientnet_lite",
            {"layer": "block3a_bn", "trainable": "top_conv"},
            "model.trainable",
            "up to its cut",
        ),
        ("efficientnet_lite", {"image_size": 31}, "model.image_size", "from 32"),
        ("efficientnet_lite", {"image_size": "big"}, "model.image_size", "an integer"),
        ("efficientnet_lite", {"weights": "nowhere.weights.h5"}, "model.weights", "nowhere"),
        ("inception_v3", {"image_size": 74, "weights": None}, "model.image_size", "from 75"),
        ("inception_v3", {"weights": None, "scaling": "caffe"}, "model.scaling", "unit"),
        ("keras_application", {"name": "mobilnetv2"}, "model.name", "keras.applications"),
        ("keras_application", {"name": "VGG16", "image_size": 8}, "model.image_size", "32"),
        (
            "keras_application",
            {"name": "EfficientNetB0", "scaling": "unit"},
            "model.scaling",
            "within itself",
        ),
        ("cnn", {"image_size": 4, "blocks": 3}, "model.image_size", "at least 8"),
        ("cnn", {"filters": 0}, "model.filters", "positive integer"),
        ("cnn", {"channels": 2}, "model.channels", "1 or 3"),
        ("cnn", {"weights": "imagenet"}, "model.weights", "null or an existing file"),
    ],
)
def test_names_a_mistake(build: str, arguments: dict[str, Any], key: str, hint: str) -> None:
    cnn = {"blocks": 1, "filters": 4} if build == "cnn" else {}
    section = {"_target_": f"pneumonia.models.backbones.{build}", "image_size": 96}
    with pytest.raises(ConfigError) as caught:
        instantiate.build(section | cnn | arguments, "model")
    assert caught.value.key == key
    assert hint in str(caught.value)


def test_names_a_file_of_other_weights(tmp_path: Path) -> None:
    other = backbones.cnn(image_size=8, blocks=1, filters=4)
    other.save_weights(tmp_path / "cnn.weights.h5")
    (tmp_path / "text.weights.h5").write_text("text")
    for name in ("cnn.weights.h5", "text.weights.h5"):
        with pytest.raises(ConfigError, match="weights of efficientnet_lite0 without its top"):
            backbones.efficientnet_lite(image_size=32, weights=str(tmp_path / name))

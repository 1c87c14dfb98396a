"""The mean of classifiers: one file, in which what they share is there once."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pneumonia.models import backbones, classifier, gradcam, heads, litert
from pneumonia.models.mean import Mean
from pneumonia.models.mirror import Mirrored
from pneumonia.models.predictor import Predictor

SIZE = 16


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cnn(seed: int, *, size: int = SIZE, layer: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return backbones.cnn(
        image_size=size, blocks=2, filters=2, layer=layer, pooling="avg", trainable=False
    )


def head(backbone: keras.Model) -> keras.Model:
    return heads.dense(backbone.output.shape[1:], units=4, dropout=0.5)


def join(*members: tuple[keras.Model, keras.Model, int]) -> keras.Model:
    whole = Mean()
    for backbone, own, count in members:
        whole.add(backbone, own, image_size=backbone.input.shape[1], count=count)
    return whole.finish()


@pytest.fixture(scope="module")
def members() -> list[tuple[keras.Model, keras.Model, int]]:
    """Return two cuts of one network, another size of images, another network, joined layers."""
    made = [cnn(1), cnn(1, layer="block1_pool"), cnn(1, size=24), cnn(2)]
    made.append(cnn(3, layer="block1_pool+block2_pool"))
    return [(one, head(one), count) for one, count in zip(made, (1, 3, 1, 2, 1), strict=True)]


@pytest.fixture(scope="module")
def loaded(
    members: list[tuple[keras.Model, keras.Model, int]], tmp_path_factory: pytest.TempPathFactory
) -> keras.Model:
    path = tmp_path_factory.mktemp("mean") / "classifier.keras"
    classifier.save(join(*members), path)
    return classifier.load(path)


def alone(members: list[tuple[keras.Model, keras.Model, int]]) -> list[keras.Model]:
    return [
        classifier.assemble(backbone, own, image_size=backbone.input.shape[1])
        for backbone, own, _ in members
    ]


def test_it_is_the_mean_by_count(
    members: list[tuple[keras.Model, keras.Model, int]], loaded: keras.Model
) -> None:
    for images in (pixels(3, 28, 28, 1), pixels(2, 61, 47, 3)):
        given = [np.asarray(one(images)) for one in alone(members)]
        expected = np.average(given, axis=0, weights=[count for *_, count in members])
        np.testing.assert_allclose(np.asarray(loaded(images)), expected, atol=1e-6)
        assert np.ptp(given) > 1e-4


def test_what_is_the_same_is_there_once(
    members: list[tuple[keras.Model, keras.Model, int]], loaded: keras.Model
) -> None:
    def convolutions(model: keras.Model) -> int:
        return sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers)

    assert convolutions(loaded) == 2 + 0 + 2 + 2 + 2
    assert convolutions(join(*members[:2])) == 2
    # The image is brought to floats once, and once to each size.
    names = [operation.name for operation in loaded.operations]
    assert [name for name in names if name.startswith(("float", "rgb"))] == [
        "float",
        "rgb",
        "rgb_2",
    ]
    assert len(set(names)) == len(names)


def test_a_number_in_a_name_is_taken_once() -> None:
    def numbered() -> keras.Model:
        image = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(2, 3, name="conv2d")(image)
        x = keras.layers.Conv2D(2, 3, name="conv2d_2")(x)  # as Keras' InceptionV3 has them
        return keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(x))

    backbones = numbered(), numbered()
    whole = Mean()
    for one in backbones:
        whole.add(one, head(one), image_size=SIZE)
    names = [layer.name for layer in whole.finish().layers]
    assert len(set(names)) == len(names)
    assert {"conv2d", "conv2d_2", "conv2d_3", "conv2d_2_2"} <= set(names)


def test_a_member_is_copied_as_it_is_when_it_is_added() -> None:
    backbone = cnn(1)
    own, whole, image = head(backbone), Mean(), pixels(1, 20, 20, 1)
    whole.add(backbone, own, image_size=SIZE)
    before = np.asarray(classifier.assemble(backbone, own, image_size=SIZE)(image))
    backbone.set_weights([value + 0.1 for value in backbone.get_weights()])
    own.set_weights([value + 0.1 for value in own.get_weights()])
    after = np.asarray(classifier.assemble(backbone, own, image_size=SIZE)(image))
    whole.add(backbone, own, image_size=SIZE)
    assert abs(before - after).max() > 1e-3
    found = np.asarray(whole.finish()(image))
    np.testing.assert_allclose(found, (before + after) / 2, atol=1e-6)


@pytest.mark.slow
def test_its_heat_map_is_the_mean_of_theirs(
    members: list[tuple[keras.Model, keras.Model, int]], loaded: keras.Model
) -> None:
    images = [pixels(28, 28, 1), pixels(40, 30, 3)]
    theirs = [gradcam.explainer(one)(images) for one in alone(members)]
    for index, heat in enumerate(Predictor(loaded).explain(images)):
        given = [heats[index] for heats in theirs]
        expected = np.average(given, axis=0, weights=[count for *_, count in members])
        assert heat.shape == images[index].shape[:2]
        np.testing.assert_allclose(heat, expected / (expected.max() or 1), atol=1e-3)


@pytest.mark.skipif(not litert.is_supported(), reason="needs ai-edge-litert")
def test_it_is_exported_whole(loaded: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "c.tflite").write_bytes(litert.convert(loaded))
    exported = litert.load(tmp_path / "c.tflite")
    for image in (pixels(1, 28, 28, 1), pixels(1, 61, 47, 3)):
        np.testing.assert_allclose(exported(image), np.asarray(loaded(image))[:, 0], atol=1e-5)


def test_it_is_the_mean_over_mirror_images_too(
    members: list[tuple[keras.Model, keras.Model, int]], tmp_path: Path
) -> None:
    images = [pixels(SIZE, SIZE, 1), pixels(SIZE, SIZE, 1, seed=1)]
    batch = np.stack(images)
    same_size = [one for one in members if one[0].input.shape[1] == SIZE]
    for some in (same_size, same_size[:1]):
        whole = Mean(flips=True)
        for backbone, own, count in some:
            whole.add(backbone, own, image_size=backbone.input.shape[1], count=count)
        classifier.save(whole.finish(), tmp_path / "c.keras")
        predictor, plain = Predictor.load(tmp_path / "c.keras"), Predictor(join(*some))
        floats = batch.astype(np.float32).repeat(3, axis=3)
        shown = [floats, Mirrored().render(floats, 0)]
        judged = [[own(backbone(one)) for backbone, own, _ in some] for one in shown]
        counts = [count for *_, count in some]
        expected = np.average(np.mean(judged, axis=0), axis=0, weights=counts)[:, 0]
        assert np.ptp(plain.classify(batch) - expected) > 1e-6
        np.testing.assert_allclose(predictor.classify(batch), expected, atol=1e-6)
        heats = predictor.explain(images)
        assert {heat.shape for heat in heats} == {(SIZE, SIZE)}
        mirrored = predictor.explain([image[:, ::-1] for image in images])
        for heat, other in zip(heats, mirrored, strict=True):
            np.testing.assert_allclose(heat, other[:, ::-1], atol=1e-3)
        if litert.is_supported():
            (tmp_path / "c.tflite").write_bytes(litert.convert(predictor.model))
            given = litert.load(tmp_path / "c.tflite")(batch[:1])
            np.testing.assert_allclose(given, expected[:1], atol=1e-5)

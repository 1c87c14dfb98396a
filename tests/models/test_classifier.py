"""The classifier: any image in, a probability out, also where this package is not installed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pneumonia.models import backbones, classifier, heads
from pneumonia.models.mean import Mean

SIZE = 40

# Run by a Python that sees neither this package nor the current folder.
SECOND_PROCESS = """
import sys
sys.modules["pneumonia"] = None  # importing it fails
import keras, numpy as np
images = np.load(sys.argv[1])
for path in sys.argv[2:]:
    model = keras.saving.load_model(path, safe_mode=True)
    np.savez(path, **{name: model.predict(images[name], verbose=0) for name in images})
"""


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    keras.utils.set_random_seed(1)
    return backbones.efficientnet_lite(image_size=SIZE, layer="block2b_add", pooling="max")


@pytest.fixture(scope="module")
def model(backbone: keras.Model) -> keras.Model:
    head = heads.dense(backbone.output_shape[1:], units=8, dropout=0.5)
    return classifier.assemble(backbone, head, image_size=SIZE)


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(2, 28, 28, 1), (1, 61, 47, 1), (3, 33, 90, 3), (1, 40, 40, 3)])
def test_takes_any_image(model: keras.Model, shape: tuple[int, ...]) -> None:
    probabilities = model.predict(pixels(*shape), verbose=0)
    assert probabilities.shape == (shape[0], 1)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_gray_is_the_same_as_three_equal_channels(model: keras.Model) -> None:
    gray = pixels(2, 50, 60, 1)
    colour = np.repeat(gray, 3, axis=-1)
    np.testing.assert_array_equal(model.predict(gray, verbose=0), model.predict(colour, verbose=0))


def test_resize_is_what_the_classifier_does(backbone: keras.Model) -> None:
    images = [pixels(31, 57, 1), pixels(31, 57, 1), pixels(80, 20, 3), pixels(31, 57, 1)]
    resized = classifier.resize(images, SIZE)
    assert resized.dtype == np.float32
    assert resized.shape == (4, SIZE, SIZE, 3)
    head = heads.dense(backbone.output_shape[1:], units=8, dropout=0.5)
    model = classifier.assemble(backbone, head, image_size=SIZE)
    front = keras.Model(model.input, model.get_layer("rgb").output)
    for image, expected in zip(images, resized, strict=True):
        np.testing.assert_array_equal(np.asarray(front(image[None]))[0], expected)
        probability = np.asarray(head(backbone(expected[None])))
        np.testing.assert_allclose(np.asarray(model(image[None])), probability, atol=1e-6)


def test_a_plain_call_is_in_inference_mode(model: keras.Model) -> None:
    image = pixels(2, 50, 60, 1)
    plain, predicted = np.asarray(model(image)), model.predict(image, verbose=0)
    np.testing.assert_allclose(plain, predicted, atol=1e-5)
    assert np.abs(np.asarray(model(image, training=True)) - predicted).max() > 1e-3


def test_resize_of_an_array_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(10, 28, 28, 1)
    whole = classifier.resize(images, SIZE)
    monkeypatch.setattr(classifier, "_CHUNK_VALUES", 3 * SIZE * SIZE * 3)
    np.testing.assert_array_equal(classifier.resize(images, SIZE), whole)
    assert classifier.resize(images[:0], SIZE).shape == (0, SIZE, SIZE, 3)


def test_resize_keeps_the_range_and_averages_on_the_way_down() -> None:
    assert classifier.resize([np.full((7, 9, 1), 255, np.uint8)], SIZE).min() == 255
    checkers = np.indices((400, 400)).sum(0)[..., None] % 2 * np.uint8(254)
    small = classifier.resize([checkers.astype(np.uint8)], SIZE)
    np.testing.assert_allclose(small, 127, atol=1)


def test_is_made_of_stock_layers_only(model: keras.Model, tmp_path: Path) -> None:
    classifier.save(model, tmp_path / "classifier.keras")
    with zipfile.ZipFile(tmp_path / "classifier.keras") as file:
        told = file.read("config.json").decode()
    modules = set(re.findall(r'"module": "([^"]*)"', told))
    assert {name.partition(".")[0] for name in modules} == {"keras"}
    # What a package has registered has its name before it: "package>Layer".
    assert not [name for name in re.findall(r'"registered_name": ([^,}]*)', told) if ">" in name]


@pytest.mark.slow
def test_loads_in_a_second_process_without_this_package(
    model: keras.Model, backbone: keras.Model, tmp_path: Path
) -> None:
    images = {
        "gray": pixels(3, 61, 47, 1),
        "colour": pixels(2, 33, 90, 3),
        "small": pixels(2, 9, 9, 1),
    }
    whole = Mean()
    for count in (2, 1):
        head = heads.dense(backbone.output_shape[1:], units=8, dropout=0.5)
        whole.add(backbone, head, image_size=SIZE, count=count)
    models = {"one.keras": model, "mean.keras": whole.finish()}
    for name, one in models.items():
        classifier.save(one, tmp_path / name)
    np.savez(tmp_path / "images.npz", **images)
    paths = [str(tmp_path / name) for name in ("images.npz", *models)]
    command = [sys.executable, "-I", "-c", SECOND_PROCESS, *paths]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    for file, one in models.items():
        with np.load(tmp_path / f"{file}.npz") as probabilities:
            for name, image in images.items():
                expected = one.predict(image, verbose=0)
                np.testing.assert_allclose(probabilities[name], expected, rtol=0, atol=1e-6)


def test_saves_whole_files_only(model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "classifier.keras"
    path.write_bytes(b"before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "save", lambda self, part: part.write_bytes(b"half") + None)
        with pytest.raises(TypeError):
            classifier.save(model, path)
    assert path.read_bytes() == b"before"
    classifier.save(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["classifier.keras"]
    assert zipfile.is_zipfile(path)


def test_leaves_the_optimizer_out(tmp_path: Path) -> None:
    backbone = backbones.cnn(image_size=8, blocks=1, filters=4)
    head = heads.dense(backbone.output_shape[1:], units=64, dropout=0.0)
    head.compile("adam", "binary_crossentropy", jit_compile=False)
    head.train_on_batch(np.zeros((2, *head.input_shape[1:])), np.array([[0], [1]]))
    model = classifier.assemble(backbone, head, image_size=8)
    model.compile("adam", "binary_crossentropy", jit_compile=False)
    model.train_on_batch(pixels(2, 8, 8, 1), np.array([[0], [1]]))
    classifier.save(model, tmp_path / "classifier.keras")
    with zipfile.ZipFile(tmp_path / "classifier.keras") as file:
        config = file.read("config.json").decode()
    assert "optimizer" not in config
    loaded = classifier.load(tmp_path / "classifier.keras")
    assert getattr(loaded, "optimizer", None) is None
    assert len(loaded.weights) == len(model.weights)
    image = pixels(1, 8, 8, 1)
    np.testing.assert_array_equal(np.asarray(loaded(image)), np.asarray(model(image)))


def test_names_do_not_depend_on_what_was_built_before() -> None:
    def names() -> list[str]:
        backbone = backbones.cnn(image_size=8, blocks=1, filters=4)
        head = heads.dense(backbone.output_shape[1:], units=4, dropout=0.0)
        model = classifier.assemble(backbone, head, image_size=8)
        return [operation.name for part in (model, backbone, head) for operation in part.operations]

    assert names() == names()


def test_refuses_a_file_with_code(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match="unsafe"):
        classifier.load(tmp_path / "code.keras")


def test_saves_in_a_moment(model: keras.Model, tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        classifier.save(model, tmp_path / "classifier.keras")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0

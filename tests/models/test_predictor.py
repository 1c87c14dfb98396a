"""A classifier at work, with its decision."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from samples import Project, pixels

from pneumonia.errors import UserError
from pneumonia.models import classifier_file, gradcam
from pneumonia.models.predictor import Predictor

pytestmark = pytest.mark.usefixtures("started")


def test_a_classifier_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    image = keras.Input((None, None, None), dtype="uint8")
    x = keras.layers.Lambda(lambda x: x * 0.0, output_shape=(None, None, None))(image)
    keras.Model(image, x).save(tmp_path / "lambda.keras")
    with pytest.raises(UserError, match="lambda"):
        Predictor.load(tmp_path / "lambda.keras")


def test_many_sizes_are_traced_once(here: Project, model: keras.Model) -> None:
    predictor = Predictor.load(here.classifier)
    images = [pixels(20 + seed, 30, seed=seed)[..., np.newaxis] for seed in range(40)]
    predictor.predict(images[:1])
    start = time.perf_counter()
    found = predictor.predict(images)
    assert time.perf_counter() - start < 2
    for index in (0, 17, 39):
        alone = model.predict(images[index][np.newaxis], verbose=0)[0, 0]
        assert found[index] == pytest.approx(alone, abs=1e-6)


def test_it_decides_as_it_is_told_and_tells_what_its_file_says(
    here: Project, tmp_path: Path
) -> None:
    file = tmp_path / "own.keras"
    shutil.copyfile(here.classifier, file)
    classifier_file.write_facts(file, {"temperature": 1.5, "trained_on": "phantom"})
    predictor = Predictor.load(file, class_names=("well", "ill"), threshold=0.25)
    assert (predictor.temperature, predictor.trained_on) == (1.5, "phantom")
    for kind in (float, np.float32):
        decided = [predictor.decide(kind(p)) for p in (0.1, 0.25, 0.2501)]
        assert decided == ["well", "well", "ill"]
    assert Predictor.load(here.classifier).decide(0.5001) == "positive"


def test_what_takes_other_inputs_is_refused(tmp_path: Path) -> None:
    image = keras.Input((3,))
    keras.Model(image, keras.layers.Dense(1)(image)).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="expected a classifier, from uint8 images"):
        Predictor.load(tmp_path / "other.keras")


def test_it_explains_as_gradcam_does(here: Project, model: keras.Model) -> None:
    images = [pixels(30, 40)[..., np.newaxis], pixels(20, 30)[..., np.newaxis]]
    heats = Predictor.load(here.classifier).explain(images)
    for heat, expected in zip(heats, gradcam.explainer(model)(images), strict=True):
        np.testing.assert_allclose(heat, expected, atol=1e-3)

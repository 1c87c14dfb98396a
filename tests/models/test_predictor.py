"""A classifier at work."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np
import pytest
from samples import Project, pixels

from pneumonia.errors import UserError
from pneumonia.models import predictor

pytestmark = pytest.mark.usefixtures("started")


def test_a_classifier_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    image = keras.Input((None, None, None), dtype="uint8")
    x = keras.layers.Lambda(lambda x: x * 0.0, output_shape=(None, None, None))(image)
    keras.Model(image, x).save(tmp_path / "lambda.keras")
    with pytest.raises(UserError, match="lambda"):
        predictor.load_model(tmp_path / "lambda.keras")


def test_many_sizes_are_traced_once(here: Project, model: keras.Model) -> None:
    classify = predictor.classifying(predictor.load_model(here.classifier))
    images = [pixels(20 + seed, 30, seed=seed)[..., np.newaxis] for seed in range(40)]
    classify(images[0][np.newaxis])
    start = time.perf_counter()
    found = predictor.classify_all(images, classify)
    assert time.perf_counter() - start < 2
    for index in (0, 17, 39):
        alone = model.predict(images[index][np.newaxis], verbose=0)[0, 0]
        assert found[index] == pytest.approx(alone, abs=1e-6)

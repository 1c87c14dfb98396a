"""What tests of predictions share: images, a classifier, a project with searches in a store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumonia.models import backbones, classifier, heads
from pneumonia.storage import offset
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor
from pneumonia.tracking.consumer import Consumer
from pneumonia.tracking.mlflow_store import make_ready
from pneumonia.tracking.settings import TrackingSettings

SIZE = 32
NAMES = ["normal", "pneumonia"]


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a store of two searches, the classifier of both being the same."""

    folder: Path
    classifier: Path
    run_ids: tuple[str, str]

    @property
    def settings(self) -> TrackingSettings:
        return TrackingSettings(
            uri=f"sqlite:///{self.folder}/mlruns/mlflow.db",
            artifacts=str(self.folder / "mlruns" / "artifacts"),
        )


def make_model() -> keras.Model:
    """Build a classifier; its head, not trained, gives probabilities that are far apart."""
    keras.utils.set_random_seed(1)
    backbone = backbones.cnn(image_size=SIZE, blocks=2, filters=4, channels=3)
    head = heads.dense(backbone.output_shape[1:], units=8, dropout=0.5)
    return classifier.assemble(backbone, head, image_size=SIZE)


def make_project(model: keras.Model, folder: Path) -> Project:
    """Make a project with a store of two searches, of which the second tells of its model."""
    file = folder / "classifier.keras"
    classifier.save(model, file)
    project = Project(folder, file, ("", ""))
    make_ready(project.settings)
    told = {"class_names": json.dumps(NAMES), "threshold": "0.25"}
    ids = [track_search(project, *one) for one in (("a", {}, 0.8), ("b", told, 0.9))]
    return Project(folder, file, (ids[0], ids[1]))


def track_search(project: Project, name: str, tags: dict[str, str], score: float) -> str:
    """Record a search of one trial that wins; return the id of its run."""
    folder = project.folder / "outputs" / name
    folder.mkdir(parents=True)
    with closing(Journal(folder)) as journal:
        shutil.copyfile(project.classifier, folder / "trial.keras")
        data = [{"name": "chest", "split": "val", "digest": "d1", "size": 9, "positives": 4}]
        fields: dict[str, Any] = {"params": {"objective.name": "val_auc"}, "datasets": data}
        fields |= {"artifacts": [], "tags": {"dataset": "chest", **tags}}
        journal.append("search_started", search_id=name, name=name, direction="max", **fields)
        trial = {"trial_id": "0001"}
        journal.append("trial_started", **trial, number=1, name="trial 1", values={}, tags={})
        ended = {"reason": None, "traceback": None, "metrics": {}, "classifier": "trial.keras"}
        journal.append("trial_ended", **trial, status="COMPLETED", score=score, **ended)
        ended = {"reason": None, "artifacts": [], "classifier": "trial.keras"}
        ended["metrics"] = {"val_auc": score}
        journal.append("search_ended", status="completed", winner="0001", **ended)
    with closing(Consumer(folder, project.settings)):
        pass
    run_id = Cursor.read(folder / offset.NAME).run_id
    assert run_id is not None
    return run_id


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blurred noise: JPEG keeps it nearly, and resizing does not make it all grey."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)
    fine = np.asarray(
        Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    )
    return fine if len(shape) == 2 else np.stack([fine, 255 - fine, fine // 2], -1)


def write_images(folder: Path) -> dict[Path, NDArray[np.uint8]]:
    """Write an image of every format, in grey and colour and several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {
        "a.png": pixels(40, 40, seed=1),
        "b.jpg": pixels(40, 40, 3, seed=2),
        "c.JPEG": pixels(33, 61, seed=3),
        "d.bmp": pixels(40, 40, 3, seed=4),
        "e.tif": pixels(90, 50, seed=5),
        "f.tiff": pixels(40, 40, seed=6),
    }
    for name, image in images.items():
        Image.fromarray(image).save(folder / name, format=None)
    return {folder / name: image for name, image in images.items()}


def expected(model: keras.Model, paths: Sequence[Path]) -> list[float]:
    """Return what the whole classifier gives for each image alone."""
    raw = [np.asarray(Image.open(path)) for path in paths]
    raw = [image if image.ndim == 3 else image[..., np.newaxis] for image in raw]
    return [float(model.predict(image[np.newaxis], verbose=0)[0, 0]) for image in raw]


def halves(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stand for a classifier where only its name matters."""
    return np.full(len(images), 0.5, np.float32)

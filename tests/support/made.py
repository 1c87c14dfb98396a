"""Folders of searches as a search leaves them, made without one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia.datasets.sources import npz
from pneumonia.storage import journal

CONFIG = """\
dataset: {_target_: pneumonia.datasets.sources.npz, path: FOLDER/images.npz}
model: {_target_: pneumonia.models.backbones.cnn, layer: 'choice(low, high)'}
dense: {units: 'choice(64, 128, 256)', dropout: 'interval(0.1, 0.5)'}
optimizer: {learning_rate: 'tag(log, interval(1e-4, 1e-2))'}
training: {batch_size: 32}
objective: {name: val_auc, direction: max}
seed: 1
when: {}
"""
RANGES = ("model.layer", "dense.units", "dense.dropout", "optimizer.learning_rate")
NAMES = ("normal", "pneumonia")


class Made:
    """Writes the journal of a Hyperband search, with times that a test can foretell."""

    def __init__(
        self, folder: Path, *, class_names: tuple[str, str] = NAMES, seed: int = 0, **choices: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.n, self.time = 0, 1_700_000_000_000
        self.scores: dict[str, float] = {}
        self.values: dict[str, dict[str, Any]] = {}
        (folder / "config.yaml").write_text(CONFIG.replace("FOLDER", str(folder)))
        rows = [
            {"name": "phantom", "split": split, "digest": f"{size:064x}", "size": size,
             "source": "somewhere", "positives": size // 2, "shapes": [[28, 28, 1]]}
            for split, size in (("train", 400), ("val", 80), ("test", 120))
        ]  # fmt: skip
        self.event(
            "search_started",
            search_id="0123456789ab",
            name="hyperband-cnn-phantom",
            direction="max",
            choices={"tuner": "hyperband", "model": "cnn", **choices},
            tags={"tuner": "hyperband", "class_names": json.dumps(class_names),
                  "version.keras": "3.15.0", "git_commit": "c0ffee"},
            params={"objective.name": "val_auc", "seed": 1, "dense.units": "choice(64, 128, 256)"},
            datasets=rows,
            duplicates={"train/val": 3, "train/test": 0, "val/test": 0},
            artifacts=["config.yaml"],
        )  # fmt: skip

    def event(self, kind: str, *, after: int = 100, **fields: Any) -> None:
        """Write an event, some milliseconds after the last."""
        self.time += after
        event = {"n": self.n, "kind": kind, "time": self.time, **fields}
        with (self.folder / journal.NAME).open("a") as file:
            file.write(json.dumps(event) + "\n")
        self.n += 1

    def draw(self) -> dict[str, Any]:
        """Return values of the hyperparameters."""
        return {
            "model.layer": ("low", "high")[int(self.rng.integers(2))],
            "dense.units": (64, 128, 256)[int(self.rng.integers(3))],
            "dense.dropout": float(self.rng.uniform(0.1, 0.5)),
            "optimizer.learning_rate": float(10 ** self.rng.uniform(-4, -2)),
        }

    def start(
        self, values: dict[str, Any], *, epochs: int, bracket: int | None = None, round: int = 0,
        parent: str | None = None,
    ) -> str:  # fmt: skip
        """Begin a trial; return its id."""
        trial_id = f"{len(self.values):04d}"
        self.values[trial_id] = values
        tags = {} if bracket is None else {"bracket": str(bracket), "round": str(round)}
        tags |= {} if parent is None else {"promoted_from": parent}
        number = len(self.values)
        everything = {**values, "training.batch_size": 32, "epochs": epochs}
        self.event("trial_started", trial_id=trial_id, number=number, name=f"trial {number}",
                   values=everything, tags=tags)  # fmt: skip
        return trial_id

    def train(self, trial_id: str, first: int, last: int) -> None:
        """Let a trial go through epochs; the layer is nearly all that matters."""
        values = self.values[trial_id]
        top = 0.9 if values["model.layer"] == "high" else 0.7
        top += 0.02 * values["dense.dropout"]
        for epoch in range(first, last + 1):
            score = round(top - 0.2 / (epoch + 1) + float(self.rng.normal(0, 0.002)), 6)
            metrics = {"loss": 1 / epoch, "auc": score, "val_loss": 1.1 / epoch, "val_auc": score}
            self.event("epoch_ended", trial_id=trial_id, execution=0, epoch=epoch, metrics=metrics)
            self.scores[trial_id] = score
        metrics = metrics | {"best_epoch": last}
        self.event("trial_ended", after=50, trial_id=trial_id, status="COMPLETED",
                   score=self.scores[trial_id], metrics=metrics, reason="", traceback="",
                   classifier=None, seconds=0.1 * (last - first + 1) + 0.05)  # fmt: skip

    def fail(self, reason: str, traceback: str = "Traceback") -> None:
        """Let a trial fail."""
        trial_id = self.start(self.draw(), epochs=3)
        self.event("trial_ended", trial_id=trial_id, status="FAILED", score=None, metrics={},
                   reason=reason, traceback=traceback, classifier=None, seconds=0.0)  # fmt: skip

    def hyperband(self) -> None:
        """Run two brackets: twelve trials of three epochs of which four go on to nine, and five."""
        first = [self.start(self.draw(), epochs=3, bracket=1) for _ in range(12)]
        for trial_id in first:
            self.train(trial_id, 1, 3)
        for parent in sorted(first, key=lambda one: -self.scores[one])[:4]:
            child = self.start(self.values[parent], epochs=9, bracket=1, round=1, parent=parent)
            self.train(child, 4, 9)
        for _ in range(5):
            self.train(self.start(self.draw(), epochs=9, bracket=0), 1, 9)

    def end(self, status: str = "completed", **metrics: float) -> None:
        """Tell the end of the search."""
        winner = max(self.scores, key=lambda one: self.scores[one]) if self.scores else None
        found = {
            "test_auc": 0.9,
            "test_auc_low": 0.85,
            "test_auc_high": 0.94,
            "seconds": 12.5,
            "seconds_preparation": 2.0,
            "seconds_trials": 9.5,
            "seconds_evaluation": 1.0,
        }
        self.event("search_ended", status=status, winner=winner, metrics=found | metrics,
                   artifacts=[], classifier=None, reason="", description="",
                   test_readings={"searches": 3, "times": 5})  # fmt: skip

    def predict(self, *, names: str = "{split}/{index}") -> None:
        """Write predictions that are often right."""
        with (self.folder / "predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "name", "label", "probability"])
            for split, size in (("val", 80), ("test", 120)):
                for index in range(size):
                    label = index % 2
                    p = 1 / (1 + np.exp(-self.rng.normal(3 * label - 1.5, 1.5)))
                    writer.writerow([split, names.format(split=split, index=index), label, p])


def write_images(folder: Path) -> None:
    """Write the images that predictions speak of, and note their digest in the journal."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", 4), ("val", 80), ("test", 120)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(size) % 2
    np.savez(folder / "images.npz", **arrays)
    digest = npz(path=str(folder / "images.npz")).test.digest
    path = folder / journal.NAME
    path.write_text(path.read_text().replace(f"{120:064x}", digest))


def finished(folder: Path, **given: Any) -> Path:
    """Make a search that has completed, with predictions."""
    made = Made(folder, **given)
    made.hyperband()
    made.predict()
    made.end(threshold=0.62)
    return folder

"""Score classifiers on val as it is, and on val changed as images from elsewhere may differ.

    python tests/bench/changed_val.py --data FOLDER outputs/.../classifier.keras ...

Val is drawn from where train is, so that a classifier which leans on what those images share does
well on it. Test is not read. Printed for each classifier: the balanced log loss and the AUC, on val
and as the mean over eight kinds of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from pneumonia.datasets.sources import npz
from pneumonia.evaluation.metrics import balanced_log_loss
from pneumonia.models.predictor import Predictor

Array = np.ndarray[Any, Any]


def kinds(images: Array) -> dict[str, Array]:
    """Return changed images by the name of the change, of float (n, h, w) in [0, 1]."""

    def scaled(factor: float) -> Array:
        middle = (np.array(images.shape[1:]) - 1) / 2
        offset = (0, *(middle - factor * middle))
        return ndimage.affine_transform(
            images, (1, factor, factor), offset, order=1, mode="nearest"
        )

    noise = np.random.default_rng(0).normal(0, 0.05, images.shape)
    return {
        "as it is": images,
        "brighter": images**0.6,
        "darker": images**1.6,
        "flatter": (images - 0.5) * 0.7 + 0.5,
        "noisy": images + noise,
        "blurred": ndimage.gaussian_filter(images, (0, 0.6, 0.6)),
        "larger": scaled(0.85),
        "smaller": scaled(1.12),
    }


def main() -> None:
    """Print a line for each classifier."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="where pneumoniamnist.npz is")
    parser.add_argument("classifiers", nargs="+", type=Path)
    options = parser.parse_args()
    val = npz(path=str(options.data / "pneumoniamnist.npz")).val
    labels = val.labels.astype(int)
    images = val.images.read(np.arange(len(val)))[..., 0] / 255
    shown = {
        name: np.rint(np.clip(some, 0, 1) * 255).astype(np.uint8)[..., np.newaxis]
        for name, some in kinds(images).items()
    }
    for path in options.classifiers:
        predictor = Predictor.load(path)
        given = {name: np.asarray(predictor.predict(list(some))) for name, some in shown.items()}
        loss = [balanced_log_loss(labels, one) for one in given.values()]
        auc = [roc_auc_score(labels, one) for one in given.values()]
        worst = list(given)[int(np.argmax(loss))]
        print(
            f"{path}: val {loss[0]:.4f}, AUC {auc[0]:.4f}; mean of {len(given)} kinds "
            f"{np.mean(loss):.4f}, AUC {np.mean(auc):.4f}; worst {worst} {max(loss):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

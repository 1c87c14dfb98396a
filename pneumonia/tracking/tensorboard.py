"""Logs for TensorBoard: one folder per trial, with its metrics over the epochs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from pneumonia.evaluation.objective import Fit


class Logs:
    """Owns the log file of one trial in its search's folder, made with the first epoch."""

    def __init__(self, folder: Path, trial_id: str) -> None:
        self._path = folder / "tensorboard" / trial_id
        self._writer: tf.summary.SummaryWriter | None = None

    def write(self, fit: Fit, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an epoch; those of further fits in a group of their own."""
        if self._writer is None:
            # A process that was killed may have left some epochs, all of which come again.
            shutil.rmtree(self._path, ignore_errors=True)
            self._writer = tf.summary.create_file_writer(str(self._path))
        prefix = f"{fit.name}/" if fit.name else ""
        with self._writer.as_default():
            for name, value in metrics.items():
                tf.summary.scalar(prefix + name, value, step=epoch)

    def close(self) -> None:
        """Write out what is left, and close the file."""
        if self._writer is not None:
            self._writer.close()

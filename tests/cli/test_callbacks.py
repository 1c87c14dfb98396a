"""What a search says before its first trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from test_plan import plan

from pneumonia.cli.callbacks import prospect
from pneumonia.datasets.base import ArraySource, build_data, build_split


def test_the_class_that_is_positive_is_named(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (12, 9, 9), dtype=np.uint8)
    splits = [
        build_split(name, ArraySource(rows[4 * n : 4 * n + 4]), labels=[0, 1, 0, 1])
        for n, name in enumerate(("train", "val", "test"))
    ]
    data = build_data("x", splits, class_names=("No Finding", "Effus\x1bion"), source="/x")
    lines = prospect(data, {"dataset": "image_folder"}, plan(), folder=tmp_path).splitlines()
    assert lines[1] == "image_folder: 4 train, 4 val, 4 test images from /x; positive: Effus?ion"

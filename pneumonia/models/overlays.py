"""Heat maps of predicted images as files: beside the images, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pneumonia import files
from pneumonia.errors import ConfigError, UserError

if TYPE_CHECKING:
    from pneumonia.models.gradcam import Heat, Pixels

SUFFIX = ".heatmap.png"
"""What a heat map's name ends in, after the whole name of its image."""


def place(paths: Sequence[Path], folder: Path | None) -> dict[Path, Path]:
    """Return where the heat map of each image goes.

    Args:
        paths: The images.
        folder: Under it, as the images lie under the folder that holds them all; None for beside
            each image.

    Raises:
        ConfigError: Where a folder is none or cannot be written.
    """
    if folder is None:
        places = {path: path.with_name(path.name + SUFFIX) for path in paths}
        made = {path.parent for path in paths}
    else:
        absolute = {path: Path(os.path.abspath(path)) for path in paths}  # noqa: PTH100 keeps links
        common = os.path.commonpath([path.parent for path in absolute.values()])
        places = {
            path: folder / (own.relative_to(common).as_posix() + SUFFIX)
            for path, own in absolute.items()
        }
        made = {next(one for one in (folder, *folder.absolute().parents) if one.exists())}
    for one in made:
        if not one.is_dir() or not os.access(one, os.W_OK):
            given = "true" if folder is None else str(folder)
            raise ConfigError("heatmaps", "a folder that can be written", given, f"See {one}")
    return places


def write(image: Pixels, heat: Heat, path: Path) -> None:
    """Write an image with its heat map over it, whole or not at all.

    Args:
        image: uint8 (H, W, C), C in {1, 3}.
        heat: float32 (H, W) in [0, 1].
        path: The PNG file; its folder is made.

    Raises:
        UserError: Where it cannot be written.
    """
    from pneumonia.models.gradcam import (
        overlay,  # TensorFlow is there already, where there is a heat map
    )

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic(path, suffix=f".{os.getpid()}") as part:
            Image.fromarray(overlay(image, heat)).save(part, "PNG", compress_level=3)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from error

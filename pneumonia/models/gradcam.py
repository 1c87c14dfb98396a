"""Where a classifier looks: Grad-CAM heat maps of the evidence for the positive class.

The weights of the channels of the last layer with height and width are the mean gradients of the
classifier's score, and the heat is the positive part of the channels' weighted sum (Selvaraju et
al. 2017, https://arxiv.org/abs/1610.02391). The score is the logit of the probability: its gradient
has the same direction, and does not vanish where the probability is near 0 or 1.

Of the mean of several classifiers it is the mean of their heat maps, and likewise of the mean over
an image and its mirror image, which is turned back.

A heat map is as coarse as that layer, and it tells what moved the score, not where the disease is.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumonia import files
from pneumonia.errors import ConfigError, UserError
from pneumonia.models.mirror import MEAN

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Heat = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Explain = Callable[[Sequence[Pixels]], list[Heat]]
Step = Callable[[Any], Any]
T = TypeVar("T")

SUFFIX = ".heatmap.png"
"""What a heat map's name ends in, after the whole name of its image."""

_BATCH = 16
# Values of images of one size that are handled at a time: 64 MB as floats.
_BATCH_VALUES = 16_000_000
_STRONGEST = 0.6  # how much of the image the hottest place covers


def explainer(classifier: keras.Model) -> Explain:
    """Return what makes heat maps of one classifier, traced once for images of all sizes.

    It takes uint8 images (H, W, C) of any sizes, C in {1, 3}, and gives float32 (H, W) in [0, 1]
    each: the hottest place is 1, unless nothing speaks for the positive class, which gives zeros.

    Raises:
        UserError: Where no layer of the classifier has height and width.
    """
    import keras

    operations, output = classifier.operations, classifier.output
    if flips := operations[-1].name == MEAN:
        output, operations = operations[-2].input, operations[:-2]
    last, outputs = operations[-1], Counter([output])
    if isinstance(last, keras.layers.Average):
        outputs = Counter(last.input)
    members = [_explainer(keras.Model(classifier.input, one), flips=flips) for one in outputs]
    if len(members) == 1:
        return members[0]

    def explain(images: Sequence[Pixels]) -> list[Heat]:
        heats = zip(*(member(images) for member in members), strict=True)
        means = (np.average(some, axis=0, weights=[*outputs.values()]) for some in heats)
        return [_finish(one, one.shape) for one in means]

    return explain


def _explainer(classifier: keras.Model, *, flips: bool) -> Explain:
    """Return what makes heat maps of a classifier that is not the mean of several.

    With flips, it gives probabilities for the images, then for their mirror images.
    """
    import tensorflow as tf

    look, judge = _halves(classifier)

    def heat(images: tf.Tensor) -> tf.Tensor:
        maps = look(images)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = judge(maps)
        gradients = tape.gradient(score, maps)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))
        if flips:
            plain, mirrored = tf.split(heat, 2)
            heat = plain + mirrored[..., ::-1]
        return heat

    signature = tf.TensorSpec((None, None, None, None), tf.uint8)
    # One signature for all sizes: tracing again for each takes longer than the images do.
    call = tf.function(heat, autograph=False).get_concrete_function(signature)

    def explain(images: Sequence[Pixels]) -> list[Heat]:
        maps = by_shape(images, lambda some: np.asarray(call(tf.constant(some))), most=_BATCH)
        return [_finish(one, image.shape[:2]) for one, image in zip(maps, images, strict=True)]

    return explain


def overlay(image: Pixels, heat: Heat) -> Pixels:
    """Lay a heat map (H, W) in [0, 1] over an image: uint8 (H, W, 1 or 3).

    Returns:
        uint8 (H, W, 3): grey where it is cold, from purple to yellow where it is hot.
    """
    from matplotlib import colormaps

    levels = np.linspace(0, 1, 256, dtype=np.float32)
    shares = _STRONGEST * levels[:, np.newaxis]
    colours = 255 * shares * colormaps["inferno"](levels)[:, :3].astype(np.float32)
    level = (255 * heat).round().astype(np.uint8)
    grey = image[..., :1] if image.shape[-1] == 1 else image.mean(-1, np.float32, keepdims=True)
    laid: Pixels = ((1 - shares)[level] * grey + colours[level]).round().astype(np.uint8)
    return laid


def by_shape(
    images: Sequence[Pixels], call: Callable[[Pixels], Iterable[T]], *, most: int | None = None
) -> list[T]:
    """Return what a function of images (n, H, W, C) of one shape gives for images of any shapes.

    It gets at most so many at a time, fewer where they are large; by default all of a shape.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[image.shape].append(index)
    found: dict[int, T] = {}
    for shape, indices in groups.items():
        size = max(1, min(most, _BATCH_VALUES // int(np.prod(shape)))) if most else len(indices)
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            found |= zip(some, call(np.stack([images[index] for index in some])), strict=True)
    return [found[index] for index in range(len(images))]


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
    """Write an image with its heat map over it to a PNG file, whole or not at all.

    Raises:
        UserError: Where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic(path, suffix=f".{os.getpid()}") as part:
            Image.fromarray(overlay(image, heat)).save(part, "PNG", compress_level=3)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from error


def _finish(heat: Heat, shape: tuple[int, ...]) -> Heat:
    """Bring a coarse map to the size of its image and its greatest value to 1."""
    height, width = shape
    coarse = Image.fromarray(heat.astype(np.float32))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    greatest = fine.max()
    return np.clip(fine / greatest, 0, 1) if greatest > 0 else np.zeros(shape, np.float32)


def _halves(model: keras.Model) -> tuple[Step, Step]:
    """Split a classifier into what leads to the last maps, and from them to the logit."""
    import keras

    operations = model.operations
    for index in reversed(range(len(operations))):
        operation = operations[index]
        end = [*operations[index + 1 : -1], *_logit(operations[-1])]
        if isinstance(operation, keras.Model):
            inner = [one.output for one in operation.operations[1:] if _has_extent(one.output)]
            if inner:
                before = keras.Model(model.input, operations[index - 1].output)
                maps, after = _last_cut(inner, operation.output)
                inside = keras.Model(operation.input, maps)
                return _chain([before, inside]), _chain([after, *end])
        elif isinstance(operation, keras.layers.Layer) and _has_extent(operation.output):
            inner = [one.output for one in operations[: index + 1] if _has_extent(one.output)]
            maps, after = _last_cut(inner, operations[-2].output)
            return keras.Model(model.input, maps), _chain([after, *_logit(operations[-1])])
    raise UserError("A heat map needs a classifier with a layer that has height and width.")


def _last_cut(tensors: Sequence[Any], output: Any) -> tuple[Any, Step]:
    """Return the last tensor that an output depends on alone, and the model between the two."""
    import keras

    for tensor in reversed(tensors):
        with contextlib.suppress(ValueError):  # others lead past it, where layers are joined
            return tensor, keras.Model(tensor, output)
    raise UserError("A heat map needs a layer with height and width that nothing leads past.")


def _has_extent(tensor: Any) -> bool:
    shape: tuple[int | None, ...] = getattr(tensor, "shape", ())
    if len(shape) != 4:
        return False
    _, height, width, _ = shape
    return height is not None and width is not None and height * width > 1


def _chain(steps: Sequence[Step]) -> Step:
    return lambda x: functools.reduce(lambda value, step: step(value), steps, x)


def _logit(last: keras.Model | keras.layers.Layer) -> list[Step]:
    """Return the steps of the last layer, or of the last model, without the sigmoid at the end."""
    import keras
    import tensorflow as tf

    before: list[Step] = []
    if isinstance(last, keras.Model):
        last, whole = last.layers[-1], last
        before = [keras.Model(whole.input, last.input)]
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.sigmoid:
        return [*before, last]
    return [*before, lambda x: tf.matmul(x, last.kernel.value) + last.bias.value]

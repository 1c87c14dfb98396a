"""Backbones: raw images to features. One function per family, named by `_target_`.

Every function takes keyword arguments only and returns a model from float32 images
`(N, image_size, image_size, 3)`, RGB in 0..255, to features `(N, F)`. The scaling is part of it.
What is to be trained is what Keras calls trainable; a backbone without trainable weights is
frozen, and its features can be computed once. The arguments they share:

`image_size`
    Height and width of the input in pixels.
`weights`
    `imagenet`, None for random ones (drawn from Keras' global seed), or a file that
    `save_weights` wrote for the network without its top (`.weights.h5`, `.h5` or `.keras`).
`layer`
    Where the network is cut: the name of the layer whose output becomes the features. None is
    the last one. Names joined by `+` are several: each is pooled, their features come one after
    the other.
`pooling`
    What turns a feature map into a row of features: `avg`, `max` or `flatten`.
`trainable`
    False, True, or the name of the layer from which it trains: that layer and all after it, in
    the order of `model.summary()`.
`batch_norm`
    Of pretrained weights, in what trains: `frozen` keeps the statistics and the scales of batch
    normalization, `trained` trains them as all else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras

from pneumonia.config.constraints import LAYER, NETWORK, TEXT, WEIGHTS, Bounds
from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError, DataError
from pneumonia.models import efficientnet_lite as lite
from pneumonia.models import keras_applications, weight_files

# A side of more pixels is a typing error: one batch would not fit into any memory.
Pixels: TypeAlias = Annotated[int, Bounds(1, 4096)]
Weights: TypeAlias = Literal["imagenet", None] | Annotated[str, WEIGHTS]
Layer: TypeAlias = Annotated[str, TEXT] | None
Pooling: TypeAlias = Literal["avg", "max", "flatten"]
Trainable: TypeAlias = bool | Annotated[str, LAYER]
BatchNorm: TypeAlias = Literal["frozen", "trained"]
Scaling: TypeAlias = Literal["imagenet", "unit"]
Count: TypeAlias = Annotated[int, Bounds(1)]


def efficientnet_lite(
    *,
    variant: Literal[0, 2] = 0,
    image_size: Annotated[int, Bounds(32, 4096)],
    weights: Weights = "imagenet",
    layer: Layer = None,
    pooling: Pooling = "avg",
    trainable: Trainable = False,
    batch_norm: BatchNorm = "frozen",
) -> keras.Model:
    """Build an EfficientNet-Lite, whose ImageNet weights are installed with the program.

    Args beside those of every backbone, see the module:
        variant: Its scale: 2 is 1.1 times as wide and 1.2 times as deep as 0.
    """
    network = _network(trainable, weights)(lite.network, variant, image_size, weights)
    return _finish(network, layer, pooling, trainable, weights, batch_norm)


def inception_v3(
    *,
    image_size: Annotated[int, Bounds(75, 4096)],
    weights: Weights = "imagenet",
    layer: Layer = "mixed7",
    pooling: Pooling = "avg",
    trainable: Trainable = False,
    batch_norm: BatchNorm = "frozen",
    scaling: Scaling = "imagenet",
) -> keras.Model:
    """Build InceptionV3 (https://arxiv.org/abs/1512.00567), cut at `mixed7` as in the study.

    Args beside those of every backbone, see the module:
        scaling: `imagenet` (-1..1, what its weights expect) or `unit` (0..1, what the study did).
    """
    network = _network(trainable, weights)(_inception_v3, image_size, weights, scaling)
    return _finish(network, layer, pooling, trainable, weights, batch_norm)


def keras_application(
    *,
    name: Annotated[str, NETWORK],
    image_size: Pixels,
    weights: Weights = "imagenet",
    layer: Layer = None,
    pooling: Pooling = "avg",
    trainable: Trainable = False,
    batch_norm: BatchNorm = "frozen",
    scaling: Scaling = "imagenet",
) -> keras.Model:
    """Build any network of `keras.applications`.

    Args beside those of every backbone, see the module:
        name: The network, such as `MobileNetV2`.
        scaling: `imagenet` (what the network's weights expect) or `unit` (0..1).
    """
    arguments = (name, image_size, weights, scaling)
    network = _network(trainable, weights)(keras_applications.network, *arguments)
    return _finish(network, layer, pooling, trainable, weights, batch_norm)


def cnn(
    *,
    image_size: Pixels,
    blocks: Count,
    filters: Count,
    growth: Count = 2,
    kernel_size: Count = 3,
    channels: Literal[1, 3] = 1,
    weights: Literal[None] | Annotated[str, WEIGHTS] = None,
    layer: Layer = None,
    pooling: Pooling = "flatten",
    trainable: Trainable = True,
) -> keras.Model:
    """Build a small network to train from scratch: blocks of convolution, ReLU and max pooling.

    Args beside those of every backbone, see the module:
        blocks: Number of blocks; each halves height and width.
        filters: Channels of the first block.
        growth: Factor of the channels from block to block: 2 doubles them, 1 keeps them.
        kernel_size: Height and width of the convolutions.
        channels: 1 looks at the first channel only (the three of a radiograph are equal), 3 at
            all of them.
    """
    if image_size < 2**blocks:
        raise ConfigError("model.image_size", f"at least {2**blocks}", image_size)
    image = keras.Input((image_size, image_size, 3), name="image")
    x = image[..., :1] if channels == 1 else image
    x = keras.layers.Rescaling(1 / 255, name="scaling")(x)
    for number in range(1, blocks + 1):
        x = keras.layers.Conv2D(
            filters * growth ** (number - 1),
            kernel_size,
            padding="same",
            activation="relu",
            name=f"block{number}_conv",
        )(x)
        x = keras.layers.MaxPooling2D(name=f"block{number}_pool")(x)
    network = keras.Model(image, x, name="cnn")
    keras_applications.number_from_zero(network)
    return _finish(network, layer, pooling, trainable, weights)


def split(backbone: keras.Model) -> tuple[keras.Model | None, keras.Model | None]:
    """Split a backbone into what is frozen and the rest, which is trained.

    The cut is the last tensor that all data pass through before anything trainable. A frozen
    layer between the two, or beside the trainable ones, belongs to the rest.

    Returns:
        The frozen part (None if nothing is frozen) and the rest (None if everything is). Both
        share the layers of `backbone`; `rest(frozen(x))` is `backbone(x)`.
    """
    if not backbone.trainable_weights:
        return backbone, None
    tensor = _last_frozen_tensor(backbone)
    if tensor is None:
        return None, backbone
    frozen = keras.Model(backbone.input, tensor, name=f"{backbone.name}_frozen")
    if not frozen.weights:
        return None, backbone
    rest = keras.Model(tensor, backbone.output, name=f"{backbone.name}_rest")
    rest.layers[0].name = "frozen_features"
    return frozen, rest


def _last_frozen_tensor(backbone: keras.Model) -> keras.KerasTensor | None:
    """Find the last tensor before all trainable layers that nothing bypasses."""
    operations = backbone.operations
    read_last = {id(backbone.output): len(operations)}
    for index, operation in enumerate(operations):
        if not isinstance(operation, keras.layers.InputLayer):
            read_last |= {id(tensor): index for tensor in keras.tree.flatten(operation.input)}
    found, open_until = None, 0
    for index, operation in enumerate(operations):
        if getattr(operation, "trainable_weights", None):
            break
        # Operations are in topological order: a tensor is bypassed where an earlier one is
        # still read after its own operation.
        if open_until <= index:
            found = operation.output
        open_until = max(open_until, read_last[id(operation.output)])
    return found


@contextmanager
def shared() -> Iterator[None]:
    """Let cuts of one network that stays as it was published have its layers in common meanwhile.

    Of those, nothing may be changed. Building the network takes half a second and more.
    """
    token = _is_shared.set(True)
    try:
        yield
    finally:
        _is_shared.reset(token)


_is_shared = ContextVar("_is_shared", default=False)


def _network(trainable: bool | str, weights: str | None) -> Callable[..., keras.Model]:
    """Return what builds a network from the function that does and its arguments."""
    is_fixed = trainable is False and weights == "imagenet"
    return _built_once if is_fixed and _is_shared.get() else _built_once.__wrapped__


@functools.lru_cache(maxsize=1)
def _built_once(build: Callable[..., keras.Model], *arguments: Any) -> keras.Model:
    return build(*arguments)


def _inception_v3(*arguments: Any) -> keras.Model:
    network = keras_applications.network("InceptionV3", *arguments)
    network.name = "inception_v3"
    return network


def _finish(
    network: keras.Model,
    layer: str | None,
    pooling: str,
    trainable: bool | str,
    weights: str | None,
    batch_norm: str = "frozen",
) -> keras.Model:
    """Load a file of weights if there is one, cut at layers, pool, and set what trains."""
    if weights not in (None, "imagenet"):
        _load_weights(network, weights)
    names = [operation.name for operation in network.operations]
    cuts = [] if layer is None else layer.split("+")
    for number, cut in enumerate(cuts):
        if cut not in names or cut in cuts[:number]:
            expected = f"the name of a layer of {network.name}"
            expected += ", or different ones joined by +" if cuts[1:] else ""
            raise ConfigError("model.layer", expected, layer, _nearest(cut, names))
    outputs = [network.operations[names.index(cut)].output for cut in cuts] or [network.output]
    if cuts[1:]:
        rows = [_pool(x, pooling, f"{cut}_pooling") for x, cut in zip(outputs, cuts, strict=True)]
        x = keras.layers.Concatenate(name="pooling")(rows)
    else:
        x = _pool(outputs[0], pooling)
    model = keras.Model(network.inputs[0], x, name=network.name)
    _set_trainable(model, trainable, keeps_norms=weights is not None and batch_norm == "frozen")
    return model


def _pool(x: keras.KerasTensor, pooling: str, name: str = "pooling") -> keras.KerasTensor:
    layers = {
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
        "flatten": keras.layers.Flatten,
    }
    if len(x.shape) == 2:
        return x
    return layers[pooling if len(x.shape) == 4 else "flatten"](name=name)(x)


def _set_trainable(model: keras.Model, trainable: bool | str, *, keeps_norms: bool) -> None:
    layers = model.layers
    start = 0 if trainable is True else len(layers)
    if isinstance(trainable, str):
        names = [layer.name for layer in layers]
        if trainable not in names:
            expected = f"false, true or the name of a layer of {model.name} up to its cut"
            raise ConfigError("model.trainable", expected, trainable, _nearest(trainable, names))
        start = names.index(trainable)
    for index, layer in enumerate(layers):
        # Batch normalization keeps the statistics of ImageNet, and with them stays in inference
        # mode: those of a few small batches of radiographs would change every feature at once.
        # https://keras.io/guides/transfer_learning/
        is_kept = keeps_norms and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = index >= start and not is_kept


def _load_weights(network: keras.Model, weights: str) -> None:
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ConfigError("model.weights", "imagenet, null or a file that exists", weights)
    expected = f"a file with the weights of {network.name} without its top"
    try:
        weight_files.check(file)
        network.load_weights(file)
    except (DataError, ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError("model.weights", expected, weights, reason) from error


def _nearest(name: str, names: list[str]) -> str:
    return nearest(name, names, most=3) or f"It has {', '.join(names[-3:])} and more"

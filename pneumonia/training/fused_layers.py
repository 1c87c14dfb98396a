"""Convolutions with faster gradients, and with the batch normalization after them folded in.

On two cores, a step of fine-tuning EfficientNet-Lite0 from `block3a` takes three quarters of the
time that Keras' own layers take: a frozen batch normalization and its gradient are three readings
of a large array, and the gradients of some filters are slow in oneDNN.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

Call = Callable[..., tf.Tensor]

# oneDNN 3 has no kernel of its own for the gradient of wider depthwise filters.
_WIDE = 3
# Places of an image up to which products of matrices are the faster gradients, for 32 images.
_PLACES = 28 * 28


@dataclass(frozen=True, slots=True)
class Fused:
    """A convolution, with the batch normalization after it if there is one that is frozen."""

    layer: keras.layers.Conv2D | keras.layers.DepthwiseConv2D
    norm: keras.layers.BatchNormalization | None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return the outputs (n, ...), normalized."""
        return self._apply(x, *self._weights())

    def frozen(self, x: tf.Tensor) -> tf.Tensor:
        """Do the same in a graph that is being built, whose constants the weights become."""
        with tf.init_scope(), tf.device("CPU"):  # as constants are folded
            values = [value if value is None else value.numpy() for value in self._weights()]
        return self._apply(x, *(value if value is None else tf.constant(value) for value in values))

    def _weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return kernel and bias.

        As `(w * x - mean) * scale + beta` is `(w * scale) * x + (beta - mean * scale)`.
        """
        kernel = tf.convert_to_tensor(self.layer.kernel)
        bias = None if self.layer.bias is None else tf.convert_to_tensor(self.layer.bias)
        if self.norm is None:
            return kernel, bias
        scale, shift = _affine(self.norm)
        factors = tf.reshape(scale, kernel.shape[2:]) if self._is_depthwise else scale
        return kernel * factors, shift if bias is None else bias * scale + shift

    def _apply(self, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
        y = (_depthwise if self._is_depthwise else _plain)(self.layer, x, kernel)
        if bias is not None:  # as TensorFlow makes one operation of all three
            y = tf.nn.bias_add(y, bias)
        return self.layer.activation(y)

    @property
    def _is_depthwise(self) -> bool:
        return type(self.layer) is keras.layers.DepthwiseConv2D


def fuse(model: keras.Model) -> None:
    """Let a functional model and those that it holds compute so; it is not to be saved after it."""
    for part in model._flatten_layers(include_self=True, recursive=True):
        for layer, call in substitutes(part).items():
            layer.call = call


def substitutes(model: keras.Model) -> Mapping[keras.layers.Layer, Call]:
    """Return what gives the outputs of layers of a functional model in less time.

    They differ in the last bits. The variables stay those of the layers. A layer that does what is
    not known here is not among them.
    """
    found: dict[keras.layers.Layer, Call] = {}
    if not hasattr(model, "_nodes_by_depth"):
        return found
    nodes = [node for level in model._nodes_by_depth.values() for node in level]
    odd = {id(node.operation) for node in nodes if not _is_usual(node)}
    read = [tensor for node in nodes for tensor in node.input_tensors]
    uses = collections.Counter(id(tensor) for tensor in (*read, *model.outputs))
    times = collections.Counter(id(node.operation) for node in nodes)
    for node in nodes:
        layer = node.operation
        if id(layer) in odd:
            continue
        if _is_known(layer):
            found.setdefault(layer, Fused(layer, None))
        elif _is_frozen_norm(layer) and times[id(layer)] == 1:
            tensor = node.input_tensors[0]
            before = tensor._keras_history.operation
            is_alone = uses[id(tensor)] == times[id(before)] == 1 and id(before) not in odd
            if is_alone and _is_known(before) and before.activation is keras.activations.linear:
                found[before], found[layer] = Fused(before, layer), _same
    return found


def _same(x: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Return what the convolution before has normalized already."""
    return x


def _is_usual(node: Any) -> bool:
    """Tell whether a layer is called on one tensor, not by its name, that need not be cast."""
    return len(node.arguments.args) == 1 and node.input_tensors[0].dtype == "float32"


def _is_known(layer: keras.Operation) -> bool:
    """Tell whether a layer is a convolution of which all is known that it does."""
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        and layer.data_format == "channels_last"
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and layer.activity_regularizer is None
        and layer.quantization_mode is None
        and not getattr(layer, "lora_enabled", False)
    )


def _is_frozen_norm(layer: keras.Operation) -> bool:
    """Tell whether a layer normalizes channels by statistics that stay as they are."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and not layer.trainable
        and layer.axis in (-1, 3)
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and layer.activity_regularizer is None
    )


def _affine(norm: keras.layers.BatchNormalization) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the factor and the summand of each channel."""
    scale = tf.math.rsqrt(tf.convert_to_tensor(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale *= norm.gamma
    shift = -tf.convert_to_tensor(norm.moving_mean) * scale
    return scale, shift + norm.beta if norm.center else shift


def _plain(layer: keras.layers.Conv2D, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve; where a few places are taken each by itself, the gradients are matrix products."""
    is_pointwise = layer.kernel_size == layer.strides == (1, 1) and layer.groups == 1
    height, width = x.shape[1:3]
    if not is_pointwise or None in (height, width) or height * width > _PLACES:
        return layer.convolution_op(x, kernel)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Call]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows, matrix = tf.reshape(dy, (-1, layer.filters)), kernel[0, 0]
            dx = tf.reshape(tf.matmul(rows, matrix, transpose_b=True), tf.shape(x))
            places = tf.reshape(x, (-1, matrix.shape[0]))
            return dx, tf.matmul(places, rows, transpose_a=True)[None, None]

        return layer.convolution_op(x, kernel), gradient

    return convolve(x, kernel)


def _depthwise(layer: keras.layers.DepthwiseConv2D, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve each channel; the gradient of wide filters is TensorFlow's, not oneDNN's.

    That takes half the time. TensorFlow has it where the padding is explicit.
    """
    (down, across), (height, width), sizes = layer.strides, layer.kernel_size, x.shape[1:3]
    run = functools.partial(
        keras.ops.depthwise_conv,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
    )
    is_simple = down == across and layer.dilation_rate == (1, 1) and layer.depth_multiplier == 1
    if width <= _WIDE or not is_simple or None in sizes:
        return run(x, kernel)
    padding = [_padding(layer, size, k) for size, k in zip(sizes, (height, width), strict=True)]
    explicit = [0, 0, *padding[0], *padding[1], 0, 0]
    strides = [1, down, across, 1]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Call]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dx = tf.nn.depthwise_conv2d_backprop_input(
                tf.shape(x), kernel, dy, strides, layer.padding.upper()
            )
            dkernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x,
                filter_sizes=kernel.shape,
                out_backprop=dy,
                strides=strides,
                padding="EXPLICIT",
                explicit_paddings=explicit,
            )
            return dx, dkernel

        return run(x, kernel), gradient

    return convolve(x, kernel)


def _padding(layer: keras.layers.DepthwiseConv2D, size: int, kernel: int) -> tuple[int, int]:
    """Return the zeros before and after a side, as TensorFlow pads it."""
    if layer.padding == "valid":
        return 0, 0
    stride = layer.strides[0]
    both = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return both // 2, both - both // 2

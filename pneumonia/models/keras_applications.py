"""The networks of `keras.applications`: their names, scaling, and published weights."""

from __future__ import annotations

import contextlib
import inspect
import re
import socket
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from pneumonia.errors import ConfigError, UserError
from pneumonia.network import within

# Seconds to wait for the host of the weights: to find it, and for each answer.
PATIENCE = 5.0


def network(name: str, image_size: int, weights: str | None, scaling: str) -> keras.Model:
    """Build a network without its top, scaling included.

    Args:
        name: As in `keras.applications`, such as `MobileNetV2`.
        image_size: Height and width of the input in pixels.
        weights: `imagenet`, None (random), or a file, which is not read here but decides the
            scaling as `imagenet` does.
        scaling: `imagenet` (what the network was trained with) or `unit` (0..1).

    Returns:
        Raw images `(N, image_size, image_size, 3)` in 0..255 to the network's last feature map.

    Raises:
        ConfigError: A size or a scaling that the network cannot take.
        UserError: The published weights are neither cached nor to be had.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x, options = scale_input(image, name, scaling, from_file=weights not in (None, "imagenet"))
    with _translated(name, image_size), _impatience(), warnings.catch_warnings():
        # Convolutions do not mind the size: MobileNet warns that its weights are those for 224.
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        model = getattr(keras.applications, name)(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_tensor=x,
            input_shape=(image_size, image_size, 3),
            **options,
        )
    number_from_zero(model)
    # Some networks write their input size and width factor into their names.
    model.name = name.lower()
    return model


def scale_input(
    image: keras.KerasTensor, name: str, scaling: str, *, from_file: bool
) -> tuple[keras.KerasTensor, dict[str, Any]]:
    """Put in front of a network the scaling that it lacks, for raw images `(N, H, W, 3)` in 0..255.

    Returns:
        What to feed the network with, and arguments for its builder.

    Raises:
        ConfigError: The network cannot do without its own scaling.
    """
    build = getattr(keras.applications, name)
    preprocess_input = inspect.getmodule(build).preprocess_input  # type: ignore[union-attr]
    flip, scale, offset = _affine(preprocess_input)
    scales_itself = not flip and np.allclose(scale, 1) and np.allclose(offset, 0)
    options = {}
    if scaling == "unit":
        scale, offset, flip = np.full(3, 1 / 255), np.zeros(3), False
        if scales_itself:
            if "include_preprocessing" not in inspect.signature(build).parameters:
                expected = f"imagenet for {name}, which scales within itself"
                raise ConfigError("model.scaling", expected, scaling)
            options["include_preprocessing"] = False
    elif scales_itself:
        if not (from_file and re.fullmatch("EfficientNetB[0-7]", name)):
            return image, {}
        scale, offset = _efficientnet_correction()
    if flip:
        image = keras.ops.flip(image, axis=-1)
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="scaling")(image), options


def _affine(
    preprocess_input: Callable[[Any], Any],
) -> tuple[bool, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find out what a `preprocess_input` does, by trying it on black and on pure colours.

    Returns:
        Whether it turns RGB into BGR; scale and offset of each channel after that.
    """
    probes = np.zeros((4, 1, 1, 3))
    probes[1:, 0, 0] = 255 * np.eye(3)
    black, *colours = np.asarray(preprocess_input(probes.copy()), dtype=float)[:, 0, 0]
    matrix = (np.stack(colours) - black) / 255
    flip = bool(matrix[0, 0] == 0)
    if flip:
        matrix = matrix[::-1]
    return flip, np.diag(matrix), black


def _efficientnet_correction() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Scale and offset that the published EfficientNet weights need when they come from a file.

    Those weights hold the standard deviation in place of the variance, so their own layer divides
    by its root. Keras appends the other root only where it fetches the weights itself.
    https://github.com/keras-team/keras/blob/v3.15.0/keras/src/applications/efficientnet.py#L327
    """
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return deviation**-0.5, 255 * mean * (1 - deviation**-0.5)


@contextlib.contextmanager
def _translated(name: str, image_size: int) -> Iterator[None]:
    """Turn what Keras raises into errors that say what to do."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if isinstance(error, OSError) or re.search("URL fetch failure|Incomplete or corr", text):
            raise UserError(
                f"The ImageNet weights of {name} are not in Keras' cache (~/.keras/models), and"
                f" fetching them failed: {text} Name a weights file with model.weights=<file>, or"
                " use the backbone whose weights are installed: model=efficientnet_lite0."
            ) from error
        if not isinstance(error, ValueError):
            raise
        expected, hint = f"a size that {name} can take", text.strip().splitlines()[0].rstrip(".")
        if least := re.search(r"at least (\d+)", text):
            expected, hint = f"at least {least[1]} for {name}", ""
        raise ConfigError("model.image_size", expected, image_size, hint) from error


class _Impatience(urllib.request.BaseHandler):
    """Gives up on a host that cannot be reached; it asks no host that is not to be asked anyway.

    It comes after the handler of proxies, so that it tries the proxy where there is one.
    """

    handler_order = 200

    def https_open(self, request: urllib.request.Request) -> None:
        """Return None, for the next handler to open the request, or raise `URLError`."""
        host, _, port = request.host.partition(":")
        place = host, int(port or 443)
        try:
            within(PATIENCE, lambda: socket.create_connection(place, PATIENCE).close())
        except OSError as error:
            text = f"{request.host} cannot be reached within {PATIENCE:g} s."
            raise urllib.error.URLError(text) from error
        request.timeout = PATIENCE


@contextlib.contextmanager
def _impatience() -> Iterator[None]:
    """Fetch impatiently in this block; a file in Keras' cache needs no fetching."""
    urllib.request.install_opener(urllib.request.build_opener(_Impatience))
    try:
        yield
    finally:
        urllib.request.install_opener(urllib.request.build_opener())


def number_from_zero(model: keras.Model) -> None:
    """Name the layers as in a process that has built no other network.

    Keras numbers unnamed layers through the whole process. `conv2d_94` of a second InceptionV3 is
    `conv2d` of the first one, and `model.layer` has to mean the same in both.
    """
    numbered = []
    for operation in model.operations:
        match = re.fullmatch(r"(\w+?)(?:_(\d+))?", operation.name)
        kind = type(operation).__name__.lower()
        if match and match[1].replace("_", "") == kind:
            numbered.append((operation, match[1], int(match[2] or 0)))
    for operation, stem, number in numbered:
        first = min(other for _, name, other in numbered if name == stem)
        operation.name = f"{stem}_{number - first}" if number > first else stem

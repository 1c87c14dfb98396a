"""The names of the layers of our networks, told without building them, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
_INCEPTION_COUNTS = {
    "conv2d": 94,
    "batch_normalization": 94,
    "activation": 94,
    "average_pooling2d": 9,
    "max_pooling2d": 4,
    "concatenate": 2,
}


def names(section: Mapping[str, Any], most_blocks: int = 0) -> tuple[str, ...]:
    """Return the layers that `model.layer` may name.

    Args:
        section: The section `model` of a config.
        most_blocks: Number of blocks of a `cnn`.

    Returns:
        The names, in the order of the network; none where only building it would tell.
    """
    known = {
        "pneumonia.models.backbones.efficientnet_lite0": _lite0(),
        "pneumonia.models.backbones.inception_v3": _inception(),
        "pneumonia.models.backbones.cnn": _cnn(most_blocks),
    }
    found = known.get(str(section.get("_target_")))
    return ("image", "scaling", *found) if found else ()


def _lite0() -> Iterator[str]:
    yield from _convolution("stem_")
    for number, count in enumerate(_LITE0_BLOCKS, start=1):
        for index in range(count):
            block = f"block{number}{'abcdef'[index]}_"
            if number > 1:
                yield from _convolution(f"{block}expand_")
            yield from (f"{block}{part}" for part in ("dwconv", "bn", "activation"))
            yield from (f"{block}project_conv", f"{block}project_bn")
            if index:
                yield f"{block}add"
    yield from _convolution("top_")


def _convolution(name: str) -> Iterator[str]:
    yield from (f"{name}{part}" for part in ("conv", "bn", "activation"))


def _inception() -> Iterator[str]:
    yield from (f"mixed{number}" for number in range(11))
    yield from ("mixed9_0", "mixed9_1")
    for kind, count in _INCEPTION_COUNTS.items():
        yield kind
        yield from (f"{kind}_{number}" for number in range(1, count))


def _cnn(blocks: int) -> Iterator[str]:
    for number in range(1, blocks + 1):
        yield from (f"block{number}_conv", f"block{number}_pool")

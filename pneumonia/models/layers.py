"""Which layers of networks that were built apart are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable

import keras
import numpy as np


def identity(operation: keras.Operation) -> Hashable:
    """Return what is equal for operations that give the same for the same input, in inference mode.

    Of Keras' own, it is what they are configured by and their weights. Others may keep more to
    themselves than they tell: each is the same as itself alone.
    """
    kind = type(operation)
    if not kind.__module__.startswith("keras.") or kind is keras.layers.Lambda:
        return operation  # type: ignore[no-any-return]
    try:
        config = {**operation.get_config(), "name": "", "trainable": False}
        result = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    except (NotImplementedError, TypeError):
        return operation  # type: ignore[no-any-return]
    for weight in getattr(operation, "weights", ()):
        result.update(np.ascontiguousarray(weight).tobytes())
    return kind, result.hexdigest()

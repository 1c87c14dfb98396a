"""Load datasets, and keep within bounds what was loaded or built from trial to trial."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pneumonia.config.instantiate import LOCK, build
from pneumonia.datasets import duplicates
from pneumonia.datasets.base import ImageData

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The most recently used values, at most so many; one thread makes them, the others wait."""

    def __init__(self, most: int, *, lock: threading.RLock = LOCK) -> None:
        self._most, self._lock = most, lock
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made if it is not there."""
        name = json.dumps(key, sort_keys=True, default=str)
        with self._lock:
            if name not in self._values:
                self._values[name] = make()
                if len(self._values) > self._most:
                    self._values.popitem(last=False)
            self._values.move_to_end(name)
            return self._values[name]


_data: Kept[ImageData] = Kept(2)


def load_data(config: dict[str, Any], *, fetch: Callable[[], ImageData] | None = None) -> ImageData:
    """Return the dataset of a configuration, the one place where datasets are read and kept.

    TensorFlow is not imported unless it needs it.

    Args:
        config: The whole configuration.
        fetch: Gets it from another process that has read it, if it is not kept here.
    """
    section = config["dataset"]
    own = {name: value for name, value in section.items() if name != "drop_duplicates"}

    def make() -> ImageData:
        data: ImageData = build(own, "dataset")
        return duplicates.drop(data) if section.get("drop_duplicates") else data

    return _data.get(section, fetch or make)

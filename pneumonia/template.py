"""Write the classifiers of many trials quickly: what they share is saved by Keras once.

Keras takes half a second to walk through a network of a few hundred layers, for every file. The
classifiers of a search mostly differ in the weights that were trained and in the description of the
head, so a template keeps the rest of a file that Keras wrote and puts those two in.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from pneumonia import classifier

Array = np.ndarray[Any, Any]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
# What trained variables are marked with to find them in a file: no weight has such a value.
_MARK = 1.2345e30


class Template:
    """Owns the parts of a `.keras` file that do not change from trial to trial.

    Args:
        whole: A classifier as `classifier.assemble` makes it, with a nested model `head`.
        trained: The variables that change; they are given other values and their own back.

    Raises:
        LookupError: Where the file that Keras writes does not hold each of them once.
    """

    def __init__(self, whole: keras.Model, trained: Sequence[keras.Variable]) -> None:
        values = [variable.numpy().copy() for variable in trained]
        try:
            for number, variable in enumerate(trained):
                variable.assign(np.full(variable.shape, _mark(number), dtype=np.float32))
            members = _saved(whole)
        finally:
            for variable, value in zip(trained, values, strict=True):
                variable.assign(value)
        self._config = json.loads(members.pop(_CONFIG))
        self._weights, self._names = _without(members.pop(_WEIGHTS), len(values))
        self._others = members

    def write(self, path: Path, head: keras.Model, weights: Sequence[Array]) -> None:
        """Write a classifier, at once or not at all.

        Args:
            path: The file, ending in `.keras`.
            head: The head, of the same layers as the template's but of any sizes.
            weights: The values of the trained variables, in the template's order.
        """
        described = keras.saving.serialize_keras_object(head)
        config = json.dumps(_with_head(self._config, described))
        buffer = io.BytesIO(self._weights)
        with h5py.File(buffer, "r+") as file:
            for name, value in zip(self._names, weights, strict=True):
                file.create_dataset(name, data=value)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.stem}.{os.getpid()}.part")
        try:
            with zipfile.ZipFile(part, "w") as archive:
                for name, content in self._others.items():
                    archive.writestr(name, content)
                archive.writestr(_CONFIG, config)
                archive.writestr(_WEIGHTS, buffer.getbuffer())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _mark(number: int) -> float:
    return float(np.float32(_MARK * (1 + number / 1024)))


def _saved(whole: keras.Model) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.keras"
        classifier.save(whole, path)
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def _without(content: bytes, count: int) -> tuple[bytes, list[str]]:
    """Return the file without the marked datasets, and their names in the order of the marks."""
    marked: dict[float, list[str]] = {_mark(number): [] for number in range(count)}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.size:
            first = float(item[(0,) * item.ndim])
            if first in marked:
                marked[first].append(name)

    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r+") as file, h5py.File(buffer, "w") as rest:
        file.visititems(visit)
        if any(len(names) != 1 for names in marked.values()):
            raise LookupError("A trained variable is not in the saved classifier once.")
        names = [name for (name,) in marked.values()]
        for name in names:
            del file[name]
        # Copied, because a deleted dataset leaves its space in a file.
        for name in file:
            file.copy(name, rest)
        rest.attrs.update(file.attrs)
    return buffer.getvalue(), names


def _with_head(config: Any, head: Any) -> Any:
    """Return a copy of a classifier's description with another head."""
    layers = [
        {**layer, **{key: head[key] for key in ("config", "build_config") if key in head}}
        if layer.get("name") == "head"
        else layer
        for layer in config["config"]["layers"]
    ]
    return {**config, "config": {**config["config"], "layers": layers}}

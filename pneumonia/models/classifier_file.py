"""Write the classifiers of many trials quickly: what they share is saved by Keras once.

Keras takes half a second to walk through a network of a few hundred layers, for every file. The
classifiers of a search mostly differ in the weights that were trained and in the description of the
head, so a template keeps the rest of a file that Keras wrote and puts those two in.

What the file says of the classifier (class names, threshold, temperature) is in `metadata.json`,
where Keras notes its version and the date. Keras does not look at other keys, so the file loads
anywhere. Reading that does not import TensorFlow.
"""

from __future__ import annotations

import io
import json
import mmap
import shutil
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pneumonia import files

if TYPE_CHECKING:
    import h5py
    import keras

Array = np.ndarray[Any, Any]
Facts = Mapping[str, Any]

KEY = "pneumonia"
"""What the facts are called in `metadata.json`."""

_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"
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
        self._metadata = members.pop(_METADATA)
        weights, self._names = _without(members.pop(_WEIGHTS), len(values))
        # Without a name, it is gone with the process, however that ends.
        self._shared = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this
        weakref.finalize(self, self._shared.close)
        with zipfile.ZipFile(self._shared, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            archive.writestr(_WEIGHTS, weights)
        self._shared.flush()
        self._latest: Path | None = None
        self._lock = threading.Lock()

    def write(
        self,
        path: Path,
        head: keras.Model,
        weights: Sequence[Array],
        facts: Facts | None = None,
    ) -> None:
        """Write a classifier to a `.keras` file, at once or not at all.

        Args:
            path: The file.
            head: Of the same layers as the template's but of any sizes.
            weights: The values of the trained variables, in the template's order.
            facts: What the file says of the classifier beside that, if anything.
        """
        import keras

        described = keras.saving.serialize_keras_object(head)
        config = json.dumps(_with_head(self._config, described))
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic(path) as part:
            # The system copies what is the same in its cache, faster than a program writes it.
            with self._lock:
                self._shared.seek(0)
                shutil.copyfile(f"/dev/fd/{self._shared.fileno()}", part)
            with zipfile.ZipFile(part, "a") as archive:
                _add(archive, dict(zip(self._names, weights, strict=True)))
                archive.writestr(_CONFIG, config)
                told = self._metadata if facts is None else _merge(self._metadata, facts)
                archive.writestr(_METADATA, told)
        for written in (path, self._latest):
            if written is not None:
                files.let_go(written)
        self._latest = path


def write_facts(path: Path, facts: Facts) -> None:
    """Put facts, plain values by name, into a `.keras` file, at once or not at all."""
    with (
        files.atomic(path) as part,
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(part, "w") as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, _merge(content, facts) if name == _METADATA else content)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts in a `.keras` file; none where there are none, or no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(_METADATA)).get(KEY)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, AttributeError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _merge(content: bytes, facts: Facts) -> str:
    return json.dumps({**json.loads(content), KEY: dict(facts)})


class _Tail(io.RawIOBase):
    """A file from an offset on, as a file."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self._file, self._offset = file, offset

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        offset = self._offset if whence == io.SEEK_SET else 0
        return self._file.seek(position + offset, whence) - self._offset

    def tell(self) -> int:
        return self._file.tell() - self._offset

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def write(self, content: Any) -> int:
        return self._file.write(content)

    def truncate(self, size: int | None = None) -> int:
        end = self.tell() if size is None else size
        return self._file.truncate(end + self._offset) - self._offset

    def flush(self) -> None:
        self._file.flush()


def _add(archive: zipfile.ZipFile, values: dict[str, Array]) -> None:
    """Add datasets to the weights, which are the last member of an archive and not compressed."""
    import h5py

    member, file = archive.getinfo(_WEIGHTS), archive.fp
    if file is None:
        raise ValueError("The archive is closed.")
    header = member.FileHeader()
    begin = member.header_offset + len(header)
    file.truncate(archive.start_dir)
    with h5py.File(_Tail(file, begin), "r+") as weights:
        for name, value in values.items():
            weights.create_dataset(name, data=value)
    end = file.seek(0, io.SEEK_END)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        member.CRC = zlib.crc32(memoryview(content)[begin:end])
    member.file_size = member.compress_size = end - begin
    file.seek(member.header_offset)
    file.write(member.FileHeader())
    archive.start_dir = end  # where the next member and then the directory go


def _mark(number: int) -> float:
    return float(np.float32(_MARK * (1 + number / 1024)))


def _saved(whole: keras.Model) -> dict[str, bytes]:
    from pneumonia.models import classifier

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.keras"
        classifier.save(whole, path)
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def _without(content: bytes, count: int) -> tuple[bytes, list[str]]:
    """Return the file without the marked datasets, and their names in the order of the marks."""
    import h5py

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

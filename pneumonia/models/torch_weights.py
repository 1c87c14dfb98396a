"""Read the tensors of a legacy PyTorch file without PyTorch, and without running what it says.

A `.pth` file is a pickle, and a pickle can call anything. This reader admits the three things a
state dict consists of (`OrderedDict`, `_rebuild_tensor_v2`, storages) and refuses the rest.

The legacy format, written by `torch.save` before 1.6, is a row of pickles (magic number, protocol
version, system information, the object, the keys of its storages), then for each key the number
of elements as a 64-bit integer and the raw elements.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pneumonia.errors import DataError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

_KINDS = "Double f8, Float f4, Half f2, Long i8, Int i4, Short i2, Char i1, Byte u1, Bool ?"
_DTYPES = {f"{kind}Storage": dtype for kind, dtype in map(str.split, _KINDS.split(","))}


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild:
    """Stands for `torch._utils._rebuild_tensor_v2`: notes the tensor instead of building it."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Owns the list of what a file may name; it must not import or call anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A fresh object each time: a pickle can set attributes of what it is handed.
            return _Rebuild()
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise DataError(
            f"The file names `{module}.{name}`, which is no part of a state dict; it is not read."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None or not isinstance(size, int) or size < 0:
            raise pickle.UnpicklingError(f"unexpected reference {pid!r}")
        return _Storage(str(key), np.dtype(dtype).str.lstrip("<>|="), size)


def read(file: Path) -> dict[str, NDArray[Any]]:
    """Read a state dict from a file in the legacy format.

    Returns:
        Name to array, contiguous, each with memory of its own.

    Raises:
        DataError: The file is missing, is in another format, is cut short, reaches outside its
            storages, or names anything but tensors (nothing of it has been executed then).
    """
    if not file.is_file():
        raise DataError(f"There is no file '{file}'.")
    try:
        return _parse(file.read_bytes())
    except DataError as error:
        raise DataError(f"'{file}' cannot be read as PyTorch weights. {error}") from error
    except Exception as error:  # bytes that are no pickle make the reader raise of many kinds
        raise DataError(
            f"'{file}' cannot be read as PyTorch weights in the legacy format:"
            f" it is damaged or cut short ({error})."
        ) from error


def _parse(data: bytes) -> dict[str, NDArray[Any]]:
    if data.startswith(b"PK"):
        raise DataError("It is in the zip format of PyTorch 1.6 and later, not the legacy one.")
    stream = io.BytesIO(data)
    header = [_Unpickler(stream).load() for _ in range(3)]
    if header[:2] != [MAGIC_NUMBER, PROTOCOL_VERSION]:
        raise DataError(f"It does not begin like the legacy format: {header[:2]!r}.")
    order = "<" if header[2]["little_endian"] else ">"
    state = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    if not isinstance(state, Mapping):
        raise DataError(f"It holds a {type(state).__name__}, not a state dict.")
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, _Tensor)}
    if len(tensors) != len(state) or not all(isinstance(name, str) for name in tensors):
        raise DataError("Its state dict holds something else than named tensors.")
    dtypes = {tensor.storage.key: order + tensor.storage.dtype for tensor in tensors.values()}
    storages = _read_storages(data, stream.tell(), keys, dtypes)
    return {name: _view(name, tensor, storages) for name, tensor in tensors.items()}


def _read_storages(
    data: bytes, position: int, keys: list[str], dtypes: dict[str, str]
) -> dict[str, NDArray[Any]]:
    storages = {}
    for key in keys:
        (size,) = struct.unpack_from("<q", data, position)
        dtype = np.dtype(dtypes[key])
        position += 8
        if size < 0 or position + size * dtype.itemsize > len(data):
            raise DataError("It is cut short.")
        storages[key] = np.frombuffer(data, dtype, size, position)
        position += size * dtype.itemsize
    return storages


def _view(name: str, tensor: _Tensor, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Lay shape and strides over a storage, after checking that they stay inside of it."""
    flat = storages[tensor.storage.key]
    shape, strides = tuple(tensor.shape), tuple(tensor.strides)
    numbers = (tensor.offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise DataError(f"The shape of `{name}` is malformed: {shape!r} with strides {strides!r}.")
    last = tensor.offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # The count matters beside the last index: a stride of 0 repeats an element without end.
    if math.prod(shape) > flat.size or (0 not in shape and last >= flat.size):
        raise DataError(f"`{name}` reaches outside of its storage.")
    if 0 in shape:
        return np.empty(shape, flat.dtype.newbyteorder("="))
    steps = tuple(step * flat.itemsize for step in strides)
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], shape, steps)
    return np.array(view, dtype=flat.dtype.newbyteorder("="), order="C")

"""Reading legacy PyTorch files, all written here by hand."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumonia.errors import DataError
from pneumonia.models import torch_weights


class Global:
    """Pickles as the name of something in a module."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __reduce__(self) -> str:
        return self.name


class Writer(pickle._Pickler):  # type: ignore[name-defined]
    """Writes what `torch.save` writes; Python's own pickler, to name what is not importable."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, key: str, kind: str, size: int, view: object = None) -> None:
        self.pid = ("storage", Global("torch", kind), key, "cpu", size, view)


class Tensor:
    def __init__(self, storage: Storage, offset: Any, shape: Any, strides: Any) -> None:
        self.args = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> Any:
        return Call(), self.args


class Call(Global):
    def __init__(self) -> None:
        super().__init__("torch._utils", "_rebuild_tensor_v2")

    def __call__(self) -> None: ...


def write(
    path: Path, state: object, storages: dict[str, np.ndarray], *, little: bool = True
) -> Path:
    with path.open("wb") as file:
        header = {"protocol_version": 1001, "little_endian": little, "type_sizes": {}}
        for part in (torch_weights.MAGIC_NUMBER, 1001, header, state, list(storages)):
            Writer(file, 2).dump(part)
        for values in storages.values():
            file.write(struct.pack("<q", values.size) + values.tobytes())
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def test_reads_contiguous_transposed_and_shifted_tensors(file: Path) -> None:
    values = np.arange(24, dtype="f4")
    storage = Storage("a", "FloatStorage", 24)
    state = OrderedDict(
        whole=Tensor(storage, 0, (2, 3, 4), (12, 4, 1)),
        transposed=Tensor(storage, 0, (4, 6), (1, 4)),
        part=Tensor(storage, 5, (2, 2), (12, 2)),
        scalar=Tensor(storage, 23, (), ()),
        empty=Tensor(storage, 0, (0, 3), (3, 1)),
    )
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    tensors = torch_weights.read(write(file, state, {"a": values}))
    assert list(tensors) == list(state)
    np.testing.assert_array_equal(tensors["whole"], values.reshape(2, 3, 4))
    np.testing.assert_array_equal(tensors["transposed"], values.reshape(6, 4).T)
    np.testing.assert_array_equal(tensors["part"], [[5, 7], [17, 19]])
    assert tensors["scalar"] == 23
    assert tensors["empty"].shape == (0, 3)
    assert all(array.flags.c_contiguous and array.flags.owndata for array in tensors.values())


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", "f8"),
        ("HalfStorage", "f2"),
        ("LongStorage", "i8"),
        ("IntStorage", "i4"),
        ("ByteStorage", "u1"),
        ("BoolStorage", "?"),
    ],
)
def test_reads_every_type(file: Path, kind: str, dtype: str) -> None:
    values = np.array([0, 1, 1, 0], dtype)
    state = OrderedDict(x=Tensor(Storage("7", kind, 4), 0, (4,), (1,)))
    (array,) = torch_weights.read(write(file, state, {"7": values})).values()
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array, values)


def test_reads_big_endian(file: Path) -> None:
    state = OrderedDict(x=Tensor(Storage("7", "IntStorage", 3), 0, (3,), (1,)))
    write(file, state, {"7": np.array([1, 2, 3], ">i4")}, little=False)
    array = torch_weights.read(file)["x"]
    np.testing.assert_array_equal(array, [1, 2, 3])
    assert array.dtype.isnative


class Malicious:
    def __init__(self, call: Any, *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


@pytest.mark.parametrize("call", [os.system, eval, exec])
def test_refuses_to_run_code(file: Path, tmp_path: Path, call: Any) -> None:
    trace = tmp_path / "executed"
    code = f"touch {trace}" if call is os.system else f"open({str(trace)!r}, 'w')"
    write(file, OrderedDict(x=Malicious(call, code)), {})
    with pytest.raises(DataError, match="no part of a state dict"):
        torch_weights.read(file)
    assert not trace.exists()


@pytest.mark.parametrize("position", range(3))
def test_refuses_code_before_the_state_dict(file: Path, tmp_path: Path, position: int) -> None:
    trace = tmp_path / "executed"
    parts: list[object] = [torch_weights.MAGIC_NUMBER, 1001, {"little_endian": True}]
    parts[position] = Malicious(os.system, f"touch {trace}")
    file.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    with pytest.raises(DataError, match="no part of a state dict"):
        torch_weights.read(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch._utils", "_rebuild_parameter"),
        ("collections", "Counter"),
        ("builtins", "getattr"),
        ("torch", "BFloat16Storage"),
    ],
)
def test_admits_nothing_but_state_dicts(file: Path, module: str, name: str) -> None:
    with pytest.raises(DataError, match=f"`{module}.{name}`"):
        torch_weights.read(write(file, OrderedDict(x=Global(module, name)), {}))


def test_a_pickle_cannot_change_the_reader(file: Path) -> None:
    # BUILD sets attributes of what is on the stack, here of what stands for the rebuild function.
    poison = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x08__name__U\x01xsb."
    state = OrderedDict(x=Tensor(Storage("7", "IntStorage", 3), 0, (3,), (1,)))
    good = write(file, state, {"7": np.array([1, 2, 3], "i4")}).read_bytes()
    bad = file.with_name("bad.pth")
    bad.write_bytes(poison + good)
    with pytest.raises(DataError):
        torch_weights.read(bad)
    np.testing.assert_array_equal(torch_weights.read(file)["x"], [1, 2, 3])


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**12,), (0,)),
        (0, (2, 2), (1,)),
        (0, (-1, 2), (2, 1)),
        (0, (2.0,), (1,)),
        (0, "ab", "ab"),
    ],
)
def test_refuses_to_leave_a_storage(file: Path, offset: int, shape: Any, strides: Any) -> None:
    state = OrderedDict(x=Tensor(Storage("7", "FloatStorage", 4), offset, shape, strides))
    write(file, state, {"7": np.arange(4, dtype="f4")})
    with pytest.raises(DataError):
        torch_weights.read(file)


def test_refuses_every_truncation(file: Path) -> None:
    state = OrderedDict(x=Tensor(Storage("7", "FloatStorage", 4), 0, (4,), (1,)))
    data = write(file, state, {"7": np.arange(4, dtype="f4")}).read_bytes()
    for end in range(len(data)):
        file.write_bytes(data[:end])
        with pytest.raises(DataError):
            torch_weights.read(file)


def test_survives_every_changed_byte(file: Path) -> None:
    state = OrderedDict(x=Tensor(Storage("7", "FloatStorage", 4), 0, (4,), (1,)))
    data = write(file, state, {"7": np.arange(4, dtype="f4")}).read_bytes()
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 0x15
        file.write_bytes(changed)
        try:
            tensors = torch_weights.read(file)
        except DataError:
            continue
        assert all(array.size <= 4 for array in tensors.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04rest", "zip format"), (b"", "damaged"), (pickle.dumps([1], 2) * 5, "begin like")],
)
def test_names_other_formats(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        torch_weights.read(file)


@pytest.mark.parametrize("state", [[1, 2], OrderedDict(x=1), {3: 4}])
def test_refuses_what_is_no_state_dict(file: Path, state: object) -> None:
    with pytest.raises(DataError, match="state dict"):
        torch_weights.read(write(file, state, {}))


def test_names_a_missing_file(file: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        torch_weights.read(file)

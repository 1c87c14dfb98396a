"""What every store of artifacts does, wherever it keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pneumonia import artifacts
from pneumonia.artifacts import (
    ArtifactStore,
    FolderStore,
    SharedStore,
    classifier_key,
    state_key,
)
from pneumonia.files import StorageError

KEYS = [state_key("0001"), classifier_key("0001")]


def folder(path: Path) -> ArtifactStore:
    return FolderStore(path)


def on_files(path: Path) -> ArtifactStore:
    own = path / "own"
    return SharedStore(f"file://{path}/shared", folder=own, others=FolderStore(own))


def in_memory(path: Path) -> ArtifactStore:
    return SharedStore(f"memory://{path}", folder=path, others=FolderStore(path))


@pytest.fixture(params=[folder, on_files, in_memory])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ArtifactStore]:
    """Return what opens the store, each time as another process would."""
    return lambda: request.param(tmp_path)


@pytest.mark.parametrize("key", KEYS)
def test_what_is_kept_is_read_until_it_is_dropped(
    key: str, make: Callable[[], ArtifactStore]
) -> None:
    with pytest.raises(FileNotFoundError):
        make().get(key)
    make().drop(key)  # nothing is there, and nothing happens
    for content in (b"one", b"another"):
        make().put(key, lambda path, content=content: path.write_bytes(content))
        assert make().get(key).read_bytes() == content
    make().drop(key)
    with pytest.raises(FileNotFoundError):
        make().get(key)


@pytest.mark.parametrize("key", KEYS)
def test_what_cannot_be_written_leaves_what_was_there(
    key: str, make: Callable[[], ArtifactStore]
) -> None:
    store = make()
    store.put(key, lambda path: path.write_bytes(b"whole"))

    def fail(path: Path) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        store.put(key, fail)
    assert make().get(key).read_bytes() == b"whole"


def test_states_alone_are_shared(tmp_path: Path) -> None:
    store = on_files(tmp_path)
    for key in KEYS:
        store.put(key, lambda path: path.write_bytes(b"x"))
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {f"shared/{KEYS[0]}", f"own/{KEYS[1]}"}


def test_states_of_a_time_without_the_address_are_found(tmp_path: Path) -> None:
    """A search goes on with `executor.store`, or a fork brings states into its folder."""
    store, key = on_files(tmp_path), KEYS[0]
    FolderStore(tmp_path / "own").put(key, lambda path: path.write_bytes(b"before"))
    far = SharedStore(f"file://{tmp_path}/shared", folder=tmp_path / "far", others=store)
    for one in (store, far):  # the driver's, a worker's
        assert one.get(key).read_bytes() == b"before"
    far.put(key, lambda path: path.write_bytes(b"now"))
    assert store.get(key).read_bytes() == b"now"
    far.drop(key)
    for one in (store, far):
        with pytest.raises(FileNotFoundError):
            one.get(key)


class ClientError(Exception):
    """What libraries of object stores raise, which is no `OSError`."""


FAULTS = [ConnectionResetError(104, "Connection reset by peer"), ClientError("503 Slow Down")]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Return what fsspec's files in memory raise next, having done half of the work."""
    coming: list[Exception] = []
    put, get, remove = (getattr(MemoryFileSystem, f"{name}_file") for name in ("put", "get", "rm"))

    def put_file(files: MemoryFileSystem, source: str, target: str) -> None:
        if coming:
            files.pipe_file(target, b"ha")
            raise coming.pop()
        put(files, source, target)

    def get_file(files: MemoryFileSystem, source: str, target: str) -> None:
        if coming:
            Path(target).write_bytes(b"ha")
            raise coming.pop()
        get(files, source, target)

    def rm_file(files: MemoryFileSystem, path: str) -> None:
        if coming:
            raise coming.pop()
        remove(files, path)

    for replaced in (put_file, get_file, rm_file):
        monkeypatch.setattr(MemoryFileSystem, replaced.__name__, replaced)
    monkeypatch.setattr(artifacts, "_PAUSES", (0.0, 0.0))
    return coming


def test_what_fails_for_a_moment_is_tried_again(tmp_path: Path, faults: list[Exception]) -> None:
    store, key = in_memory(tmp_path), KEYS[0]
    faults += FAULTS
    store.put(key, lambda path: path.write_bytes(b"whole"))
    faults += FAULTS
    assert store.get(key).read_bytes() == b"whole"
    faults += FAULTS
    store.drop(key)
    assert faults == []
    with pytest.raises(FileNotFoundError):
        store.get(key)


@pytest.mark.parametrize("fault", [*FAULTS, FileNotFoundError(2, "The bucket does not exist")])
def test_what_cannot_be_sent_stops_the_search_and_leaves_what_was_there(
    fault: Exception, tmp_path: Path, faults: list[Exception]
) -> None:
    store, key = in_memory(tmp_path), KEYS[0]
    store.put(key, lambda path: path.write_bytes(b"before"))
    faults[:] = [fault] * 3
    with pytest.raises(StorageError) as raised:
        store.put(key, lambda path: path.write_bytes(b"new"))
    told = f"`executor.store`: memory://{tmp_path} cannot be used: {type(fault).__name__}: "
    assert str(raised.value).startswith(told)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.get(key).read_bytes() == b"before"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["get", "drop"])
def test_what_cannot_be_read_or_removed_stops_the_search(
    call: str, fault: Exception, tmp_path: Path, faults: list[Exception]
) -> None:
    store, key = in_memory(tmp_path), KEYS[0]
    store.put(key, lambda path: path.write_bytes(b"before"))
    faults[:] = [fault] * 3
    with pytest.raises(StorageError, match=str(fault.args[-1])):
        getattr(store, call)(key)
    assert store.get(key).read_bytes() == b"before"


def test_a_store_that_cannot_be_opened_stops_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Exception]
) -> None:
    def refuse(_: str) -> None:
        raise FAULTS[0]

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(StorageError, match="Connection reset by peer"):
        in_memory(tmp_path)


def test_what_comes_half_takes_no_other_states_place(
    tmp_path: Path, faults: list[Exception]
) -> None:
    """The driver reads copies in the folder in which the states of a time before are."""
    store, key = in_memory(tmp_path), KEYS[0]
    FolderStore(tmp_path).put(key, lambda path: path.write_bytes(b"before"))
    for fault in (FAULTS[0], FileNotFoundError(key)):
        faults[:] = [fault] * 3
        with contextlib.suppress(StorageError):
            assert store.get(key).read_bytes() == b"before"
        assert FolderStore(tmp_path).get(key).read_bytes() == b"before"
    faults[:] = [FAULTS[0]] * 3
    with pytest.raises(StorageError):
        store.put(key, lambda path: path.write_bytes(b"new"))
    faults.clear()
    assert store.get(key).read_bytes() == b"before"

"""What every store of artifacts does, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pneumonia.artifacts import (
    ArtifactStore,
    FolderStore,
    SharedStore,
    classifier_key,
    state_key,
)

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

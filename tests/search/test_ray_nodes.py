"""What a node has to have or to reach, and how one that does not is refused; without Ray."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from pneumonia import artifacts
from pneumonia.artifacts import FolderStore, SharedStore
from pneumonia.config import sources
from pneumonia.errors import ConfigError, UserError
from pneumonia.files import StorageError
from pneumonia.search import ray_nodes
from pneumonia.search.ray_nodes import Needs

CONFIG = {
    "dataset": {"_target_": "their_images.load", "path": "there.npz"},
    "model": {"_target_": "their_package.networks.stem", "weights": "choice(a.h5, b.h5, imagenet)"},
    "optimizer": {"_target_": "keras.optimizers.SGD"},
    "callbacks": {"notify": {"_target_": "their_listener.Notify"}},
}
FILES = {
    "their_images.py": "import their_helper\ndef load(): ...\n",
    "their_helper.py": "",
    "their_package/networks.py": "def stem(): ...\n",
    "their_listener.py": "class Notify: ...\n",
    "unrelated.py": "raise AssertionError\n",
    **{"a.h5": "weights", "b.h5": "others", "there.npz": ""},
}


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DictConfig]:
    """A config with the files that it names in the current folder, imported as by a search."""
    before = set(sys.modules)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("their_images", "their_package", "their_listener"):
        sources.find_module(name)
    import their_images  # type: ignore[import-not-found]  # noqa: F401
    import their_listener  # type: ignore[import-not-found]  # noqa: F401

    yield OmegaConf.create(CONFIG)
    for name in set(sys.modules) - before:
        if name.startswith("their_"):
            del sys.modules[name]


def test_what_trials_need_is_found_in_the_config(cfg: DictConfig) -> None:
    assert ray_nodes.find(cfg) == Needs(
        files=("a.h5", "b.h5"),
        modules=("their_helper", "their_images", "their_package"),
        targets=("their_images.load", "their_package.networks.stem"),
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("a.h5", "a.h5"),
        ("their_helper.py", "their_helper"),
        ("their_package/networks.py", "their_package"),
        ("their_listener.py", ""),
        ("there.npz", ""),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_node_without_it_or_with_another_is_refused(
    cfg: DictConfig, changed: str, told: str, is_there: bool
) -> None:
    needs = ray_nodes.find(cfg)
    here = ray_nodes.have(needs)
    assert here.keys() == {*needs.files, *needs.modules}
    if is_there:
        Path(changed).write_text(f"{FILES[changed]}# changed\n")
    elif "/" in changed:
        shutil.rmtree(Path(changed).parent)
    else:
        Path(changed).unlink()
    sources.digest.cache_clear()
    there = ray_nodes.have(needs)
    if not told:
        ray_nodes.check_same(here, there, store=None)
        return
    with pytest.raises(UserError) as raised:
        ray_nodes.check_same(here, there, store=None)
    assert str(raised.value).endswith(f":\n  {told}: {here[told]} → {there.get(told)}")
    assert (told in there) is is_there


def test_a_plug_in_that_a_node_cannot_import_is_told(cfg: DictConfig) -> None:
    needs = ray_nodes.find(cfg)
    for name in ("their_images", "their_helper"):
        del sys.modules[name]
    Path("their_helper.py").write_text("import package_of_the_driver\n")
    with pytest.raises(ImportError, match="No module named 'package_of_the_driver'"):
        ray_nodes.have(needs)


def test_an_address_that_a_node_does_not_reach_is_refused(tmp_path: Path) -> None:
    places = [f"file://{tmp_path}/{name}" for name in ("here", "there")]
    store, far = (
        SharedStore(place, folder=tmp_path / "own", others=FolderStore(tmp_path / "own"))
        for place in places
    )
    ray_nodes.write_mark(far)  # of an earlier search
    here = ray_nodes.write_mark(store)
    ray_nodes.check_same(here, ray_nodes.read_mark(places[0], scratch=None), store=places[0])
    for _ in range(2):
        found = ray_nodes.read_mark(places[1], scratch=str(tmp_path))
        with pytest.raises(ConfigError, match=r"`executor\.store`: expected .* every node reaches"):
            ray_nodes.check_same(here, found, store=places[0])
        far.drop(ray_nodes.MARK)
    assert ray_nodes.read_mark(None, scratch=None) == {}


def test_an_address_that_cannot_be_written_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_PAUSES", ())
    (tmp_path / "file").touch()
    folder = tmp_path / "own"
    store = SharedStore(f"file://{tmp_path}/file", folder=folder, others=FolderStore(folder))
    with pytest.raises(StorageError, match=r"`executor\.store`: .* cannot be used"):
        ray_nodes.write_mark(store)

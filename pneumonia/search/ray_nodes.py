"""What every node has to have or to reach, so that a trial comes to the same on each of them."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import get_object
from omegaconf import DictConfig

from pneumonia import files
from pneumonia.artifacts import STATES, FolderStore, SharedStore
from pneumonia.config import search_space, sources
from pneumonia.errors import ConfigError, UserError
from pneumonia.files import StorageError

MARK = f"{STATES}/mark"
_STORE = "executor.store"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a search takes from outside this package and its libraries; none of it is sent to nodes.

    Attributes:
        files: Paths of files of weights, as the config has them.
        modules: What plug-ins are imported from, without what follows a dot.
        targets: The plug-ins that trials are made with.
    """

    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def find(cfg: DictConfig) -> Needs:
    """Find what the trials of a search need, after the first of them was rehearsed here.

    Args:
        cfg: Its configuration, with its ranges.
    """
    ranges = {item.path: item.values for item in search_space.find(cfg)}
    weights, own = set[str](), set[str]()
    for path, _, value in search_space.leaves(cfg):
        texts = {one for one in ranges.get(path, (value,)) if isinstance(one, str)}
        if path == "model.weights":
            weights |= texts - {"imagenet"}
        # What listens or proposes is here alone.
        elif path.endswith("._target_") and path.split(".")[0] in search_space.GROUPS:
            own |= texts
    modules = tuple(sources.plugins(own))
    targets = (one for one in sorted(own) if one.partition(".")[0] in modules)
    return Needs(tuple(sorted(weights)), modules, tuple(targets))


def have(needs: Needs) -> dict[str, str]:
    """Import what trials are made with; return digests of the files and modules that are here."""
    weights = {name: Path(name).expanduser() for name in needs.files}
    found = {name: files.digest([path], path) for name, path in weights.items() if path.exists()}
    found |= sources.plugins(needs.modules)
    for target in needs.targets:
        if target.partition(".")[0] in found:
            get_object(target)
    return found


def write_mark(store: SharedStore) -> dict[str, str]:
    """Leave something where states are kept, and return what a node has to find there.

    Raises:
        StorageError: It cannot be left there.
    """
    text = secrets.token_hex(8)
    store.put(MARK, lambda path: path.write_text(text))
    return {_STORE: text}


def drop_mark(store: SharedStore) -> None:
    """Remove it, if the store can be reached."""
    with contextlib.suppress(StorageError):
        store.drop(MARK)


def read_mark(address: str | None, *, scratch: str | None) -> dict[str, str]:
    """Return what a node finds where states are kept, if they are kept at an address."""
    if address is None:
        return {}
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        try:
            file = SharedStore(address, folder=folder, others=FolderStore(folder)).get(MARK)
        except FileNotFoundError:
            return {}
        return {_STORE: file.read_text()}


def check_same(here: Mapping[str, str], there: Mapping[str, str], *, store: str | None) -> None:
    """Refuse a node on which trials would come to something else than here.

    Args:
        here: What decides results here, and what `write_mark` has left.
        there: What decides results there, and what `read_mark` has found.
        store: The address where states are kept.

    Raises:
        UserError: For a difference.
    """
    other = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    if other == [_STORE]:
        expected = "the address of a folder that every node reaches"
        hint = "What this machine writes there, one of them does not find"
        raise ConfigError(_STORE, expected, store, hint)
    if other:
        lines = (f"  {key}: {here.get(key)} → {there.get(key)}" for key in other)
        raise UserError(
            "`executor=ray`: expected the code and the libraries of this machine on every node, "
            "with the weights and plug-ins of the config. Received, on one of them:\n"
            + "\n".join(lines)
        )

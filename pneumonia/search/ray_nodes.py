"""What every node has to have, so that a trial comes to the same on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import get_object
from omegaconf import DictConfig

from pneumonia.config import search_space, sources
from pneumonia.errors import UserError
from pneumonia.storage import provenance

# Their versions are compared, or their code.
_KNOWN = {"pneumonia", *(name.replace("-", "_") for name in provenance.MATTERING)}


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
    files, own, others = set[str](), set[str](), set[str]()
    for path, _, value in search_space.leaves(cfg):
        texts = {one for one in ranges.get(path, (value,)) if isinstance(one, str)}
        if path == "model.weights":
            files |= texts - {"imagenet"}
        elif path.endswith("._target_"):
            (own if path.split(".")[0] in search_space.GROUPS else others).update(texts)
    # With what they import from the current folder; what listens or proposes is here alone.
    modules = (sources.let_in() - _first(others)) | (_first(own) - _KNOWN)
    targets = sorted(one for one in own if _first({one}) <= modules)
    return Needs(tuple(sorted(files)), tuple(sorted(modules)), tuple(targets))


def _first(paths: set[str]) -> set[str]:
    return {path.partition(".")[0] for path in paths}


def have(needs: Needs) -> dict[str, str]:
    """Import what trials are made with; return digests of the files and modules that are here."""
    places = {name: Path(name).expanduser() for name in needs.files}
    for name in needs.modules:
        spec = sources.find_module(name)
        place = spec and next(iter(spec.submodule_search_locations or ()), spec.origin)
        if place:
            places[name] = Path(place)
    found = {name: provenance.digest(path) for name, path in places.items() if path.exists()}
    for target in needs.targets:
        if target.partition(".")[0] in found:
            get_object(target)
    return found


def check_same(here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Refuse a node on which trials would come to something else than here.

    Args:
        here: What decides results here.
        there: What decides results there.

    Raises:
        UserError: For a difference.
    """
    other = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    if other:
        lines = (f"  {key}: {here.get(key)} → {there.get(key)}" for key in other)
        raise UserError(
            "`executor=ray`: expected the code and the libraries of this machine on every node, "
            "with the weights and plug-ins of the config. Received, on one of them:\n"
            + "\n".join(lines)
        )

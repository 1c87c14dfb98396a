"""A trial of a search: what is asked for, and every argument that it is trained with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumonia.config.search_space import GROUPS, Space, collapse
from pneumonia.config.validate import flatten
from pneumonia.datasets.cache import Kept

Config = dict[str, Any]

# Where a network is cut: the arguments of every backbone that leave the rest of it as it is.
_CUTS = ("model.layer", "model.pooling")
_LOOKED_AT = 50
_found: Kept[tuple[Config, ...]] = Kept(64)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial to run.

    Attributes:
        trial_id: Its name within the search.
        number: Its number within the search, from 1.
        values: A value for every hyperparameter that exists with them.
        epochs: The epoch up to which it is trained, counted from the very beginning.
        tags: Where trials are promoted `bracket`, `round` and `promoted_from`.
    """

    trial_id: str
    number: int
    values: dict[str, Any]
    epochs: int
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def parent(self) -> str | None:
        """The trial whose training it goes on with."""
        return self.tags.get("promoted_from")


def arguments(config: Config, proposal: Proposal) -> Config:
    """Return every argument of a trial, pinned ones too, by its dotted path, and its epochs."""
    return flatten({group: config[group] for group in GROUPS}) | {"epochs": proposal.epochs}


def cuts(
    cfg: DictConfig, space: Space, values: Mapping[str, Any], own: Config
) -> tuple[Config, ...]:
    """Return the sections `model` of trials whose networks are that of a trial, cut elsewhere.

    Args:
        cfg: The configuration with its ranges.
        space: The ranges.
        values: The hyperparameters of the trial.
        own: Its section `model`.
    """
    varying = {item.path: item for item in space if item.path in _CUTS}
    if not varying:
        return ()

    def find() -> tuple[Config, ...]:
        # Another hyperparameter may exist with another layer only.
        known = {item.path: item.start for item in space} | dict(values)
        choices = [item.values or (known[path],) for path, item in varying.items()]
        found: list[Config] = []
        for chosen in itertools.islice(itertools.product(*choices), _LOOKED_AT):
            changed = dict(zip(varying, chosen, strict=True))
            section = collapse(cfg, {**known, **changed})["model"]
            if _rest(section) == _rest(own) and section not in found:
                found.append(section)
        # Where they are too many, those after its own come first, so that all have their turn.
        place = found.index(own) if own in found else 0
        return (*found[place + 1 :], *found[:place])

    section = OmegaConf.to_container(cfg.model, resolve=False)
    return _found.get([own, section, str(cfg.get("when"))], find)


def _rest(section: Config) -> Config:
    return {name: value for name, value in section.items() if f"model.{name}" not in _CUTS}

"""A trial of a search: what is asked for, and every argument that it is trained with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from pneumonia.config.search_space import GROUPS, Space, collapse
from pneumonia.config.validate import flatten

Config = dict[str, Any]

# Where a network is cut: the arguments of every backbone that leave the rest of it as it is.
_CUTS = ("layer", "pooling")
# So many sections at once: each is a network in memory.
_MOST = 5


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial to run.

    Attributes:
        trial_id: Its name within the search.
        number: Its number within the search, from 1.
        values: A value for every hyperparameter that exists with them.
        epochs: The epoch up to which it is trained, counted from the very beginning.
        tags: For Hyperband `bracket`, `round` and `promoted_from`.
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


def cuts(cfg: DictConfig, space: Space, values: Mapping[str, Any]) -> tuple[Config, ...]:
    """Return the sections `model` of trials whose networks are that of a trial, cut elsewhere.

    Args:
        cfg: The configuration with its ranges.
        space: The ranges.
        values: The hyperparameters of the trial.
    """
    varying = [item for item in space if item.path in [f"model.{name}" for name in _CUTS]]
    if not varying:
        return ()
    # A layer may be what another hyperparameter exists with.
    known = {item.path: item.start for item in space} | dict(values)
    choices = [item.values or (known[item.path],) for item in varying]
    found = [
        collapse(cfg, {**known, **dict(zip([item.path for item in varying], chosen, strict=True))})
        for chosen in itertools.product(*choices)
    ]
    own = collapse(cfg, values)["model"]
    sections = [config["model"] for config in found if _rest(config["model"]) == _rest(own)]
    different = [one for number, one in enumerate(sections) if one not in sections[:number]]
    # Those after it first: where there are many, another trial begins elsewhere.
    place = different.index(own) if own in different else 0
    return tuple([*different[place + 1 :], *different[:place]][:_MOST])


def _rest(section: Config) -> Config:
    return {name: value for name, value in section.items() if name not in _CUTS}

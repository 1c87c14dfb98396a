"""A trial of a search: what is asked for, and every argument that it is trained with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pneumonia.config.search_space import GROUPS
from pneumonia.config.validate import flatten

Config = dict[str, Any]


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

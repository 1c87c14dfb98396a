"""A trial as a preset: a YAML file without ranges, which trains it again to the same score."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumonia.errors import UserError, without_passwords
from pneumonia.ranges import Scalar
from pneumonia.shell import shown
from pneumonia.space import GROUPS, Space

Config = dict[str, Any]

_CHOSEN = (*GROUPS, "tuner", "tracking", "executor")
# Sections beside the groups that have to do with the score or with what is made of it.
_EXACT = ("dtype", "precision")
_BESIDE = ("seed", "objective", "threshold", "when")


def text(config: Config, choices: Mapping[str, str], *, epochs: int, comment: str) -> str:
    """Return a trial's configuration as the text of a preset.

    Args:
        config: The whole configuration, without ranges.
        choices: The option of each config group.
        epochs: The epoch up to which the trial was to be trained.
        comment: Lines to put above it.
    """
    body = {
        "defaults": [{f"override /{name}": choices[name]} for name in _CHOSEN if choices.get(name)],
        **{name: config[name] for name in _BESIDE if name in config},
        "features": {name: value for name, value in config["features"].items() if name in _EXACT},
        # One training up to that epoch is all that a preset asks of a tuner.
        "tuner": {"max_epochs": epochs},
        **{group: config[group] for group in GROUPS},
    }
    lines = ["@package _global_", *comment.splitlines()]
    head = "".join(f"# {line}\n" for line in lines)
    return without_passwords(head + OmegaConf.to_yaml(OmegaConf.create(body)))


def options(choices: Mapping[str, str]) -> str:
    """Return the options, with a space after them, that the preset of a search needs before it.

    Args:
        choices: The option of each config group, and under `config_dir` the folder that further
            options came from.
    """
    folder = choices.get("config_dir")
    return f"--config-dir {shlex.quote(shown(Path(folder)))} " if folder else ""


def values_of(space: Space, params: Mapping[str, str]) -> dict[str, Scalar]:
    """Return the hyperparameters of a trial from its params, which are texts.

    Args:
        space: The ranges of its search.
        params: All the trial's params; a hyperparameter that did not exist in it has none.
    """
    found: dict[str, Scalar] = {}
    for item in space:
        if item.path in params:
            given = params[item.path]
            try:
                value = json.loads(given)
            except ValueError:
                value = given
            found[item.path] = value if item.contains(value) else given
    return found


def choices_of(tags: Mapping[str, str], best: str | None) -> dict[str, str]:
    """Return the option of each config group that a search was made with.

    Args:
        tags: The tags of the search; `choices` holds them as JSON.
        best: The text of its winner's preset, where searches of earlier versions have them.

    Raises:
        UserError: Neither has them.
    """
    if "choices" in tags:
        return dict(json.loads(tags["choices"]))
    made = OmegaConf.create(best or "")
    if isinstance(made, DictConfig) and made.get("defaults"):
        pairs = [pair for item in made.defaults for pair in item.items()]
        return {str(key).rpartition("/")[2]: str(option) for key, option in pairs}
    raise UserError(
        "The search of this trial has not recorded the options of its config groups: it was made "
        "with an earlier version and has no `best.yaml`."
    )

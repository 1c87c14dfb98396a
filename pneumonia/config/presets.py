"""A trial as a preset, a YAML file that trains it again to the same score; and a user's own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from pneumonia.config.ranges import Scalar
from pneumonia.config.search_space import GROUPS, Space, conditions_beyond
from pneumonia.config.suggestions import closest
from pneumonia.errors import ConfigError, without_passwords
from pneumonia.shell import shown

if TYPE_CHECKING:
    from pneumonia.config.hydra_internals import Hydra

Config = dict[str, Any]

FILES: dict[str, str] = {}
"""The files that stand for options of the group experiment, by the options' names."""

_CHOSEN = (*GROUPS, "tuner", "tracking", "executor")
# Sections beside the groups that have to do with the score or with what is made of it.
_EXACT = ("dtype", "precision")
_BESIDE = ("seed", "objective", "threshold", "when")


def text(config: Config, choices: Mapping[str, str], *, epochs: int, comment: str) -> str:
    """Return a trial's configuration, which has no ranges, as the text of a preset.

    Args:
        config: All of it.
        choices: The option of each config group.
        epochs: The epoch up to which the trial was to be trained.
        comment: Lines to put above it.
    """
    objective = config.get("objective", {}).items()
    # All that matters to the winner of a single trial. What has left test unread goes on so.
    usual = {"flips": False, "image_size": None, "test": True}
    winner = {**usual, **config.get("winner", {})}
    changed = {name: winner[name] for name in usual if winner[name] != usual[name]}
    body = {
        "defaults": [{f"override /{name}": choices[name]} for name in _CHOSEN if choices.get(name)],
        **{name: config[name] for name in _BESIDE if name in config},
        "objective": {name: value for name, value in objective if value is not None},
        **({"winner": changed} if changed else {}),
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

    They are in its choices, under `config_dir`: the folder that further options came from.
    """
    folder = choices.get("config_dir")
    return f"--config-dir {shlex.quote(shown(Path(folder)))} " if folder else ""


def values_of(space: Space, params: Mapping[str, str]) -> dict[str, Scalar]:
    """Return the hyperparameters of a trial from its params, texts; one that was not has none."""
    found: dict[str, Scalar] = {}
    for item in space:
        if (given := params.get(item.path)) is not None:
            try:
                value = json.loads(given)
            except ValueError:
                value = given
            found[item.path] = value if item.contains(value) else given
    return found


def give_way(preset: DictConfig, named: Set[str]) -> None:
    """Take out what a preset says of groups whose option is named beside it, if it says all of it.

    So a trial's preset does, of every group, with the conditions that it has.

    Args:
        preset: What its file holds.
        named: The keys of the overrides.
    """
    is_trial = {*GROUPS} <= {*map(str, preset)}
    for group in named & {*GROUPS} & {*map(str, preset)}:
        if (section := preset[group]) and (is_trial or "_target_" in section):
            # Of every dataset, as it is in config.yaml.
            preset[group] = {key: section[key] for key in ("drop_duplicates",) if key in section}
            if "when" in preset:
                preset["when"] = conditions_beyond(group, preset["when"])


def check_files(hydra: Hydra, overrides: Sequence[str]) -> None:
    """Check the files of a user that overrides choose as options.

    Raises:
        ConfigError: With the first mistake in their lists of defaults.
    """
    groups = hydra.config_loader.list_groups("")
    chosen = [override.lstrip("+").partition("=")[::2] for override in overrides]
    left = [(key, value.strip("'\"")) for key, value in chosen if key in groups]
    seen = set()
    while left:
        seen.add(option := left.pop())
        further = _OptionFile(hydra, *option).check()
        left += [(option[0], one) for one in further if (option[0], one) not in seen]


class _OptionFile:
    """Looks at the list of defaults in a file that a user has written for an option of a group.

    Hydra speaks of groups, packages and nodes there, and not of the file.
    """

    def __init__(self, hydra: Hydra, group: str, option: str) -> None:
        self._loader = hydra.config_loader
        self._group = group
        self._path = f"{group}/{option}"
        self._file = FILES.get(option, f"{self._path}.yaml")
        self._is_preset = group == "experiment"

    def check(self) -> list[str]:
        """Check the file, unless it is ours; return the options of the same group that it takes in.

        Raises:
            ConfigError: With the first mistake.
        """
        sources = (one for one in self._loader.get_sources() if one.is_config(self._path))
        source = next(sources, None)
        if source is None or source.provider in ("main", "hydra"):
            return []
        found = source.load_config(config_path=self._path)
        self._check_package(found.header.get("package"))
        if not isinstance(found.config, DictConfig):
            return []
        defaults = OmegaConf.to_container(found.config).get("defaults", [])  # type: ignore[union-attr]
        if not isinstance(defaults, list):
            raise self._error("a list", defaults, self._line(defaults))
        seen: set[str] = set()
        for item in defaults:
            self._check_item(item)
            name = next(iter(item)) if isinstance(item, dict) else item
            if name in seen:
                raise self._error("every entry once", name)
            seen.add(name)
        return [item for item in defaults if isinstance(item, str) and item != "_self_"]

    def _check_package(self, package: str | None) -> None:
        header, is_global = "# @package _global_", package == "_global_"
        if self._is_preset and not is_global:
            expected = f"the line `{header}` above all others of {self._file}"
            raise ConfigError(self._group, expected, f"# @package {package}" if package else None)
        if is_global and not self._is_preset:
            expected = f"keys of {self._group} in {self._file}, without the line `{header}`"
            raise ConfigError(self._group, expected, header)

    def _check_item(self, item: object) -> None:
        if isinstance(item, str):
            own = self._loader.get_group_options(self._group)
            if item != "_self_" and item.removesuffix(".yaml") not in own:
                raise self._error(f"_self_ or an option of {self._group}", item, self._line(item))
            return
        if not isinstance(item, dict) or len(item) != 1:
            raise self._error("one `group: option` in every entry", item, self._line(item))
        [(key, value)] = item.items()
        *words, name = str(key).split() or [""]
        group, shown = name.strip("/"), f"{key}: {value}"
        options = self._loader.get_group_options(group)
        if not options:
            raise self._error("a config group", shown, self._line(item))
        if self._is_preset and (words != ["override"] or not name.startswith("/")):
            raise self._error("`override /group: option`", shown, self._line(item))
        for one in value if isinstance(value, list) else [value]:
            if "${" not in str(one) and str(one).removesuffix(".yaml") not in options:
                known = [option for option in options if option not in FILES]
                near = closest(str(one), known)
                hint = f"The nearest is {near}" if near else ""
                raise self._error(f"for {group} one of {', '.join(known)}", one, hint)

    def _line(self, item: object) -> str:
        """Return a hint at the line that an entry was probably meant as."""
        text = str(item)
        if isinstance(item, dict) and item:
            key, value = next(iter(item.items()))
            if isinstance(value, dict) and value:
                return self._line(value)
            text = f"{key}: {value}"
        groups = [name for name in self._loader.list_groups("") if name != "hydra"]
        words = re.findall(r"[\w./-]+", text)
        option = words[-1].rpartition("/")[2] if words else ""
        like = (closest(word.strip("/").partition("/")[0], groups, cutoff=0.7) for word in words)
        holding = (name for name in groups if option in self._loader.get_group_options(name))
        group = next((name for name in (*like, *holding) if name), "")
        if not group:
            near = closest(option, self._loader.get_group_options(self._group), cutoff=0.6)
            return f"Write `- {near}`" if near else ""
        is_own = group == self._group
        return f"Write `- {option}`" if is_own else f"Write `- override /{group}: {option}`"

    def _error(self, expected: str, received: object, hint: str = "") -> ConfigError:
        told = f"{expected}, in the defaults of {self._file}"
        return ConfigError(self._group, told, received, hint)

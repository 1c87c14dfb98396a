"""What Hydra says of a mistake on the command line, in our words and with what was meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.hydra import Hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia.config import schema, signatures, validate
from pneumonia.config.presets import FILES
from pneumonia.config.search_space import GROUPS, leaves
from pneumonia.config.suggestions import closest, closest_key, in_shell, nearest, range_meant, typed
from pneumonia.errors import ConfigError, UserError

# The option of a group that takes any class of a module by its name.
_BY_NAME = {
    "model": ("keras_application", "keras.applications"),
    "optimizer": ("any", "keras.optimizers"),
}


class Translator:
    """Turns what Hydra raises when it composes into a UserError in our form.

    Args:
        hydra: The composer.
        overrides: What it was given.
        name: The main config.
    """

    def __init__(self, hydra: Hydra, overrides: Sequence[str], name: str) -> None:
        self._hydra = hydra
        self._overrides = overrides
        self._name = name

    def translate(self, error: Exception) -> UserError:
        """Return the error to raise instead."""
        if isinstance(error, OverrideParseException):
            return self._ungrammatical(error.override)
        if isinstance(error, MissingConfigException):
            return self._missing(error)
        text = str(error)
        for pattern, method in (
            (r"Sweep parameters? '([^']+)'", self._sweep),
            (r"Could not override '([^']+)'", self._unknown),
            (r"Hydra's configuration is not supported : '([^']+)'", self._sweep),
            (r"Ambiguous value for argument '([^']+)'", self._sweep),
            (r"force-add of config groups is not supported: '([^']+)'", self._forced),
            (r"Multiple values for ([\w/]+)", self._added),
            (r"already at '([^']+)'", self._present),
            (r"Could not delete (?:from config\. )?'([^']+)'", self._absent),
            (r"Error merging override ([^=\s]+)", self._unmerged),
        ):
            if found := re.search(pattern, text):
                return method(found[1].lstrip("+~").partition("=")[0], error)
        return self._other(error)

    def _value(self, key: str) -> str:
        """Return what the user gave for a key."""
        for override in self._overrides:
            name, _, value = override.partition("=")
            if name.lstrip("+~").partition("@")[0] == key:
                return value
        return ""

    def _groups(self) -> list[str]:
        return [name for name in self._hydra.config_loader.list_groups("") if name != "hydra"]

    def _options(self, group: str) -> list[str]:
        options = self._hydra.config_loader.get_group_options(group)
        return [option for option in options if option not in FILES]

    def _ungrammatical(self, override: str) -> UserError:
        """Say what is wrong with a text that Hydra's grammar does not take."""
        key, equals, value = override.partition("=")
        if not equals:
            return ConfigError(override, "key=value", override, self._bare(override))
        meant = range_meant(value, is_whole=schema.is_whole(key))
        if value.startswith("{"):
            hint = "In braces, keys stand without quotes, and values with: {seed: '1,2'}"
            return ConfigError(key, "a value as Hydra's grammar has it", value, hint)
        if meant:
            return ConfigError(
                key, "a value or a quoted range", value, f"Write '{key}=\"{meant}\"'"
            )
        if given := self._hint_at_option(key, value, []) if key == "dataset" else "":
            hint = given
        elif value.endswith(",") or ",," in value:
            hint = "There is a comma with nothing beside it"
        elif value.startswith("="):
            hint = f"Write {key}{value}"
        elif any(value.count(quote) % 2 for quote in "\"'"):
            hint = f"A quote is not closed, or not escaped: {typed(key, value)}"
        else:
            hint = f"Special characters need quotes of their own: {typed(key, value)}"
        return ConfigError(key, "a value as Hydra's grammar has it", value, hint)

    def _bare(self, word: str) -> str:
        """Return a hint for an argument without an equals sign."""
        name, _, rest = re.sub(r"[:\s]", "=", word, count=1).partition("=")
        for group in self._groups():
            if word in self._options(group):
                return f"Write {group}={word}"
        if name in (*self._keys(), *self._groups(), "resume"):
            return f"Write {name}={rest or '<value>'}, without spaces around the equals sign"
        if word.lower() in ("help", "?"):
            return "Write --help"
        near = closest(word, [*self._keys(), *self._groups()], cutoff=0.7)
        if near:
            return f"The nearest is {near}=<value>"
        return "A value with spaces needs quotes of its own: 'key=\"some value\"'. See --help"

    def _missing(self, error: MissingConfigException) -> UserError:
        group, _, option = (error.missing_cfg_file or "").strip("/").rpartition("/")
        group = group.strip("/")
        if not group:
            return ConfigError("--config-name", "the name of a config file", option)
        options = self._options(group)
        if not options:  # a path in the place of an option
            group, _, above = group.partition("/")
            option, options = f"{above}/{option}", self._options(group)
        given = self._value(group) or option
        hint = self._hint_at_option(group, given.strip("'\""), options)
        return ConfigError(group, f"one of {', '.join(options)}", option, hint)

    def _hint_at_option(self, group: str, given: str, options: list[str]) -> str:
        if group == "dataset" and ("/" in given or Path(given).exists()):
            option = "image_folder" if Path(given).is_dir() else "npz"
            return f"A path is given by dataset={option} {shlex.quote(f'dataset.path={given}')}"
        near = closest(given, options)
        if near and near.replace("_", "") == given.lower().replace("_", ""):
            return f"The nearest is {group}={near}"
        by_name, module = _BY_NAME.get(group, ("", ""))
        names = [name for name in (signatures.names(module) if module else []) if name[0].isupper()]
        if given.lower() in map(str.lower, names):
            return f"It is chosen by {group}={by_name} {group}.name={closest(given, names)}"
        if near:
            return f"The nearest is {group}={near}"
        if group == "experiment":
            return "A file is given by its path with its ending, experiment=<path>.yaml"
        return ""

    def _sweep(self, key: str, error: Exception) -> UserError:
        value = self._value(key)
        if key in self._groups():
            hint = f"For one search each: pneumonia -m {in_shell(f'{key}={value}')}"
            return ConfigError(key, f"one of {', '.join(self._options(key))}", value, hint)
        if schema.takes_list(key) and "(" not in value:
            return ConfigError(key, "a list", value, f"Write '{key}=[{value}]'")
        decimal = value.replace(",", ".", 1)
        if re.fullmatch(r"\d*,\d+", value) and not schema.accepts(key, value.split(",")):
            return ConfigError(key, "a single value or a quoted range", value, f"Write {decimal}")
        if key.startswith("hydra."):
            hint = f"Write {typed(key, value)}" if key in schema.TEXTS else ""
            return ConfigError(key, "a single value", value, hint)
        each = f"ne search each: -m {in_shell(f'{key}={value}')}"
        parts = [part.strip() for part in value.split(",")]
        if key in schema.TEXTS and "(" not in value and not all(map(_is_path, parts)):
            hint = f"With commas in it: {typed(key, value)}; o{each}"
            return ConfigError(key, "a single value", value, hint)
        if key.split(".")[0] not in GROUPS:
            return ConfigError(key, "a single value", value, f"O{each}")
        quoted = value if "(" in value else f"choice({value})"
        hint = f"One search over them: '{key}=\"{quoted}\"'"
        if "interval(" not in value:  # which has no values for one search each
            hint = f"{hint}; o{each}"
        return ConfigError(key, "a single value or a quoted range", value, hint)

    def _unknown(self, key: str, error: Exception) -> UserError:
        return ConfigError(key, "a key of the config", self._value(key), self._hint_at_key(key))

    def _hint_at_key(self, key: str) -> str:
        if key in schema.MOVED:
            return schema.MOVED[key]
        group, _, rest = key.replace("/", ".").partition(".")
        value = self._value(key)
        for option in (value, rest):
            if option and option in self._options(group):
                return f"An option of the group is chosen by {group}={option}"
        if rest and (having := self._options_with(group, rest)):
            return f"It is a key of {' and '.join(f'{group}={option}' for option in having)}"
        for other in self._groups():
            if not rest and value in self._options(other):
                return f"An option is chosen by {other}={value}"
        keys = self._keys()
        if (
            near := closest(key, [*validate.MAPPINGS, "experiment"], cutoff=0.6)
            if not rest
            else None
        ):
            return f"The nearest is `{near}`"
        if found := closest_key(key, keys):
            return f"The nearest is `{found}`"
        own = [name.partition(".")[2] for name in keys if name.startswith(f"{group}.")]
        shown = ", ".join(name for name in own if not name.startswith("_"))
        return f"The keys of {group} are {shown}" if shown else "See pneumonia --help"

    def _options_with(self, group: str, key: str) -> list[str]:
        """List the options of a group that have a key which the chosen one has not."""
        found = []
        for option in self._options(group) if group != "experiment" else []:
            try:
                loaded = self._hydra.config_loader.load_configuration(
                    self._name, [f"{group}={option}"], RunMode.MULTIRUN
                )
            except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
                continue
            if OmegaConf.select(loaded, f"{group}.{key}", default=self) is not self:
                found.append(option)
        return found

    def _forced(self, key: str, error: Exception) -> UserError:
        hint = f"Options are chosen by {key}=<option>"
        return ConfigError(f"++{key}", "no ++ before a config group", self._value(key), hint)

    def _added(self, key: str, error: Exception) -> UserError:
        hint = f"Options are chosen by {key}=<option>"
        return ConfigError(f"+{key}", "no + before a config group", self._value(key), hint)

    def _present(self, key: str, error: Exception) -> UserError:
        hint = f"It is there already: write {key}=... without the +"
        return ConfigError(f"+{key}", "a new key", self._value(key), hint)

    def _absent(self, key: str, error: Exception) -> UserError:
        return ConfigError(f"~{key}", "a key of the config", key, nearest(key, self._keys()))

    def _unmerged(self, key: str, error: Exception) -> UserError:
        cause = str(error.__cause__ or error).splitlines()[0].rstrip(".")
        keys = self._keys()
        is_known = any(f"{name}.".startswith(f"{key}.") for name in keys)
        hint = "" if is_known else nearest(key, keys)
        return ConfigError(key, f"a value that fits ({cause})", self._value(key), hint)

    def _other(self, error: Exception) -> UserError:
        cause: Any = error.__cause__ if not str(error).strip() else error
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            reason = str(cause).splitlines()[0].rstrip(".")
            return ConfigError(str(cause.full_key), "a value", self._value(cause.full_key), reason)
        for group in self._groups():
            if self._value(group) == "null":
                hint = "Leave it out for none" if group == "experiment" else ""
                return ConfigError(group, f"one of {', '.join(self._options(group))}", "null", hint)
        reason = " ".join(str(cause).split()).rstrip(".")
        return ConfigError("config", "files and overrides that fit together", reason)

    def _keys(self) -> list[str]:
        """List the keys of the config that the chosen options make, without other overrides."""
        groups = self._groups()
        chosen = [item for item in self._overrides if item.partition("=")[0].lstrip("+") in groups]
        for overrides in (chosen, []):
            try:
                cfg = self._hydra.compose_config(self._name, list(overrides), RunMode.MULTIRUN)
            except (HydraException, OmegaConfBaseException, ValueError):
                continue
            return [path for path, _, _ in leaves(cfg)]
        return []


def _is_path(text: str) -> bool:
    return schema.EXISTING.accepts(text)

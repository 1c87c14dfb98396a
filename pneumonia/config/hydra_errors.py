"""What Hydra says of a mistake on the command line, in our words and with what was meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia.config import schema, sources, validate
from pneumonia.config.constraints import ANY, EXISTING, Check
from pneumonia.config.hydra_internals import CONFIG_NAME, Hydra
from pneumonia.config.presets import FILES
from pneumonia.config.search_space import GROUPS, leaves
from pneumonia.config.suggestions import closest, closest_key, in_shell, nearest, range_meant, typed
from pneumonia.errors import ConfigError, UserError

# The option of a group that takes any class of a module by its name.
_BY_NAME = {
    "model": ("keras_application", "keras.applications"),
    "optimizer": ("any", "keras.optimizers"),
}
# The extra that brings a launcher, by its option.
_EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}


class Translator:
    """Turns what Hydra raises when it composes overrides of the config into a UserError."""

    def __init__(self, hydra: Hydra, overrides: Sequence[str]) -> None:
        self._hydra, self._overrides = hydra, overrides

    def translate(self, error: Exception) -> UserError:
        """Return the error to raise instead."""
        if isinstance(error, OverrideParseException):
            return self._ungrammatical(error.override)
        if isinstance(error, MissingConfigException):
            return self._missing(error)
        for pattern, method in (
            (r"Sweep parameters? '([^']+)'", self._sweep),
            (r"Could not override '([^']+)'", self._unknown),
            (r"Hydra's configuration is not supported : '([^']+)'", self._sweep),
            (r"Ambiguous value for argument '([^']+)'", self._sweep),
            (
                r"(?:add of config groups is not supported: '|Multiple values for )([\w/+@]+)",
                self._added,
            ),
            (r"already at '([^']+)'", self._present),
            (r"Could not delete (?:from config\. )?'([^']+)'", self._absent),
            (r"Error merging override ([^=\s]+)", self._unmerged),
        ):
            if found := re.search(pattern, str(error)):
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
        meant = range_meant(value, is_whole=self._check(key).is_whole)
        if meant and not value.startswith("{"):
            hint = f"Write '{key}=\"{meant}\"'"
            return ConfigError(key, "a value or a quoted range", value, hint)
        if value.startswith("{"):
            hint = "In braces, keys stand without quotes, and values with: {seed: '1,2'}"
        elif given := self._hint_at_option(key, value, []) if key == "dataset" else "":
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
        known = [*self._keys(), *self._groups()]
        if name in (*known, "resume"):
            return f"Write {name}={rest or '<value>'}, without spaces around the equals sign"
        if word.lower() in ("help", "?"):
            return "Write --help"
        if near := closest(word, known, cutoff=0.7):
            return f"The nearest is {near}=<value>"
        return "A value with spaces needs quotes of its own: 'key=\"some value\"'. See --help"

    def _missing(self, error: MissingConfigException) -> UserError:
        group, _, option = (error.missing_cfg_file or "").strip("/").rpartition("/")
        group = group.strip("/")
        options = self._options(group)
        if not options:  # a path in the place of an option
            group, _, above = group.partition("/")
            option, options = f"{above}/{option}", self._options(group)
        given = self._value(group) or option
        hint = self._hint_at_option(group, given.strip("'\""), options)
        if group == "hydra/launcher" and option in _EXTRAS:
            hint = f"It comes with pip install 'pneumonia[{_EXTRAS[option]}]'"
        return ConfigError(group, f"one of {', '.join(options)}", option, hint)

    def _hint_at_option(self, group: str, given: str, options: list[str]) -> str:
        if group == "dataset" and ("/" in given or Path(given).exists()):
            option = "image_folder" if Path(given).is_dir() else "npz"
            return f"A path is given by dataset={option} {shlex.quote(f'dataset.path={given}')}"
        near = closest(given, options)
        is_same = near and near.replace("_", "") == given.lower().replace("_", "")
        by_name, module = _BY_NAME.get(group, ("", ""))
        names = [name for name in (sources.names(module) if module else []) if name[0].isupper()]
        if not is_same and given.lower() in map(str.lower, names):
            return f"It is chosen by {group}={by_name} {group}.name={closest(given, names)}"
        if near:
            return f"The nearest is {group}={near}"
        hint = "A file is given by its path with its ending, experiment=<path>.yaml"
        return hint if group == "experiment" else ""

    def _sweep(self, key: str, error: Exception) -> UserError:
        value, check = self._value(key), self._check(key)
        each = f"ne search each: -m {in_shell(f'{key}={value}')}"
        if key in self._groups():
            value = ",".join(FILES.get(one, one) for one in value.split(","))  # as they were typed
            hint = f"For one search each: pneumonia -m {in_shell(f'{key}={value}')}"
            return ConfigError(key, f"one of {', '.join(self._options(key))}", value, hint)
        if check.is_list and check is not ANY and "(" not in value:
            return ConfigError(key, "a list", value, f"Write '{key}=[{value}]'")
        if re.fullmatch(r"\d*,\d+", value) and not _are_right(value.split(","), check):
            hint = f"Write {value.replace(',', '.', 1)}"
            return ConfigError(key, "a single value or a quoted range", value, hint)
        if key.startswith("hydra."):
            hint = f"Write {typed(key, value)}" if key in schema.TEXTS else ""
            return ConfigError(key, "a single value", value, hint)
        are_paths = all(EXISTING.accepts(part.strip()) for part in value.split(","))
        if key in schema.TEXTS and "(" not in value and not are_paths:
            hint = f"With commas in it: {typed(key, value)}; o{each}"
            return ConfigError(key, "a single value", value, hint)
        if key in schema.OF_PROCESS or key.split(".")[0] not in GROUPS:
            hint = schema.OF_PROCESS.get(key, f"O{each}")
            return ConfigError(key, "a single value", value, hint)
        hint = f"One search over them: '{key}=\"{value if '(' in value else f'choice({value})'}\"'"
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
        for other in self._groups() if not rest else ():
            if value in self._options(other):
                return f"An option is chosen by {other}={value}"
        keys, tops = self._keys(), [*validate.MAPPINGS, "experiment"]
        near = None if rest else closest(key, tops, cutoff=0.6)
        if found := near or closest_key(key, keys):
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
                    CONFIG_NAME, [f"{group}={option}"], RunMode.MULTIRUN
                )
            except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
                continue
            if OmegaConf.select(loaded, f"{group}.{key}", default=self) is not self:
                found.append(option)
        return found

    def _added(self, key: str, error: Exception) -> UserError:
        sign = "++" if "force-add" in str(error) else "+"
        hint = f"Options are chosen by {key}=<option>"
        expected = f"no {sign} before a config group"
        return ConfigError(f"{sign}{key}", expected, self._value(key), hint)

    def _present(self, key: str, error: Exception) -> UserError:
        hint = f"It is there already: write {key}=... without the +"
        return ConfigError(f"+{key}", "a new key", self._value(key), hint)

    def _absent(self, key: str, error: Exception) -> UserError:
        return ConfigError(f"~{key}", "a key of the config", key, nearest(key, self._keys()))

    def _unmerged(self, key: str, error: Exception) -> UserError:
        cause = str(error.__cause__ or error).splitlines()[0].rstrip(".")
        return ConfigError(key, f"a value that fits ({cause})", self._value(key))

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
        return [path for path, _, _ in leaves(self._plain())]

    def _check(self, key: str) -> Check:
        return validate.checks_of(self._plain()).get(key, ANY)

    def _plain(self) -> DictConfig:
        """Return the config that the chosen options make, without other overrides."""
        groups = self._groups()
        chosen = [item for item in self._overrides if item.partition("=")[0].lstrip("+") in groups]
        for overrides in (chosen, []):
            try:
                return self._hydra.compose_config(CONFIG_NAME, list(overrides), RunMode.MULTIRUN)
            except (HydraException, OmegaConfBaseException, ValueError):
                continue
        return OmegaConf.create()


def _are_right(numbers: Sequence[str], check: Check) -> bool:
    values = [float(text) if "." in text else int(text or 0) for text in numbers]
    return all(map(check.accepts, values))

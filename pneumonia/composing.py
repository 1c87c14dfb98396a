"""Composition of the config by Hydra, and what Hydra says of mistakes in our words.

Every override is composed and validated here before Hydra runs anything: Hydra makes its output
folder before it calls a job.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia import config
from pneumonia.errors import ConfigError, ConfigErrors, UserError
from pneumonia.space import leaves

NAME = "config"
VERSION_BASE = "1.3"
_KEPT_ON_RESUME = ("resume", "tracking", "executor", "hydra")


def find_conf() -> Path:
    """Return the folder of the config files: the wheel's own, or the checkout's."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def compose(
    overrides: Sequence[str], *, folder: str | None = None, multirun: bool = False
) -> DictConfig:
    """Compose the config, Hydra's own part included, without running anything.

    Args:
        overrides: As on the command line.
        folder: A folder of further config files, whose files come before ours.
        multirun: Whether overrides may be sweeps, which are left out then.

    Raises:
        UserError: If Hydra cannot compose it.
    """
    with _hydra(folder) as hydra:
        return _compose(hydra, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)


def check(overrides: Sequence[str], *, folder: str | None = None, multirun: bool = False) -> None:
    """Compose and validate the config, or every config of a multirun.

    Raises:
        UserError: Naming all that is wrong.
    """
    with _hydra(folder) as hydra:
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        cfg = _compose(hydra, overrides, mode)
        _check_hydra(cfg.hydra)
        jobs = [list(overrides)]
        multirun = multirun or cfg.hydra.mode == RunMode.MULTIRUN
        if multirun:
            jobs = _expand(hydra, cfg, overrides)
        errors: dict[str, ConfigError] = {}
        for job in jobs:
            try:
                made = _compose(hydra, job, RunMode.RUN) if multirun else cfg
                _check_resume(made, job)
                config.validate(made)
            except ConfigErrors as found:
                errors |= {str(error): error for error in found.errors}
    if errors:
        raise ConfigErrors(list(errors.values()))


def prepare(overrides: Sequence[str]) -> list[str]:
    """Make overrides of what is easier to write: an experiment that is a file, and conditions.

    `experiment=some/file.yaml` becomes an option of the group, held in memory.

    Raises:
        ConfigError: If there is no such file.
    """
    made = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key.lstrip("+") == "experiment" and value.rstrip("'\"").endswith((".yaml", ".yml")):
            names = [_add_experiment(name.strip().strip("'\"")) for name in value.split(",")]
            made.append(f"{key}={','.join(names)}")
        elif key == "when" and equals:
            # The empty mapping is closed to new keys, except by force.
            made.append(f"++{override}")
        else:
            made.append(override)
    return made


def _add_experiment(value: str) -> str:
    """Store a file as an option of the group experiment; return the option's name."""
    if not value.endswith((".yaml", ".yml")):
        return value
    file = Path(value).expanduser()
    if not file.is_file():
        options = sorted(path.stem for path in (find_conf() / "experiment").glob("*.yaml"))
        hint = f"The presets are {', '.join(options)}"
        raise ConfigError("experiment", "a preset, or a YAML file that exists", value, hint)
    try:
        node = OmegaConf.load(file)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError("experiment", "a YAML file that can be read", value, reason) from error
    if not isinstance(node, DictConfig):
        raise ConfigError("experiment", "a YAML file that holds a mapping", value)
    # Different files need different names, and none that a preset has.
    name = f"file_{re.sub(r'[^A-Za-z0-9]+', '_', str(file.resolve().with_suffix(''))).strip('_')}"
    ConfigStore.instance().store(name, node, group="experiment", package="_global_")
    return name


@contextmanager
def _hydra(folder: str | None) -> Iterator[Hydra]:
    """Make the composer that `hydra.main` makes too; it has no public name with a second folder."""
    version.setbase(VERSION_BASE)
    path = create_config_search_path(str(find_conf()))
    if folder is not None:
        absolute = Path(folder).resolve()
        if not absolute.is_dir():
            raise ConfigError("--config-dir", "an existing folder", folder)
        path.prepend("command-line", f"file://{absolute}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2("pneumonia", path)
    finally:
        GlobalHydra.instance().clear()


def _compose(hydra: Hydra, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    try:
        return hydra.compose_config(NAME, list(overrides), mode)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise _Translator(hydra, overrides).translate(error) from error


def _expand(hydra: Hydra, cfg: DictConfig, overrides: Sequence[str]) -> list[list[str]]:
    """List the overrides of every job of a multirun, where Hydra's own sweeper makes them."""
    fixed = [item for item in overrides if item.lstrip("+~").startswith(("hydra.", "hydra/"))]
    swept = [item for item in overrides if item not in fixed]
    if cfg.hydra.sweeper.get("_target_", "").rpartition(".")[2] != "BasicSweeper":
        return [fixed]
    params = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    try:
        parsed = parser.parse_overrides([*params, *swept])
        [jobs] = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        raise _Translator(hydra, overrides).translate(error) from error
    return [[*fixed, *job] for job in jobs]


def _check_hydra(hydra: DictConfig) -> None:
    """Catch `hydra.launcher=x`, which assigns a text to a group, for `hydra/launcher=x`."""
    for group in ("launcher", "sweeper", "job_logging", "hydra_logging", "help"):
        value = hydra.get(group)
        if isinstance(value, str):
            hint = f"Options are chosen by hydra/{group}={value}"
            raise ConfigErrors([ConfigError(f"hydra.{group}", "a mapping of keys", value, hint)])


def _check_resume(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse to resume a search with other settings than its own."""
    if cfg.get("resume") is None:
        return
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if re.split(r"[./@]", key)[0] not in _KEPT_ON_RESUME:
            expected = (
                "nothing beside resume but tracking and executor: a search keeps its settings"
            )
            raise ConfigErrors([ConfigError(key, expected, value)])


class _Translator:
    """Turns what Hydra raises when it composes into a UserError in our form."""

    def __init__(self, hydra: Hydra, overrides: Sequence[str]) -> None:
        self._hydra = hydra
        self._overrides = overrides

    def translate(self, error: Exception) -> UserError:
        """Return the error to raise instead."""
        if isinstance(error, OverrideParseException):
            expected = "key=value as Hydra's grammar has it"
            reason = re.split(r"\nSee http", error.message)[0].strip().splitlines()[-1]
            hint = f"Quote it, or escape special characters: {reason.strip(' ^')}".rstrip(": ")
            return ConfigError(error.override.partition("=")[0], expected, error.override, hint)
        if isinstance(error, MissingConfigException):
            return self._missing(error)
        text = str(error)
        for pattern, method in (
            (r"Sweep parameters? '([^']+)'", self._sweep),
            (r"Could not override '([^']+)'", self._unknown),
            (r"Ambiguous value for argument '([^']+)'", self._sweep),
            (r"force-add of config groups is not supported: '([^']+)'", self._forced),
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

    def _options(self, group: str) -> list[str]:
        return list(self._hydra.config_loader.get_group_options(group))

    def _missing(self, error: MissingConfigException) -> UserError:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        if not group:
            return ConfigError("--config-name", "the name of a config file", option)
        options = self._options(group)
        near = difflib.get_close_matches(option, options, n=1, cutoff=0.5)
        hint = f"The nearest is {group}={near[0]}" if near else ""
        if group.startswith("experiment"):
            hint = hint or "A file is given by its path with its ending, experiment=<path>.yaml"
        group = group if options else group.split("/")[0]
        return ConfigError(
            group, f"one of {', '.join(options or self._options(group))}", option, hint
        )

    def _sweep(self, key: str, error: Exception) -> UserError:
        value = self._value(key)
        if key in self._hydra.config_loader.list_groups(""):
            hint = f"For one search each: pneumonia -m '{key}={value}'"
            return ConfigError(key, f"one of {', '.join(self._options(key))}", value, hint)
        quoted = value if "(" in value else f"choice({value})"
        hint = f"One search over them: '{key}=\"{quoted}\"'; one search each: -m '{key}={value}'"
        return ConfigError(key, "a single value or a quoted range", value, hint)

    def _unknown(self, key: str, error: Exception) -> UserError:
        group, _, rest = key.replace("/", ".").partition(".")
        value = self._value(key)
        options = self._options(group)
        for option in (value, rest):
            if option and option in options:
                hint = f"An option of the group is chosen by {group}={option}"
                return ConfigError(key, "a key of the config", value, hint)
        names = [*self._keys(), *config.MAPPINGS, "experiment"]
        hint = config.nearest(key, names) or f"See pneumonia --cfg job for the keys of {group}"
        return ConfigError(key, "a key of the config", value, hint)

    def _forced(self, key: str, error: Exception) -> UserError:
        hint = f"Options are chosen by {key}=<option>"
        return ConfigError(f"++{key}", "no ++ before a config group", self._value(key), hint)

    def _present(self, key: str, error: Exception) -> UserError:
        hint = f"It is there already: write {key}=... without the +"
        return ConfigError(f"+{key}", "a new key", self._value(key), hint)

    def _absent(self, key: str, error: Exception) -> UserError:
        return ConfigError(f"~{key}", "a key of the config", key, config.nearest(key, self._keys()))

    def _unmerged(self, key: str, error: Exception) -> UserError:
        cause = str(error.__cause__ or error).splitlines()[0].rstrip(".")
        hint = config.nearest(key, self._keys())
        return ConfigError(key, f"a value that fits ({cause})", self._value(key), hint)

    def _other(self, error: Exception) -> UserError:
        cause: Any = error.__cause__ if not str(error).strip() else error
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            reason = str(cause).splitlines()[0].rstrip(".")
            return ConfigError(str(cause.full_key), "a value", self._value(cause.full_key), reason)
        for group in self._hydra.config_loader.list_groups(""):
            if self._value(group) == "null" and group != "experiment":
                return ConfigError(group, f"one of {', '.join(self._options(group))}", "null")
        reason = " ".join(str(cause).split()).rstrip(".")
        return ConfigError("config", "files and overrides that fit together", reason)

    def _keys(self) -> list[str]:
        """List the keys of the config that the chosen options make, without other overrides."""
        loader = self._hydra.config_loader
        groups = [name for name in loader.list_groups("") if name != "hydra"]
        chosen = [item for item in self._overrides if item.partition("=")[0].lstrip("+") in groups]
        for overrides in (chosen, []):
            try:
                cfg = self._hydra.compose_config(NAME, list(overrides), RunMode.MULTIRUN)
            except (HydraException, OmegaConfBaseException, ValueError):
                continue
            return [path for path, _, _ in leaves(cfg)]
        return []

"""Composition of the config by Hydra, and what Hydra says of mistakes in our words.

Every override is composed and validated here before Hydra runs anything: Hydra makes its output
folder before it calls a job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia import config, history, schema
from pneumonia.errors import ConfigError, ConfigErrors, without_passwords
from pneumonia.space import GROUPS
from pneumonia.translation import Translator

NAME = "config"
VERSION_BASE = "1.3"
# Paths and patterns, which hold what Hydra's grammar wants quoted: spaces, umlauts, parentheses.
_TEXTS = frozenset(
    {
        *("dataset.path", "dataset.data_dir", "dataset.manual_dir", "dataset.patient_pattern"),
        *("dataset.positive", "features.folder", "model.weights"),
        *("tracking.uri", "tracking.artifacts", "tracking.experiment"),
    }
)


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


def check(
    overrides: Sequence[str], *, folder: str | None = None, multirun: bool = False
) -> list[DictConfig]:
    """Compose and validate the config, or every config of a multirun.

    Returns:
        The configs, Hydra's own part included.

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
        every = []
        for job in jobs:
            try:
                made = _compose(hydra, job, RunMode.RUN) if multirun else cfg
                if not _is_resumed(made, job):
                    config.validate(made)
                _check_executor(made)
                every.append(made)
            except ConfigErrors as found:
                errors |= {str(error): error for error in found.errors}
    if errors:
        raise ConfigErrors(list(errors.values()))
    return every


def prepare(overrides: Sequence[str]) -> list[str]:
    """Make overrides of what is easier to write.

    `experiment=some/file.yaml` becomes an option of the group, held in memory; `resume=last` sets
    `resume.search`, beside which there is `resume.fork`, and comes with the options of that search,
    so that what else is given fits it; conditions are added by force; paths are quoted.

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
        elif key.lstrip("+") == "resume" and equals:
            # Quoted, since an id may look like a number.
            quote = "'" if re.fullmatch(r"[0-9a-f]+", value) else ""
            made.append(f"resume.search={quote}{value}{quote}")
        elif key.lstrip("+") in _TEXTS and not _is_grammatical(override):
            # A shell takes the quotes away that were meant for Hydra.
            escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
            made.append(f"{key}='{escaped}'")
        else:
            made.append(override)
    return [*_options_of_resumed(made), *made]


def _options_of_resumed(overrides: Sequence[str]) -> Iterator[str]:
    """Yield the options of the search to go on with, but of the groups that are given."""
    given = dict(override.partition("=")[::2] for override in overrides)
    name = given.get("resume.search", "").strip("'") or (
        "last" if "resume.fork" in given else "null"
    )
    others = [key for key in given if not key.startswith("resume.")]
    if name == "null" or not others:
        return
    try:
        folder = history.find(name, Path("outputs"), overrides=overrides)
    except FileNotFoundError:
        return  # told later, as all that is wrong with it
    for group, option in history.choices(folder).items():
        if (
            group not in (*given, "experiment")
            and (find_conf() / group / f"{option}.yaml").exists()
        ):
            yield f"{group}={option}"


def _is_grammatical(override: str) -> bool:
    """Say whether Hydra's grammar takes an override as it is."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


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
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
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


def _check_executor(cfg: DictConfig) -> None:
    """Refuse to run what is planned: trials as Ray tasks."""
    if cfg.executor.get("_target_") == "pneumonia.executors.ray":
        hint = "Running trials as Ray tasks is planned, and not part of this version"
        raise ConfigErrors([ConfigError("executor", "local", "ray", hint)])


def _compose(hydra: Hydra, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    try:
        return hydra.compose_config(NAME, list(overrides), mode)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise Translator(hydra, overrides, NAME).translate(error) from error


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
        for item in parsed:
            if item.value_type == ValueType.INTERVAL_SWEEP:
                raise _endless(str(item.get_key_element()), str(item.get_value_string()))
        [jobs] = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        raise Translator(hydra, overrides, NAME).translate(error) from error
    return [[*fixed, *job] for job in jobs]


def _endless(key: str, value: str) -> ConfigError:
    hint = "range(1, 4) and choice(1, 2) have values for one search each"
    if key.split(".")[0] in GROUPS:
        hint = f"One search over it: '{key}=\"{value}\"'; {hint}"
    return ConfigError(key, "values for one search each, not an interval", value, hint)


def _check_hydra(hydra: DictConfig) -> None:
    """Catch `hydra.launcher=x`, which assigns a text to a group, for `hydra/launcher=x`."""
    for group in ("launcher", "sweeper", "job_logging", "hydra_logging", "help"):
        value = hydra.get(group)
        if isinstance(value, str):
            hint = f"Options are chosen by hydra/{group}={value}"
            raise ConfigErrors([ConfigError(f"hydra.{group}", "a mapping of keys", value, hint)])
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        value = OmegaConf.to_container(hydra)[key.split(".")[1]]["dir"]  # type: ignore[call-overload,index]
        if not str(value or "").strip():
            raise ConfigErrors([ConfigError(key, "a folder", value)])
    for key in ("run.dir", "sweep.dir", "sweep.subdir"):
        value = str(OmegaConf.select(hydra, key, throw_on_resolution_failure=False))
        if without_passwords(value) != value:
            expected = "a folder whose name holds no password"
            raise ConfigErrors([ConfigError(f"hydra.{key}", expected, value)])


def _is_resumed(cfg: DictConfig, overrides: Sequence[str]) -> bool:
    """Tell whether a search is to be gone on with: its own config is checked when it is read.

    Raises:
        ConfigErrors: For a preset beside `resume`, which would stand for keys that nobody named.
    """
    keys = ("resume.search", "resume.fork")
    search, fork = (OmegaConf.select(cfg, key) for key in keys)
    is_sound = schema.KEYS[keys[0]].accepts(search) and schema.KEYS[keys[1]].accepts(fork)
    if not is_sound or (search is None and not fork):
        return False
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key.partition("@")[0] == "experiment":
            expected = "no preset beside resume: a search keeps its settings"
            hint = "Single keys and groups may be given, and are compared with its own"
            raise ConfigErrors([ConfigError(key, expected, value, hint)])
    return True

"""Composition of the config by Hydra, and what Hydra says of mistakes in our words.

Every override is composed and validated here before Hydra runs anything: Hydra makes its output
folder before it calls a job.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep, ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pneumonia.config import compatibility, extras, hydra_internals, schema, validate
from pneumonia.config.constraints import EXISTING
from pneumonia.config.hydra_errors import Translator
from pneumonia.config.hydra_internals import CONFIG_NAME, Hydra
from pneumonia.config.presets import FILES, check_files, give_way
from pneumonia.config.search_space import GROUPS
from pneumonia.config.suggestions import quoted
from pneumonia.errors import ConfigError, ConfigErrors, without_passwords
from pneumonia.shell import as_path

_PARAMS = "hydra.sweeper.params"
_YAML = (".yaml", ".yml")
Chosen = Callable[[str, Sequence[str]], Mapping[str, str]]

# The folder of a search is named by it.
OmegaConf.register_new_resolver("pid", os.getpid, use_cache=True, replace=True)


def find_conf() -> Path:
    """Return the folder of the config files: the wheel's own, or the checkout's."""
    package = Path(__file__).resolve().parents[1]
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
    """Compose and validate the config, or every config of a multirun, as `compose` does.

    Raises:
        UserError: Naming all that is wrong.
    """
    multirun = multirun or "hydra.mode=MULTIRUN" in overrides
    errors: dict[str, ConfigError] = {}
    every: list[DictConfig] = []
    with _hydra(folder) as hydra:
        cfg = _compose(hydra, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
        _check_hydra(hydra, cfg.hydra, overrides)
        if multirun and cfg.hydra.mode == RunMode.RUN:
            raise ConfigError("hydra.mode", "no -m beside it", "RUN")
        multirun = multirun or cfg.hydra.mode == RunMode.MULTIRUN
        for job in _expand(hydra, cfg, overrides) if multirun else [list(overrides)]:
            try:
                made = _compose(hydra, job, RunMode.RUN) if multirun else cfg
                if multirun:
                    _check_job(hydra, made, job, every)
                if not _is_resumed(made, job):
                    validate.validate(made)
                extras.check(made)
                validate.check_emptied(made, job)
                every.append(made)
            except ConfigErrors as found:
                errors |= {str(error): error for error in found.errors}
    if errors:
        raise ConfigErrors(list(errors.values()))
    compatibility.check_jobs(every)
    return every


def prepare(overrides: Sequence[str], *, chosen: Chosen = lambda name, given: {}) -> list[str]:
    """Make overrides of what is easier to write.

    `experiment=some/file.yaml` becomes an option of the group, held in memory; `resume=last` sets
    `resume.search`, beside which there is `resume.fork`, and comes with the options of that search,
    so that what else is given fits it; conditions are added by force; paths are quoted. What a
    trial's preset says of a group gives way to an option of it that is named beside.

    Args:
        overrides: As they were typed.
        chosen: Returns the option of each group that a search to go on with was made with, by
            the search's name and the overrides.

    Raises:
        ConfigError: If there is no such file.
    """
    left = list(_without_params(overrides))
    named = {override.partition("=")[0].lstrip("+") for override in left}
    made = [_prepared(override, named) for override in left]
    return [*_options_of_resumed(made, chosen), *made]


def _prepared(override: str, named: Set[str]) -> str:
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if name == "experiment":
        listed = re.sub(r"\s*choice\((.*)\)\s*", r"\1", value).split(",")
        names = [one.strip(" '\"") for one in ([value] if EXISTING.accepts(value) else listed)]
        if all(names) and any(one.endswith(_YAML) for one in names):
            return f"{key}={','.join(_add_experiment(one, named) for one in names)}"
    if name == "when" and equals:
        return f"++{override}"  # the empty mapping is closed to new keys, except by force
    if name == "resume" and equals:
        # Quoted, since an id may look like a number, and a folder may hold anything.
        is_text = re.fullmatch(r"[0-9a-f]+", value) or "/" in value
        return f"resume.search={quoted(value) if is_text else value}"
    if name in ("hydra.run.dir", "hydra.sweep.dir") and value.startswith("~"):
        return f"{key}={quoted(str(as_path(value)))}"  # Hydra would take it for a name
    if name in schema.TEXTS and "${" in value and EXISTING.accepts(value):
        raise ConfigError(key, "a path without ${, which leads to another value", value)
    if name in schema.TEXTS and _is_text(override):
        return f"{key}={quoted(value)}"  # a shell takes the quotes away that were meant for Hydra
    return override


def _options_of_resumed(overrides: Sequence[str], chosen: Chosen) -> Iterator[str]:
    """Yield the options of the search to go on with, but of the groups that are given."""
    given = dict(override.partition("=")[::2] for override in overrides)
    name = given.get("resume.search", "last" if "resume.fork" in given else "").strip("'\"")
    if name in ("", "null") or all(key.startswith("resume.") for key in given):
        return
    for group, option in chosen(name, overrides).items():
        is_ours = (find_conf() / group / f"{option}.yaml").exists()
        if is_ours and group not in (*given, "experiment"):
            yield f"{group}={option}"


def _without_params(overrides: Sequence[str]) -> Iterator[str]:
    """Yield the sweeper's params as overrides, which Hydra makes of them later.

    Its own way to set them, with a dot in the name of a key, ends in an AttributeError.
    """
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        parsed = _parse(override) if f"{key}.".startswith(f"{_PARAMS}.") else None
        if parsed is None or parsed.value() is None or parsed.is_delete():
            yield override
        elif parsed.is_sweep_override():
            yield f"{key.removeprefix(f'{_PARAMS}.')}={override.partition('=')[2]}"
        else:
            yield from _params(key.removeprefix(_PARAMS).removeprefix("."), parsed.value())


def _params(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _params(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, Sweep):
        raise ConfigError(_PARAMS, f"values in quotes, {{{key}: '1,2'}}", f"{key}: without quotes")
    else:
        yield f"{key or _PARAMS}={value if isinstance(value, str) else json.dumps(value)}"


def _is_text(override: str) -> bool:
    """Say whether what stands after the equals sign is meant as it is, whatever the grammar says.

    A path that exists is; and what Hydra's grammar does not take, or takes for a number.
    """
    value, parsed = override.partition("=")[2], _parse(override)
    if parsed is None:
        return True
    said = None if parsed.is_sweep_override() else parsed.value()
    return isinstance(said, int | float) or (said != value and EXISTING.accepts(value))


def _parse(override: str) -> Override | None:
    """Read an override by Hydra's grammar, if it takes it."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _add_experiment(value: str, named: Set[str]) -> str:
    """Store a file as an option of the group experiment; return the option's name."""
    if not value.endswith(_YAML):
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
    if not isinstance(node, DictConfig) or not node:  # an empty one would run the defaults
        raise ConfigError("experiment", "a YAML file that holds a mapping", value)
    give_way(node, named)
    # Different files need different names, and none that a preset has.
    name = f"file_{re.sub(r'[^A-Za-z0-9]+', '_', str(file.resolve().with_suffix(''))).strip('_')}"
    FILES[name] = value
    ConfigStore.instance().store(name, node, group="experiment", package="_global_")
    return name


def _hydra(folder: str | None) -> AbstractContextManager[Hydra]:
    further = None if folder is None else Path(folder).resolve()
    if further and not further.is_dir():
        raise ConfigError("--config-dir", "an existing folder", folder)
    return hydra_internals.composer(find_conf(), further)


def _compose(hydra: Hydra, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "provider=hydra.searchpath")
            check_files(hydra, overrides)
            return hydra.compose_config(CONFIG_NAME, list(overrides), mode)
    except UserWarning as error:
        place = str(error).partition("path=")[2].removesuffix(" is not available.")
        expected = "folders that exist, as file://<path> or pkg://<package>"
        raise ConfigError("hydra.searchpath", expected, place) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, KeyError) as error:
        raise Translator(hydra, overrides).translate(error) from error


def _expand(hydra: Hydra, cfg: DictConfig, overrides: Sequence[str]) -> list[list[str]]:
    """List the overrides of every job of a multirun.

    Another sweeper than Hydra's own makes the jobs as it goes: one stands for them all, with the
    first of the values that each override names.
    """
    fixed = [item for item in overrides if item.lstrip("+~").startswith(("hydra.", "hydra/"))]
    swept = [item for item in overrides if item not in fixed]
    is_ours = not hydra_internals.has_own_sweeper(cfg)
    own = cfg.hydra.sweeper if is_ours else {}
    params, size = dict(own.get("params") or {}), own.get("max_batch_size")
    for key, value in params.items():
        if key in validate.MAPPINGS and str(value).startswith("{"):
            expected = "the whole key before its values, as in dense.units: 64,128"
            raise ConfigError(f"{_PARAMS}.{key}", expected, value)
    if size is not None and size < 1:
        raise ConfigError("hydra.sweeper.max_batch_size", "a positive integer or null", size)
    given = [*(f"{key}={value}" for key, value in params.items()), *swept]
    try:
        parser = OverridesParser.create(config_loader=hydra.config_loader)
        parsed = parser.parse_overrides(given)
        if not is_ours:
            return [[*fixed, *map(_first_of, parsed)]]
        for item in parsed:
            if item.value_type == ValueType.INTERVAL_SWEEP:
                raise _endless(str(item.get_key_element()), str(item.get_value_string()))
        return [[*fixed, *job] for job in hydra_internals.jobs(parsed)]
    except HydraException as error:
        raise Translator(hydra, [*given, *fixed]).translate(error) from error


def _first_of(parsed: Override) -> str:
    """Return an override without its sweep: with the first value, or the low end of an interval."""
    key = parsed.get_key_element()
    if not parsed.is_sweep_override():
        return str(parsed.input_line)
    if parsed.is_discrete_sweep():
        return f"{key}={next(parsed.sweep_string_iterator())}"
    return f"{key}={parsed.value().start}"  # type: ignore[union-attr]


def _endless(key: str, value: str) -> ConfigError:
    hint = "range(1, 4) and choice(1, 2) have values for one search each"
    if key.split(".")[0] in GROUPS and key not in schema.OF_PROCESS:
        hint = f"One search over it: '{key}=\"{value}\"'; {hint}"
    return ConfigError(key, "values for one search each, not an interval", value, hint)


def _check_job(
    hydra: Hydra, cfg: DictConfig, overrides: Sequence[str], before: Sequence[DictConfig]
) -> None:
    """Check what Hydra is told of one job of a multirun, as those before it were."""
    with open_dict(cfg):  # as a launcher does
        cfg.hydra.job.num, cfg.hydra.job.id = len(before), f"job {len(before)}"
    _check_hydra(hydra, cfg.hydra, overrides)
    place, expected = Path(cfg.hydra.sweep.subdir), ""
    if place.is_absolute() or ".." in place.parts:
        expected = "a folder within that of the multirun"
    elif any(place == Path(other.hydra.sweep.subdir) for other in before):
        expected = "a folder of its own for every search, as ${hydra.job.num} is"
    if expected:
        raise ConfigErrors([ConfigError("hydra.sweep.subdir", expected, str(place))])
    uri = str(cfg.tracking.get("uri"))
    if "submitit" in str(cfg.hydra.launcher.get("_target_")) and without_passwords(uri) != uri:
        expected = "no password beside a launcher that writes the config to a file"
        hint = "Give the whole address as MLFLOW_TRACKING_URI"
        raise ConfigErrors([ConfigError("tracking.uri", expected, uri, hint)])


def _check_hydra(hydra: Hydra, cfg: DictConfig, overrides: Sequence[str]) -> None:
    try:
        compatibility.check_hydra(cfg)
        if not OmegaConf.is_missing(cfg.job, "num"):
            _ = cfg.sweep.subdir  # which a job's number may be part of
    except OmegaConfBaseException as error:
        raise Translator(hydra, overrides).translate(error) from error


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

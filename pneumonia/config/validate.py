"""Validation of a composed config, and its flat form: all that is said before TensorFlow is there.

Every mistake is collected, so that a user hears of all of them at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumonia.config import compatibility, schema, signatures, sources
from pneumonia.config.constraints import Check
from pneumonia.config.ranges import Range, looks_like_range, parse
from pneumonia.config.search_space import GROUPS, Space, collapse, find, leaves, plain
from pneumonia.config.suggestions import (
    closest,
    misspelt_function,
    nearest,
    range_meant,
    value_meant,
)
from pneumonia.errors import ConfigError, ConfigErrors, without_passwords

_PLAIN = ("objective", "budget", "features", "threshold", "winner", "resume")
MAPPINGS = (*GROUPS, "tuner", "tracking", "executor", "callbacks", *_PLAIN)
"""The keys at the top that hold a mapping: the config groups and six more."""

_ROOTS = (*MAPPINGS, "seed", "progress", "plan", "when")
_OPTIONAL_MAPPING = "training.early_stopping"

Leaf = tuple[str, Any, Any]
Checks = dict[str, Check]


def validate(cfg: DictConfig) -> Space:
    """Check a composed config as far as it goes without importing what it names.

    Args:
        cfg: The composed config, unresolved.

    Returns:
        The space of the ranges in it.

    Raises:
        ConfigErrors: With everything that is wrong.
    """
    tree = plain(cfg)
    errors = list(_check_roots(tree))
    if errors:
        raise ConfigErrors(errors)
    space = Space((), {}, ())
    try:
        space = find(cfg)
    except ConfigErrors as found:
        errors.extend(found.errors)
    named = {error.key for error in errors}
    known = [leaf for leaf in leaves(cfg) if leaf[0] not in named]
    checks = dict(schema.KEYS)
    for key, section in _sections(tree):
        errors.extend(_check_section(key, section, space, checks))
    errors.extend(_check_leaves(known, tree, checks))
    errors.extend(compatibility.find(tree, checks))
    if not errors:
        try:
            collapse(cfg, space.start())  # what cannot be resolved comes to light
        except ConfigError as error:
            errors.append(error)
    if errors:
        told = {error.key for error in errors}  # what is wrong as a whole is told once
        alone = (error for error in errors if error.key.rpartition(".")[0] not in told)
        raise ConfigErrors(list({str(error): error for error in alone}.values()))
    return space


def check_emptied(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse overrides such as `training.metrics={}`, which Hydra merges: they take no key out.

    Args:
        cfg: What was composed with them.
        overrides: As on the command line.

    Raises:
        ConfigErrors: With all of them.
    """
    errors = []
    for key, _, value in (override.lstrip("+").partition("=") for override in overrides):
        left = OmegaConf.select(cfg, key) if "".join(value.split()) == "{}" else None
        if isinstance(left, DictConfig) and left and not key.startswith("hydra"):
            names = [str(one) for one in left]
            taken = next((one for one in names if f"val_{one}" != cfg.objective.name), names[-1])
            hint = f"Keys are taken out by ~{key}.{taken}"
            if key == "when" or (key in schema.KEYS and schema.KEYS[key].accepts(None)):
                hint = f"Write {key}=null for none"
            elif key in (*schema.CLOSED, *schema.SECTIONS):
                hint = ""  # most of their keys have to be there
            errors.append(ConfigError(key, "keys to set, as {} takes none out", {}, hint))
    if errors:
        raise ConfigErrors(errors)


def checks_of(cfg: DictConfig) -> Checks:
    """Return the checks of a config's keys, whatever is wrong with their values."""
    tree, checks = plain(cfg), dict(schema.KEYS)
    if not list(_check_roots(tree)):
        for key, section in _sections(tree):
            list(_check_section(key, section, Space((), {}, ()), checks))
    return checks


def flatten(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the config by dotted path, with scalars only: a list becomes its JSON text.

    A range stays the text that it is. What holds nothing is left out, and so is what may be secret
    in an address.
    """
    made = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    found = {}
    for path, _, value in leaves(made):
        if value != {}:
            text = json.dumps(value) if isinstance(value, list) else value
            found[path] = without_passwords(text) if isinstance(text, str) else text
    return found


def _check_roots(tree: dict[str, Any]) -> Iterator[ConfigError]:
    """Check that what the config holds at its top is all there, and nothing else."""
    for key, value in tree.items():
        if key not in _ROOTS:
            hint = nearest(str(key), _ROOTS)
            if key == "experiment":
                hint = "The keys of a preset stand at the top of its file"
            yield ConfigError(key, "a key of the config", value, hint)
        elif key in MAPPINGS and not isinstance(value, dict):
            hint = f"Options are chosen by {key}=<option>, keys set by {key}.<key>=<value>"
            if key in _PLAIN:
                hint = "Write objective.name=..." if key == "objective" else ""
            yield ConfigError(key, "a mapping of keys", value, hint)
    for key in _ROOTS:
        if key not in tree and key != "callbacks":  # of an empty list of options
            yield ConfigError(key, "a value", None, "It is missing from the config")


def _sections(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every mapping that has to hold a `_target_`."""
    for key in schema.SECTIONS:
        head, _, rest = key.partition(".")
        yield key, tree[head].get(rest) if rest else tree[head]
    metrics = tree["training"].get("metrics")
    if isinstance(metrics, dict):
        for name, section in metrics.items():
            yield f"training.metrics.{name}", section
    for name, section in (tree.get("callbacks") or {}).items():
        if section is not None:
            yield f"callbacks.{name}", section


def _check_section(
    key: str, section: object, space: Space, checks: Checks
) -> Iterator[ConfigError]:
    """Check a section's target and the names of its arguments; note the checks of their values."""
    path = f"{key}._target_"
    if isinstance(section, str | int | float):
        yield ConfigError(key, "a mapping with `_target_`", section, _hint_at_target(key, section))
        return
    if not isinstance(section, dict) or "_target_" not in section:
        yield ConfigError(path, "the dotted path of a function or class", None)
        return
    options = next((item.values for item in space if item.path == path), (section["_target_"],))
    for target in options:
        if looks_like_range(target):
            continue
        try:
            signature = signatures.inspect(path, target)
        except ConfigError as error:
            yield error
            continue
        if signature:
            for name, check in signature.checks.items():
                checks[f"{key}.{name}"] = schema.check_of(f"{key}.{name}", target, check)
            yield from _check_names(key, section, signature, _excluded(space, path, target))


def _hint_at_target(key: str, name: object) -> str:
    """Return a hint at the class that a plain name was meant for."""
    module = "keras.losses" if key == "training.loss" else "keras.metrics"
    classes = [one for one in sources.names(module) if one[0].isupper()]
    found = closest(str(name).replace("_", ""), classes)
    return f"Write {key}._target_={module}.{found}" if found else ""


def _excluded(space: Space, path: str, target: object) -> set[str]:
    """Return the keys whose conditions leave them out when the section's target is this one."""
    conditions = {item.path: item.conditions for item in space} | dict(space.conditional)
    return set(space.inactive) | {
        key
        for key, rules in conditions.items()
        if any(rule.parent == path and not rule.holds(target) for rule in rules)  # type: ignore[arg-type]
    }


def _check_names(
    key: str, section: dict[str, Any], signature: signatures.Signature, excluded: set[str]
) -> Iterator[ConfigError]:
    # A head takes the shape first, a metric that is a function what it measures.
    taken = 1 if key == "dense" else 2 if section.get("_partial_") else 0
    inputs, names = tuple(signature.checks)[:taken], tuple(signature.checks)[taken:]
    beside = schema.SECTIONS.get(key, ())
    own = ("_target_", "_partial_") if key.startswith("training.metrics.") else ("_target_",)
    for name, value in section.items():
        path = f"{key}.{name}"
        if path in schema.GIVEN or name in inputs:
            hint = schema.GIVEN.get(path, "")
            yield ConfigError(path, "nothing, as the program decides it", value, hint)
        elif not (signature.is_open or path in excluded or name in (*own, *names, *beside)):
            free = [f"{key}.{other}" for other in (*names, *beside)]
            near = nearest(path, [other for other in free if other not in schema.GIVEN])
            expected = f"an argument that `{section['_target_']}` takes"
            yield ConfigError(path, expected, value, "" if str(name).startswith("_") else near)
    for name in sorted(signature.required - set(section)):
        if f"{key}.{name}" not in schema.GIVEN and not section.get("_partial_"):
            yield ConfigError(f"{key}.{name}", "a value", None, "This argument has no default")


def _check_leaves(known: list[Leaf], tree: dict[str, Any], checks: Checks) -> Iterator[ConfigError]:
    """Check every value, and every value of a range, against its key."""
    yield from _check_mappings(tree, checks)
    for path, raw, value in known:
        if path.startswith("when"):
            continue
        if value == "???":
            yield ConfigError(path, "a value", value, f"Give it with {path}=...")
        elif (isinstance(value, str) and "${" in value) or _is_told_of(path, raw, checks):
            continue  # what cannot be resolved: the collapse says why
        elif unknown := _unknown(path, value):
            yield unknown
        else:
            check = checks.get(path) or schema.check_of(path)
            yield from _check_value(path, value, check, str(raw))


def _check_mappings(tree: dict[str, Any], checks: Checks, above: str = "") -> Iterator[ConfigError]:
    """Check that no mapping stands where a single value belongs."""
    for key, value in tree.items():
        path = f"{above}{key}"
        if not isinstance(value, dict) or path in ("when", _OPTIONAL_MAPPING):
            continue
        if check := checks.get(path):
            if not check.accepts(value):
                yield from _check_value(path, value, check)
        else:
            yield from _check_mappings(value, checks, f"{path}.")


def _is_told_of(path: str, raw: object, checks: Checks) -> bool:
    """Say whether a value is that of another key with the same check: one message is enough."""
    other = raw[2:-1] if isinstance(raw, str) and raw.startswith("${") else ""
    return path in checks and checks.get(other) is checks[path]


def _unknown(path: str, value: object) -> ConfigError | None:
    """Return the error of a key that a mapping with a fixed set of keys does not have."""
    above, group = path.rpartition(".")[0], path.partition(".")[0]
    is_section = path.startswith(("training.loss", "training.metrics"))
    is_closed = path.startswith(tuple(f"{key}." for key in schema.CLOSED))
    if path in schema.KEYS or is_section or not is_closed:
        return None
    names = [key for key in schema.KEYS if key.startswith(f"{group}.")]
    hint = schema.MOVED.get(path) or nearest(path, names)
    return ConfigError(path, f"a key of `{above}`", value, hint)


def _check_value(path: str, value: Any, check: Check, raw: str = "") -> Iterator[ConfigError]:
    can_vary = path.split(".")[0] in GROUPS and path not in schema.OF_PROCESS
    if looks_like_range(value):
        if can_vary:
            yield from _check_range(parse(path, value), check, raw)
        else:
            searched = f"{', '.join(GROUPS[:-1])} and {GROUPS[-1]}"
            hint = schema.OF_PROCESS.get(path, f"Ranges are for {searched} only")
            yield ConfigError(path, check.expected, value, hint)
        return
    if isinstance(value, list) and any(map(looks_like_range, value)):
        yield ConfigError(path, "a range as the whole value, not inside a list", value)
    can_vary = can_vary and not check.is_list
    is_misspelt = can_vary and not check.is_path and misspelt_function(value) is not None
    if not is_misspelt and check.accepts(value):
        return
    meant = range_meant(value, is_whole=check.is_whole) if can_vary else None
    if can_vary and not check.is_path:
        meant = meant or _listed(value, check)
    meant = meant or value_meant(value, check.names(value), check.accepts)
    expected = f"{check.expected.replace(' or ', ', ')} or a range" if can_vary else check.expected
    yield ConfigError(path, expected, value, f"Did you mean {meant}?" if meant else "")


def _listed(value: object, check: Check) -> str | None:
    """Return the choice that `64,128` or `[64, 128]` was probably meant as."""
    if isinstance(value, list) and value:
        return f"choice({', '.join(map(str, value))})"
    if not isinstance(value, str) or "," not in value:
        return None
    # A decimal comma, as in 0,5, is no list of 0 and 5.
    is_decimal = re.fullmatch(r"\d*,\d+", value) and not check.accepts(int(value.split(",")[1]))
    return None if is_decimal else f"choice({value})"


def _check_range(item: Range, check: Check, text: str) -> Iterator[ConfigError]:
    """Check all the values of a choice, or the ends of an interval."""
    wrong = [value for value in item.extremes if not check.accepts(value)]
    if not wrong:
        return
    hint = f"The range is {text}"
    if item.kind == "float" and check.is_whole:
        hint = f"Write int({text})" if text.startswith("interval") else f"{hint}: use int(interval)"
    yield ConfigError(item.path, f"a range whose every value is {check.expected}", wrong[0], hint)

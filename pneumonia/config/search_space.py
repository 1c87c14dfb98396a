"""The space of a search: the ranges in a config, KerasTuner's hyperparameters, and back.

A hyperparameter is an argument whose value is a range. A trial is the config with its ranges
collapsed to values. Nothing here imports KerasTuner before `Space.hyperparameters` is called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia.config.ranges import Condition, Range, Scalar, looks_like_range, parse
from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError, ConfigErrors

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

GROUPS = ("dataset", "augment", "model", "dense", "optimizer", "training")
"""The groups whose values may be ranges."""

Tree = dict[Any, Any]
Rules = dict[str, list[Scalar]]


@dataclass(frozen=True, slots=True)
class Space:
    """All that a search can vary; it holds no values and draws none.

    Attributes:
        ranges: The hyperparameters, parents before children, otherwise in the config's order.
        conditional: Conditions of keys that are no ranges but exist under conditions only.
        inactive: Keys that never exist, because a fixed parent has another value.
    """

    ranges: tuple[Range, ...]
    conditional: Mapping[str, tuple[Condition, ...]]
    inactive: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ranges)

    def __iter__(self) -> Iterator[Range]:
        return iter(self.ranges)

    def size(self) -> float:
        """Return the number of combinations, infinite if an interval of floats is among them."""
        return _size(self.ranges, {})

    def start(self) -> dict[str, Scalar]:
        """Return the values to start from, of the hyperparameters that exist with them."""
        values: dict[str, Scalar] = {}
        for item in self.ranges:
            if _holds(item.conditions, values):
                values[item.path] = item.start
        return values

    def largest(self) -> dict[str, Scalar]:
        """Return the start values, with every number as large as it can be."""
        values = self.start()
        for item in self.ranges:
            numbers = [value for value in item.extremes if type(value) in (int, float)]
            if item.path in values and numbers:
                values[item.path] = max(numbers)  # type: ignore[type-var]
        return values

    def given_start(self) -> dict[str, Scalar]:
        """Return the start values that a tag `default:` gives."""
        given = {item.path for item in self.ranges if item.is_start_given}
        return {path: value for path, value in self.start().items() if path in given}

    def hyperparameters(self) -> HyperParameters:
        """Return the space as KerasTuner holds it, at its start values."""
        from keras_tuner import HyperParameters

        found = HyperParameters()
        parents = {item.path: item for item in self.ranges}
        # Not through conditional_scope, which knows neither two parents nor a parent's parent.
        found.merge([item.hyperparameter(parents) for item in self.ranges])
        return found

    def encode(self, values: Mapping[str, Scalar]) -> dict[str, Any]:
        """Turn values into what KerasTuner's `HyperParameters.values` holds."""
        return {item.path: item.encode(values[item.path]) for item in self if item.path in values}

    def decode(self, values: Mapping[str, Any]) -> dict[str, Scalar]:
        """Turn KerasTuner's `HyperParameters.values` into values, of the right types."""
        return {item.path: item.decode(values[item.path]) for item in self if item.path in values}

    def absent(self, values: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Return the keys that do not exist in a trial with these values."""
        ranges = (item.path for item in self.ranges if not _holds(item.conditions, values))
        fixed = (path for path, rules in self.conditional.items() if not _holds(rules, values))
        return (*self.inactive, *ranges, *fixed)


def find(cfg: DictConfig) -> Space:
    """Find the ranges in a composed config, unresolved.

    Raises:
        ConfigErrors: Naming every range that cannot be read and every condition that cannot hold.
    """
    errors: list[ConfigError] = []
    ranges: dict[str, Range] = {}
    fixed: dict[str, Scalar] = {}
    for path, value, resolved in leaves(cfg):
        # An interpolation to a range is no range of its own: it follows the one it names.
        if path.split(".")[0] in GROUPS and looks_like_range(value):
            try:
                ranges[path] = parse(path, resolved)
            except ConfigError as error:
                errors.append(error)
        else:
            fixed[path] = resolved
    conditions = _Conditions(ranges, fixed).read(cfg.get("when"), errors)
    if errors:
        raise ConfigErrors(errors)
    return _space(ranges, conditions)


def collapse(cfg: DictConfig, values: Mapping[str, Scalar] | None = None) -> Tree:
    """Return the config of one trial: plain values, resolved, without ranges.

    Interpolations are resolved last, so that one to a range follows the trial's value. Keys whose
    conditions do not hold are left out.

    Args:
        cfg: The composed config, unresolved.
        values: A value for every hyperparameter that exists with them, as `Space.decode` returns.

    Raises:
        ConfigError: If a value is missing, impossible, or an interpolation cannot be resolved.
    """
    space, values, tree = find(cfg), dict(values or {}), plain(cfg)
    absent = space.absent(values)
    for item in space:
        if item.path not in absent:
            value = values.get(item.path)
            if item.path not in values or not item.contains(value):
                raise ConfigError(item.path, f"a value of {item}", value)
            holder, key = _holder(tree, item.path)
            holder[key] = value
    for path in absent:
        holder, key = _holder(tree, path)
        del holder[key]
    for path in sorted(set(values) - {item.path for item in space}):
        raise ConfigError(path, "a hyperparameter of this config", values[path])
    return _resolve(tree)


def leaves(cfg: DictConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted path of every key that holds no mapping, its raw and its resolved value.

    What cannot be resolved stays raw: `collapse` complains about it.
    """
    for path, value in _walk(plain(cfg), ""):
        resolved = value
        if isinstance(value, str) and "${" in value:
            with contextlib.suppress(OmegaConfBaseException):
                resolved = OmegaConf.select(cfg, path)
                if OmegaConf.is_config(resolved):
                    resolved = OmegaConf.to_container(resolved)
        yield path, value, resolved


def conditions_beyond(group: str, when: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the conditions of keys that are not in a group."""
    return {key: rules for key, rules in (when or {}).items() if not key.startswith(f"{group}.")}


def plain(cfg: DictConfig) -> Tree:
    """Return the unresolved config as plain mappings, without Hydra's own part."""
    tree: Tree = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    return {key: value for key, value in tree.items() if key != "hydra"}


def _walk(tree: Tree, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _resolve(tree: Tree) -> Tree:
    """Resolve interpolations; complain about the first value that is missing."""
    try:
        made = OmegaConf.create(tree)
        resolved = OmegaConf.to_container(made, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        cause = str(error).splitlines()[0].rstrip(".")
        key = str(error.full_key or "config")
        raws = dict(_walk(tree, ""))
        raw = raws.get(key, "???")
        # The key that is wrong, not another one that follows it.
        while (name := str(raw)[2:-1]) in raws and raw == f"${{{name}}}":
            key, raw = name, raws.pop(name)
        raise ConfigError(key, "a value that can be resolved", raw, cause) from error
    return resolved  # type: ignore[return-value]


def _space(ranges: dict[str, Range], conditions: dict[str, tuple[Condition, ...] | None]) -> Space:
    """Put ranges and conditions together; conditions None can never hold."""
    never = tuple(path for path, rules in conditions.items() if rules is None)
    active = [
        replace(item, conditions=conditions.get(path) or ())
        for path, item in ranges.items()
        if path not in never
    ]
    # A child's conditions include its parents': the more conditions, the deeper.
    active.sort(key=lambda item: len(item.conditions))
    fixed = {path: rules for path, rules in conditions.items() if rules and path not in ranges}
    return Space(tuple(active), fixed, never)


class _Conditions:
    """Reads `when`; knows which keys are ranges and which are fixed."""

    def __init__(self, ranges: dict[str, Range], fixed: dict[str, Scalar]) -> None:
        self._ranges = ranges
        self._fixed = fixed

    def read(
        self, when: object, errors: list[ConfigError]
    ) -> dict[str, tuple[Condition, ...] | None]:
        """Return the conditions of every child, None where they can never hold."""
        tree = OmegaConf.to_container(when) if isinstance(when, DictConfig) else when or {}
        rules: dict[str, Rules] = {}
        found: dict[str, tuple[Condition, ...] | None] = {}
        if not isinstance(tree, dict):
            errors.append(ConfigError("when", "a mapping {child: {parent: [values]}}", tree))
            return {}
        for child, parents in tree.items():
            try:
                rules[str(child)] = dict(self._parents(str(child), parents))
            except ConfigError as error:
                errors.append(error)
        for child in rules:
            try:
                found[child] = self._chain(child, rules, ())
            except ConfigError as error:
                errors.append(error)
        return found

    def _parents(self, child: str, parents: object) -> Iterator[tuple[str, list[Scalar]]]:
        """Check one entry of `when`; yield the values of each parent."""
        key = f"when.{child}"
        self._check_known(key, child)
        if not isinstance(parents, dict) or not parents:
            raise ConfigError(key, "a mapping {parent: [values]}", parents)
        for parent, values in parents.items():
            listed = values if isinstance(values, list) else [values]
            self._check_parent(key, str(parent), listed)
            yield str(parent), listed

    def _check_known(self, key: str, path: str) -> None:
        names = [*self._ranges, *self._fixed]
        if path not in names:
            expected = "the full path of a hyperparameter or argument"
            raise ConfigError(key, expected, path, nearest(path, names))

    def _check_parent(self, key: str, parent: str, values: Sequence[object]) -> None:
        self._check_known(key, parent)
        if not values:
            raise ConfigError(f"{key}.{parent}", "a list of values that is not empty", values)
        if looks_like_range(self._fixed.get(parent)):
            raise ConfigError(key, "a range itself, not an interpolation to one", parent)
        item = self._ranges.get(parent)
        # A choice of names may have been narrowed on the command line: such a condition does not
        # hold then.
        has_names = item and any(isinstance(value, str) for value in item.values)
        for value in values if item else ():
            if not item.contains(value) and not (has_names and isinstance(value, str)):  # type: ignore[union-attr]
                raise ConfigError(f"{key}.{parent}", f"values of {item}", value)

    def _chain(
        self, child: str, rules: dict[str, Rules], above: tuple[str, ...]
    ) -> tuple[Condition, ...] | None:
        """Return the conditions of a child and of its parents; None if they can never hold."""
        if child in above:
            circle = " -> ".join((*above, child))
            raise ConfigError("when", "conditions without a circle", circle)
        found: dict[Condition, None] = {}
        possible = True
        for parent, values in rules.get(child, {}).items():
            item = self._ranges.get(parent)
            kept = values if item is None else [value for value in values if item.contains(value)]
            rule = Condition(parent, tuple(kept))
            higher = self._chain(parent, rules, (*above, child))
            is_never = parent in self._fixed and not rule.holds(self._fixed[parent])
            possible = possible and bool(kept) and higher is not None and not is_never
            found.update(dict.fromkeys(higher or ()))
            if item is not None:
                found[rule] = None
        return tuple(found) if possible else None


def _holds(conditions: Sequence[Condition], values: Mapping[str, Scalar]) -> bool:
    return all(rule.parent in values and rule.holds(values[rule.parent]) for rule in conditions)


def _size(ranges: Sequence[Range], values: dict[str, Scalar]) -> float:
    """Count the combinations of the remaining ranges, given the parents' values so far."""
    if not ranges:
        return 1
    first, rest = ranges[0], ranges[1:]
    if not _holds(first.conditions, values):
        return _size(rest, values)
    rules = [rule for item in rest for rule in item.conditions if rule.parent == first.path]
    if not rules:
        return first.size * _size(rest, values)
    # By type too, since true equals 1.
    named = {(isinstance(value, bool), value): value for rule in rules for value in rule.values}
    counted = sum(_size(rest, {**values, first.path: value}) for value in named.values())
    others = first.size - len(named)
    # Without a value, no condition on it holds: so it is with all the values none names.
    return counted + (others * _size(rest, values) if others else 0)


def _holder(tree: Tree, path: str) -> tuple[Tree, Any]:
    """Return the mapping that holds a dotted path's last key, and that key (it may be a number)."""
    *above, last = path.split(".")
    for part in above:
        tree = tree[part] if part in tree else tree[int(part)]
    return tree, last if last in tree else int(last)

"""Hydra composes the same configs again and again in the tests: what our own files give is kept.

Only what Hydra reads of `conf/` and of its own package is, under all that the outcome depends on;
what a test writes, and every failure, is composed as ever. In processes of their own, commands
compose without this.
"""

from __future__ import annotations

import copy
from typing import Any

from hydra._internal import config_loader_impl, defaults_list

from pneumonia.config.compose import find_conf

OURS = {f"file://{find_conf()}", "pkg://hydra.conf", "structured://"}


def keep() -> None:
    """Let Hydra keep lists of defaults, and the configs that they stand for."""
    create = defaults_list._create_defaults_list
    compose = config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list
    lists: dict[str, Any] = {}
    configs: dict[str, Any] = {}

    def create_once(repo: Any, config_name: Any, overrides: Any, **options: Any) -> Any:
        key = _key(repo, config_name, options, _state(overrides))
        if key is None:
            return create(repo, config_name, overrides, **options)
        if key in lists:
            vars(overrides).update(copy.deepcopy(lists[key][1]))
        else:
            made = create(repo, config_name, overrides, **options)
            lists[key] = made, copy.deepcopy(_state(overrides))
        return lists[key][0]

    def compose_once(self: Any, defaults: Any, repo: Any) -> Any:
        key = _key(repo, defaults)
        if key is None:
            return compose(self, defaults, repo)
        if key not in configs:
            configs[key] = compose(self, defaults, repo)
        return copy.deepcopy(configs[key])

    defaults_list._create_defaults_list = create_once
    config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list = compose_once  # type: ignore[method-assign]


def _state(overrides: Any) -> dict[str, Any]:
    """Return what the making of a list looks at, and changes."""
    return {name: value for name, value in vars(overrides).items() if name != "config_overrides"}


def _key(repo: Any, *parts: Any) -> str | None:
    """Return what an outcome depends on, or nothing where it depends on what a test has written."""
    places = {source.full_path() for source in repo.get_sources()}
    text = repr(parts)
    return text if places <= OURS and "file_" not in text else None  # an experiment of a file

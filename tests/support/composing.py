"""Hydra composes the same configs again and again in the tests: what our own files give is kept.

Only what Hydra reads of `conf/` and of its own package is, under all that the outcome depends on;
what a test writes, and every failure, is composed as ever. In processes of their own, commands
compose without this.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

from hydra._internal import config_loader_impl, config_repository, defaults_list

from pneumonia.config.compose import find_conf

SEARCHPATH = "hydra.searchpath"
OURS = {f"file://{find_conf()}", "pkg://hydra.conf", "structured://"}


def keep() -> None:
    """Let Hydra keep lists of defaults, files, and the configs that they stand for."""
    _keep_lists()
    _keep_configs()
    _keep_files()


def _keep_lists() -> None:
    create = defaults_list._create_defaults_list
    lists: dict[str, Any] = {}

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

    defaults_list._create_defaults_list = create_once


def _keep_configs() -> None:
    loader = config_loader_impl.ConfigLoaderImpl
    compose, look = loader._compose_config_from_defaults_list, loader._process_config_searchpath
    assert SEARCHPATH.partition(".")[2] not in (find_conf() / "config.yaml").read_text()
    configs: dict[str, bytes] = {}

    def compose_once(self: Any, defaults: Any, repo: Any) -> Any:
        key = _key(repo, defaults)
        if key is None:
            return compose(self, defaults, repo)
        if key not in configs:
            configs[key] = pickle.dumps(compose(self, defaults, repo))
        return pickle.loads(configs[key])  # a copy, sooner than a deep one

    def look_where_told(self: Any, config_name: Any, overrides: Any, repo: Any) -> None:
        """Read the main config for places of more configs only where it is not ours."""
        is_told = any(one.get_key_element() == SEARCHPATH for one in overrides)
        if is_told or _key(repo) is None:
            look(self, config_name, overrides, repo)

    loader._compose_config_from_defaults_list = compose_once  # type: ignore[method-assign]
    loader._process_config_searchpath = look_where_told  # type: ignore[method-assign]


def _keep_files() -> None:
    load = config_repository.ConfigRepository.load_config
    files: dict[str, bytes] = {}

    def load_once(self: Any, config_path: str) -> Any:
        key = _key(self, config_path)
        if key is None:
            return load(self, config_path)
        if key not in files:
            files[key] = pickle.dumps(load(self, config_path))
        return pickle.loads(files[key])

    def begin(self: Any, delegate: Any) -> None:
        self.delegate, self.cache = copy.copy(delegate), {}  # its list is replaced, not changed

    config_repository.ConfigRepository.load_config = load_once  # type: ignore[method-assign]
    config_repository.CachingConfigRepository.__init__ = begin  # type: ignore[method-assign]


def _state(overrides: Any) -> dict[str, Any]:
    """Return what the making of a list looks at, and changes."""
    return {name: value for name, value in vars(overrides).items() if name != "config_overrides"}


def _key(repo: Any, *parts: Any) -> str | None:
    """Return what an outcome depends on, or nothing where it depends on what a test has written."""
    places = {source.full_path() for source in repo.get_sources()}
    text = repr((sorted(places), parts))
    return text if places <= OURS and "file_" not in text else None  # an experiment of a file

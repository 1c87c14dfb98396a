"""Packages that an option needs and that do not come with this program."""

from __future__ import annotations

import importlib.util

from omegaconf import DictConfig

from pneumonia.errors import ConfigError, ConfigErrors

RAY = "pneumonia.search.executors.ray"


def check(cfg: DictConfig) -> None:
    """Refuse a config whose executor needs a package that is not there.

    Raises:
        ConfigErrors: It names the package, or the extra that brings it.
    """
    if cfg.executor.get("_target_") != RAY:
        return
    if importlib.util.find_spec("ray") is None:
        expected, hint = "local, as Ray is not installed", "pip install 'pneumonia[ray]' brings it"
        raise ConfigErrors([ConfigError("executor", expected, "ray", hint)])
    if store := cfg.executor.get("store"):
        import fsspec

        try:
            fsspec.get_filesystem_class(store.partition("://")[0])
        except (ImportError, ValueError) as error:
            expected, hint = "an address that fsspec can open", str(error).rstrip(".")
            raise ConfigErrors([ConfigError("executor.store", expected, store, hint)]) from error

"""The private parts of Hydra in use, all of them: what a new version of it may break."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

__all__ = ["Hydra", "get_args_parser"]

VERSION_BASE = "1.3"
CONFIG_NAME = "config"
"""Of the main config file."""


@contextmanager
def composer(conf: Path, further: Path | None) -> Iterator[Hydra]:
    """Make what `hydra.main` composes with, which has no public name with a second folder.

    Args:
        conf: The folder of the config files.
        further: A folder whose files come before those.
    """
    version.setbase(VERSION_BASE)
    path = create_config_search_path(str(conf))
    if further is not None:
        path.prepend("command-line", f"file://{further}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2("pneumonia", path)
    finally:
        GlobalHydra.instance().clear()


def jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of every job that Hydra's own sweeper makes."""
    [made] = BasicSweeper.split_arguments(list(overrides), None)
    return [list(job) for job in made]


def is_job(cfg: DictConfig) -> bool:
    """Tell whether a checked config is that of a job of a multirun."""
    return not OmegaConf.is_missing(cfg.hydra.job, "num")


def has_own_sweeper(cfg: DictConfig) -> bool:
    """Tell whether the jobs of a multirun are made by another sweeper than Hydra's own."""
    return str(cfg.hydra.sweeper.get("_target_", "")).rpartition(".")[2] != "BasicSweeper"

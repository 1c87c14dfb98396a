"""A sweep as a whole: how it begins, and how an interrupted one goes on where it was.

Going on, Hydra is asked for the same jobs again: one whose search is complete returns what it came
to, one whose search was broken off goes on with it, the others begin.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumonia import shell
from pneumonia.cli import multirun
from pneumonia.config import hydra_internals
from pneumonia.config.search_space import plain
from pneumonia.config.suggestions import quoted
from pneumonia.config.validate import flatten
from pneumonia.errors import ConfigError, UserError, without_passwords
from pneumonia.storage import jobs
from pneumonia.storage.search_folder import OUTPUTS, SearchFolder

DIR, SUBDIR = "hydra.sweep.dir", "hydra.sweep.subdir"
_MULTIRUN = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def find(arguments: Sequence[str]) -> Path | None:
    """Return the folder of the sweep that a command goes on with, None where it names none.

    Raises:
        ConfigError: Where there is no sweep.
    """
    given = [item.partition("=")[2] for item in arguments if item.startswith("resume=")]
    name = given[-1].strip("'\"") if given else ""
    if name == "last" and not {*_MULTIRUN}.isdisjoint(arguments):
        if (folder := jobs.last_sweep(OUTPUTS)) is None:
            raise ConfigError("resume", f"a sweep under {OUTPUTS}, with -m", name)
        return folder
    with contextlib.suppress(OSError, ValueError):  # a name that no path may have
        return Path(name) if name and (Path(name) / jobs.SWEEP).is_file() else None
    return None


def arguments_of(folder: Path, given: Sequence[str]) -> list[str]:
    """Return the arguments that a sweep was begun with, and what is given beside `resume`.

    Raises:
        ConfigError: Where what is given would make another sweep of it.
        UserError: Where what it was asked for is damaged.
    """
    record = jobs.read_sweep(folder)
    own = list(record.arguments) if record else []
    for item in given:
        key, equals, _ = item.partition("=")
        if item in own or item in _MULTIRUN or key == "resume":
            continue
        if item != "--dry-run" and not (equals and _may_change(key)):
            was = next((one for one in own if _key(one) == _key(item)), "nothing")
            expected = f"what the sweep in {folder} was asked for, {was}"
            hint = "Beside it may stand more budget, and what no result depends on"
            raise ConfigError("resume", expected, item, hint)
        gone = ("hydra.launcher.",) if key == "hydra/launcher" else ()
        own = [one for one in own if _key(one) != key.lstrip("+~") and not one.startswith(gone)]
        own.append(item)
    return own


def _key(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]


def _may_change(key: str) -> bool:
    if key.lstrip("+").startswith(("hydra/launcher", "hydra.launcher.")):
        return True
    from pneumonia.search import changes

    name = _key(key)
    return not name.startswith("resume") and (changes.is_free(name) or name in changes.BUDGET)


def check_same(folder: Path, configs: Sequence[DictConfig]) -> None:
    """Make sure, by the configs of its jobs now, that a sweep is the one that it was begun as.

    Raises:
        UserError: Naming all that has changed, in a preset, say.
    """
    record = jobs.read_sweep(folder)
    if record is not None and (lines := list(dict.fromkeys(_changed(folder, record, configs)))):
        listed = "\n".join(f"  {line}" for line in lines)
        raise UserError(
            "`resume`: expected a sweep that is still the same. "
            f"Received: '{folder}', of which this has changed:\n{listed}"
        )


def _changed(
    folder: Path, record: jobs.SweepRecord, configs: Sequence[DictConfig]
) -> Iterator[str]:
    from pneumonia.search import changes
    from pneumonia.storage.search_record import SearchRecord

    if len(record.jobs) != len(configs):
        yield f"number of jobs: {len(record.jobs)} → {len(configs)}"
        return
    for params, cfg in zip(record.jobs, configs, strict=True):
        now = _params(cfg)
        was = {SUBDIR: now[SUBDIR], **params}  # of a sweep from before it was noted
        yield from changes.of_params(SearchRecord(folder, params=was), now)


def _params(cfg: DictConfig) -> dict[str, Any]:
    """Return the params of a job that its result depends on, and where it is kept."""
    from pneumonia.search import changes

    own = flatten(OmegaConf.create(plain(cfg)))
    kept = {path: value for path, value in own.items() if not changes.is_free(path)}
    return {**kept, SUBDIR: str(cfg.hydra.sweep.subdir)}


def run(
    folder: Path,
    arguments: Sequence[str],
    configs: Sequence[DictConfig],
    launch: Callable[[bool], object],
) -> int:
    """Begin a sweep, or go on with it; return the exit status.

    Args:
        folder: Its folder.
        arguments: Those of the command line, as they were typed.
        configs: Those of its jobs; one for all where the sweeper makes them as it goes.
        launch: Lets Hydra run them; takes whether they run in this process.

    Raises:
        UserError: Where it still runs; where results cannot be tracked.
    """
    from pneumonia.tracking import tracker
    from pneumonia.tracking.settings import TrackingSettings

    is_here = str(configs[0].hydra.launcher.get("_target_")).endswith(".BasicLauncher")
    if not is_here:  # processes that begin at once find a store that is there
        for settings in {TrackingSettings(**cfg.tracking) for cfg in configs}:
            tracker.check(settings).result()
    with jobs.claim(folder):
        before = jobs.read_sweep(folder)
        typed = [without_passwords(item) for item in arguments]
        began = before.time if before else time.time_ns() // 1_000_000
        record = jobs.SweepRecord(typed, [_params(cfg) for cfg in configs], began)
        jobs.write_sweep(record, folder)
        most = None if hydra_internals.has_own_sweeper(configs[0]) else len(configs)
        try:
            status = multirun.launch(folder, lambda: launch(is_here), most=most, is_here=is_here)
        except UserError:  # Hydra has run nothing of it
            jobs.forget(before, folder)
            raise
        jobs.write_sweep(replace(record, is_over=status == 0), folder)
    return status


def overrides(folder: Path, configs: Sequence[DictConfig]) -> list[str]:
    """Return what Hydra is told of a sweep beside what was typed."""
    found = [f"{DIR}={quoted(str(folder))}"]
    wanted = configs[0].hydra.launcher.get("n_jobs")
    if isinstance(wanted, int) and not hydra_internals.has_own_sweeper(configs[0]):
        # joblib starts them all, and one without a job that gets the terminal's Ctrl-C ends all.
        available = wanted if wanted > 0 else os.cpu_count() or 1
        if available > len(configs):
            found.append(f"hydra.launcher.n_jobs={len(configs)}")
    return found


def folder_of(configs: Sequence[DictConfig]) -> Path:
    """Return the folder of a new sweep.

    Raises:
        ConfigError: Where it is that of another one, or a job names a search that is not there:
            `resume=last` would find a sweep that can only fail.
    """
    from pneumonia.search import resume

    for cfg in configs:
        if cfg.resume.search is not None:
            resume.find(str(cfg.resume.search), list(cfg.hydra.overrides.task))
    folder = Path(configs[0].hydra.sweep.dir)
    if (folder / jobs.SWEEP).exists():
        hint = f"To go on with that one: {shell.resume(folder)}"
        raise ConfigError(DIR, "a folder without a sweep", str(folder), hint)
    return folder


def origin_of_forks(configs: Sequence[DictConfig]) -> str:
    """Return the argument that names what a new sweep forks, nothing where there is no need.

    What is the last search now is not so for its second job, nor where it goes on.
    """
    from pneumonia.search import resume

    for cfg in configs:
        asked = cfg.resume
        if not hydra_internals.is_job(cfg) or not asked.fork or asked.search not in (None, "last"):
            return ""
    return f"resume={resume.find('last', ['resume.fork=true'])}" if configs else ""


def going_on(cfg: DictConfig, folder: Path) -> DictConfig:
    """Return the configuration of a job that goes on with the search in its folder, if any."""
    if not SearchFolder(folder).journal.exists():
        return cfg
    own = {"search": str(folder), "fork": False}  # a fork that has begun knows its origin
    return OmegaConf.merge(cfg, {"resume": own})  # type: ignore[return-value]

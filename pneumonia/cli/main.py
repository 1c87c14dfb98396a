"""The command line: `pneumonia COMMAND`, or a search, in which Hydra does the work.

Nothing but the standard library is imported before it is clear what there is to do, and nothing of
TensorFlow before the config is valid.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia import files, startup, terminal
from pneumonia.cli import common, usage
from pneumonia.errors import ConfigError, UserError, without_passwords

if TYPE_CHECKING:
    from omegaconf import DictConfig


_DRY_RUN = "--dry-run"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, or a search where none is named; return the exit status.

    Args:
        arguments: Those of the command line by default.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    first = arguments[0] if arguments else ""
    if first in usage.COMMANDS:
        return int(import_module(f"pneumonia.cli.{first}").main(arguments[1:]))
    return common.run(_run, arguments, text=usage.text(), tell=_say)


def _say(message: str) -> None:
    """Write a message of a search, which may have several lines."""
    terminal.write(f"{message}\n", sys.stderr)


def _run(arguments: list[str]) -> int:
    """Check what is asked for, then let Hydra do it."""
    if usage.complete(arguments):
        return 0
    usage.check_first(arguments)
    _check_here()
    from pneumonia.cli import sweep
    from pneumonia.config import hydra_internals

    given, goes_on = arguments, sweep.find(arguments)
    if goes_on is not None:
        given = sweep.arguments_of(goes_on, arguments)
    sys.argv[1:], configs = _check(given)
    if goes_on is not None:
        sweep.check_same(goes_on, configs)
    elif origin := sweep.origin_of_forks(configs):
        given = [*arguments, origin]
        sys.argv[1:], configs = _check(given)
    if configs and not hydra_internals.is_job(configs[0]):
        _check_folder(configs[0])
    if any(cfg.plan for cfg in configs):
        return _show_plans(configs, goes_on)
    # Processes for jobs or for a user's own functions begin with what is on our path, and no more.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Without it, Hydra prints exceptions itself, shortened, and leaves with status 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if configs and hydra_internals.is_job(configs[0]):
        folder = goes_on or sweep.folder_of(configs)
        own = sweep.overrides(folder, configs)
        names = tuple(item.partition("=")[0] + "=" for item in own)
        sys.argv[1:] = [*own, *(item for item in sys.argv[1:] if not item.startswith(names))]
        return sweep.run(folder, given, configs, _let_hydra)
    if configs:
        return _let_hydra()
    # A config is shown with its addresses, of which nothing may be secret.
    with contextlib.redirect_stdout(io.StringIO()) as told:
        status = _let_hydra()
    print(without_passwords(told.getvalue()), end="", flush=True)
    return status


def _check_here() -> None:
    """Refuse a current folder in which no search can run, whatever its settings."""
    from pneumonia.tracking.sqlite_store import is_text

    here = Path.cwd()
    if not is_text(here):
        raise ConfigError("current folder", "a path in UTF-8", str(here))
    if "${" in str(here):  # Hydra looks for a key of that name
        raise ConfigError("current folder", "a path without `${`", str(here))


def _check_folder(cfg: DictConfig) -> None:
    """Refuse the folder of another search, of which Hydra and a new one would replace files."""
    from pneumonia.shell import resume
    from pneumonia.storage.search_folder import SearchFolder

    folder, asked = Path(cfg.hydra.run.dir), cfg.resume
    if SearchFolder(folder).journal.exists() and (asked.search is None or asked.fork):
        hint = f"To go on with that one: {resume(folder)}"
        raise ConfigError("hydra.run.dir", "a folder without a search", str(folder), hint)


def _check(arguments: list[str]) -> tuple[list[str], list[DictConfig]]:
    """Check what Hydra is about to do.

    Returns:
        The arguments as Hydra takes them, and the configs of the searches that it is to run.
    """
    from pneumonia.cli.hydra_args import parse
    from pneumonia.config import compose

    arguments = ["plan=true" if item == _DRY_RUN else item for item in arguments]
    args = parse(arguments)
    if args.shell_completion or args.hydra_help:
        return arguments, []
    overrides = compose.prepare(args.overrides, chosen=_options)
    others = [item for item in arguments if item not in args.overrides]
    if args.cfg or args.info:
        compose.compose(overrides, folder=args.config_dir, multirun=args.multirun)
        return [*overrides, *others], []
    configs = compose.check(overrides, folder=args.config_dir, multirun=args.multirun)
    return [*overrides, *others], configs


def _options(name: str, overrides: Sequence[str]) -> dict[str, str]:
    """Return the options that the search to go on with was made with."""
    from pneumonia.search import resume

    return resume.options(name, overrides)


def _show_plans(configs: list[DictConfig], goes_on: Path | None) -> int:
    """Print what searches would do; Hydra, which makes a folder for each, does not run them.

    Args:
        configs: Those of the searches.
        goes_on: The folder of the sweep that they belong to, where it has begun.
    """
    startup.start()
    from pneumonia.cli import plan, sweep
    from pneumonia.config import hydra_internals
    from pneumonia.search import resume

    for cfg in configs:
        folder = Path(cfg.hydra.run.dir)
        if goes_on is not None:
            folder = goes_on / cfg.hydra.sweep.subdir
        spec = resume.SearchSpec(sweep.going_on(cfg, folder), folder, _choices(cfg.hydra))
        spec = resume.plan(spec, list(cfg.hydra.overrides.task))
        plan.show(spec)
    if configs and hydra_internals.has_own_sweeper(configs[0]):
        print("each search that the sweeper asks for is like this one")
    return 0


def _choices(hydra: Any) -> dict[str, str]:
    """Return the option of each config group that has one."""
    chosen = hydra.runtime.choices
    return {str(group): str(option) for group, option in chosen.items() if option is not None}


def _let_hydra(is_here: bool = True) -> int:
    """Let Hydra run the job or jobs of the command line, in this process or not; or show a config.

    Raises:
        UserError: For a mistake of the user, also one that Hydra has found.
        Exception: Of a job where there is one alone; of a launcher.
    """
    from hydra import main as hydra_main
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode

    from pneumonia.cli import multirun
    from pneumonia.config import compose
    from pneumonia.config.hydra_internals import CONFIG_NAME, VERSION_BASE

    failed: list[Exception] = []
    has_begun = False
    conf = str(compose.find_conf())

    @hydra_main(version_base=VERSION_BASE, config_path=conf, config_name=CONFIG_NAME)
    def job(cfg: DictConfig) -> float:
        nonlocal has_begun
        has_begun = True
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return multirun.attempt(lambda: _job(cfg))
        try:
            return _job(cfg)
        except Exception as error:  # raised, Hydra would show the overrides as they were given
            failed.append(error)
            return math.nan

    try:
        job()
    except Exception as error:
        # Where jobs run elsewhere, an error is the launcher's, but for what Hydra finds before.
        is_hydras = isinstance(error, HydraException) or type(error) is RuntimeError
        is_launched = has_begun or not (is_here or is_hydras)
        told = None if is_launched else _user_error(error) or _told_by_hydra(error)
        if told is None:
            raise
        raise told from None
    for fault in failed:
        raise fault
    return 0


def _told_by_hydra(error: Exception) -> ConfigError | None:
    """Return what Hydra cannot use of its own settings, where nothing of ours has run yet."""
    if isinstance(error, OSError):
        if error.filename is None:
            return None
        expected = "a folder that can be made and written to"
        return ConfigError("hydra.run.dir", expected, str(error.filename), str(error.strerror))
    text, _, key = str(error).partition("full_key: ")
    reason = " ".join(f"{type(error).__name__}: {text}".split()).rstrip(":")
    return ConfigError(" ".join(key.split()[:1]) or "hydra", "what Hydra can use", reason)


def _job(cfg: DictConfig) -> float:
    """Run one search in the folder that Hydra made for it; return its objective.

    Of a sweep that goes on, a search is gone on with, and one that is complete is left as it is.

    Raises:
        UserError: For a mistake of the user.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from pneumonia.shell import shown

    startup.prepare()  # a launcher of Hydra may have begun another process
    folder = Path(HydraConfig.get().runtime.output_dir)
    _forget_passwords(folder)
    choices = _choices(HydraConfig.get())
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":  # --config-dir, without which a preset is not whole
            choices["config_dir"] = shown(Path(source.path))  # a project may be moved
    try:
        from pneumonia.cli import search, sweep
        from pneumonia.search import resume
        from pneumonia.storage import search_folder, search_record

        is_of_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        cfg = sweep.going_on(cfg, folder) if is_of_sweep else cfg
        spec = resume.plan(
            resume.SearchSpec(cfg, folder, choices),
            HydraConfig.get().overrides.task,
            use_threads=_use_threads,
        )
        if spec.folder != folder:  # a search that goes on has a folder already
            _remove_if_unused(folder)
        folder = spec.folder
        if cfg.plan:  # a sweeper has come to it by itself
            _remove_if_unused(folder)
            raise ConfigError("plan", "false, for a job that a sweeper asks for", True)
        is_done = spec.is_over and search_folder.SearchFolder(folder).is_over()
        if is_of_sweep and is_done:
            terminal.say(f"{shown(folder)}: complete")
        else:
            search.run(spec)
        return search_record.from_journal(folder).score
    except Exception as error:
        found = _user_error(error) or files.explain(error)
        if found is None:
            raise
        _remove_if_unused(folder)
        raise found from None


def _use_threads(cfg: DictConfig) -> None:
    startup.use_threads(cfg.training.threads, trials=cfg.executor.get("workers", 1))


def _forget_passwords(folder: Path) -> None:
    """Take what may be secret in an address out of Hydra's copies of the command line."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    copies = folder / hydra.output_subdir if hydra.output_subdir else folder / ".hydra"
    for path in (*copies.glob("*.yaml"), Path(hydra.sweep.dir) / "multirun.yaml"):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (clean := without_passwords(text)) != text:
            path.write_text(clean, encoding="utf-8")


def _user_error(error: BaseException | None) -> UserError | None:
    """Return the mistake of the user that an exception comes from, if any."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__
    return None


def _remove_if_unused(folder: Path) -> None:
    """Remove a job's folder that holds nothing but copies of the config and an empty journal."""
    from pneumonia.storage import journal, offset, search_folder

    unused = {".hydra", search_folder.CONFIG, search_folder.FORKED, journal.NAME, offset.NAME}
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    if not names <= unused:
        return
    # Another process may have found it, and go on with it.
    with contextlib.suppress(UserError, ValueError), closing(journal.Journal(folder)) as own:
        if own.count == 0:
            shutil.rmtree(folder)
            # Not while it holds other searches, which other processes may begin just now.
            with contextlib.suppress(OSError):
                folder.parent.rmdir()

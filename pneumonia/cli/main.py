"""The command line: one entry point, in which Hydra does the work.

Nothing but the standard library is imported before it is clear that there is something to compose,
and nothing of TensorFlow before the config is valid.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pneumonia import files, startup, terminal
from pneumonia.errors import ConfigError, UserError, hide_passwords, without_passwords

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pneumonia.search.resume import Job

USER_ERROR = 2
INTERRUPTED = 130
UNREAD = 1
_DRY_RUN = "--dry-run"

_HELP = """\
Tune an image classifier, made for detecting pneumonia in chest X-rays.

  pneumonia [group=option ...] [key=value ...]

A search when a value is a range, a training run when none is. Results go to outputs/ and, for
MLflow, to mlruns/ under the current folder.

Groups and their options, * the default:
{groups}

Keys (all of them with their values: pneumonia --cfg job):
  dataset.path, dataset.manual_dir        where data lies
  model.image_size, model.weights, model.layer, model.pooling, model.trainable
  augment.views                           renderings of every training image, or online
  dense.units, dense.dropout, dense.activation
  optimizer.learning_rate, training.batch_size
  tuner.max_epochs, tuner.max_trials, tuner.factor
  tracking.uri, tracking.experiment, tracking.log_models
  objective.name, objective.direction     what trials are ranked by
  threshold.rule, threshold.calibrate     what images are decided by, found on val
  budget.seconds, budget.trials, budget.epochs  end a search with its winner so far
  plan                                    true: the same as --dry-run
  executor.workers                        trials that run at once; they stay the same
  seed                                    the same seed, the same search
  resume                                  the id of an interrupted search, or last: goes on with it
  progress                                live, plain, false, or auto: live on a terminal
  resume.fork                             true: a new search that takes over its finished trials
  when                                    conditions: {{child: {{parent: [values]}}}}

Ranges, as a value under dataset, augment, model, dense, optimizer or training:
  choice(64, 128)   range(1, 5)   interval(0.1, 0.5)   int(interval(16, 512))
  tag(log, interval(1e-4, 1e-2))   tag(default:64, choice(32, 64))

Examples:
  pneumonia experiment=demo
      a complete search on generated images, nothing fetched
  pneumonia tuner=random 'dense.units="choice(64, 128)"' optimizer.learning_rate=0.001
      search the size of the head and its dropout, fix the learning rate
  pneumonia -m tuner=hyperband,bayesian model=inception_v3,efficientnet_lite0
      four searches, one after the other
  pneumonia resume=last
      go on with an interrupted search, if space, data, code and libraries are still the same
  pneumonia resume=last tuner.max_trials=60
      give a search more budget, one that has come to its end too
  pneumonia resume=last resume.fork=true 'dense.units="choice(64, 128)"'
      a new search with another space; what the last one has trained of it is taken over
  pneumonia experiment=outputs/<date>/<time>/best.yaml
      train the winner of a search again

Options:
  -m, --multirun            one search per combination of comma-separated values
  --dry-run                 show rounds, epochs, time and space on disk, and run nothing
  -c, --cfg job             show the config instead of running it; --resolve resolves it
  -i, --info [what]         show how the config comes about
  -cd, --config-dir FOLDER  a folder with further options, such as FOLDER/model/mine.yaml
  -sc install=bash          complete commands with the tab key; bash and zsh take it by
                            eval "$(pneumonia -sc install=bash)", fish by
                            pneumonia -sc install=fish | source
  -h, --help, --version, --hydra-help
"""


def main() -> int:
    """Run the command line; return the exit status.

    Returns:
        0; 2 for a mistake of the user, told in a message; 130 when interrupted; 1 where nobody
        reads what it prints. A fault of the program leaves with its traceback, and so with 1.
    """
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        terminal.write(_help(), sys.stdout)
        return 0
    if "--version" in arguments:
        terminal.write(f"pneumonia {_version()}\n", sys.stdout)
        return 0
    startup.prepare()
    hide_passwords()
    # A search that is asked to end closes its runs, as when a user interrupts it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Hydra writes to both as if they were always open, and somebody always read them.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    logging.raiseExceptions = False
    try:
        return _run(arguments)
    except BrokenPipeError:
        terminal.abandon(sys.stdout)
        return UNREAD
    except KeyboardInterrupt as error:
        print(str(error) or "Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        fault = files.explain(error)
        if fault is None:
            raise
        print(fault, file=sys.stderr)
        return USER_ERROR


def _run(arguments: list[str]) -> int:
    """Validate, then let Hydra run the job or jobs."""
    from hydra import main as hydra_main
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from pneumonia.cli import multirun
    from pneumonia.config import compose

    try:
        _check_here()
        sys.argv[1:], configs = _check(arguments)
        if any(cfg.plan for cfg in configs):
            return _show_plans(configs)
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    # Processes for jobs or for a user's own functions begin with what is on our path, and no more.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Without it, Hydra prints exceptions itself, shortened, and leaves with status 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    decorate = hydra_main(
        version_base=compose.VERSION_BASE,
        config_path=str(compose.find_conf()),
        config_name=compose.NAME,
    )
    failed: list[Exception] = []
    has_begun, multirun.Compare.status = False, 0

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
        _let_hydra(decorate(job), shows=not configs)
    except Exception as error:
        told = None if has_begun or _user_error(error) else _told_by_hydra(error)
        if told is None:
            raise
        print(told, file=sys.stderr)
        return USER_ERROR
    return _tell(failed) or multirun.Compare.status


def _let_hydra(run: Callable[[], object], *, shows: bool) -> None:
    """Let Hydra run jobs, or show a config, with its addresses, of which nothing may be secret."""
    if not shows:
        run()
        return
    with contextlib.redirect_stdout(io.StringIO()) as told:
        run()
    print(without_passwords(told.getvalue()), end="", flush=True)


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


def _tell(failed: list[Exception]) -> int:
    """Tell the mistakes of the user that ended a job, raise a fault; return the exit status."""
    for error in failed:
        if not isinstance(error, UserError):
            raise error
        print(error, file=sys.stderr)
    return USER_ERROR if failed else 0


def _check_here() -> None:
    """Refuse a current folder in which no search can run, whatever its settings."""
    from pneumonia.tracking.sqlite_store import is_text

    here = Path.cwd()
    if not is_text(here):
        raise ConfigError("current folder", "a path in UTF-8", str(here))
    if "${" in str(here):  # Hydra looks for a key of that name
        raise ConfigError("current folder", "a path without `${`", str(here))


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


def _show_plans(configs: list[DictConfig]) -> int:
    """Print what searches would do; Hydra, which makes a folder for each, does not run them."""
    startup.start()
    from pneumonia.config import compose
    from pneumonia.search import plan, resume

    for cfg in configs:
        chosen = cfg.hydra.runtime.choices
        choices = {str(group): str(option) for group, option in chosen.items()}
        job = resume.Job(cfg, Path(cfg.hydra.run.dir), choices)
        job = resume.plan(job, list(cfg.hydra.overrides.task))
        plan.show(job.cfg, job.choices, folder=job.folder)
    if configs and compose.has_own_sweeper(configs[0]):
        print("each search that the sweeper asks for is like this one")
    return 0


def _job(cfg: DictConfig) -> float:
    """Run one search in the folder that Hydra made for it; return its objective.

    Raises:
        UserError: For a mistake of the user.
    """
    from hydra.core.hydra_config import HydraConfig

    from pneumonia.shell import shown

    startup.prepare()  # a launcher of Hydra may have begun another process
    folder = Path(HydraConfig.get().runtime.output_dir)
    chosen = HydraConfig.get().runtime.choices
    _forget_passwords(folder)
    choices = {str(group): str(option) for group, option in chosen.items() if option is not None}
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":  # --config-dir, without which a preset is not whole
            choices["config_dir"] = shown(Path(source.path))  # a project may be moved
    try:
        from pneumonia.search import resume
        from pneumonia.storage import history

        job = resume.plan(resume.Job(cfg, folder, choices), HydraConfig.get().overrides.task)
        if job.folder != folder:  # a search that goes on has a folder already
            _remove_if_unused(folder)
        folder = job.folder
        _run_job(job)
        return history.objective(folder)
    except Exception as error:
        found = _user_error(error) or files.explain(error)
        if found is None:
            raise
        _remove_if_unused(folder)
        raise found from None


def _run_job(job: Job) -> None:
    """Run a search, or send what is left to send of one that is over."""
    from pneumonia.config import search_space
    from pneumonia.datasets import cache
    from pneumonia.search import resume
    from pneumonia.tracking import tracker

    settings = tracker.Settings(**job.cfg.tracking)
    tracker.prepare()
    if job.is_over:
        print(f"The search in {job.folder} is complete.\n{_more(job)}", file=sys.stderr)
        tracker.check(settings).result()
        if not tracker.Tracker(job.folder, settings).close():
            raise UserError("MLflow has not taken all of this search: see the warning above.")
        return
    uri = None if settings.uri is None else tracker.redact(settings.uri)
    with _saying_how_to_go_on(job.folder), closing(resume.claim(job, uri=uri)) as journal:
        # First what may be wrong with the data, before the seconds that the libraries take.
        cache.load_data(search_space.collapse(job.cfg, search_space.find(job.cfg).start()))
        checked = tracker.check(settings)
        startup.start()
        checked.result()
        from pneumonia.search import loop

        loop.run(job, journal, settings=settings)


def _more(job: Job) -> str:
    """Return what can be done with a search that is complete."""
    from pneumonia import shell
    from pneumonia.storage import history

    first = history.first_event(job.folder) or {}
    name, tuner = str(first.get("search_id", "last")), job.cfg.tuner
    keys = [key for key in ("hyperband_iterations", "max_trials") if tuner.get(key)]
    more = [shell.resume(job.folder, name, f"tuner.{key}={2 * tuner[key]}") for key in keys[:1]]
    fork = shell.resume(job.folder, name, "resume.fork=true")
    told = [f"With more budget it goes on: {command}" for command in more]
    return "\n".join([*told, f"As a new one, with other settings if you add them: {fork}"])


@contextlib.contextmanager
def _saying_how_to_go_on(folder: Path) -> Iterator[None]:
    """Let an interruption that says nothing, before a search has begun, say how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):
            raise
        from pneumonia import shell

        raise KeyboardInterrupt(f"Interrupted. To go on: {shell.resume(folder, 'last')}") from None


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
    from pneumonia.storage import history, journal, offset

    unused = {".hydra", history.CONFIG, history.FORKED, journal.NAME, offset.NAME}
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


def _help() -> str:
    return _HELP.format(groups="\n".join(_describe_groups()))


def _describe_groups() -> list[str]:
    """Return a line for every config group: its options, of which the default has a star."""
    conf = _conf()
    text = (conf / "config.yaml").read_text(encoding="utf-8")
    pairs = (line.strip(" -").split(":") for line in text.splitlines() if line.startswith("  - "))
    lines = []
    for group, default in ((pair[0], pair[1].split("#")[0].strip()) for pair in pairs if pair[1:]):
        options = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        if options:
            names = (f"{name}*" if name == default else name for name in options)
            lines.append(f"  {group:<11}{', '.join(names)}")
    return lines


def _conf() -> Path:
    """Return the folder of the config files, as `compose.find_conf` does, without Hydra."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pneumonia")
    except PackageNotFoundError:
        return "(not installed)"

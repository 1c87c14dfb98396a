"""The command line: one entry point, in which Hydra does the work.

Nothing but the standard library is imported before it is clear that there is something to compose,
and nothing of TensorFlow before the config is valid.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.errors import ConfigError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

USER_ERROR = 2
INTERRUPTED = 130

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
  seed                                    the same seed, the same search
  resume                                  the id of an interrupted search, or last
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
      go on with an interrupted search
  pneumonia experiment=outputs/<date>/<time>/best.yaml
      train the winner of a search again

Options:
  -m, --multirun            one search per combination of comma-separated values
  -c, --cfg job             show the config instead of running it; --resolve resolves it
  -i, --info [what]         show how the config comes about
  -cd, --config-dir FOLDER  a folder with further options, such as FOLDER/model/mine.yaml
  -sc install=bash          complete commands with the tab key (bash, zsh or fish)
  -h, --help, --version, --hydra-help
"""


def main() -> int:
    """Run the command line; return the exit status.

    Returns:
        0; 2 for a mistake of the user, told in a message; 130 when interrupted. A fault of the
        program leaves with its traceback, and so with 1.
    """
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        print(_help(), end="")
        return 0
    if "--version" in arguments:
        print(f"pneumonia {_version()}")
        return 0
    # A search that is asked to end closes its runs, as when a user interrupts it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("Interrupted. To go on: pneumonia resume=last", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    """Validate, then let Hydra run the job or jobs."""
    from hydra import main as hydra_main
    from omegaconf import OmegaConf

    from pneumonia import composing

    # `python -m pneumonia` finds a user's own functions in the current folder: so does `pneumonia`.
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
    OmegaConf.register_new_resolver("pid", os.getpid, use_cache=True, replace=True)
    try:
        sys.argv[1:] = _check(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    # Without it, Hydra prints exceptions itself, shortened, and leaves with status 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    decorate = hydra_main(
        version_base=composing.VERSION_BASE,
        config_path=str(composing.find_conf()),
        config_name=composing.NAME,
    )
    mistakes: list[UserError] = []
    process = os.getpid()

    def job(cfg: DictConfig) -> None:
        found = _job(cfg)
        # Raised, Hydra would add lines of its own; in another process, only raising tells.
        if found and os.getpid() != process:
            raise found
        mistakes.extend([found] if found else [])

    decorate(job)()
    return USER_ERROR if mistakes else 0


def _check(arguments: list[str]) -> list[str]:
    """Check what Hydra is about to do; return the arguments as Hydra takes them."""
    from hydra._internal.utils import get_args_parser

    from pneumonia import composing

    args: Any = get_args_parser().parse_args(arguments)
    if args.shell_completion or args.hydra_help or args.experimental_rerun:
        return arguments
    for flag, value in (("--config-name", args.config_name), ("--config-path", args.config_path)):
        if value is not None:
            hint = "Use experiment=<file>.yaml, or --config-dir for further options"
            raise ConfigError(flag, "no other main config than ours", value, hint)
    overrides = composing.prepare(args.overrides)
    if args.cfg or args.info:
        composing.compose(overrides, folder=args.config_dir, multirun=args.multirun)
    else:
        composing.check(overrides, folder=args.config_dir, multirun=args.multirun)
    given = iter(overrides)
    return [next(given) if item in args.overrides else item for item in arguments]


def _job(cfg: DictConfig) -> UserError | None:
    """Run one search in the folder that Hydra made for it; return the user's mistake, told."""
    from hydra.core.hydra_config import HydraConfig

    folder = Path(HydraConfig.get().runtime.output_dir)
    chosen = HydraConfig.get().runtime.choices
    target = folder
    choices = {str(group): str(option) for group, option in chosen.items() if option is not None}
    try:
        from pneumonia import history, loading, space, startup, tracking

        if cfg.resume is not None:
            own = HydraConfig.get().overrides.task
            target, cfg, choices = history.resumed(cfg, own)
        # First what may be wrong with the data, before the seconds that the libraries take.
        loading.load_data(space.collapse(cfg, space.find(cfg).start()))
        settings = tracking.Settings(**cfg.tracking)
        tracking.check(settings)
        startup.start()
        from pneumonia import search

        search.run(cfg, target, choices=choices, settings=settings)
        if target != folder:  # a search that went on has a folder already
            _remove_if_unused(folder)
    except Exception as error:
        found = _user_error(error)
        if found is None:
            raise
        print(found, file=sys.stderr)
        _remove_if_unused(folder)
        return found
    return None


def _user_error(error: BaseException | None) -> UserError | None:
    """Return the mistake of the user that an exception comes from, if any."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__
    return None


def _remove_if_unused(folder: Path) -> None:
    """Remove a job's folder that holds nothing but Hydra's copy of the config."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra"}:
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
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
    """Return the folder of the config files, as `composing.find_conf` does, without Hydra."""
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pneumonia")
    except PackageNotFoundError:
        return "(not installed)"

"""What there is to type: the help of `pneumonia`, its commands, and the nearest of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError

COMMANDS = {
    "predict": "probabilities for image files, by the champion or another classifier",
    "compare": "searches and trials beside each other, from the MLflow store",
    "report": "the report of a search again, or one that compares several",
    "export": "a classifier for phones and small computers",
    "promote": "make a classifier the champion",
    "ui": "the MLflow UI on the results",
}
"""Each is a module beside this one."""

_HELP = """\
Tune an image classifier, made for detecting pneumonia in chest X-rays.

  pneumonia [group=option ...] [key=value ...]
  pneumonia COMMAND [key=value ...]

A search when a value is a range, a training run when none is. Results go to outputs/ and, for
MLflow, to mlruns/ under the current folder.

Commands, each with a --help of its own:
{commands}

Groups and their options, * the default:
{groups}

Keys (all of them with their values: pneumonia --cfg job):
  dataset.path, dataset.manual_dir        where data lies
  dataset.drop_duplicates                 true: what val or test has too is left out of train
  model.image_size, model.weights, model.layer, model.pooling, model.trainable
  augment.views                           renderings of every training image, or online
  dense.units, dense.dropout, dense.activation
  optimizer.learning_rate, training.batch_size
  training.schedule, training.average, training.mixup, training.head_epochs and more: how it trains
  tuner.max_epochs, tuner.max_trials, tuner.factor
  tracking.uri, tracking.experiment, tracking.log_models
  objective.name, objective.direction     what trials are ranked by
  objective.folds                         by cross-validation over so many folds of train and val
  winner.members, winner.flips, winner.image_size  the final classifier: a mean, on larger images
  winner.test                             false: the test split is not read
  threshold.rule, threshold.calibrate     what images are decided by, found on val
  budget.seconds, budget.trials, budget.epochs  end a search with its winner so far
  plan                                    true: the same as --dry-run
  executor.workers                        trials that run at once; they stay the same
  executor.address, executor.cpus, executor.gpus, executor.retries, executor.store  with Ray
  seed                                    the same seed, the same search
  resume                                  the id of an interrupted search, or last: goes on with it
  progress                                live, plain, false, or auto: live on a terminal
  callbacks                               what listens: callbacks=[default,tensorboard], none
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
  pneumonia -m resume=last
      go on with the last multirun, with the searches that are not complete; a folder names another
  pneumonia resume=last tuner.max_trials=60
      give a search more budget, one that has come to its end too
  pneumonia resume=last resume.fork=true 'dense.units="choice(64, 128)"'
      a new search with another space; what the last one has trained of it is taken over
  pneumonia experiment=outputs/<date>/<time>/best.yaml
      train the winner of a search again
  pneumonia predict scans/ format=csv output=scans.csv
      probabilities for the images in a folder
  pneumonia compare last
      the trials of the last search

Options:
  -m, --multirun            one search per combination of comma-separated values; several at once
                            with hydra/launcher=processes, on a cluster with =slurm
  --dry-run                 show rounds, epochs, time and space on disk, and run nothing
  -c, --cfg job             show the config instead of running it; --resolve resolves it
  -i, --info [what]         show how the config comes about
  -cd, --config-dir FOLDER  a folder with further options, such as FOLDER/model/mine.yaml
  -sc install=bash          complete commands with the tab key; bash and zsh take it by
                            eval "$(pneumonia -sc install=bash)", fish by
                            pneumonia -sc install=fish | source
  -h, --help, --version, --hydra-help

Exit status: 0; 1 for a fault of the program; 2 for a mistake in the command; 130 when interrupted.
Of a multirun, whose searches do not end by one that fails: 1 if any failed by a fault, 2 if some
failed, all by mistakes.
"""


def text() -> str:
    """Return the help of `pneumonia`."""
    commands = "\n".join(f"  pneumonia {name:<10}{what}" for name, what in COMMANDS.items())
    return _HELP.format(commands=commands, groups="\n".join(_describe_groups()))


def check_first(arguments: Sequence[str]) -> None:
    """Raise a ConfigError where a search is asked for by what is nearly the name of a command."""
    first = arguments[0] if arguments else ""
    if "=" not in first and (near := nearest(first, COMMANDS, cutoff=0.7)):
        raise ConfigError(first, f"a command ({', '.join(COMMANDS)}) or key=value", first, near)


def complete(arguments: Sequence[str]) -> bool:
    """Tell a shell which commands, or keys of one, a line may go on with.

    Returns:
        Whether a command is named: the line is no search then.
    """
    line = os.environ.get("COMP_LINE")
    if line is None or not {"-sc", "--shell-completion"}.intersection(arguments):
        return False
    words = line.split()[1:] + [""] * line[-1:].isspace()
    is_named = len(words) > 1 and words[0] in COMMANDS
    names: Sequence[str] = [*COMMANDS] if len(words) == 1 else []
    if is_named and words[-1]:  # with nothing typed yet, a shell shows files
        keys = getattr(import_module(f"pneumonia.cli.{words[0]}"), "KEYS", ())
        names = [f"{key}=" for key in keys]
    found = [name for name in names if name.startswith(words[-1])]
    if found:
        print("\n".join(found))
    return is_named


def _describe_groups() -> list[str]:
    """Return a line for every config group: its options, of which the default has a star."""
    package = Path(__file__).resolve().parents[1]  # as `compose.find_conf` does, without Hydra
    conf = package / "conf" if (package / "conf").is_dir() else package.parent / "conf"
    text = (conf / "config.yaml").read_text(encoding="utf-8")
    lines = []
    for group, default in re.findall(r"^  - (\w+): *([^#\n]*)", text, re.MULTILINE):
        options, chosen = sorted((conf / group).glob("*.yaml")), re.findall(r"\w+", default)
        names = (f"{one.stem}*" if one.stem in chosen else one.stem for one in options)
        lines.append(f"  {group:<11}{', '.join(names)}")
    return lines

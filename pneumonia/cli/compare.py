"""The command `pneumonia-compare`: searches and trials beside each other, from the MLflow store.

Nothing but the standard library is imported before the arguments are right.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumonia import tables, terminal
from pneumonia.cli.common import run
from pneumonia.cli.compare_arguments import Options, parse
from pneumonia.errors import ConfigError

if TYPE_CHECKING:
    from pneumonia.cli.runs_table import Record
    from pneumonia.tables import Table
    from pneumonia.tracking.runs import Run, Runs

_HELP = """\
Compare searches and trials of the MLflow store.

  pneumonia-compare                     list the searches, the latest first
  pneumonia-compare SEARCH...           list their trials, the best first
  pneumonia-compare test=A,B            do two classifiers differ on the test split beyond chance?
  pneumonia-compare export=TRIAL        write a trial as a preset, which trains it again

SEARCH, A and B are `last`, the id of a search's run or its beginning, the name of a run that only
one has, or models:/NAME@champion. TRIAL is the id of a trial's run or its beginning,
SEARCH/NUMBER such as last/7, or a SEARCH for its winner.

Keys:
  columns=NAMES      names with commas: params by their dotted names, metrics, tags; +NAMES adds to
                     the usual ones, all shows every one
  filter=CONDITIONS  with commas, all of which hold: 'val_auc>0.97,dense.units=512,status!=failed';
                     ~ looks for a part of a text
  sort=NAMES         the first counts most; -NAME begins with the largest
  limit=20           the most rows of a table; 0 for all, as CSV and JSON have
  format=table       table, csv or json; the suffix of output decides where it is not given
  output=FILE        write there instead of printing
  threshold=0.5      for test: where both decide, instead of each at its own
  tracking.uri=URI, tracking.experiment=pneumonia
                     the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Examples:
  pneumonia-compare filter=model=cnn sort=-score
  pneumonia-compare last columns=+val_accuracy limit=5
  pneumonia-compare test=3f2a91c0,last
  pneumonia-compare export=last/7 output=seven.yaml
  pneumonia experiment=seven.yaml

Of a trial, metrics are those at its best epoch. Exit status: 0; 2 for a mistake in the command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status.

    Args:
        arguments: Those of the command line by default.

    Returns:
        0; 2 for a mistake of the user, told in a message; 130 when interrupted.
    """
    return run(lambda given: _run(parse(given)), arguments, text=_HELP)


def _run(options: Options) -> None:
    from pneumonia.tracking.runs import Runs
    from pneumonia.tracking.settings import TrackingSettings

    if options.output is not None and not options.output.parent.is_dir():
        raise ConfigError("output", "a file in an existing folder", str(options.output))
    runs = Runs(TrackingSettings(uri=options.tracking_uri, experiment=options.experiment))
    if options.export:
        _write(preset(runs, options.export, options.output), options.output)
    elif options.test:
        _compare(runs, options)
    else:
        _list(runs, options)


def preset(runs: Runs, name: str, output: Path | None = None) -> str:
    """Return a trial as the text of a preset that trains it again, to the same score.

    Args:
        runs: The store.
        name: What the user calls the trial.
        output: The file that it goes to, if it is known.

    Raises:
        UserError: There is no such trial, or too little is known of it.
    """
    from omegaconf import DictConfig, OmegaConf

    from pneumonia.config import presets
    from pneumonia.config.search_space import collapse, find
    from pneumonia.storage.history import CONFIG

    trial = runs.trial(name, key="export")
    search = runs.of_trial(trial)
    cfg = OmegaConf.create(runs.text(search, CONFIG) or "")
    if not isinstance(cfg, DictConfig) or not cfg or "epochs" not in trial.params:
        hint = f"That one has logged no {CONFIG}" if not cfg else "It has not begun to train"
        raise ConfigError("export", "a trial of a search of this program", name, hint)
    config = collapse(cfg, presets.values_of(find(cfg), trial.params))
    score, epoch = trial.metrics.get("score", math.nan), trial.metrics.get("best_epoch", math.nan)
    known = "" if math.isnan(score) else f"On val: {cfg.objective.name} {score:.4f}"
    known += "" if math.isnan(epoch) or not known else f" at epoch {epoch:.0f}"
    choices = presets.choices_of(search.tags, runs.text(search, "best.yaml"))
    file = shlex.quote(str(output or "FILE.yaml"))
    comment = (
        f"Trial {trial.number} of {search.name}, run {search.run_id[:8]}, without ranges.\n"
        + (f"{known}.\n" if known else "It came to no score.\n")
        + "To train it again, to the same score:\n"
        + f"  pneumonia {presets.options(choices)}experiment={file}\n"
    )
    return presets.text(config, choices, epochs=int(trial.params["epochs"]), comment=comment)


def _compare(runs: Runs, options: Options) -> None:
    from pneumonia.cli import comparison

    found = []
    for name in options.test:
        run = _search_of(runs, name, options.store)
        text = runs.text(run, comparison.FILE)
        if text is None:
            raise comparison.missing(run, options.test, store=options.store)
        found.append(comparison.read(text, run, threshold=options.threshold))
    result = comparison.compare(*found)
    if options.format == "csv":
        _write(comparison.as_csv(result), options.output)
    elif options.format == "json":
        _write(comparison.as_json(result), options.output)
    else:
        _write(comparison.as_table(result), options.output)


def _search_of(runs: Runs, name: str, store: Sequence[str]) -> Run:
    """Return the search that a user means, by itself or by its winner."""
    if "/" not in name or name.startswith("models:/"):
        return runs.search(name, key="test")
    trial = runs.trial(name, key="test")
    search = runs.of_trial(trial)
    if trial.tags.get("trial_id") != search.tags.get("winner"):
        from pneumonia.cli.comparison import commands_again

        export, train = commands_again(search, name, "it.yaml", store)
        hint = (
            f"Only winners are tested. To test this one: `{export}`, `{train}`, and name that "
            "search (`last`)"
        )
        raise ConfigError("test", "a search, or its winner", name, hint)
    return search


@dataclass(frozen=True, slots=True)
class _Listing:
    """Rows to list: what one and several are called, their order, the usual columns, notes."""

    records: list[Record]
    one: str
    several: str
    order: str
    columns: list[str]
    notes: list[str]


def _list(runs: Runs, options: Options) -> None:
    from pneumonia.cli import runs_table

    listing = _trials(runs, options) if options.searches else _searches(runs)
    made, columns = listing.records, listing.columns
    kept = runs_table.ordered(runs_table.filtered(made, options.filter), options.sort)
    if options.columns:
        columns = runs_table.chosen(options.columns, columns, made)
    if options.format == "csv":
        _write(runs_table.as_csv(kept, columns), options.output)
    elif options.format == "json":
        _write(runs_table.as_json(kept, columns), options.output)
    else:
        shown = kept[: options.limit or len(kept)]
        count = f"{len(shown)} of {len(made)}" if len(shown) < len(made) else str(len(made))
        noun = listing.one if len(made) == 1 else listing.several
        order = f"by {options.sort}" if options.sort else listing.order
        title = f"{count} {noun}, {order}"
        _write(
            runs_table.as_table(shown, columns, title=title, notes=listing.notes), options.output
        )


def _searches(runs: Runs) -> _Listing:
    from pneumonia.cli import runs_table

    made = [runs_table.search_record(run) for run in runs.searches()]
    columns = runs_table.columns_of_searches(made)
    notes = ["`pneumonia-compare SEARCH` lists the trials of one."]
    return _Listing(made, "search", "searches", "the latest first", columns, notes)


def _trials(runs: Runs, options: Options) -> _Listing:
    """Return the trials of some searches, the best first."""
    from pneumonia.cli import runs_table

    searches = [runs.search(name, key="arguments") for name in options.searches]
    trials = {one.run_id: runs.trials([one]) for one in searches}
    made = [runs_table.trial_record(run, one) for one in searches for run in trials[one.run_id]]
    least = {one.params.get("objective.direction") == "min" for one in searches} == {True}
    made = runs_table.ordered(made, "score" if least else "-score") if made else made
    names = dict.fromkeys(name for runs in trials.values() for run in runs for name in run.params)
    columns = runs_table.columns_of_trials(made, names)
    objectives = " or ".join(dict.fromkeys(one.params["objective.name"] for one in searches))
    winners = [one for one in made if one["is_winner"]]
    notes = [f"The winner of {one['search']} is trial {one['trial']}." for one in winners]
    notes.insert(0, f"The score is the trial's {objectives}.")
    return _Listing(made, "trial", "trials", "the best first", columns, notes)


def _write(result: Table | str, output: Path | None) -> None:
    """Write a result to a file, or to standard output."""
    if output is not None:
        from pneumonia.cli.predict_output import write

        write(str(result), output)
    elif isinstance(result, str):
        terminal.write(result, sys.stdout)
    else:
        tables.show(result)


if __name__ == "__main__":
    sys.exit(main())

"""`pneumonia compare`: searches and trials beside each other, from the MLflow store.

Nothing but the standard library is imported before the arguments are right.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pneumonia import tables, terminal
from pneumonia.cli import common
from pneumonia.errors import ConfigError, without_passwords

if TYPE_CHECKING:
    from pneumonia.cli.runs_table import Record
    from pneumonia.tables import Table
    from pneumonia.tracking.runs import Run, Runs

KEYS = (
    *("test", "export", "columns", "filter", "sort", "limit", "format", "output", "threshold"),
    *("tracking.uri", "tracking.experiment"),
)
_LISTING = ("columns", "filter", "sort", "limit")

_Listing: TypeAlias = "tuple[list[Record], list[str], tuple[str, str, str], list[str]]"
# Rows, the usual columns, what one and several are called and their order, and notes.

_HELP = """\
Compare searches and trials of the MLflow store.

  pneumonia compare                     list the searches, the latest first
  pneumonia compare SEARCH...           list their trials, the best first
  pneumonia compare test=A,B            do two classifiers differ on the test split beyond chance?
  pneumonia compare export=TRIAL        write a trial as a preset, which trains it again

SEARCH, A and B are `last`, the id of a search's run or its beginning, the name of a run that only
one has, or models:/NAME@champion. TRIAL is the id of a trial's run or its beginning,
SEARCH/NUMBER such as last/7, or a SEARCH for its winner.

Keys:
  columns=NAMES      names with commas: params by their dotted names, metrics, tags; +NAMES adds to
                     the usual ones, all shows every one
  filter=CONDITIONS  with commas, all of which hold: 'val_auc>0.97,dense.units=512,status!=failed';
                     ~ looks for a part of a text, =null for what has no value
  sort=NAMES         the first counts most; -NAME begins with the largest
  limit=20           the most rows of a table; 0 for all, as CSV and JSON have
  format=table       table, csv or json; the suffix of output decides where it is not given
  output=FILE        write there instead of printing
  threshold=0.5      for test: where both decide, instead of each at its own
  tracking.uri=URI, tracking.experiment=pneumonia
                     the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Examples:
  pneumonia compare filter=model=cnn sort=-score
  pneumonia compare last columns=+val_accuracy limit=5
  pneumonia compare test=3f2a91c0,last
  pneumonia compare export=last/7 output=seven.yaml
  pneumonia experiment=seven.yaml

Of a trial, metrics are those at its best epoch. Exit status: 0; 2 for a mistake in the command.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return common.run(_run, arguments, text=_HELP)


def parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Tell searches and `key=value` pairs apart, which fit, alone and together.

    Raises:
        ConfigError: For an unknown key or a value that does not fit.
    """
    searches, given = common.split(arguments, KEYS)
    for key, others in (("export", (*_LISTING, "test", "format", "threshold")), ("test", _LISTING)):
        for other in others if key in given else ():
            if other in given:
                raise ConfigError(other, f"nothing of it together with {key}", given[other])
        if key in given and searches:
            raise ConfigError(key, "no search beside it", " ".join(searches))
    if "threshold" in given and "test" not in given:
        raise ConfigError("threshold", "nothing of it without test", given["threshold"])
    if "test" in given and len(_pair(given)) != 2:
        raise ConfigError("test", "two searches with a comma between them", given["test"])
    if "export" in given and not given.get("output", ".yaml").endswith((".yaml", ".yml")):
        expected = "a file that ends in .yaml or .yml, as presets do"
        raise ConfigError("output", expected, given["output"])
    for check in (_limit, common.threshold, common.output_of):
        check(given)
    return searches, given


def _pair(given: dict[str, str]) -> list[str]:
    return [name.strip() for name in given["test"].split(",") if name.strip()]


def _limit(given: dict[str, str]) -> int:
    expected = "a whole number, or 0 for all"
    return common.number(given, "limit", 20, expected=expected, values=range(2**31))


def _run(arguments: list[str]) -> None:
    searches, given = parse(arguments)
    output, kind = common.output_of(given)
    from pneumonia.tracking.runs import Runs
    from pneumonia.tracking.settings import TrackingSettings

    experiment = given.get("tracking.experiment", "pneumonia")
    runs = Runs(TrackingSettings(uri=given.get("tracking.uri"), experiment=experiment))
    result: Table | str
    if "export" in given:
        result = preset(runs, given["export"], output)
    elif "test" in given:
        result = _compare(runs, given, kind)
    else:
        result = _list(runs, searches, given, kind)
    if output is not None:
        common.write(str(result), output)
    elif isinstance(result, str):
        terminal.write(result, sys.stdout)
    else:
        tables.show(result)


def preset(runs: Runs, name: str, output: Path | None) -> str:
    """Return a trial as the text of a preset that trains it again, to the same score.

    `name` is what the user calls the trial; `output` is the file that it goes to, if it is known.

    Raises:
        UserError: There is no such trial, or too little is known of it.
    """
    from omegaconf import DictConfig, OmegaConf

    from pneumonia.config import presets
    from pneumonia.config.search_space import collapse, find
    from pneumonia.evaluation.objective import Objective
    from pneumonia.storage.search_folder import CONFIG, PRESET

    trial = runs.trial(name, key="export")
    search = runs.of_trial(trial)
    cfg = OmegaConf.create(runs.text(search, CONFIG) or "")
    if not isinstance(cfg, DictConfig) or not cfg or "epochs" not in trial.params:
        hint = f"That one has logged no {CONFIG}" if not cfg else "It has not begun to train"
        raise ConfigError("export", "a trial of a search of this program", name, hint)
    config = collapse(cfg, presets.values_of(find(cfg), trial.params))
    score, epoch = trial.metrics.get("score", math.nan), trial.metrics.get("best_epoch", math.nan)
    epochs = int(trial.params["epochs"])
    if trial.status == "KILLED" and not math.isnan(score):
        # A winner that the budget has stopped: the search's own preset has what was trained of it.
        own = OmegaConf.create(runs.text(search, PRESET) or "")
        epochs = OmegaConf.select(own, "tuner.max_epochs", default=epochs)
        executions = OmegaConf.select(own, "training.executions_per_trial", default=1)
        config["training"] = {**config["training"], "executions_per_trial": executions}
    objective = Objective(**cfg.objective)
    known = "" if math.isnan(score) else f"On {objective.where}: {objective.name} {score:.4f}"
    known += "" if math.isnan(epoch) or not known else f" at epoch {epoch:.0f}"
    try:
        choices = dict(json.loads(search.tags.get("choices", "")))
    except (ValueError, TypeError) as error:  # anybody can edit a tag
        expected = f"the option of each config group as the tag `choices` of run {search.run_id}"
        raise ConfigError("export", expected, search.tags.get("choices")) from error
    file = shlex.quote(str(output or "FILE.yaml"))
    comment = (
        f"Trial {trial.number} of {search.name}, run {search.run_id[:8]}, without ranges.\n"
        + (f"{known}.\n" if known else "It came to no score.\n")
        + "To train it again, to the same score:\n"
        + f"  pneumonia {presets.options(choices)}experiment={file}\n"
    )
    return presets.text(config, choices, epochs=epochs, comment=comment)


def _compare(runs: Runs, given: dict[str, str], kind: str) -> Table | str:
    from pneumonia.cli import comparison

    keys = ("tracking.uri", "tracking.experiment")
    store = [f"{key}={without_passwords(given[key])}" for key in keys if key in given]
    found = []
    for name in _pair(given):
        run = _search_of(runs, name, store)
        text = runs.text(run, comparison.FILE)
        if text is None:
            raise comparison.missing(run, _pair(given), store=store)
        found.append(comparison.read(text, run, threshold=common.threshold(given)))
    return comparison.render(comparison.compare(*found), kind)


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


def _list(runs: Runs, searches: list[str], given: dict[str, str], kind: str) -> Table | str:
    from pneumonia.cli import runs_table

    found = _trials(runs, searches) if searches else _searches(runs)
    made, columns, (one, several, order), notes = found
    if re.search(r"\btest_", f"{given.get('sort')} {given.get('filter')}"):
        notes.append("To choose by the test split spends it: what is best on it seems too good.")
    kept = runs_table.filtered(made, given.get("filter", ""))
    kept = runs_table.ordered(kept, given.get("sort", ""))
    if "columns" in given:
        columns = runs_table.chosen(given["columns"], columns, made)
    shown = kept[: _limit(given) or len(kept)] if kind == "table" else kept
    count = f"{len(shown)} of {len(made)}" if len(shown) < len(made) else str(len(made))
    order = f"by {given['sort']}" if "sort" in given else order
    title = f"{count} {one if len(made) == 1 else several}, {order}"
    return runs_table.render(shown, columns, kind, title=title, notes=notes)


def _searches(runs: Runs) -> _Listing:
    from pneumonia.cli import runs_table

    made = [runs_table.search_record(run) for run in runs.searches()]
    columns = runs_table.filled(runs_table.SEARCH_COLUMNS, made)
    notes = ["`pneumonia compare SEARCH` lists the trials of one."]
    return made, columns, ("search", "searches", "the latest first"), notes


def _trials(runs: Runs, names: Sequence[str]) -> _Listing:
    """Return the trials of some searches, the best first."""
    from pneumonia.cli import runs_table

    searches = [runs.search(name, key="arguments") for name in names]
    trials = [(run, one) for one in searches for run in runs.trials([one])]
    made = [runs_table.trial_record(run, one) for run, one in trials]
    least = {one.params.get("objective.direction") for one in searches} == {"min"}
    made = runs_table.ordered(made, "score" if least else "-score")
    params = dict.fromkeys(name for run, _ in trials for name in run.params)
    objectives = " or ".join(dict.fromkeys(map(runs_table.objective, searches)))
    winners = [one for one in made if one["is_winner"]]
    notes = [f"The winner of {one['search']} is trial {one['trial']}." for one in winners]
    notes.insert(0, f"The score is the trial's {objectives}.")
    columns = runs_table.columns_of_trials(made, params)
    return made, columns, ("trial", "trials", "the best first"), notes

"""The plan of a search, as lines and a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from pneumonia import tables
from pneumonia.config import search_space
from pneumonia.evaluation.objective import Objective
from pneumonia.formatting import clock_time, megabytes
from pneumonia.search import plan as planning
from pneumonia.search.oracle import Oracle, Round
from pneumonia.search.plan import Plan
from pneumonia.search.replay import Fork
from pneumonia.search.resume import SearchSpec
from pneumonia.storage import search_record


def headline(plan: Plan) -> str:
    """Return the line that says how much there is to do, and how long it may take."""
    epochs = f"{plan.epochs} {'epoch' if plan.epochs == 1 else 'epochs'}"
    if not plan.is_search:
        what = f"nothing to search: one training of at most {epochs}"
    elif plan.trials:
        trials = f"{plan.trials} {'trial' if plan.trials == 1 else 'trials'}"
        what = f"{plan.tuner} over {plan.model}: {trials}, at most {epochs}"
    else:
        what = f"{plan.tuner} over {plan.model}: trials without an end"
    return f"{what}, {_time(plan)}"


def footprint(plan: Plan) -> str:
    """Return the line about the space on disk."""
    if plan.cost is None:
        return "space on disk: unknown before the dataset is prepared and a model can be built"
    cost = plan.cost
    parts = (
        f"classifiers {megabytes(cost.classifiers)} (tracking.log_models={plan.log_models})",
        f"features {megabytes(cost.features)}",
        f"states while it runs {megabytes(cost.states)}",
        f"logs {megabytes(cost.logs)}",
    )
    line = f"takes up to {megabytes(cost.total)} MB on disk: {', '.join(parts)}"
    if cost.total > plan.free:
        return f"{line}\nwarning: only {megabytes(plan.free)} MB are free there"
    return line


def table(plan: Plan) -> tables.Table:
    """Return the rounds, which for Hyperband are its brackets."""
    rows = [(*_cells(item), str(item.trained * plan.fits)) for item in plan.rounds]
    trials = sum(item.trials for item in plan.rounds)
    epochs = sum(item.trained for item in plan.rounds) * plan.fits
    return tables.Table(
        title=headline(plan),
        header=("bracket", "round", "trials", "from epoch", "to epoch", "epochs in all"),
        rows=(*rows, ("", "sum", str(trials or "?"), "", "", str(epochs or "?"))),
        is_number=(True,) * 6,
        notes=tuple(_notes(plan)),
    )


def _notes(plan: Plan) -> Iterator[str]:
    yield footprint(plan)
    if plan.likely < plan.epochs:
        yield "scores decide on the rounds: these are usual, and the time is that of them"
    if plan.fits > 1:
        keys = "objective.folds, training.executions_per_trial"
        yield f"every trial is trained {plan.fits} times ({keys})"
    yield "early stopping may save epochs; features that are not cached yet take time as well"


def _time(plan: Plan) -> str:
    if plan.pace is None or plan.seconds is None:
        return "time unknown until the first trials have run"
    count = plan.pace.searches
    source = "an earlier search" if count == 1 else f"the fastest of {count} earlier searches"
    return f"about {clock_time(plan.seconds)} by {source} of the same model and images"


def show(spec: SearchSpec) -> None:
    """Print the plan of a search. Nothing is run, fetched or written.

    Args:
        spec: What to run, composed and checked.

    Raises:
        UserError: For what the user can mend.
    """
    cfg, origin = spec.cfg, spec.origin
    tuner: Any = OmegaConf.to_container(cfg.tuner, resolve=True)
    space = search_space.find(cfg)
    oracle = Oracle(space, tuner, Objective(**cfg.objective))
    data = planning.prepared(search_space.collapse(cfg, space.start()))
    most = origin.trials if origin else None
    plan = planning.make(cfg, oracle, spec.choices, data=data, most=most, is_dry=True)
    lines = list(filter(None, [oracle.shortfall(), oracle.scope()]))
    if cfg.executor.get("in_order", True):
        lines += filter(None, [oracle.waits(cfg.executor.workers)])
    past = search_record.from_journal(spec.folder)
    if past.started is not None:
        ended = sum(trial.ended is not None for trial in past.trials.values())
        lines.append(f"{past.started['search_id']} goes on: {ended} of its trials have ended")
    lines += [Fork(origin, past, fetch=None).opening()] if origin else []
    lines += planning.of_ray(cfg, plan.seconds)
    limits = {name: value for name, value in (cfg.get("budget") or {}).items() if value}
    lines += [f"warning: {note}" for note in (data.notes if data else ())]
    lines += [f"`budget.{name}={value:g}` may end it before" for name, value in limits.items()]
    tables.show(table(plan), "\n".join([*lines, "nothing was run or written\n"]))


def _cells(item: Round) -> tuple[str, ...]:
    epochs = str(item.start), str(item.epochs)
    if item.bracket is None:
        return "", "", str(item.trials or "?"), *epochs
    return str(item.bracket), str(item.round), str(item.trials), *epochs

"""Tuners at equal epochs: the best objective on val that each has reached by then."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tables import Rows, interval, table

from pneumonia.evaluation import plots
from pneumonia.storage import journal
from pneumonia.storage.search_record import SearchRecord

MARKS = (75, 150, 300, 600)
ABOUT = (
    "Heads on the same cached features; every tuner spends the same epochs in all, and test is not "
    "read. The best value of the objective on val that a search had come to after so many epochs: "
    "the mean over seeds, with its 95 % interval (Student's t). By the same seed, KerasTuner's "
    "random and Bayesian searches begin with the same trials."
)


def reached(run: SearchRecord) -> NDArray[np.float64]:
    """Return the best objective after each epoch of a search, in the order of its epochs."""
    name, sign = run.objective.name, run.objective.sign
    events = (one for one in journal.read(run.folder) if one["kind"] == "epoch_ended")
    values = [sign * one["metrics"][name] for one in events]
    return sign * np.maximum.accumulate(values)


def told(rows: Rows, folder: Path) -> list[str]:
    """Return the table and the commands; of several seeds there is a plot in `folder/pictures`."""
    curves = {recipe.name: [reached(one) for one in runs.values()] for recipe, runs in rows.items()}
    objective = next(iter(next(iter(rows.values())).values())).objective.name
    cells = [
        (name, str(len(some)), *(_cell([curve[mark - 1] for curve in some if len(curve) >= mark])
                                 for mark in MARKS))
        for name, some in curves.items()
    ]  # fmt: skip
    heads = (f"after {mark} epochs" for mark in MARKS)
    lines = [f"The objective is {objective}.", "", *table(("", "seeds", *heads), cells)]
    if min(map(len, curves.values())) > 1:
        plots.save(draw(curves, objective), folder / "pictures" / "tuners.png")
        lines += ["", f"![{objective} against epochs, by tuner](pictures/tuners.png)"]
    commands = (f"- {recipe.name}: `pneumonia {' '.join(recipe.words)}`" for recipe in rows)
    return [*lines, "", *commands]


def _cell(values: list[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.4f}" for value in values)
    return "{:.4f} ({:.4f} to {:.4f})".format(*interval(values))


def draw(curves: dict[str, list[NDArray[np.float64]]], objective: str) -> Figure:
    """Draw the means over seeds, each within its interval."""
    figure = Figure((7, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = itertools.cycle(("-", "--", ":", "-."))  # two may be the same for long
    for name, some in curves.items():
        most = min(map(len, some))
        epochs = np.arange(1, most + 1)
        centre, low, high = np.array([interval([one[i] for one in some]) for i in range(most)]).T
        (line,) = axes.plot(epochs, centre, label=name, linestyle=next(styles))
        axes.fill_between(epochs, low, high, alpha=0.15, color=line.get_color())
    axes.set(xlabel="epochs in all", ylabel=f"best {objective}", xscale="log")
    axes.legend(frameon=False)
    return figure

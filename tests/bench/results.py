"""Run the study of docs/results.md, seed by seed, and write that page.

    make results            # needs pneumoniamnist.npz in ../shared/data, or DATA=<its folder>
    python tests/bench/results.py --data FOLDER [--only best_frozen ...] [--seeds 5]

Every search is a command of the program, with a folder of its own under outputs/results. One that
has come to its end is not run again, one that was broken off is gone on with: the study may be
stopped at any time. Nothing is chosen by test: each search reads it once, for the winner that val
has chosen.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from run import machine
from scipy.stats import spearmanr

from pneumonia.errors import UserError
from pneumonia.storage import search_record
from pneumonia.storage.search_record import SearchRecord

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
ABOUT = (
    "Official splits; everything is chosen on train and val, and test is read once by each search, "
    "at its end. Mean ± standard deviation over seeds; of the first seed the 95 % bootstrap "
    "interval over the images of test. Accuracy, sensitivity and specificity are at 0.5."
)
SCORES = ("auc", "accuracy", "sensitivity", "specificity")
PUBLISHED = (
    ("the study (InceptionV3, frozen, Hyperband)", "", "0.920", "150 px"),
    ("ResNet-18", "0.944", "0.854", "MedMNIST v2, 28 px"),
    ("AutoKeras", "0.947", "0.878", "MedMNIST v2, 28 px"),
    ("Google AutoML Vision", "0.991", "0.946", "MedMNIST v2, 28 px"),
    ("MedViT-S", "0.995", "0.961", "Manzari et al. 2023, scaled to 224 px"),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A row of the study: a group, a name, and what is typed after `pneumonia`."""

    group: str
    name: str
    overrides: tuple[str, ...]
    seeds: int = 5


QUICK, FROZEN = ("experiment=quick",), ("experiment=best_frozen",)
STRONG = ("augment=strong", "augment.views=8")
HEADS = ("experiment=quick", "augment=none", "training.early_stopping=null", "budget.epochs=200",
         "tracking.log_models=none")  # fmt: skip
STUDY = (
    Recipe("Presets", "best", ("experiment=best",)),
    Recipe("Presets", "best_frozen", FROZEN),
    Recipe("Presets", "quick", QUICK),
    Recipe("Ingredients", "quick, without augmentation", (*QUICK, "augment=none")),
    Recipe("Ingredients", "best_frozen, augment=strong", (*FROZEN, *STRONG)),
    Recipe("Ingredients", "best_frozen, one member", (*FROZEN, "winner.members=1")),
    Recipe("Ingredients", "best_frozen, no averages", (*FROZEN, "training.average=null")),
    Recipe("Ingredients", "best_frozen, constant rate", (*FROZEN, "training.schedule=constant")),
    Recipe("Tuners", "hyperband", HEADS, 10),
    Recipe("Tuners", "bayesian", (*HEADS, "tuner=bayesian", "tuner.max_epochs=10"), 10),
    Recipe("Tuners", "random", (*HEADS, "tuner=random", "tuner.max_epochs=10"), 10),
)  # fmt: skip


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("DATA", str(ROOT / "../shared/data")))
    parser.add_argument("--only", action="append", metavar="ROW", help="may be given often")
    parser.add_argument("--seeds", type=int, default=10, help="at most so many of each row")
    parser.add_argument("--folder", default=str(ROOT / "outputs" / "results"))
    parser.add_argument("--page-only", action="store_true", help="run nothing")
    options = parser.parse_args()
    data, folder = Path(options.data).resolve(), Path(options.folder)
    if not options.page_only and not (data / "pneumoniamnist.npz").exists():
        sys.exit(f"There is no pneumoniamnist.npz in {data}: DATA=<folder> make results")
    wanted = options.only or [one.name for one in STUDY]
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(1, options.seeds + 1):  # a row has few seeds before another has many
        for recipe in STUDY:
            if recipe.name in wanted and seed <= recipe.seeds and not options.page_only:
                run(recipe, seed, folder, data)
    PAGE.write_text(page(folder), encoding="utf-8")


def place(recipe: Recipe, seed: int, folder: Path) -> Path:
    """Return the folder of a search."""
    return folder / f"{recipe.name.replace(' ', '_').replace('=', '-').replace(',', '')}-{seed}"


def read(path: Path) -> SearchRecord | None:
    """Return what a search has found, None where there is none."""
    try:
        return search_record.read(path)
    except UserError:
        return None


def run(recipe: Recipe, seed: int, folder: Path, data: Path) -> None:
    """Run one search to its end, unless it is there."""
    path = place(recipe, seed, folder)
    found = read(path)
    if found is not None and found.is_completed:
        return
    words = [f"resume={path}"]
    if found is None:
        own = ("dataset=pneumonia_mnist", f"dataset.manual_dir={data}", f"hydra.run.dir={path}")
        words = [*recipe.overrides, *own, f"seed={seed}"]
        words += [f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]
    words += ["progress=false"]
    began = time.monotonic()
    command = [sys.executable, "-m", "pneumonia", *words]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    print(f"{recipe.name}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


def page(folder: Path) -> str:
    """Return the page, of all the searches that have come to their end."""
    found = {
        recipe: [
            one
            for seed in range(1, recipe.seeds + 1)
            if (one := read(place(recipe, seed, folder))) is not None and one.is_completed
        ]
        for recipe in STUDY
    }
    lines = ["# Results on PneumoniaMNIST", "", f"{machine('results')} {ABOUT}", ""]
    for group in dict.fromkeys(recipe.group for recipe in STUDY):
        rows = [(recipe, runs) for recipe, runs in found.items() if recipe.group == group and runs]
        if rows:
            lines += [f"## {group}", "", *_scores(rows), ""]
    lines += ["## Published", "", *_table(("", "AUC", "accuracy", "protocol"), PUBLISHED), ""]
    every = [one for runs in found.values() for one in runs]
    if len(every) > 2:
        lines += ["## How well val foretold test", "", _foretold(every), ""]
    return "\n".join(lines)


def _scores(rows: Sequence[tuple[Recipe, Sequence[SearchRecord]]]) -> list[str]:
    cells = []
    for recipe, runs in rows:
        objective = runs[0].objective.name
        ends = [runs[0].metrics.get(f"test_auc_{end}", float("nan")) for end in ("low", "high")]
        cells.append((
            recipe.name, str(len(runs)), _commits(runs),
            f"{objective} {_mean(runs, lambda one: one.score)}",
            *(_mean(runs, lambda one, name=name: one.metrics[f"test_{name}"]) for name in SCORES),
            f"{ends[0]:.3f} to {ends[1]:.3f}", _mean(runs, lambda one: one.seconds / 60, digits=1),
        ))  # fmt: skip
    header = ("", "seeds", "commit", "chosen by", "AUC", *SCORES[1:], "AUC of seed 1", "minutes")
    commands = [f"- {recipe.name}: `pneumonia {' '.join(recipe.overrides)}`" for recipe, _ in rows]
    return [*_table(header, cells), "", *commands]


def _commits(runs: Sequence[SearchRecord]) -> str:
    return ", ".join(dict.fromkeys(one.tags.get("git_commit", "unknown")[:7] for one in runs))


def _mean(
    runs: Sequence[SearchRecord], value: Callable[[SearchRecord], float], digits: int = 3
) -> str:
    values = [value(one) for one in runs]
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = [":---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def _foretold(runs: Sequence[SearchRecord]) -> str:
    told = []
    for name in dict.fromkeys(one.objective.name for one in runs):
        some = [one for one in runs if one.objective.name == name]
        if len(some) > 2:
            sign = some[0].objective.sign
            rank = spearmanr(
                [sign * one.score for one in some], [one.metrics["test_auc"] for one in some]
            ).statistic
            told.append(f"{rank:.2f} between {name} and the AUC on test, over {len(some)} searches")
    return (
        f"Spearman's rank correlation, the better on val to the better on test: {', '.join(told)}."
    )


if __name__ == "__main__":
    main()

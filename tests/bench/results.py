"""Run the study of docs/results.md, seed by seed, and write that page.

    make results            # needs pneumoniamnist.npz in ../shared/data, or DATA=<its folder>
    python tests/bench/results.py --data FOLDER [--only best_frozen ...] [--seeds 5]

Every search is a command of the program, with a folder of its own under outputs/results. One that
has come to its end is not run again, one that was broken off is gone on with: the study may be
stopped at any time. A part of the page of which no search is in that folder stays as it is, so that
parts may be made on several machines. Nothing is chosen by test: the presets read it once each, for
the winner that val has chosen; what compares ingredients or tuners never does. The ingredients of a
network that is tuned take hours, and run where they are asked for: --only "Ingredients of best".
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import race
import tables
from run import machine
from study import ABLATIONS, PRESETS, RACES, SEEN, STUDY, Recipe
from tables import Found

from pneumonia.errors import UserError
from pneumonia.storage import search_record
from pneumonia.storage.search_folder import SearchFolder
from pneumonia.storage.search_record import SearchRecord

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
FORETOLD = "How well val foretold test"
ABOUT = (
    "Official splits; everything is chosen on train and val. Mean ± standard deviation over seeds. "
    "Rows appear as their searches come to their end; parts whose searches ran elsewhere are of "
    "earlier machines and commits."
)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("DATA", str(ROOT / "../shared/data")))
    parser.add_argument(
        "--only", action="append", metavar="ROW", help="or a part; often, if wanted"
    )
    parser.add_argument("--seeds", type=int, default=10, help="at most so many of each row")
    parser.add_argument("--no-folds", action="store_true", help="only what is judged on val")
    parser.add_argument("--folder", default=str(ROOT / "outputs" / "results"))
    parser.add_argument("--page", default=str(PAGE))
    parser.add_argument("--page-only", action="store_true", help="run nothing")
    options = parser.parse_args()
    data, folder = Path(options.data).resolve(), Path(options.folder).resolve()
    if not options.page_only and not (data / "pneumoniamnist.npz").exists():
        sys.exit(f"There is no pneumoniamnist.npz in {data}: DATA=<folder> make results")
    known = {name for one in STUDY for name in (one.name, one.group)}
    if unknown := set(options.only or ()) - known:
        sys.exit(f"--only: expected of {', '.join(sorted(known))}. Received: {unknown.pop()!r}")
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(1, options.seeds + 1):  # a row has few seeds before another has many
        for recipe in [] if options.page_only else STUDY:
            if seed <= recipe.seeds and is_wanted(recipe, options):
                run(recipe, seed, folder, data)
    to = Path(options.page)
    before = to.read_text(encoding="utf-8") if to.exists() else ""
    to.write_text(page(folder, to.parent, before), encoding="utf-8")


def is_wanted(recipe: Recipe, options: argparse.Namespace) -> bool:
    """Tell whether a row is to be run."""
    if recipe.is_folded and options.no_folds:
        return False
    asked = {recipe.name, recipe.group} & set(options.only or ())
    return bool(asked) if options.only else not recipe.is_long


def read(path: Path) -> SearchRecord | None:
    """Return what a search has found, None where there is none."""
    try:
        return search_record.read(path)
    except UserError:
        return None


def run(recipe: Recipe, seed: int, folder: Path, data: Path) -> None:
    """Run one search to its end, unless it is there."""
    path = folder / f"{recipe.folder}-{seed}"
    found = read(path)
    if found is not None and found.is_completed:
        return
    words = [f"resume={path}"]
    if not SearchFolder(path).journal.exists():
        own = ("dataset=pneumonia_mnist", f"dataset.manual_dir={data}", f"hydra.run.dir={path}")
        words = [*recipe.words, *own, f"seed={seed}"]
        words += [f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]
    words += ["progress=false"]
    began = time.monotonic()
    command = [sys.executable, "-m", "pneumonia", *words]
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))  # a tuner is there
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=True)
    # A search that has not read test leaves states for a fork that would: of networks, gigabytes.
    shutil.rmtree(SearchFolder(path).states, ignore_errors=True)
    told = f"{recipe.name}{', folds' * recipe.is_folded}, seed {seed}"
    print(f"{told}: {time.monotonic() - began:.0f} s", flush=True)


def page(folder: Path, beside: Path, before: str = "") -> str:
    """Return the page, of all the searches that have come to their end.

    Args:
        folder: Where they are.
        beside: The folder of the page, into whose `pictures` plots go.
        before: The page as it was: parts of which no search is there are taken from it.
    """
    parts = {part.partition("\n")[0]: f"## {part}" for part in before.split("\n## ")[1:]}
    found: Found = {}
    for recipe in STUDY:
        records = {n: read(folder / f"{recipe.folder}-{n}") for n in range(1, recipe.seeds + 1)}
        done = {n: one for n, one in records.items() if one is not None and one.is_completed}
        if done:
            found.setdefault(recipe.group, {})[recipe] = done
    lines = ["# Results on PneumoniaMNIST", "", f"{machine('results')} {ABOUT}", ""]
    for group, about, make in (
        (PRESETS, tables.ABOUT_SCORES, tables.scores),
        (SEEN, "Nothing is chosen among these.", tables.scores),
        *((group, tables.ABOUT_ABLATION, tables.ablation) for group in ABLATIONS),
        (RACES, race.ABOUT, lambda rows: race.told(rows, beside)),
    ):
        if group in found:
            lines += [f"## {group}", "", about, "", *make(found[group]), ""]
        elif group in parts:
            lines += [parts[group].rstrip(), ""]
    lines += ["## Earlier presets", "", tables.ABOUT_EARLIER, "", *tables.earlier(), ""]
    lines += ["## Published", "", tables.ABOUT_PUBLISHED, "", *tables.published(), ""]
    seen = [one for group in (PRESETS, SEEN) for runs in found.get(group, {}).values()
            for one in runs.values()]  # fmt: skip
    if len(seen) > 2:
        lines += [f"## {FORETOLD}", "", tables.foretold(seen), ""]
    elif FORETOLD in parts:
        lines += [parts[FORETOLD].rstrip(), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

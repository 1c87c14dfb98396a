"""The tables of docs/results.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from scipy.stats import spearmanr, t
from study import FOLDS, Recipe

from pneumonia.storage.search_record import SearchRecord

Rows: TypeAlias = Mapping[Recipe, Mapping[int, SearchRecord]]
"""The searches of each row, by their seeds."""
Found: TypeAlias = dict[str, dict[Recipe, dict[int, SearchRecord]]]
"""The rows of each part of the page."""

SCORES = ("auc", "accuracy", "sensitivity", "specificity")
PUBLISHED = (
    ("the study (InceptionV3, frozen, Hyperband)", "", "0.920", "150 px"),
    ("ResNet-18", "0.944", "0.854", "MedMNIST v2, 28 px"),
    ("AutoKeras", "0.947", "0.878", "MedMNIST v2, 28 px"),
    ("Google AutoML Vision", "0.991", "0.946", "MedMNIST v2, 28 px"),
    ("MedViT-S", "0.995", "0.961", "Manzari et al. 2023, scaled to 224 px"),
    ("DINO ViT-B/16, a linear layer", "0.973", "0.866", "Doerrich et al. 2024, 28 px"),
    ("VGG16, all of it trained", "0.970", "0.848", "Doerrich et al. 2024, 28 px"),
    ("DINO ViT-B/16, a linear layer", "0.989", "0.916", "Doerrich et al. 2024, 224 px"),
    ("VGG16, all of it trained", "0.985", "0.874", "Doerrich et al. 2024, 224 px"),
)
ABOUT_PUBLISHED = (
    "Doerrich et al. (https://arxiv.org/abs/2404.15786) tried ten networks at four sizes, with "
    "three seeds each: of images of 28 pixels these two have the best AUC. Their 224 pixels are "
    "those of MedMNIST+, which show more than 28 can."
)
# What has read test too, by commands that are no more.
EARLIER = (
    ("best of 6cd9d38: EfficientNet-Lite0 alone, parts of 0.87 of an image beside it", "2",
     "0.060", "0.987", "0.913", "0.776"),
    ("the same, whole images alone", "1", "0.104", "0.988", "0.958", "0.936"),
)  # fmt: skip
ABOUT_EARLIER = (
    "They have read test as well, so who changed the presets knew it. The changes rest on val, "
    "as it is and changed: `python tests/bench/changed_val.py`."
)
ABOUT_SCORES = (
    "Test is read once by each search, at its end. Of the first seed there is the 95 % bootstrap "
    "interval over the images of test. Accuracy, sensitivity and specificity are at 0.5."
)
ABOUT_ABLATION = (
    "One thing is changed at a time; test is not read. The objective of the final classifier on "
    f"val and out of fold ({FOLDS} folds of train and val); beside it the mean difference from the "
    "first row by the same seeds, of several with its 95 % interval (Student's t): one that holds "
    "0 says nothing. AUC: of the best trial, the mean over the folds."
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    rule = [":---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def mean(values: Iterable[float], digits: int = 3) -> str:
    """Return a mean and, of several, the standard deviation."""
    given = list(values)
    spread = f" ± {statistics.stdev(given):.{digits}f}" if len(given) > 1 else ""
    return f"{statistics.fmean(given):.{digits}f}{spread}"


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return a mean and its 95 % interval by Student's t, of two values or more."""
    centre = statistics.fmean(values)
    half = statistics.stdev(values) / len(values) ** 0.5 * t.ppf(0.975, len(values) - 1)
    return centre, centre - half, centre + half


def scores(rows: Rows) -> list[str]:
    """Return the table of what searches have scored on test, and their commands."""
    cells = []
    for recipe, by_seed in rows.items():
        runs = list(by_seed.values())
        ends = [runs[0].metrics.get(f"test_auc_{end}", float("nan")) for end in ("low", "high")]
        cells.append((
            recipe.name, str(len(runs)), _commits(runs),
            f"{runs[0].objective.name} {mean(one.score for one in runs)}",
            *(mean(one.metrics[f"test_{name}"] for one in runs) for name in SCORES),
            f"{ends[0]:.3f} to {ends[1]:.3f}", mean((one.seconds / 60 for one in runs), digits=1),
        ))  # fmt: skip
    header = ("", "seeds", "commit", "chosen by", "AUC", *SCORES[1:], "AUC of seed 1", "minutes")
    commands = (f"- {recipe.name}: `pneumonia {' '.join(recipe.words)}`" for recipe in rows)
    return [*table(header, cells), "", *commands]


def _commits(runs: Iterable[SearchRecord]) -> str:
    return ", ".join(dict.fromkeys(one.tags.get("git_commit", "unknown")[:7] for one in runs))


def ablation(rows: Rows) -> list[str]:
    """Return the table of what each change does, and the commands."""
    judged: dict[str, dict[bool, Mapping[int, SearchRecord]]] = {}
    for recipe, by_seed in rows.items():
        judged.setdefault(recipe.name.partition(", ")[2], {})[recipe.is_folded] = by_seed
    bases = next(iter(judged.values()))
    cells = []
    for name, by_rule in judged.items():
        of_val, of_folds = (by_rule.get(is_folded, {}) for is_folded in (False, True))
        compared = ((of_val, bases.get(False, {})), (of_folds, bases.get(True, {})))
        auc = mean(map(_auc, of_folds.values())) if of_folds else ""
        cells.append((
            name, f"{len(of_val)}, {len(of_folds)}",
            *(cell for runs, base in compared for cell in _compared(runs, base)), auc,
        ))  # fmt: skip
    first, *others = [recipe for recipe in rows if not recipe.is_folded] or list(rows)
    objective = next(iter(rows[first].values())).objective.name
    header = ("", "seeds", f"{objective}", "difference", "out of fold", "difference", "AUC")
    own = (f"- {recipe.name.partition(', ')[2]}: `{_added(recipe, first)}`" for recipe in others)
    commands = [f"`pneumonia {' '.join(first.words)}`, and for the others:", "", *own]
    return [*table(header, cells), "", *commands]


def _compared(
    runs: Mapping[int, SearchRecord], base: Mapping[int, SearchRecord]
) -> tuple[str, str]:
    if not runs:
        return "", ""
    shared = [runs[seed].score - base[seed].score for seed in runs if seed in base]
    score = mean((one.score for one in runs.values()), digits=4)
    if not shared or runs is base:
        return score, ""
    if len(shared) == 1:
        return score, f"{shared[0]:+.4f}"
    return score, "{:+.4f} ({:+.4f} to {:+.4f})".format(*interval(shared))


def _auc(run: SearchRecord) -> float:
    won = run.winner()
    return float((won.ended if won and won.ended else {})["metrics"]["val_auc"])


def _added(recipe: Recipe, first: Recipe) -> str:
    return " ".join(word for word in recipe.words if word not in first.words)


def earlier() -> list[str]:
    """Return the table of what presets were before."""
    header = ("", "seeds", "val_balanced_log_loss", "AUC", "accuracy", "specificity")
    return table(header, EARLIER)


def published() -> list[str]:
    """Return the table of what others have published."""
    return table(("", "AUC", "accuracy", "protocol"), PUBLISHED)


def foretold(runs: Sequence[SearchRecord]) -> str:
    """Say how well the objective on val ranked searches as test does."""
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

"""The study of docs/results.md: its rows are commands of the program, its tables say what is so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pneumonia.config import compose
from pneumonia.config.search_space import find
from pneumonia.evaluation.objective import Objective
from pneumonia.search.oracle import Oracle
from pneumonia.storage.search_record import SearchRecord
from pneumonia.storage.trial_record import TrialRecord

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import results
import study
import tables
from study import Recipe

RANGES = {
    "dense": {"units": "choice(64, 256)", "dropout": "interval(0.1, 0.5)"},
    "model": {"trainable": "choice(true, false)", "filters": "int(interval(2, 64))"},
    "optimizer": {"learning_rate": "tag(log, interval(1e-4, 1e-1))"},
}


def test_rows_have_folders_of_their_own_and_compared_ones_leave_test_alone() -> None:
    assert len({one.folder for one in study.STUDY}) == len(study.STUDY)
    for one in study.STUDY:
        assert (study.UNREAD in one.words) == (one.group in (*study.ABLATIONS, study.RACES))
        assert ("objective.folds=5" in one.words) == one.is_folded


@pytest.mark.slow
def test_rows_are_searches_of_the_program() -> None:
    for one in study.STUDY:
        words = [word for word in one.words if word != "tuner=tpe" and not word.startswith("--")]
        (cfg,) = compose.check(compose.prepare(tuple(words)))
        assert cfg.winner.test == (study.UNREAD not in words)


def searched(score: float, auc: float) -> SearchRecord:
    made = SearchRecord(Path(), started={"direction": "min"}, is_completed=True)
    made.params = {"objective.name": "val_loss"}
    won = TrialRecord("1", {}, {}, ended={"metrics": {"val_auc": auc}})
    made.trials = {"1": won}
    made.ended = {"metrics": {"val_loss": score}, "winner": "1"}
    return made


def test_a_change_is_compared_by_the_same_seeds() -> None:
    rows: dict[Any, dict[int, SearchRecord]] = {}
    for is_folded, name, scores in (
        (False, "as it is", (0.1, 0.2)),
        (True, "as it is", (0.3,)),
        (False, "MixUp", (0.12, 0.2, 0.9)),
        (True, "MixUp", (0.28,)),
    ):
        words = ("a", "b") if name == "as it is" else ("a", "b", "c=1")
        recipe = Recipe("Ingredients", f"heads, {name}", words, is_folded=is_folded)
        rows[recipe] = {seed: searched(score, 0.9) for seed, score in enumerate(scores, start=1)}
    lines = tables.ablation(rows)
    assert lines[2].startswith("| as it is | 2, 1 | 0.1500 ± 0.0707 |  | 0.3000 |  | 0.900 |")
    # The third seed has nothing to be compared with.
    low, high = 0.01 - 12.706 * 0.01, 0.01 + 12.706 * 0.01
    assert f"+0.0100 ({low:+.4f} to {high:+.4f}) | 0.2800 | -0.0200 |" in lines[3]
    assert lines[-1] == "- MixUp: `c=1`"


def test_parts_whose_searches_ran_elsewhere_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = results.PAGE.read_text(encoding="utf-8")
    _, *parts = before.split("\n## ")
    assert results.page(tmp_path, tmp_path, before).split("\n## ")[1:] == parts
    rows = {one.folder: searched(0.1, 0.9) for one in study.STUDY if one.group == study.HEADED}
    monkeypatch.setattr(results, "read", lambda path: rows.get(path.name.removesuffix("-1")))
    _, *again = results.page(tmp_path, tmp_path, before).split("\n## ")
    assert [part.partition("\n")[0] for part in again] == [one.partition("\n")[0] for one in parts]
    changed = [part for part, old in zip(again, parts, strict=True) if part != old]
    (own,) = changed
    assert own.startswith(f"{study.HEADED}\n")
    assert "| as it is | 1, 1 | 0.1000 |" in own


def test_tpe_is_an_oracle_that_learns_and_repeats_itself() -> None:
    objective, space = Objective("val_loss", "min"), find(OmegaConf.create(RANGES))
    own = {"_target_": "tpe.TPE", "max_trials": 40, "max_epochs": 3, "startup": 10, "seed": 1}

    def run() -> list[float]:
        oracle, losses = Oracle(space, own | {"max_consecutive_failures": 3}, objective), []
        while (one := oracle.propose()) is not None:
            given = one.values
            assert all(item.contains(given[item.path]) for item in space)
            loss = abs(given["dense.dropout"] - 0.2) + abs(given["model.filters"] - 40) / 64
            loss += (given["dense.units"] == 64) + (given["model.trainable"] is True)
            losses.append(loss)
            oracle.tell(one.trial_id, None if len(losses) == 3 else loss)
        return losses

    losses = run()
    assert (len(losses), run()) == (40, losses)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])

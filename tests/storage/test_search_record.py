"""What the folder of a search tells of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made import NAMES, RANGES, Made, finished

from pneumonia.datasets.base import ArraySource, Split
from pneumonia.errors import UserError
from pneumonia.reporting import report
from pneumonia.search import winner
from pneumonia.storage import search_record


def test_a_search_that_has_completed(tmp_path: Path) -> None:
    search = search_record.read(finished(tmp_path))
    best = search.winner()
    assert best is not None
    assert (search.status, search.objective, search.class_names) == ("completed", "val_auc", NAMES)
    assert tuple(item.path for item in search.ranges) == RANGES
    assert len(search.trials) == 21
    assert best.score == max(trial.score or 0 for trial in search.trials)
    assert set(best.values) == set(RANGES)
    assert search.metrics["threshold"] == 0.62


def test_a_promoted_trial_has_the_epochs_of_its_parent_and_its_own_time(tmp_path: Path) -> None:
    search = search_record.read(finished(tmp_path))
    child = next(trial for trial in search.trials if trial.parent)
    assert (child.bracket, child.round, child.epochs) == (1, 1, 9)
    assert (len(child.curve), len(child.points)) == (9, 6)
    assert child.waited == pytest.approx(0.1)
    assert child.seconds == pytest.approx(0.65)


def test_a_pause_between_an_end_and_going_on_does_not_count(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.train(made.start(made.draw(), epochs=1), 1, 1)
    made.end("interrupted")
    before = search_record.read(tmp_path)
    assert before.status == "interrupted"
    trial_id = made.draw()
    made.event("trial_started", after=3_600_000, trial_id="0001", number=2, name="trial 2",
               values=trial_id | {"epochs": 1}, tags={})  # fmt: skip
    search = search_record.read(tmp_path)
    assert search.status == "unfinished"
    assert search.seconds == pytest.approx(before.seconds)
    assert search.trials[1].began == pytest.approx(before.seconds)


def test_a_trial_without_an_end_is_unfinished_and_no_score_is_no_number(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.start(made.draw(), epochs=3)
    made.fail("the loss is not a number")
    unfinished, failed = search_record.read(tmp_path).trials
    assert (unfinished.status, unfinished.score) == ("unfinished", None)
    assert (failed.status, failed.reason) == ("failed", "the loss is not a number")
    assert search_record.read(tmp_path).winner() is None


def test_a_winner_that_the_budget_has_stopped_has_the_score_that_it_won_with(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path)
    made.train(made.start(made.draw(), epochs=1), 1, 1)
    trial_id = made.start(made.draw(), epochs=5)
    for epoch, score in enumerate((0.91, 0.97, 0.96), start=1):
        made.event("epoch_ended", trial_id=trial_id, execution=0, epoch=epoch,
                   metrics={"val_auc": score})  # fmt: skip
    metrics = {"val_auc": 0.97}
    ending = {"status": "completed", "winner": trial_id, "metrics": metrics, "reason": "spent"}
    search = search_record.read(tmp_path, ending=ending)
    winner = search.winner()
    assert winner is not None
    assert (winner.number, winner.score, winner.best_epoch) == (2, 0.97, 2)
    assert winner.status == "unfinished"
    assert search.ranked()[0] is winner
    assert "Trial 2 won with val_auc 0.9700 at epoch 2." in report.render(search)


@pytest.mark.parametrize("text", ["", "[", "dense: {units: 'choice(1'}"])
def test_without_a_config_that_can_be_read_the_trials_tell_what_differs(
    text: str, tmp_path: Path
) -> None:
    finished(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    search = search_record.read(tmp_path)
    assert {item.path for item in search.ranges} == set(RANGES)


def test_a_folder_without_a_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected the folder of a search.*journal\.jsonl"):
        search_record.read(tmp_path)


def test_predictions(tmp_path: Path) -> None:
    found = search_record.read(finished(tmp_path)).predictions
    assert {split: len(one.labels) for split, one in found.items()} == {"val": 80, "test": 120}
    assert found["test"].names[:2] == ("test/0", "test/1")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("a,b\n1,2\n", 2),
        ("split,name,label,probability\ntest,a,one,0.5\n", 2),
        ("split,name,label,probability\ntest,a,1,0.5\ntest,b,2,0.5\n", 3),
        ("split,name,label,probability\ntest,a,1,nan\n", 2),
        ("split,name,label,probability\ntest,a,1,1.5\n", 2),
        ("split,name,label,probability\ntest,a,1,0.5,0.5\n", 2),
        ("split,name,label,probability\ntest,a,1,0.5\ntest,b", 3),
        ("split,name\ntest,a\n", 2),
        ("\0\0\0\0", 1),
    ],
)
def test_damaged_predictions_are_named(text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(UserError, match=rf"predictions\.csv: damaged in line {line}\. Without"):
        search_record.read_predictions(tmp_path / "predictions.csv")
    assert search_record.read_predictions(tmp_path / "none.csv") == {}


def test_predictions_that_have_lost_rows_are_named(tmp_path: Path) -> None:
    path = finished(tmp_path) / "predictions.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-7]) + "\n")
    with pytest.raises(UserError, match=r"damaged \(113 rows of test instead of 120\)"):
        search_record.read(tmp_path)


@pytest.mark.parametrize(
    "text", ["dense: 5", "when: 3", "- 1", "a: ${b", "dense: {units: null}", "\0"]
)
def test_whatever_is_in_a_config_a_report_does_without(text: str, tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    assert "0123456789ab" in report.render(search_record.read(tmp_path))


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    names = ("=a/1.png", "'@b/2.png", "c\rd.png", "-e\nf.png", "'plain.png")
    labels = np.arange(5) % 2
    split = Split("test", ArraySource(np.zeros((5, 8, 8), np.uint8)), labels, names, "")
    probabilities = np.linspace(0, 1, 5, dtype=np.float32)
    winner._write_predictions(tmp_path / "predictions.csv", [(split, probabilities)])
    found = search_record.read_predictions(tmp_path / "predictions.csv")["test"]
    assert found.names == names
    assert found.labels.tolist() == labels.tolist()
    assert np.array_equal(found.probabilities.astype(np.float32), probabilities)


def test_a_job_is_noted_where_no_folder_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "2026" / "sweep"
    job = search_record.Job(0, "seed=1", "0", 2, "no data")
    search_record.note(job, folder)
    assert search_record.jobs(folder) == [job]

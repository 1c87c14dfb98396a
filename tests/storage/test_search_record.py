"""What the folder of a search tells of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import NAMES, RANGES, Made, finished

from pneumonia.datasets.base import ArraySource, Split
from pneumonia.errors import UserError
from pneumonia.evaluation.objective import Fit
from pneumonia.reporting import report
from pneumonia.search import winner
from pneumonia.storage import jobs, journal, predictions, search_record
from pneumonia.storage.journal import Event, Journal
from pneumonia.storage.search_record import SearchRecord, from_journal
from pneumonia.storage.trial_record import identity, varying


def test_a_search_that_has_completed(tmp_path: Path) -> None:
    search = search_record.read(finished(tmp_path))
    best = search.winner()
    assert best is not None
    assert (search.status, search.objective.name, search.class_names) == (
        "completed",
        "val_auc",
        NAMES,
    )
    assert tuple(item.path for item in search.ranges) == RANGES
    assert len(search.trials) == 21
    assert best.score == max(trial.score or 0 for trial in search.trials.values())
    assert set(best.hyperparameters) == set(RANGES)
    assert search.metrics["threshold"] == 0.62


def test_a_promoted_trial_has_the_epochs_of_its_parent_and_its_own_time(tmp_path: Path) -> None:
    search = search_record.read(finished(tmp_path))
    child = next(trial for trial in search.trials.values() if trial.parent)
    assert (child.bracket, child.round, child.epochs) == (1, 1, 9)
    assert (len(search.curve(child.trial_id)), len(child.points)) == (9, 6)
    assert child.points[0][0] - child.began == pytest.approx(0.1)
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
    assert search.seconds == pytest.approx(before.elapsed)
    assert search.trials["0001"].began == pytest.approx(before.elapsed)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_pause_after_a_kill_does_not_count(is_old: bool, tmp_path: Path) -> None:
    def event(kind: str, seconds: float, clock: float, **fields: Any) -> Event:
        return {"n": 0, "kind": kind, "time": 1000 * clock, "seconds_elapsed": seconds, **fields}

    trial = {"trial_id": "0001", "number": 1, "values": {}, "tags": {}}
    begun = event("search_started", 20.0, 120, params={})
    if is_old:  # events had no such field once, and counting then begins when it goes on
        del begun["seconds_elapsed"]
    search = SearchRecord(tmp_path)
    search.apply(begun)
    search.apply(event("trial_started", 21.0, 9_921, **trial))
    search.apply(event("epoch_ended", 23.5, 9_925, trial_id="0001", epoch=1, metrics={}))
    assert search.elapsed == pytest.approx(23.5)
    assert search.trials["0001"].began == pytest.approx(21.0)
    assert search.trials["0001"].points == [(pytest.approx(23.5), {})]


def test_a_trial_without_an_end_is_unfinished_and_no_score_is_no_number(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.start(made.draw(), epochs=3)
    made.fail("the loss is not a number")
    unfinished, failed = search_record.read(tmp_path).trials.values()
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


def test_an_execution_that_the_budget_has_cut_off_is_not_in_the_score(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as one:
        one.append("search_started", search_id="s1", params={"objective.name": "val_auc"})
        start(one, "0000")
        train(one, "0000", 1, 2, 3)
        train(one, "0000", 9, execution=1)  # higher, and no measure
        one.append("search_ended", status="completed", winner="0000", metrics={"val_auc": 0.3})
    found = from_journal(tmp_path)
    winner = search_record.score_stopped(found)
    assert winner is not None
    assert (winner.score, winner.best_epoch) == (0.3, 3)
    assert found.best_curve("0000")[-1]["val_auc"] == 0.3


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
        predictions.read(tmp_path / "predictions.csv")
    assert predictions.read(tmp_path / "none.csv") == {}


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
    found = predictions.read(tmp_path / "predictions.csv")["test"]
    assert found.names == names
    assert found.labels.tolist() == labels.tolist()
    assert np.array_equal(found.probabilities.astype(np.float32), probabilities)


def test_a_job_is_noted_where_no_folder_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "2026" / "sweep"
    job = jobs.JobRecord(0, "seed=1", "0", 2, "no data")
    jobs.note(job, folder)
    assert jobs.read(folder) == [job]


def test_half_a_line_of_a_job_spoils_no_other(tmp_path: Path) -> None:
    first, second, third = (jobs.JobRecord(n, "", str(n), n, "") for n in range(3))
    jobs.note(first, tmp_path)
    with (tmp_path / jobs.NAME).open("a") as file:
        file.write('{"number": 1, "overr')
    jobs.note(second, tmp_path)
    jobs.note(third, tmp_path)
    assert jobs.read(tmp_path) == [first, second, third]
    assert (tmp_path / jobs.NAME).read_bytes().count(b"\n") == 4


def begin(folder: Path, search_id: str = "s1", status: str | None = None) -> None:
    with closing(Journal(folder)) as one:
        one.append("search_started", search_id=search_id)
        if status:
            one.append("search_ended", status=status)


def start(one: Journal, trial_id: str, parent: str | None = None) -> None:
    tags = {"bracket": "1", "round": "0"} | ({"promoted_from": parent} if parent else {})
    one.append("trial_started", trial_id=trial_id, values={"dense.units": 8}, tags=tags)


def train(one: Journal, trial_id: str, *epochs: int, execution: int = 0) -> None:
    for epoch in epochs:
        fields = {"trial_id": trial_id, "execution": execution, "epoch": epoch}
        one.append("epoch_ended", metrics={"val_auc": epoch / 10}, **fields)


def test_reads_what_happened(tmp_path: Path) -> None:
    begin(tmp_path)
    with closing(Journal(tmp_path)) as one:
        start(one, "0000")
        train(one, "0000", 1, 2)
        train(one, "0000", 1, execution=1)
        one.append("trial_ended", trial_id="0000", status="COMPLETED", score=0.5)
        start(one, "0001")
    found = from_journal(tmp_path)
    assert found.started is not None
    assert found.started["search_id"] == "s1"
    assert list(found.trials) == ["0000", "0001"]
    first, second = found.trials.values()
    assert first.values == {"dense.units": 8}
    assert {fit.execution: len(curve) for fit, curve in first.curves.items()} == {0: 2, 1: 1}
    assert first.ended is not None
    assert first.ended["score"] == 0.5
    assert second.ended is None
    assert not found.is_completed


def test_nothing_is_known_without_a_journal(tmp_path: Path) -> None:
    assert from_journal(tmp_path) == search_record.SearchRecord(tmp_path)


def test_epochs_of_a_promoted_trial_follow_those_before_and_count_once(tmp_path: Path) -> None:
    begin(tmp_path)
    with closing(Journal(tmp_path)) as one:
        start(one, "0000")
        train(one, "0000", 1, 2)
        start(one, "0001", "0000")
        train(one, "0001", 3, 4, 5)
        train(one, "0001", 3, 4, 5, 6)  # killed, and gone on with from its parent's state
        start(one, "0002", "0001")
        train(one, "0002", 7)
    found = from_journal(tmp_path)
    past = found.trials["0001"]
    assert past.reached[Fit()] == 6
    assert [metrics["val_auc"] for metrics in past.curves[Fit()]] == [0.3, 0.4, 0.5, 0.6]
    curve = [metrics["val_auc"] for metrics in found.curve("0002")]
    assert curve == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["completed"], True),
        (["interrupted"], False),
        (["failed"], False),
        (["interrupted", "completed"], True),
    ],
)
def test_completed_is_what_the_last_end_says(
    statuses: list[str], expected: bool, tmp_path: Path
) -> None:
    for status in statuses:
        begin(tmp_path, status=status)
    assert from_journal(tmp_path).is_completed is expected


def test_more_budget_opens_a_search_that_has_completed(tmp_path: Path) -> None:
    begin(tmp_path, status="completed")
    with closing(Journal(tmp_path)) as one:
        one.append("search_extended", params={"tuner.max_trials": 8})
        start(one, "0000")
    found = from_journal(tmp_path)
    assert (found.is_completed, found.completions) == (False, 1)
    assert found.params == {"tuner.max_trials": 8}


def test_an_event_of_no_trial_is_named(tmp_path: Path) -> None:
    begin(tmp_path)
    with closing(Journal(tmp_path)) as one:
        train(one, "0007", 1)
    with pytest.raises(UserError, match="damaged in line 2: '0007' did not begin before"):
        from_journal(tmp_path)


def test_what_a_search_says_while_it_runs_is_what_a_report_says(tmp_path: Path) -> None:
    running = search_record.SearchRecord(tmp_path)
    for event in journal.read(finished(tmp_path)):
        running.apply(event)
    search = search_record.read(tmp_path)
    assert running.status == search.status == "completed"
    assert [one.trial_id for one in running.ranked()] == [one.trial_id for one in search.ranked()]
    assert running.winner().trial_id == search.winner().trial_id
    keys = [[one.key for one in of.trials.values()] for of in (running, search)]
    pairs = set(zip(*keys, strict=True))
    assert len(pairs) == len(set(keys[0])) == len(set(keys[1])) == 17  # four were promoted


def test_hyperparameters_are_the_same_in_any_order_and_vary_where_one_is_missing() -> None:
    assert identity({"a": 1, "b": "x"}) == identity({"b": "x", "a": 1})
    assert identity({"a": 1}) != identity({"a": True})
    rows = [{"a": 1, "b": 2, "c": 3.0}, {"a": 1, "b": 3, "d": None}]
    assert varying(rows) == ["b", "c", "d"]
    assert varying(rows[:1]) == varying([]) == []

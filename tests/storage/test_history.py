"""What a journal says of a search that goes on."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from pneumonia.errors import UserError
from pneumonia.storage import history, journal, offset
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor


def begin(folder: Path, search_id: str = "s1", status: str | None = None) -> None:
    with closing(Journal(folder)) as one:
        one.append("search_started", search_id=search_id)
        if status:
            one.append("search_ended", status=status)
    (folder / history.CONFIG).write_text("")


def write(events: list[journal.Event], path: Path) -> None:
    """Write a journal of changed events as if they had been so from the beginning."""
    place, text = journal.Place(), b""
    for event in events:
        line, place = journal.seal(event, place)
        text += line
    path.write_bytes(text)


def send(folder: Path, run_id: str, *, left: int = 0, is_open: bool = False) -> None:
    """Note that MLflow has taken all events of a journal, but some."""
    count = sum(1 for _ in journal.read(folder))
    sent = Cursor("sqlite:///somewhere", next=count - left, run_id=run_id, is_open=is_open)
    sent.save(folder / offset.NAME)


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
    found = history.read(tmp_path)
    assert found.started is not None
    assert found.started["search_id"] == "s1"
    assert list(found.trials) == ["0000", "0001"]
    first, second = found.trials.values()
    assert first.values == {"dense.units": 8}
    assert (first.count(0), first.count(1), first.count(2)) == (2, 1, 0)
    assert first.ended is not None
    assert first.ended["score"] == 0.5
    assert second.ended is None
    assert not found.is_completed


def test_nothing_is_known_without_a_journal(tmp_path: Path) -> None:
    assert history.read(tmp_path) == history.History()


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
    found = history.read(tmp_path)
    past = found.trials["0001"]
    assert (past.count(0), past.reached[0]) == (4, 6)
    assert [metrics["val_auc"] for metrics in past.epochs[0]] == [0.3, 0.4, 0.5, 0.6]
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
    assert history.read(tmp_path).is_completed is expected


def test_finds_the_last_one_that_has_not_completed(tmp_path: Path) -> None:
    begin(tmp_path / "day" / "b", "first")
    begin(tmp_path / "sweep" / "0" / "a", "second", "interrupted")
    begin(tmp_path / "day" / "c", "third", "completed")
    send(tmp_path / "day" / "c", "0")
    (tmp_path / "day" / "empty").mkdir()
    (tmp_path / "day" / "empty" / "journal.jsonl").write_text("")
    os.utime(tmp_path / "day" / "empty" / "journal.jsonl", (9, 9))
    # Times are in milliseconds, and these searches began within one.
    for number, name in enumerate(["day/b", "sweep/0/a", "day/c"]):
        path = tmp_path / name / "journal.jsonl"
        write([event | {"time": number} for event in journal.read(path.parent)], path)
    assert history.find("last", tmp_path) == tmp_path / "sweep" / "0" / "a"
    # Whatever is the last one can be forked, or given more budget.
    for more in ("resume.fork=true", "tuner.max_trials=9", "+tuner.hyperband_iterations=2"):
        assert history.find("last", tmp_path, overrides=[more]) == tmp_path / "day" / "c"
    (tmp_path / "day" / "empty" / history.CONFIG).write_text("")  # killed before it began
    assert history.find("last", tmp_path) == tmp_path / "day" / "empty"


@pytest.mark.parametrize(("left", "is_open"), [(1, False), (0, True)])
def test_a_search_that_mlflow_has_not_wholly_taken_is_not_over(
    left: int, is_open: bool, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        begin(tmp_path / name, name, "completed")
        send(tmp_path / name, name)
        time.sleep(0.002)  # journals tell milliseconds
    assert history.find("last", tmp_path) == tmp_path / "b"
    send(tmp_path / "a", "a", left=left, is_open=is_open)
    assert history.find("last", tmp_path) == tmp_path / "a"


def test_more_budget_opens_a_search_that_has_completed(tmp_path: Path) -> None:
    begin(tmp_path, status="completed")
    with closing(Journal(tmp_path)) as one:
        one.append("search_extended", params={"tuner.max_trials": 8})
        start(one, "0000")
    found = history.read(tmp_path)
    assert (found.is_completed, found.completions) == (False, 1)
    assert found.params == {"tuner.max_trials": 8}


def test_finds_a_search_by_its_id_and_by_its_run(tmp_path: Path) -> None:
    begin(tmp_path / "a", "first")
    begin(tmp_path / "b", "second", "completed")
    send(tmp_path / "a", "0a1b2c")
    assert history.find("first", tmp_path) == tmp_path / "a"
    assert history.find("0a1b2c", tmp_path) == tmp_path / "a"
    assert history.find("second", tmp_path) == tmp_path / "b"
    with pytest.raises(FileNotFoundError):
        history.find("third", tmp_path)


@pytest.mark.parametrize("name", ["last", "first"])
def test_nothing_to_find(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        history.find(name, tmp_path / "outputs")


def test_a_damaged_journal_keeps_nobody_from_another(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        begin(tmp_path / name, name)
    for name, line in (("a", 1), ("b", 2)):
        path = tmp_path / name / journal.NAME
        lines = [*path.read_bytes().splitlines(), b"{}"]
        lines[line - 1] = b"{}"
        path.write_bytes(b"\n".join(lines) + b"\n")
    assert history.find("c", tmp_path) == tmp_path / "c"
    assert history.find("b", tmp_path) == tmp_path / "b"
    with pytest.raises(UserError, match=r"b.journal\.jsonl: damaged in line 2"):
        history.read(tmp_path / "b")
    with pytest.raises(UserError, match=r"a.journal\.jsonl: damaged in line 1"):
        history.find("a", tmp_path)  # which it may be


def test_an_event_of_no_trial_is_named(tmp_path: Path) -> None:
    begin(tmp_path)
    with closing(Journal(tmp_path)) as one:
        train(one, "0007", 1)
    with pytest.raises(UserError, match="damaged in line 2: '0007' did not begin before"):
        history.read(tmp_path)


@pytest.mark.parametrize("text", [None, "", "[", "- 1", "hydra: {}", "hydra: {runtime: 3}", "\0"])
def test_without_its_options_a_search_that_had_not_begun_is_named(
    text: str | None, tmp_path: Path
) -> None:
    (tmp_path / ".hydra").mkdir()
    if text is not None:
        (tmp_path / ".hydra" / "hydra.yaml").write_text(text)
    with pytest.raises(UserError, match=r"hydra\.yaml: missing or damaged"):
        history.choices(tmp_path)


TRACKED = {"store": "x", "next": 1, "trials": {"0000": {"run_id": "ab"}}}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "5", "\0\0", '{"store": 1}', json.dumps(TRACKED)[:-3]]
    + [json.dumps(TRACKED | change) for change in (
        {"next": "1"}, {"next": None}, {"trials": []}, {"trials": {"0000": {}}}, {"more": 1},
        {"trials": {"0000": {"run_id": 5}}}, {"trials": {"0000": {"run_id": "ab", "epochs": 1}}},
        {"trials": {"0000": {"run_id": "ab", "score": "high"}}}, {"run_id": 7}, {"store": None},
    )],
)  # fmt: skip
def test_nothing_was_noted_in_a_damaged_cursor(text: str, tmp_path: Path) -> None:
    path = tmp_path / offset.NAME
    path.write_text(json.dumps(TRACKED))
    assert Cursor.read(path).trials["0000"].run_id == "ab"
    path.write_text(text)
    assert Cursor.read(path) == Cursor("")
    path.unlink()
    path.mkdir()
    assert Cursor.read(path) == Cursor("")

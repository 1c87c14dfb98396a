"""Searches are found among others, however they are called."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pneumonia.errors import UserError
from pneumonia.storage import jobs, journal, offset, search_folder
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor
from pneumonia.storage.search_folder import SearchFolder
from pneumonia.storage.search_record import from_journal


def begin(folder: Path, search_id: str = "s1", status: str | None = None) -> None:
    with closing(Journal(folder)) as one:
        one.append("search_started", search_id=search_id)
        if status:
            one.append("search_ended", status=status)
    (folder / "config.yaml").write_text("")


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
    assert search_folder.find("last", tmp_path) == tmp_path / "sweep" / "0" / "a"
    assert search_folder.find("last", tmp_path, is_any=True) == tmp_path / "day" / "c"
    (tmp_path / "day" / "empty" / "config.yaml").write_text("")  # killed before it began
    assert search_folder.find("last", tmp_path) == tmp_path / "day" / "empty"


@pytest.mark.parametrize(("left", "is_open"), [(1, False), (0, True)])
def test_a_search_that_mlflow_has_not_wholly_taken_is_not_over(
    left: int, is_open: bool, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        begin(tmp_path / name, name, "completed")
        send(tmp_path / name, name)
        time.sleep(0.002)  # journals tell milliseconds
    assert search_folder.find("last", tmp_path) == tmp_path / "b"
    send(tmp_path / "a", "a", left=left, is_open=is_open)
    assert search_folder.find("last", tmp_path) == tmp_path / "a"


def test_finds_a_search_by_its_id_and_by_its_run(tmp_path: Path) -> None:
    begin(tmp_path / "a", "first")
    begin(tmp_path / "b", "second", "completed")
    send(tmp_path / "a", "0a1b2c")
    assert search_folder.find("first", tmp_path) == tmp_path / "a"
    assert search_folder.find("0a1b2c", tmp_path) == tmp_path / "a"
    assert search_folder.find("second", tmp_path) == tmp_path / "b"
    with pytest.raises(FileNotFoundError):
        search_folder.find("third", tmp_path)


@pytest.mark.parametrize("name", ["last", "first"])
def test_nothing_to_find(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        search_folder.find(name, tmp_path / "outputs")


def test_a_damaged_journal_keeps_nobody_from_another(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        begin(tmp_path / name, name)
    for name, line in (("a", 1), ("b", 2)):
        path = tmp_path / name / journal.NAME
        lines = [*path.read_bytes().splitlines(), b"{}"]
        lines[line - 1] = b"{}"
        path.write_bytes(b"\n".join(lines) + b"\n")
    assert search_folder.find("c", tmp_path) == tmp_path / "c"
    assert search_folder.find("b", tmp_path) == tmp_path / "b"
    with pytest.raises(UserError, match=r"b.journal\.jsonl: damaged in line 2"):
        from_journal(tmp_path / "b")
    with pytest.raises(UserError, match=r"a.journal\.jsonl: damaged in line 1"):
        search_folder.find("a", tmp_path)  # which it may be


@pytest.mark.parametrize("text", [None, "", "[", "- 1", "hydra: {}", "hydra: {runtime: 3}", "\0"])
def test_without_its_options_a_search_that_had_not_begun_is_named(
    text: str | None, tmp_path: Path
) -> None:
    (tmp_path / ".hydra").mkdir()
    if text is not None:
        (tmp_path / ".hydra" / "hydra.yaml").write_text(text)
    with pytest.raises(UserError, match=r"hydra\.yaml: missing or damaged"):
        SearchFolder(tmp_path).choices()


def test_all_searches_that_have_begun_are_found_in_their_order(tmp_path: Path) -> None:
    for number, name in enumerate(("c", "sweep/b", "a")):
        begin(tmp_path / name, name)
        path = tmp_path / name / journal.NAME
        write([event | {"time": number // 2} for event in journal.read(path.parent)], path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / journal.NAME).touch()
    assert search_folder.find_all(tmp_path) == [tmp_path / one for one in ("c", "sweep/b", "a")]
    assert search_folder.find_all(tmp_path / "a") == [tmp_path / "a"]


def test_what_others_remove_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "a")
    gone, scan = tmp_path / "a" / "classifiers" / ".model", os.scandir
    jobs.write_sweep(jobs.SweepRecord([], [], time=1), tmp_path / "a")

    def removed(path: str) -> Any:
        if Path(path) == gone:
            gone.rmdir()
        return scan(path)

    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").touch()
    (tmp_path / "b" / journal.NAME).symlink_to("gone")  # as one that is removed after it was found
    assert search_folder.find("s1", tmp_path) == tmp_path / "a"
    monkeypatch.setattr(os, "scandir", removed)
    for look in (search_folder.find_all, lambda place: [jobs.last_sweep(place)]):
        gone.mkdir(parents=True)
        assert look(tmp_path) == [tmp_path / "a"]
        assert not gone.exists()


def test_no_name_finds_no_search(tmp_path: Path) -> None:
    begin(tmp_path / "a", "first")
    Cursor("somewhere").save(tmp_path / "a" / offset.NAME)
    with pytest.raises(FileNotFoundError):
        search_folder.find("", tmp_path)

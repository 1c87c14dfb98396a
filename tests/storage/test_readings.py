"""How often a test split was read: counted for all searches, whatever runs or breaks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pneumonia.storage import readings
from pneumonia.storage.readings import Readings


def test_searches_and_times_are_counted_for_each_test_split(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    told = [
        readings.note("chest", digest, search_id, outputs=outputs)
        for digest, search_id in (("d1", "a"), ("d1", "b"), ("d2", "c"), ("d1", "a"))
    ]
    assert told == [Readings(1, 1), Readings(2, 2), Readings(1, 1), Readings(2, 3)]
    rows = [json.loads(line) for line in (outputs / readings.NAME).read_text().splitlines()]
    assert [list(row) for row in rows] == 4 * [["time", "dataset", "digest", "search_id"]]


def test_searches_that_end_at_once_are_all_counted(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = list(
            pool.map(lambda n: readings.note("chest", "d", f"s{n}", outputs=tmp_path), range(40))
        )
    assert sorted(one.times for one in told) == list(range(1, 41))


@pytest.mark.parametrize(
    "broken", [b'{"digest": "d", "sea', b"[]\n", b'{"digest": "d"}\n', b"\xff\n"]
)
def test_a_damaged_line_spoils_no_other(tmp_path: Path, broken: bytes) -> None:
    readings.note("chest", "d", "a", outputs=tmp_path)
    with (tmp_path / readings.NAME).open("ab") as file:
        file.write(broken)
    assert readings.note("chest", "d", "b", outputs=tmp_path) == Readings(2, 2)
    assert readings.note("chest", "d", "b", outputs=tmp_path) == Readings(2, 3)


def test_what_cannot_be_counted_is_told_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = readings.note("chest", "d", "a", outputs=tmp_path / "file")
    assert str(told).endswith("could not be counted in outputs/test_readings.jsonl.")


def test_one_line_where_there_is_more_than_one_search() -> None:
    # One that was killed while it read, and reads again to the same scores, has learned no more.
    assert [str(Readings(1, times)) for times in (1, 2)] == ["", ""]
    assert str(Readings(3, 5)) == (
        "The test split has been read by 3 searches (5 times): its scores flatter what is chosen "
        "by them."
    )
    assert "by 2 searches: its" in str(Readings(2, 2))

"""How far a journal was sent, on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pneumonia.storage import offset
from pneumonia.storage.offset import Cursor

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

"""A disk that is full, read-only or failing is told apart from what a trial does wrong."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path

import pytest

from pneumonia import files
from pneumonia.errors import UserError
from pneumonia.files import StorageError


def test_an_error_of_the_disk_names_the_file_and_the_cause() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    explained = files.explain(full, Path("outputs/journal.jsonl"))
    assert isinstance(explained, UserError)
    assert str(explained) == "outputs/journal.jsonl: No space left on device."
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "outputs")
    assert str(files.explain(refused)) == "outputs: Permission denied."
    copied = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "from", None, "to")
    assert str(files.explain(copied)) == "to: No space left on device."
    assert files.explain(explained) is explained
    assert str(files.explain(full)) == "A file cannot be written: No space left on device."


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "x", "y")])
def test_other_errors_are_no_error_of_the_disk(error: Exception) -> None:
    assert files.explain(error) is None


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    (tmp_path / ".a.txt.part").write_text("left by a process that was killed")
    with files.atomic(path) as part:
        assert not part.exists()
        part.write_text("one")
        assert not path.exists()
    with pytest.raises(FileNotFoundError), files.atomic(path) as part:
        part.with_name("missing").rename(part)
    with pytest.raises(UnicodeEncodeError), files.atomic(path) as part:
        part.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_linked_into_its_place_twice(tmp_path: Path) -> None:
    # Renaming a link onto another link of the same file does nothing: both names would stay.
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("one")
    for _ in range(2):
        with files.atomic(target, suffix=".own") as part:
            assert part.name == ".b.own"
            part.hardlink_to(source)
    assert sorted(tmp_path.iterdir()) == [source, target]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_error_of_a_full_device() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_bytes(b"x")
    assert isinstance(files.explain(caught.value, Path("/dev/full")), StorageError)


def test_a_file_that_is_let_go_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "classifier.keras"
    path.write_bytes(bytes(range(256)) * 40_000)
    files.let_go(path)
    files.let_go(path)
    assert path.read_bytes() == bytes(range(256)) * 40_000
    files.let_go(tmp_path / "gone.keras")  # the tracking may have taken it already
    assert [one.name for one in tmp_path.iterdir()] == ["classifier.keras"]


NAMES = (
    *("=1+1.png", "+a", "-a", "@SUM(A1)", "\ta", "\ra", "\n=a", "\uff1d1", " =1", "-", "\u3000@a"),
    *("'=1", "''@a", "'a", "'", "", "a'=1", "plain.png", "a\rb", "a\nb", "a\r\nb", "a\r", '"=1"'),
    *("a,b", "a;=1", "\u2028=a", os.fsdecode(b"=\xe9"), "\x1b[2J"),
)


def test_csv_holds_no_formula_and_is_read_back() -> None:
    rows = [("name", "-value"), *((name, -0.5) for name in NAMES)]
    text = files.as_csv(rows)
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert [(files.csv_text(name), value) for name, value in found[1:]] == [
        (name, "-0.5") for name in NAMES
    ]
    assert files.csv_text(found[0][1]) == "-value"
    assert not [cell for cell, _ in found if cell.lstrip()[:1] in {*"=+-@\uff1d"} and cell.strip()]
    # As a reader sees it that takes every kind of line end for one.
    quoted = [line for line in text.split("\n") if "\r" in line]
    assert quoted
    assert all('"' in line for line in quoted)
    assert files.as_csv([("a", 1), ("b", 2.5)]) == "a,1\nb,2.5\n"

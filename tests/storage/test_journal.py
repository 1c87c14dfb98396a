"""The journal keeps whole events, one process at a time, whatever a crash leaves."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumonia.errors import UserError
from pneumonia.storage import journal
from pneumonia.storage.journal import NAME, Journal

WRITER = """
import os, sys
from pathlib import Path
from pneumonia.storage.journal import Journal
one = Journal(Path(sys.argv[1]))
one.append("search_started", search_id="s1")
print("open", flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), 9)
"""


def write(folder: Path, *kinds: str) -> None:
    one = Journal(folder)
    for kind in kinds:
        one.append(kind, text="Müller", score=0.5, nothing=None)
    one.close()


def kinds(folder: Path, start: int = 0) -> list[str]:
    return [event["kind"] for event in journal.read(folder, start=start)]


def test_events_are_numbered_and_timed(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "as needed"
    write(folder, "a", "b")
    write(folder, "c")
    events = list(journal.read(folder))
    assert [(event["n"], event["kind"]) for event in events] == [(0, "a"), (1, "b"), (2, "c")]
    assert events[0]["time"] <= events[1]["time"] <= events[2]["time"]
    assert (events[1]["text"], events[1]["score"], events[1]["nothing"]) == ("Müller", 0.5, None)
    assert kinds(folder, start=2) == ["c"]
    assert Journal(tmp_path / "other").count == 0


def test_no_journal_is_no_event_and_opening_writes_nothing(tmp_path: Path) -> None:
    assert kinds(tmp_path) == []
    Journal(tmp_path / "none").close()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("rest", [b"{", b'{"n": 2, "kind": "c"', b'{"n": 2, "kind": "c"}'])
def test_a_half_written_line_is_no_event_and_is_dropped(rest: bytes, tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    with (tmp_path / NAME).open("ab") as file:
        file.write(rest)
    assert kinds(tmp_path) == ["a", "b"]
    write(tmp_path, "d")
    assert [(event["n"], event["kind"]) for event in journal.read(tmp_path)][2:] == [(2, "d")]


def test_an_event_is_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    one = Journal(tmp_path)
    one.append("a")
    assert kinds(tmp_path) == ["a"]
    one.append("b")
    assert kinds(tmp_path) == ["a", "b"]
    one.close()


def test_one_process_at_a_time_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(UserError, match="still runs, in another process"):
        Journal(tmp_path)
    process.communicate("x", timeout=30)
    write(tmp_path, "b")
    assert kinds(tmp_path) == ["search_started", "b"]


# Writes until the file may not grow, then again when it may.
LIMITED = """
import resource, sys
from pathlib import Path
from pneumonia.errors import UserError
from pneumonia.storage.journal import Journal
one = Journal(Path(sys.argv[1]))
one.append("a")
resource.setrlimit(resource.RLIMIT_FSIZE, (one.path.stat().st_size + 90, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        one.append("b", text="x" * 100)
    except UserError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
one.append("c")
"""


def test_a_full_disk_is_a_clear_error_and_spoils_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / NAME}: File too large.\n" * 2
    events = [(event["n"], event["kind"]) for event in journal.read(tmp_path)]
    assert events == [(0, "a"), (1, "c")]


def test_time_never_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600 * 10**9
    now = time.time_ns()
    for clock in (now, now - hour, now + hour, now - hour):
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: clock)
        write(tmp_path, "a")
        write(tmp_path, "b")  # in another process, as it were
    times = [event["time"] for event in journal.read(tmp_path)]
    assert times == sorted(times)
    assert times[0] == times[3] == now // 10**6
    assert times[4] == times[-1] == (now + hour) // 10**6


def test_elapsed_time_counts_on_over_processes_without_the_time_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.0, 103.0, 7.0, 8.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    write(tmp_path, "a", "b")
    write(tmp_path, "c")
    assert [event["seconds_elapsed"] for event in journal.read(tmp_path)] == [1.0, 3.0, 4.5]


def lines_of(folder: Path, *, is_sealed: bool = True) -> list[bytes]:
    """Return the lines of a search's journal, as it is or as earlier versions wrote it."""
    values = {"values": {"dense.units": 8}, "tags": {}}
    one = Journal(folder)
    one.append("search_started", search_id="s1", tags={}, params={}, datasets=[])
    one.append("trial_started", trial_id="0000", **values)
    for epoch in (1, 2, 3):
        fields = {"trial_id": "0000", "execution": 0, "epoch": epoch}
        one.append("epoch_ended", metrics={"val_auc": epoch / 10}, **fields)
    one.append("trial_ended", trial_id="0000", status="COMPLETED", metrics={}, score=0.3)
    one.append("trial_started", trial_id="0001", **values)
    one.close()
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    return lines if is_sealed else [re.sub(rb', "crc": \d+}', b"}", line) for line in lines]


def changed(line: bytes, **fields: object) -> bytes:
    event = {key: value for key, value in (json.loads(line) | fields).items() if value != "none"}
    return json.dumps(event).encode() + b"\n"


def renumbered(lines: list[bytes]) -> list[bytes]:
    return [changed(line, n=number) for number, line in enumerate(lines)]


FIELDS = ("n", "kind", "time", "metrics", "epoch", "trial_id")
# What is done to the lines, and the line that is named for it.
DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    **{
        repr(text): (lambda x, text=text: [*x[:3], text + b"\n", *x[4:]], 4)
        for text in (b"5", b"{}", b"[]", b"null", b"", b"nonsense", b'"n"', b"NaN", b"\xff\xfe")
    },
    "deep": (lambda x: [*x[:3], b"[" * 99_999 + b"\n", *x[4:]], 4),
    "taken out": (lambda x: [*x[:2], *x[3:]], 3),
    "first taken out": (lambda x: x[1:], 1),
    "swapped": (lambda x: [*x[:2], x[3], x[2], *x[4:]], 3),
    "twice": (lambda x: [*x[:3], x[2], *x[3:]], 4),
    "last twice": (lambda x: [*x, x[-1]], 8),
    "half of one": (lambda x: [*x[:2], x[2][:30], *x[3:]], 3),
    "CRLF": (lambda x: [line[:-1] + b"\r\n" for line in x], 1),
    "BOM": (lambda x: ["\ufeff".encode() + x[0], *x[1:]], 1),
    "UTF-16": (lambda x: [b"".join(x).decode().encode("utf-16"), b"\n"], 1),
    "zeros": (lambda x: [*x[:3], b"\0" * len(x[3]), b"\n", *x[4:]], 4),
    **{
        f"{name}={value}": (
            lambda x, name=name, value=value: [*x[:3], changed(x[3], **{name: value}), *x[4:]],
            4,
        )
        for name, value in (*((name, "none") for name in FIELDS),
                            ("n", True), ("n", 3.0), ("time", math.nan), ("kind", 7),
                            ("metrics", []), ("epoch", "2"), ("execution", None))
    },
}  # fmt: skip
# What only a checksum shows.
EDITS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "put in": (lambda x: [*x[:3], changed(x[2], n=3), *x[3:]], 4),
    "a metric": (lambda x: [*x[:3], x[3].replace(b"0.2", b"0.9"), *x[4:]], 4),
    "a score": (lambda x: [*x[:5], x[5].replace(b"0.3", b"0.4"), *x[6:]], 6),
    "the last one": (lambda x: [*x[:6], x[6].replace(b"8", b"9")], 7),
    "written again": (lambda x: [*x[:3], changed(x[3]).replace(b": ", b":"), *x[4:]], 4),
    "without its checksum": (lambda x: [*x[:3], changed(x[3], crc="none"), *x[4:]], 4),
    "renumbered": (lambda x: renumbered([*x[:2], *x[3:]]), 3),
    "all written again": (lambda x: [changed(line, time=1) for line in x], 1),
}


@pytest.mark.parametrize("is_sealed", [True, False])
@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_named_with_its_line(name: str, is_sealed: bool, tmp_path: Path) -> None:
    damage, line = DAMAGES[name]
    lines = damage(lines_of(tmp_path, is_sealed=is_sealed))
    assert_named(tmp_path, lines, line)


@pytest.mark.parametrize("name", EDITS)
def test_no_change_goes_unnoticed(name: str, tmp_path: Path) -> None:
    damage, line = EDITS[name]
    assert_named(tmp_path, damage(lines_of(tmp_path)), line)


def assert_named(folder: Path, lines: list[bytes], line: int) -> None:
    (folder / NAME).write_bytes(b"".join(lines))
    for read in (lambda: list(journal.read(folder)), lambda: Journal(folder)):
        with pytest.raises(UserError, match=rf"journal\.jsonl: damaged in line {line}: "):
            read()
    assert (folder / NAME).read_bytes() == b"".join(lines)


def test_the_end_of_another_journal_is_noticed(tmp_path: Path) -> None:
    one, other = lines_of(tmp_path / "a"), lines_of(tmp_path / "b")
    assert_named(tmp_path / "a", [*one[:4], *other[4:]], 5)


@pytest.mark.parametrize(
    "rest",
    [b"\0" * 4096, b'{"n": 7, "ki' + b"\0" * 50, b"\0" * 50 + b"\n", b'{"n": 7,\0\0}\n', b"\xff"],
)
def test_what_lost_power_leaves_at_the_end_is_cut_off(rest: bytes, tmp_path: Path) -> None:
    lines = lines_of(tmp_path)
    (tmp_path / NAME).write_bytes(b"".join(lines) + rest)
    assert len(kinds(tmp_path)) == 7
    write(tmp_path, "more")
    assert kinds(tmp_path)[6:] == ["trial_started", "more"]
    assert (tmp_path / NAME).read_bytes().startswith(b"".join(lines))


def test_a_journal_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, is_sealed=False)
    (tmp_path / NAME).write_bytes(b"".join(lines))
    assert len(kinds(tmp_path)) == 7
    write(tmp_path, "more", "and more")
    assert len(kinds(tmp_path)) == 9
    assert "crc" not in list(journal.read(tmp_path))[-1]


def test_reading_on_from_a_place(tmp_path: Path) -> None:
    lines_of(tmp_path)
    places = [place for _, place in journal.walk(tmp_path)]
    for number, place in enumerate(places, start=1):
        found = [event["n"] for event, _ in journal.walk(tmp_path, place)]
        assert found == list(range(number, 7))

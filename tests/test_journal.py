"""The journal keeps whole events, one process at a time, whatever a crash leaves."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pneumonia import journal
from pneumonia.errors import UserError
from pneumonia.journal import NAME, Journal

WRITER = """
import os, sys
from pathlib import Path
from pneumonia.journal import Journal
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
    root = Path(__file__).parents[1]
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
from pneumonia.journal import Journal
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
    root = Path(__file__).parents[1]
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


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'{"n": 0}\n' + b"\0" * 50 + b"\n")
    with pytest.raises(UserError, match=r"journal\.jsonl: damaged in line 2\."):
        list(journal.read(tmp_path))

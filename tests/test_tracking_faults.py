"""What a disk, a lock or a clock does to the tracking: nothing is lost, nothing is sent twice."""

from __future__ import annotations

import errno
import json
import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from test_tracking import (
    add_epochs,
    assert_whole,
    await_condition,
    empty_store,
    end_search,
    end_trial,
    folder,
    journal,
    rows,
    settings,
    start_search,
    start_trial,
    track,
    write_search,
)

from pneumonia import cursor, history
from pneumonia.errors import ConfigError, UserError
from pneumonia.follower import Follower
from pneumonia.journal import Journal
from pneumonia.mlflow_setup import Settings
from pneumonia.mlflow_store import Store, make_ready

__all__ = ["empty_store", "folder", "journal", "settings"]


def follow(folder: Path, settings: Settings) -> tuple[Follower, list[str]]:
    told: list[str] = []
    follower = Follower(folder, settings, told.append)
    follower.start()
    return follower, told


def test_a_locked_database_gets_everything_when_it_is_free(
    settings: Settings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    follower, told = follow(folder, settings)
    start_search(journal)
    await_condition(lambda: rows("select count(*) from runs") == [(1,)])
    with closing(sqlite3.connect("mlruns/mlflow.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        trial_id = start_trial(journal, 1)
        add_epochs(journal, trial_id, range(1, 3))
        end_trial(journal, trial_id, 0.7)
        time.sleep(3)  # the follower has met the lock, and waits
        other.execute("rollback")
    end_search(journal, trial_id)
    assert follower.close() == 0
    assert_whole(trials=1, epochs=2)
    assert told == []


@pytest.mark.slow  # SQLite waits for five seconds
def test_a_database_that_is_locked_at_the_start_is_one_clear_error(settings: Settings) -> None:
    began = time.monotonic()
    with closing(sqlite3.connect("mlruns/mlflow.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(
            ConfigError, match=r"`tracking\.uri`.*no other program.*database is locked"
        ):
            make_ready(settings)
    assert time.monotonic() - began < 20


def test_a_folder_that_may_only_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlruns").write_text("a file, where the folder should be")
    with pytest.raises(ConfigError, match="Make its folder writable") as caught:
        make_ready(Settings())
    assert "server" not in str(caught.value)


def test_a_clock_that_was_put_back_ends_no_run_before_it_began(
    settings: Settings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    future = time.time_ns() // 1_000_000 + 3_600_000
    journal._time = future  # as if the clock had been an hour ahead
    start_search(journal)
    start_trial(journal, 1)
    follower, told = follow(folder, settings)
    assert follower.close() == 0, told
    found = rows("select status, start_time, end_time from runs")
    assert [status for status, *_ in found] == ["KILLED", "KILLED"]
    assert all(future <= start <= end for _, start, end in found)


def test_a_full_disk_under_mlflow_is_told_and_what_is_left_is_sent_later(
    settings: Settings, folder: Path
) -> None:
    make_ready(settings)
    write_search(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = Path("mlruns/mlflow.db").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        follower, told = follow(folder, settings)
        await_condition(lambda: bool(told))
        assert follower.close(timeout=1) > 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "written to; the search goes on without it" in told[0]
    assert "resume=s1" in told[-1]
    follower._thread.join(30)  # in its own process it would be gone by now
    track(folder, settings)
    assert_whole(trials=3, epochs=2)


def test_a_clock_that_is_set_back_leaves_no_run_that_ends_before_it_begins(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(settings)
    now = time.time_ns
    journal = Journal(folder)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + 10**13)
        start_search(journal)
        trial_id = start_trial(journal, 1)
    add_epochs(journal, trial_id, range(1, 3))
    end_trial(journal, trial_id, 0.7)
    end_search(journal, trial_id)
    journal.close()
    track(folder, settings)
    assert_whole(trials=1, epochs=2)
    assert rows("select count(*) from runs where end_time < start_time") == [(0,)]


def test_a_damaged_note_of_what_was_sent_sends_nothing_twice(
    settings: Settings, folder: Path
) -> None:
    make_ready(settings)
    write_search(folder)
    track(folder, settings)
    for damage in ("", "[]", '{"next": 3'):
        (folder / cursor.NAME).write_text(damage)
        assert not history.is_over(folder)
        track(folder, settings)
        assert_whole(trials=3, epochs=2)


def test_what_breaks_off_in_the_end_of_a_search_repeats_no_step(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(settings)
    write_search(folder)
    end_run, faults = Store.end_run, [OSError(errno.ENOSPC, "No space left on device")]

    def end_or_fail(self: Store, run_id: str, status: str, *, time: int) -> None:
        if faults and rows("select count(*) from runs where status = 'FINISHED'") == [(3,)]:
            raise faults.pop()
        end_run(self, run_id, status, time=time)

    monkeypatch.setattr(Store, "end_run", end_or_fail)
    track(folder, settings)
    assert faults == []
    assert_whole(trials=3, epochs=2)
    found = rows("select step from metrics where key = 'best_score' order by step")
    assert found == [(1,), (2,), (3,)]


def test_a_journal_that_is_damaged_while_it_is_followed_stops_the_tracking(
    settings: Settings, folder: Path, journal: Journal
) -> None:
    make_ready(settings)
    follower, told = follow(folder, settings)
    start_search(journal)
    trial_id = start_trial(journal, 1)
    await_condition(lambda: rows("select count(*) from runs") == [(2,)])
    add_epochs(journal, trial_id, range(1, 3))
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([*lines[:3], b"5\n"]))
    assert follower.close() == 0
    assert told == [f"The tracking has stopped. {error_of(folder)}"]
    follower, told = follow(folder, settings)  # and so does the next one
    assert follower.close() == 0
    assert told == [f"The tracking has stopped. {error_of(folder)}"]


def error_of(folder: Path) -> str:
    with pytest.raises(UserError, match="damaged in line 4: it is no event") as caught:
        history.read(folder)
    return str(caught.value)


def test_a_journal_that_has_lost_its_end_is_sent_again_to_the_same_runs(
    settings: Settings, folder: Path
) -> None:
    write_search(folder)
    track(folder, settings)
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]))
    with closing(Journal(folder)) as journal:
        for line in lines[-3:]:
            event = json.loads(line)
            kind = event.pop("kind")
            journal.append(kind, **{k: v for k, v in event.items() if k not in TIMES})
    track(folder, settings)
    assert rows("select count(*) from runs") == [(4,)]
    assert rows("select count(*) from runs where status != 'FINISHED'") == [(0,)]
    # Points that come again have another time, and the same value.
    points = "select count(distinct value) from metrics group by run_uuid, key, step"
    assert set(rows(points)) == {(1,)}


TIMES = ("n", "time", "seconds_elapsed", "crc")

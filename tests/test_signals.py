"""The first signal asks, a second one does not wait: real signals, to real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pneumonia import signals
from pneumonia.signals import SIGNALS, Interrupted, Interruption

CODE = """
import ctypes, sys, time
from pneumonia import signals as interruption
from pneumonia.signals import Interrupted, Interruption
interruption.GRACE_SECONDS = 0.3
mode, mutex, libc = sys.argv[1], ctypes.create_string_buffer(64), ctypes.CDLL(None)
try:
    with Interruption() as found:
        if mode == "stuck":
            libc.pthread_mutex_lock(mutex)
        print("ready", flush=True)
        while mode == "stuck":  # in one call for ever, in which Python runs no handler
            libc.pthread_mutex_lock(mutex)
        for number in range(200 if mode != "ends" else 20):
            time.sleep(0.02)
            if mode == "asks":
                found.check()
except Interrupted as error:
    print(error)
except KeyboardInterrupt:
    print("forced")
"""


def start(mode: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, mode],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_one_signal_stops_where_it_may(number: signal.Signals) -> None:
    process = start("asks")
    process.send_signal(number)
    assert process.communicate(timeout=10) == ("Interrupted.\n", f"{signals._ASKED}\n")


def test_a_second_signal_stops_anywhere() -> None:
    process = start("deaf")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    # Two that come before the first is taken are one.
    assert process.stderr.readline() == f"{signals._ASKED}\n"
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=5)
    assert (process.returncode, out, said) == (0, "forced\n", "")


def test_a_second_signal_ends_a_process_that_is_stuck_in_a_call() -> None:
    process = start("stuck")
    time.sleep(0.5)  # from the word that it is ready to the call
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert process.stderr.readline() == f"{signals._ASKED}\n"  # told at once
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=2) == ("", "")
    assert process.returncode == 130


def test_a_signal_at_the_very_end_is_not_lost() -> None:
    process = start("ends")
    process.send_signal(signal.SIGINT)
    assert "had come to its end" in process.communicate(timeout=5)[0]


def test_nothing_is_left_behind() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    with Interruption() as found:
        assert [signal.getsignal(number) for number in SIGNALS] != before
        found.check()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert threading.active_count() == threads
    with pytest.raises(Interrupted, match="Interrupted"):
        wait_for_a_signal()


def wait_for_a_signal() -> None:
    with Interruption() as found:
        signal.raise_signal(signal.SIGTERM)
        while True:
            found.check()
            time.sleep(0.01)


def test_outside_the_main_thread_it_does_nothing() -> None:
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            with Interruption() as found:
                found.check()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failures == []


def test_what_runs_can_be_asked_to_stop_without_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_asked", threading.Event())
    with signals.Interruption() as interruption:
        interruption.check()
        signals.ask()
        with pytest.raises(signals.Interrupted):
            interruption.check()
        interruption.check()  # once

"""The jobs of a Hydra multirun: how one runs, and what the process that launches them sees to."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig

import pneumonia.config.compose  # noqa: F401 - for its resolvers, in a launcher's processes too
from pneumonia import shell, signals, terminal
from pneumonia.cli.common import INTERRUPTED, USER_ERROR
from pneumonia.errors import UserError, without_passwords
from pneumonia.storage import jobs
from pneumonia.storage.jobs import JobRecord

FAULT = 1
_POLL_SECONDS = 0.5
_ASKED = "Stopping: what runs ends its epoch. A second signal (Ctrl-C) does not wait for it."
_LONGEST_REASON = 400
_launcher = 0  # the process that launches jobs, known in no other
_is_watched = False  # whether a thread of it tells what fails


def attempt(run: Callable[[], float]) -> float:
    """Run a job, which returns its objective; let the others go on, whatever comes of it.

    What failed is noted in the folder of the multirun, for jobs may run in other processes, on
    other machines. A sweeper that learns takes nan for a failure.

    Raises:
        KeyboardInterrupt: In the process that launches the jobs.
    """
    hydra = HydraConfig.get()
    folder, status, reason, score = Path(hydra.sweep.dir), 0, "", math.nan
    is_here = _launcher == os.getpid()
    if not is_here and jobs.is_stopping(folder):
        return score
    try:
        with contextlib.nullcontext() if is_here else _stopping_when_asked(folder):
            score = run()
    except UserError as error:
        status, reason = USER_ERROR, str(error)
    except KeyboardInterrupt:
        if is_here:
            raise
        status, reason = INTERRUPTED, "interrupted"
    except (Exception, SystemExit) as error:  # a user's function may call `sys.exit`
        status, reason = FAULT, without_passwords(f"{type(error).__name__}: {error}")
        terminal.write(without_passwords(traceback.format_exc()), sys.stderr)
    text = without_passwords(" ".join(hydra.overrides.task))
    job = JobRecord(int(hydra.job.num), text, str(hydra.sweep.subdir), status, reason)
    jobs.note(job, folder)
    if is_here and not _is_watched:
        _tell(job)
    return score


def launch(
    folder: Path, run: Callable[[], object], *, most: int | None = None, is_here: bool = True
) -> int:
    """Let Hydra run the jobs of a sweep, tell what came of them, and compare their searches.

    Args:
        folder: That of the sweep.
        run: Returns when all have ended.
        most: How many there are, None where the sweeper decides.
        is_here: Whether they run in this process, one after the other.

    Returns:
        The exit status: 1 where a job failed by a fault, 2 where all that failed did by mistakes
        of the user, otherwise 0.

    Raises:
        KeyboardInterrupt: After a signal, when what ran has stopped; it says how to go on.
    """
    global _launcher, _is_watched
    _launcher, _is_watched, fault, is_interrupted = os.getpid(), not is_here, "", False
    try:
        with contextlib.nullcontext() if is_here else _Watch(folder):
            run()
    except KeyboardInterrupt:
        is_interrupted = True
    except Exception as error:
        if is_here or isinstance(error, UserError):
            raise
        # A process that was killed, a cluster that refuses: nothing of ours is at fault.
        reason = " ".join(without_passwords(f"{type(error).__name__}: {error}").split())
        fault = f"The launcher has failed: {reason[:_LONGEST_REASON]}\n"
    ended = [job.number for job in jobs.read(folder) if job.status != INTERRUPTED]
    of = f"{len(ended)} of {most} jobs have" if most else f"{len(ended)} jobs have"
    left = ", ".join(str(number) for number in range(most or 0) if number not in ended)
    of = f"{of} come to their end{f', not {left}' if fault and left else ''}"
    go_on = f"{of}. To go on: {shell.resume(folder)}"
    if is_interrupted:
        raise KeyboardInterrupt(f"Interrupted. {go_on}")
    _compare(folder)
    status = _tell_failed(folder)
    if fault:
        terminal.write(f"{fault}{go_on}\n", sys.stderr)
    return FAULT if fault else status


def _tell(job: JobRecord) -> None:
    """Tell what has failed; what was interrupted is told at the end."""
    if job.status not in (0, INTERRUPTED):
        terminal.write(f"{job.name} failed: {job.reason}\n", sys.stderr)


def _tell_failed(folder: Path) -> int:
    """Tell which jobs have failed; return the exit status."""
    ran = jobs.read(folder)
    failed = [job for job in ran if job.status]
    if failed:
        lines = [f"{len(failed)} of {len(ran)} failed:"]
        lines += [f"  {job.name}: {job.reason}".splitlines()[0] for job in failed]
        lines += [f"To run them again: {shell.resume(folder)}"]
        terminal.write("\n".join(lines) + "\n", sys.stderr)
    return min((job.status for job in failed), default=0)  # a fault before a mistake


def _compare(folder: Path) -> None:
    """Write the page that compares the searches which have left a journal."""
    from pneumonia.reporting import report
    from pneumonia.storage import search_folder

    try:
        if search_folder.find_all(folder):
            path = report.write_overview([folder], folder / report.NAME)
            terminal.write(f"\nThe searches compared: {shell.shown(path)}\n", sys.stdout)
    except UserError as error:
        terminal.say(f"warning: the searches are not compared. {error}")


@contextlib.contextmanager
def _stopping_when_asked(folder: Path) -> Iterator[None]:
    """Stop the job of another process after its epoch when the sweep is to stop.

    The terminal's Ctrl-C reaches such a process as well, or not: what counts is what the process
    that launched it has understood. One that waits for its next job must not end by it, since
    joblib ends all where one ends.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_POLL_SECONDS):
            if jobs.is_stopping(folder):
                signals.ask()
                return

    watch = threading.Thread(target=look, name="stop", daemon=True)
    watch.start()
    try:
        yield
    finally:
        is_over.set()
        watch.join()


class _Watch:
    """Tells at once what fails in other processes, and asks them to stop after a signal.

    Owns the signals SIGINT and SIGTERM while it is entered.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._known = folder, len(jobs.noted(folder))
        self._is_asked, self._is_over = False, threading.Event()
        self._before: dict[signal.Signals, Any] = {}
        self._thread = threading.Thread(target=self._look, name="jobs", daemon=True)

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._ask) for number in signals.SIGNALS}
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._is_over.set()
        self._thread.join()
        if self._is_asked:
            raise KeyboardInterrupt from None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._is_asked:
            raise KeyboardInterrupt
        self._is_asked = True
        jobs.stop(self._folder)
        signals.say(_ASKED)

    def _look(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(_POLL_SECONDS)
            found = jobs.noted(self._folder)
            for job in found[self._known :]:
                _tell(job)
            self._known = len(found)

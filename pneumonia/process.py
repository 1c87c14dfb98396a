"""Processes: how many processors ours has, and one that is still there or another of its number."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")


def process_start(pid: int) -> str | None:
    """Return when a process began, in the system's own words, or None if there is none.

    The number of a process is used again after it has ended; number and start are not.
    """
    if BOOT.exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        ticks = stat.rpartition(")")[2].split()[19]  # field 22 of proc(5), `starttime`
        return f"{BOOT.read_text().strip()}:{ticks}"
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def processors() -> int:
    """Return how many processors this process may use: the threads that TensorFlow takes itself."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

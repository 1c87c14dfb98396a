"""Watch a process from outside."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


class Watch(threading.Thread):
    """Watches a process: its memory, its processor time, and how many trials have ended."""

    def __init__(self, pid: int, folder: Path, before: set[Path]) -> None:
        super().__init__(daemon=True)
        self.pid, self.folder, self.before = pid, folder, before
        self.peak_mb = 0.0
        self.journal: Path | None = None
        self.memory: list[tuple[int, float]] = []
        self.cpu: dict[int, float] = {}  # seconds of it and of the processes that it has started

    def run(self) -> None:
        """Look ten times a second until the process is gone."""
        while True:
            try:
                status = Path(f"/proc/{self.pid}/status").read_text()
            except OSError:
                return
            lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            if "VmRSS" not in lines:
                return
            resident = int(lines["VmRSS"].split()[0]) / 1024
            self.peak_mb = max(self.peak_mb, int(lines["VmHWM"].split()[0]) / 1024)
            self.cpu |= cpu_seconds(self.pid)
            self._look_for_journal()
            if self.journal is not None:
                ended = self.journal.read_bytes().count(b'"kind": "trial_ended"')
                self.memory.append((ended, resident))
            time.sleep(0.1 if len(self.memory) < 100 else 0.5)

    def _look_for_journal(self) -> None:
        if self.journal is None:
            for path in set(self.folder.glob("outputs/*/*")) - self.before:
                if (path / "journal.jsonl").exists():
                    self.journal = path / "journal.jsonl"


def cpu_seconds(pid: int) -> dict[int, float]:
    """Return the processor seconds of a process and of all below it, by process."""
    place = Path("/proc") / str(pid)
    try:
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        below = [one.read_text().split() for one in place.glob("task/*/children")]
    except OSError:  # it has ended
        return {}
    found = {pid: (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")}
    for child in (int(one) for row in below for one in row):
        found |= cpu_seconds(child)
    return found

"""Which process a run belongs to: what is left running when that has died can be ended."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Mapping
from typing import Any

from pneumonia.process import process_start

HOST, PID, STARTED = "pneumonia.host", "pneumonia.pid", "pneumonia.process_start"
OF_THIS_HOST = f"tags.`{HOST}` = '{platform.node()}'"


def owner_tags() -> dict[str, str]:
    """Return the tags that say which process a run belongs to."""
    pid = os.getpid()
    return {HOST: platform.node(), PID: str(pid), STARTED: process_start(pid) or ""}


def is_alive(tags: Mapping[str, str]) -> bool:
    """Tell from a run's tags whether the process that it belongs to, on this host, still runs."""
    pid = tags.get(PID, "")
    # A process with the same number that began at another time is another process.
    return pid.isdigit() and process_start(int(pid)) == tags.get(STARTED)


def last_time(run: Any) -> int:
    """Return when a run was last heard of, in milliseconds since 1970."""
    times = [metric.timestamp for metric in run.data._metric_objs]
    return int(max([run.info.start_time, *times]))


def source_tags() -> dict[str, str]:
    """Return the tags by which MLflow's UI shows who made a run, and with what."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return {"mlflow.user": user, "mlflow.source.name": "pneumonia", "mlflow.source.type": "LOCAL"}

"""Ray itself: started on this machine where no cluster is given, and gone without a trace."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pneumonia import network, process
from pneumonia.errors import ConfigError, UserError, without_passwords

PREFIX = "pneumonia-ray-"
_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": "ERROR",
    "configure_logging": False,
}
# Read when Ray is imported. Without the first, its daemons listen on all addresses of the machine,
# where whoever can reach them can run programs; it is a switch of Ray's own, for other systems.
_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
_CLUSTER = "the address of a Ray cluster that can be reached, as host:port or auto, or null"
_REACH_SECONDS = 10.0
# Of the 103 bytes that the name of a socket may have on every system, Ray's, and ours, take 95.
_LONGEST_PARENT = 8
_TOKEN = "RAY_AUTH_TOKEN"


def check(address: str | None) -> None:
    """Ask whether a cluster answers at all: Ray itself asks for many minutes.

    Raises:
        ConfigError: It does not.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:  # none, or `auto`, which Ray finds at once or not at all
        return
    try:
        if not port.isdecimal():
            raise OSError("it has no port")
        place = host.strip("[]"), int(port)
        network.within(_REACH_SECONDS, lambda: socket.create_connection(place).close())
    except (OSError, OverflowError) as error:
        reason = str(error).partition("] ")[2] or str(error)
        raise ConfigError("executor.address", _CLUSTER, address, reason) from error


def configure(address: str | None) -> None:
    """Set what Ray reads when it is imported: to be called before.

    Raises:
        UserError: It was imported without what keeps it to this machine.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        if "ray" in sys.modules and not _LOCAL.items() <= os.environ.items():
            settings = " ".join(f"{name}={value}" for name, value in _LOCAL.items())
            raise UserError(
                "`executor.address=null`: Ray was imported, by a plug-in or another search of this "
                "command, before it could be kept to this machine. Run this search by a command of "
                f"its own, with {settings} in its environment."
            )
        os.environ |= _LOCAL
        os.environ.setdefault(_TOKEN, secrets.token_hex(32))


@contextlib.contextmanager
def session(address: str | None, *, workers: int, cpus: float, gpus: float) -> Iterator[str | None]:
    """Be connected to Ray: to a cluster, or to one that is begun here and ends with this.

    What is begun here listens on the loopback address alone, asks for a password of its own, and
    keeps its files in a folder `pneumonia-ray-<process>-...` among the system's temporary ones (in
    /tmp where that has a long name), which is removed at the end; that of a process that was
    killed, by the next one.

    Args:
        address: Of a cluster, or None for one of this machine.
        workers: Actors there are to be.
        cpus: For each.
        gpus: For each.

    Yields:
        The folder of what is begun here, or None.

    Raises:
        ConfigError: There is no such cluster, or no room for so many.
    """
    import ray

    remove_abandoned()
    folder, options = None, {"address": address}
    with contextlib.ExitStack() as stack:
        if address is None:
            folder = stack.enter_context(_folder())
            options = _begun(folder, math.ceil(workers * cpus))  # whatever the machine has
        stack.callback(ray.shutdown)
        _connect(options)
        _check_room(ray.nodes(), workers=workers, cpus=cpus, gpus=gpus)
        yield folder


def _parent() -> str:
    """Return where the folder of what is begun here goes: names of sockets have an end."""
    own = tempfile.gettempdir()
    return own if len(os.fsencode(own)) <= _LONGEST_PARENT else "/tmp"


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    made = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=_parent())
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _begun(folder: str, cpus: int) -> dict[str, Any]:
    own = {"_temp_dir": folder, "_node_ip_address": "127.0.0.1"}
    return {"address": "local", "include_dashboard": False, "num_cpus": cpus, **own}


def _connect(options: dict[str, Any]) -> None:
    import ray

    before, address = signal.getsignal(signal.SIGTERM), options["address"]
    if "ray://" not in address:
        # Workers would import from the current folder, before all else; so they do not for a
        # driver that is elsewhere.
        options["job_config"] = ray.job_config.JobConfig(_client_job=True)
    try:
        ray.init(**options, **_QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address == "local":
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        found = without_passwords(lines[0]).rstrip(".")
        raise ConfigError("executor.address", _CLUSTER, address, found) from error
    finally:
        if before is not None and signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the search at once
    # It tells on the screen what its daemons say of a lost worker, which the search tells.
    sys.modules["ray._private.worker"]._worker_logs_enabled = False  # type: ignore[attr-defined]


def _check_room(nodes: list[dict[str, Any]], *, workers: int, cpus: float, gpus: float) -> None:
    """Refuse what would wait for ever: more workers than the nodes have room for."""
    room = 0
    for node in nodes:
        has = node["Resources"] if node["Alive"] else {}
        rooms = [_times(has.get("CPU", 0), cpus)]
        if gpus:  # a share is one of a single GPU
            there = has.get("GPU", 0)
            rooms += [int(there) * _times(1, gpus) if gpus < 1 else _times(there, gpus)]
        room += min(rooms)
    if room < workers:
        there = f"CPU {_sum(nodes, 'CPU'):g}, GPU {_sum(nodes, 'GPU'):g}"
        hint = f"Each takes executor.cpus={cpus:g} executor.gpus={gpus:g}; Ray has {there}"
        raise ConfigError("executor.workers", f"at most {room}", workers, hint)


def _times(there: float, share: float) -> int:
    """Return how often there is a share; Ray counts in ten-thousandths."""
    return round(there * 10_000) // max(1, round(share * 10_000))


def _sum(nodes: list[dict[str, Any]], name: str) -> float:
    return float(sum(node["Resources"].get(name, 0) for node in nodes if node["Alive"]))


def remove_abandoned() -> None:
    """Remove the folders of processes that were killed; Ray's daemons ended with them."""
    places = {Path(tempfile.gettempdir()), Path(_parent())}
    for path in (path for place in places for path in place.glob(f"{PREFIX}*")):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and process.process_start(int(pid)) is None:
            shutil.rmtree(path, ignore_errors=True)

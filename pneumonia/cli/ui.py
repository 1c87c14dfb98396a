"""MLflow's UI on the local results."""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
import sysconfig
from collections.abc import Sequence
from typing import NoReturn

from pneumonia import terminal
from pneumonia.cli.common import run
from pneumonia.errors import UserError, without_passwords
from pneumonia.shell import commands
from pneumonia.tracking.mlflow_store import Store
from pneumonia.tracking.settings import TrackingSettings, open_store, redact, unreachable
from pneumonia.tracking.sqlite_store import sqlite_path

_HELP = """\
The MLflow UI on the results.

  pneumonia-ui [--port PORT]

It is at http://127.0.0.1:PORT, by default port 5000, for this machine only, until Ctrl-C ends it.
Exit status: 2 where there is nothing to show.
"""


def serve_ui(arguments: Sequence[str] | None = None) -> int:
    """Show the results in MLflow's UI, on this machine only, until interrupted.

    Returns:
        An exit status: 2 where there is nothing to show; otherwise the server takes this
        process over.
    """
    return run(_serve, arguments, text=_HELP)


def _serve(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="pneumonia-ui")
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args([*map(without_passwords, arguments)]).port  # or it would show them
    settings = TrackingSettings()
    open_store(settings)
    if sqlite_path(settings.store_uri) is None:
        terminal.write(f"The results are at {redact(settings.store_uri)}.\n", sys.stdout)
        return 0
    if not 0 < port < 2**16 or _is_taken(port):
        raise UserError(f"Port {port} is taken. Choose another: {_elsewhere()}")
    place = _arrange(settings)
    terminal.write(f"MLflow UI: http://127.0.0.1:{port}/{place} (Ctrl-C ends it)\n", sys.stdout)
    return _become_server(settings, port)


def _arrange(settings: TrackingSettings) -> str:
    """Prepare the view of the runs; return its place."""
    from mlflow.exceptions import MlflowException

    try:
        return Store(settings).arrange_view()
    except MlflowException as error:
        raise unreachable(settings.store_uri, error) from error


def _elsewhere() -> str:
    """Return the command that shows the results at a port that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port = probe_socket.getsockname()[1]
    prefix, ui = commands()
    is_make = ui.startswith("make")
    return f"{ui} PORT={port}" if is_make else f"{prefix}pneumonia-ui --port {port}"


def _become_server(settings: TrackingSettings, port: int) -> NoReturn:
    environment = {
        "PYTHONWARNINGS": "ignore",
        **os.environ,
        "PYTHONSAFEPATH": "1",  # Python modules in the current folder are not MLflow's
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for other uses
    }
    # Its "lifespan" is for MLflow's assistant, and is a traceback where Ctrl-C ends it.
    uvicorn = "--log-level warning --lifespan off "
    uvicorn += f"--app-dir {shlex.quote(sysconfig.get_path('stdlib'))}"
    place = ["--backend-store-uri", settings.store_uri, "--no-serve-artifacts"]
    if settings.artifact_location:
        place += ["--default-artifact-root", settings.artifact_location]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options = [*place, *address, "--uvicorn-opts", uvicorn]
    server = [sys.executable, "-m", "mlflow", "server", *options]
    os.execve(sys.executable, server, environment)


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


if __name__ == "__main__":
    sys.exit(serve_ui())

"""`pneumonia ui`: MLflow's UI on the local results."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import sysconfig
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from pneumonia import shell, terminal
from pneumonia.cli import common
from pneumonia.errors import UserError

if TYPE_CHECKING:
    from pneumonia.tracking.settings import TrackingSettings

KEYS = ("port", "tracking.uri")

_HELP = """\
The MLflow UI on the results.

  pneumonia ui [key=value]

Keys:
  port=5000          at http://127.0.0.1:5000, for this machine only, until Ctrl-C ends it
  tracking.uri=URI   the MLflow store; otherwise MLFLOW_TRACKING_URI, or mlruns/mlflow.db here

Exit status: 2 where there is nothing to show, and for a mistake in the command.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command, which a server takes over if there is something to show; else return 2."""
    return common.run(_serve, arguments, text=_HELP)


def _serve(arguments: list[str]) -> None:
    _, given = common.split(arguments, KEYS, named=None)
    ports = range(1, 2**16)
    port = common.number(given, "port", 5000, expected="a number from 1 to 65535", values=ports)
    from pneumonia.tracking.settings import TrackingSettings, open_store, redact, unreachable
    from pneumonia.tracking.sqlite_store import sqlite_path

    settings = TrackingSettings(uri=given.get("tracking.uri"))
    open_store(settings)
    if sqlite_path(settings.store_uri) is None:
        terminal.write(f"The results are at {redact(settings.store_uri)}.\n", sys.stdout)
        return
    _check_free(port, settings.elsewhere())
    from mlflow.exceptions import MlflowException

    from pneumonia.tracking.mlflow_store import Store

    try:
        place = Store(settings).arrange_view()
    except MlflowException as error:
        raise unreachable(settings.store_uri, error) from error
    terminal.write(f"MLflow UI: http://127.0.0.1:{port}/{place} (Ctrl-C ends it)\n", sys.stdout)
    _become_server(settings, port)


def _check_free(port: int, more: Sequence[str]) -> None:
    """Raise a UserError, with the command for a port that is free, where this one is taken."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        with socket.create_server(("127.0.0.1", 0)) as free:
            other = free.getsockname()[1]
        _, ui = shell.commands()
        if more or not ui.startswith("make"):
            command = shell.command("pneumonia", "ui", f"port={other}", *more)
        else:
            command = f"{ui} PORT={other}"
        raise UserError(f"Port {port} is taken. Choose another: {command}") from error


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

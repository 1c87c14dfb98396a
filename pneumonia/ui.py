"""MLflow's UI on the local results."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from pneumonia.errors import UserError
from pneumonia.mlflow_setup import Settings, open_store, redact, sqlite_path
from pneumonia.mlflow_store import Store


def serve_ui(arguments: Sequence[str] | None = None) -> int:
    """Show the results in MLflow's UI, on this machine only, until interrupted.

    Returns:
        An exit status: 2 where there is nothing to show; otherwise the server takes this
        process over.
    """
    parser = argparse.ArgumentParser(prog="make ui", description="The MLflow UI on the results.")
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args(arguments).port
    settings = Settings()
    try:
        open_store(settings)
        if sqlite_path(settings.store_uri) is None:
            print(f"The results are at {redact(settings.store_uri)}.")
            return 0
        if _is_taken(port):
            print(f"Port {port} is taken. Choose another: make ui PORT=5001", file=sys.stderr)
            return 2
        place = Store(settings).arrange_view()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"MLflow UI: http://127.0.0.1:{port}/{place} (Ctrl-C ends it)")
    sys.stdout.flush()
    return _become_server(settings, port)


def _become_server(settings: Settings, port: int) -> NoReturn:
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # more processes, for other uses
    place = ["--backend-store-uri", settings.store_uri, "--no-serve-artifacts"]
    if settings.artifact_location:
        place += ["--default-artifact-root", settings.artifact_location]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options = [*place, *address, "--uvicorn-opts", "--log-level warning"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *options])


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

"""Where tracked results go, and how MLflow is set up so that it keeps quiet and to itself."""

from __future__ import annotations

import logging
import os
import socket
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pneumonia.errors import ConfigError
from pneumonia.provenance import without_passwords
from pneumonia.sqlite_store import location, sqlite_path, sqlite_uri

FOLDER = "mlruns"
PROBE_SECONDS = 5.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    # MLflow's own: 7 retries of 120 seconds. The tracking has its own, longer patience.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and what to track: the keys of the config group `tracking`.

    Args:
        uri: Of the MLflow store. None: `MLFLOW_TRACKING_URI`, or else SQLite at
            `mlruns/mlflow.db` under the current folder.
        artifacts: A folder or a URI for a new experiment's files. A folder is not used with a
            server, which has its own place for them. None: the store decides.
        experiment: Name of the experiment.
        log_models: Whose trials' classifiers to keep. The search's final one is always kept.
        registered_model: Name under which final classifiers are registered.
        alias: Given to the version of the search that completed last. Not to the best one: the
            scores of searches on different data do not compare.
    """

    uri: str | None = None
    artifacts: str | None = f"{FOLDER}/artifacts"
    experiment: str = "pneumonia"
    log_models: Literal["all", "best", "none"] = "all"
    registered_model: str = "pneumonia"
    alias: str = "champion"

    @property
    def store_uri(self) -> str:
        """The URI in use; a relative path of SQLite is made absolute."""
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{FOLDER}/mlflow.db"
        path = sqlite_path(uri)
        return uri if path is None else sqlite_uri(path)

    @property
    def artifact_location(self) -> str | None:
        """Where a new experiment keeps its files; None leaves it to the server."""
        if self.artifacts is None or "://" in self.artifacts:
            return self.artifacts
        if urlsplit(self.store_uri).scheme in ("http", "https"):
            return None
        return location(Path(self.artifacts).expanduser().resolve())

    def resolved(self) -> Settings:
        """Return the same for a process with another folder or environment."""
        return replace(self, uri=self.store_uri, artifacts=self.artifact_location)


def redact(uri: str) -> str:
    """Return a URI without the user and password in it."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in uri else uri


def prepare_environment() -> None:
    """Set MLflow up before it is imported; what the user has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # What goes wrong is reported once by the tracking, without MLflow's tracebacks.
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic)\b")
    # MLflow's tables with SQLAlchemy 2.1; the warning names whichever module came first.
    warnings.filterwarnings("ignore", ".*noload.* loader strategy", DeprecationWarning)


def probe(uri: str) -> None:
    """Find out in seconds, and without MLflow, whether something answers at a URI.

    Raises:
        ConfigError: Nothing does.
    """
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("http", "https"):
            with urllib.request.urlopen(f"{redact(uri).rstrip('/')}/health", timeout=PROBE_SECONDS):
                pass
        elif parts.hostname:
            port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
            if port:
                socket.create_connection((parts.hostname, port), PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers, if only to ask who we are
    except (OSError, ValueError) as error:
        raise unreachable(uri, error) from error


def unreachable(uri: str, error: Exception) -> ConfigError:
    """Return the error for a store that cannot be used."""
    said = str(getattr(error, "reason", error)).strip().partition("\n")[0]
    reason = without_passwords(said)
    advice = "Start the server, or track into this folder with `tracking=local`"
    if sqlite_path(uri) is not None:
        advice = "Make its folder writable, with room in it, or name another store with "
        advice += "`tracking.uri=...`"
    hint = f"{reason}. {advice}"
    return ConfigError("tracking.uri", "an MLflow store that can be reached", redact(uri), hint)

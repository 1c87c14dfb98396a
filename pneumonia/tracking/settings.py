"""Where tracked results go, and how MLflow is set up so that it keeps quiet and to itself."""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from pneumonia.config.schema import URI
from pneumonia.errors import ConfigError, without_passwords
from pneumonia.shell import first_search
from pneumonia.tracking.sqlite_store import ensure_sqlite, location, sqlite_path, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

FOLDER = "mlruns"
CHAMPION = "champion"
PROBE_SECONDS = 5.0
CONTACT_SECONDS = 10.0
POSTGRES = "pip install 'psycopg2-binary>=2.9'"
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_EXPERIMENT = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
_OLDEST = 3  # it has logged models
_MOST_BYTES = 100_000
_REASON_LENGTH = 200
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
class TrackingSettings:
    """Where and what to track: the keys of the config group `tracking`.

    Args:
        uri: Of the MLflow store. None: `MLFLOW_TRACKING_URI`, or else SQLite at
            `mlruns/mlflow.db` under the current folder.
        artifacts: A folder or a URI for a new experiment's files. A folder is not used with a
            server, which has its own place for them. None: the store decides.
        log_models: Whose trials' classifiers to keep. The search's final one is always kept.
        registered_model: Name under which final classifiers are registered. None: by the dataset.
        alias: Of the champion among them.
        promote: Whether a final classifier takes the alias: if `better` on the same val split.
    """

    uri: str | None = None
    artifacts: str | None = f"{FOLDER}/artifacts"
    experiment: str = "pneumonia"
    log_models: Literal["all", "best", "none"] = "all"
    registered_model: str | None = None
    alias: str = CHAMPION
    promote: Literal["better", "always", "never"] = "better"

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

    def resolved(self) -> TrackingSettings:
        """Return the same for a process with another folder or environment."""
        return replace(self, uri=self.store_uri, artifacts=self.artifact_location)

    def elsewhere(self) -> list[str]:
        """Return what a command has to be given to find the same champion."""
        usual = TrackingSettings()
        uri, alias = self.store_uri, self.alias
        given = [] if uri == usual.store_uri else [f"tracking.uri={redact(uri)}"]
        return given if alias == usual.alias else [*given, f"tracking.alias={alias}"]


def redact(uri: str) -> str:
    """Return a URI without what may be secret in it."""
    return uri if sqlite_path(uri) else without_passwords("".join(uri.split()))


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
    """Find out in seconds, and without MLflow, whether a URI is that of a store that answers.

    Raises:
        ConfigError: It is not, or nothing does that could be one.
    """
    if not URI.accepts(uri):
        hint = "It is MLFLOW_TRACKING_URI" if uri == os.environ.get("MLFLOW_TRACKING_URI") else ""
        raise ConfigError("tracking.uri", URI.expected, redact(uri), hint)
    if (path := sqlite_path(uri)) is not None and path.exists() and not path.is_file():
        hint = "It is a folder" if path.is_dir() else "It is no file on a disk"
        raise ConfigError("tracking.uri", "the file of a SQLite database", str(path), hint)
    if path is not None or uri.startswith("databricks"):
        return
    ask = _ask_server if uri.startswith("http") else _ask_database
    try:
        within(PROBE_SECONDS, lambda: ask(uri))
    except ConfigError:
        raise
    except Exception as error:  # whatever a database's driver raises
        raise unreachable(uri, error) from error


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns, unless it takes too long.

    The limits that libraries have do not count the look-up of a name, or an answer that drips.

    Raises:
        TimeoutError: It goes on in its thread, which ends with the process.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="within", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        if answer.done():  # the call's own
            raise
        raise TimeoutError(f"there was no answer within {seconds:g} seconds") from error


class _Staying(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only where what MLflow posts would follow it too."""

    def redirect_request(self, req: Any, fp: Any, code: int, *rest: Any) -> Any:
        return super().redirect_request(req, fp, code, *rest) if code in (307, 308) else None


def _ask_server(uri: str) -> None:
    """Ask a server for an experiment, and for its version."""
    parts = urlsplit(uri)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    headers = _credentials(parts)
    status, text = _get(f"{place}{_EXPERIMENT}", headers)
    if status in (401, 403, 0):
        return  # MLflow has more ways to say who we are
    if not _is_mlflow(text):
        said = f"What answers there is no MLflow server: status {status} to GET {_EXPERIMENT}"
        raise unreachable(uri, OSError(said))
    status, text = _get(f"{place}/version", headers)
    version = re.fullmatch(r"(\d+)\.\d+\S*", text.strip())
    if status == HTTPStatus.OK and version and int(version[1]) < _OLDEST:
        raise unreachable(uri, OSError(f"Its MLflow is {version[0]}, older than {_OLDEST}.0"))


def _get(url: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Return the status and text of an answer; 0 for a certificate that MLflow is to judge."""
    opener = urllib.request.build_opener(_Staying)
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers))) as answer:
            return answer.status, answer.read(_MOST_BYTES).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MOST_BYTES).decode(errors="replace")
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return 0, ""
        raise


def _is_mlflow(text: str) -> bool:
    with suppress(ValueError):
        match json.loads(text):
            case {"experiment": {"experiment_id": str()}} | {"error_code": str()}:
                return True
    return False


def _credentials(parts: SplitResult) -> dict[str, str]:
    """Return the header with the user and password of a URI, or else of MLflow's environment."""
    user, password = parts.username, parts.password
    if user is None:
        user, password = (os.environ.get(f"MLFLOW_TRACKING_{n}") for n in ("USERNAME", "PASSWORD"))
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _ask_database(uri: str) -> None:
    """Connect to a database once: MLflow would try for minutes."""
    parts = urlsplit(uri)
    port = parts.port or PORTS[parts.scheme.partition("+")[0]]
    socket.create_connection((parts.hostname or "", port), PROBE_SECONDS).close()
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    create_engine(uri, poolclass=NullPool).connect().close()


def open_store(settings: TrackingSettings) -> MlflowClient:
    """Return a client of a store that is there already: MLflow would make an empty one.

    Raises:
        ConfigError: There is none, or it cannot be used.
    """
    uri = settings.store_uri
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        hint = (
            "There is no store at this place: go to the folder of your searches, name another "
            "store with `tracking.uri=...`, or make a first search with "
            f"`{first_search()}`"
        )
        raise ConfigError("tracking.uri", "an MLflow store that exists", str(path), hint)
    probe(uri)
    prepare_environment()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        try:
            ensure_sqlite(uri)
        except OSError as error:  # a store that one may only read is as it is
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        client: MlflowClient = MlflowClient(uri, uri)
        if path is None:
            within(CONTACT_SECONDS, lambda: client.get_experiment_by_name(settings.experiment))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise unreachable(uri, error) from error
    return client


def unreachable(uri: str, error: Exception) -> ConfigError:
    """Return the error for a store that cannot be used."""
    said = str(getattr(error, "reason", error)).strip().partition("\n")[0][:_REASON_LENGTH]
    reason = without_passwords(said).rstrip(".")
    advice = "Start the server, or track into this folder with `tracking=local`"
    if re.search(r"error code 40[13]\b|PERMISSION_DENIED|UNAUTHENTICATED", reason):
        reason = "It does not let us in"
        advice = (
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if isinstance(error, ModuleNotFoundError) and uri.startswith("postgresql"):
        place = redact(uri).partition("://")[2]
        advice = f"`{POSTGRES}`, and tracking.uri=postgresql+psycopg2://{place} with your password"
    if sqlite_path(uri) is not None:
        advice = "Make its folder writable, with room in it, or name another store with "
        advice += "`tracking.uri=...`"
    hint = f"{reason[:1].upper()}{reason[1:]}. {advice}"
    return ConfigError("tracking.uri", "an MLflow store that can be reached", redact(uri), hint)

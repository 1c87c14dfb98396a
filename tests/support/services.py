"""Real servers on this machine: PostgreSQL, and MLflow's with the artifacts through it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

USER, DATABASE = "mlflow", "mlflow"
PASSWORD = "hush/of@anna"


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def await_condition(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that other processes bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


class Service:
    """Owns a server: its processes are a group of their own, its output goes to a file.

    Attributes:
        niceness: How far it steps back for others, from 0 to 19.
    """

    niceness = 0

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.log = folder, folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The first process of the server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = self._spawn(log)
        await_condition(self._answers, 90)

    @property
    def has_ended(self) -> bool:
        """Whether its first process is gone."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """Kill all of its processes, as a loss of power would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _spawn(self, log: object) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class Server(Service):
    """A real MLflow server; artifacts go through it to `files` in its folder.

    Args:
        folder: Where its artifacts are.
        port: Of loopback.
        store: The URI of its database; SQLite in its folder where it is not given.
        password: Of the database, which no command line shows.
    """

    def __init__(
        self, folder: Path, port: int, store: str | None = None, password: str = ""
    ) -> None:
        super().__init__(folder, "server")
        self.uri, self.files = f"http://127.0.0.1:{port}", folder / "files"
        self._environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_BACKEND_STORE_URI": store or f"sqlite:///{folder}/server.db",
            "PGPASSWORD": password,
        }
        self._command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self._command += ["--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--serve-artifacts", "--artifacts-destination", str(self.files)]

    def _spawn(self, log: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["nice", "-n", str(self.niceness), *self._command],
            cwd=self.folder,
            env=self._environment,
            stdout=log,  # type: ignore[arg-type]
            stderr=log,  # type: ignore[arg-type]
            start_new_session=True,
        )

    def _answers(self) -> bool:
        assert not self.has_ended, self.log.read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                return True
        except OSError:
            return False


class Postgres(Service):
    """A real PostgreSQL of its own, which lets nobody in without the password.

    It refuses to run as root, who lends it to the user `postgres`.

    Args:
        folder: Where its data are.
        port: Of loopback.
        fsync: `off` where no power is going to be cut; else commits wait for the disk.
    """

    def __init__(self, folder: Path, port: int, *, fsync: str = "off") -> None:
        super().__init__(folder, "postgres")
        self._fsync = fsync
        self._data, self._port = folder / "data", port
        self._as = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self._as:
            shutil.chown(folder, **self._as)
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._call("initdb", "--username", USER, "--pwfile", str(secret), "--auth=scram-sha-256",
                   "--encoding=UTF8", "--locale=C", "--no-sync", str(self._data))  # fmt: skip
        secret.unlink()

    @property
    def address(self) -> str:
        """The URI of the database, without the password."""
        return f"postgresql+psycopg2://{USER}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def uri(self) -> str:
        """The URI of the database, with the password in it."""
        return self.address.replace("@", f":{quote(PASSWORD, safe='')}@")

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Return what a query finds."""
        return self._ask(DATABASE, sql)

    def start(self) -> None:
        """Start it, and make the database where there is none."""
        super().start()
        if not self._ask("postgres", f"select 1 from pg_database where datname = '{DATABASE}'"):
            self._ask("postgres", f"create database {DATABASE}")

    def _spawn(self, log: object) -> subprocess.Popen[bytes]:
        options = {"port": self._port, "listen_addresses": "127.0.0.1"}
        options |= {"unix_socket_directories": "", "fsync": self._fsync}
        given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            ["nice", "-n", str(self.niceness), _binary("postgres"), "-D", str(self._data), *given],
            cwd=self.folder,
            stdout=log,  # type: ignore[arg-type]
            stderr=log,  # type: ignore[arg-type]
            start_new_session=True,
            **self._as,  # type: ignore[call-overload]
        )

    def _answers(self) -> bool:
        from psycopg2 import OperationalError

        # What was killed may still be closing: it refuses a second one of the same data.
        if self.has_ended:
            with self.log.open("ab") as log:
                self._process = self._spawn(log)
        try:
            return bool(self._ask("postgres", "select 1"))
        except OperationalError:
            return False

    def _ask(self, database: str, sql: str) -> list[tuple[object, ...]]:
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self._port, user=USER, password=PASSWORD, dbname=database
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _call(self, *command: str) -> None:
        subprocess.run(
            [_binary(command[0]), *command[1:]],
            cwd=self.folder,
            check=True,
            capture_output=True,
            **self._as,
        )


def has_postgres() -> bool:
    """Tell whether PostgreSQL's programs are on this machine."""
    return bool(_binary("initdb"))


@contextmanager
def postgres_and_mlflow(
    *, fsync: str = "off", niceness: int = 0
) -> Iterator[tuple[Postgres, Server]]:
    """Run an MLflow server on a PostgreSQL, both with nothing in them."""
    with tempfile.TemporaryDirectory(prefix="services-") as one, \
            tempfile.TemporaryDirectory(prefix="services-") as other:  # fmt: skip
        postgres = Postgres(Path(one), free_port(), fsync=fsync)
        server = Server(Path(other), free_port(), postgres.address, PASSWORD)
        postgres.niceness = server.niceness = niceness
        try:
            postgres.start()
            server.start()
            yield postgres, server
        finally:
            server.kill()
            postgres.kill()


def _binary(name: str) -> str:
    """Return where a program of PostgreSQL is; Debian leaves them out of the path."""
    found = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(found, key=lambda path: int(re.sub(r"\D", "", path.parts[4]) or 0), default="")
    return shutil.which(name) or str(newest)

"""The file of a SQLite store of MLflow: its URI, its tables, and the folder that it lies in.

Tables are built and changed in one transaction: whatever kills a process, the next one finds the
file as it was before, or whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pneumonia.errors import ConfigError

_PATH = "sqlite:///"
_QUOTED = "sqlite+pysqlite:///"
_PLAIN = re.compile(r"[\w/.,=+@~ -]+")
# Where the store was when it was opened last. MLflow looks at its own tables only.
_PLACE = "pneumonia_place"
_LOCATIONS = (
    ("experiments", "artifact_location", ""),
    ("runs", "artifact_uri", ""),
    ("logged_models", "artifact_location", ""),
    ("model_versions", "source", ""),
    ("model_versions", "storage_location", ""),
    ("workspaces", "default_artifact_root", ""),
    ("workspaces", "trace_archival_location", ""),
    ("trace_tags", "value", " and key = 'mlflow.artifactLocation'"),
)
# Rows of these are there before anybody has used a store.
_OWN = {"workspaces": "0", _PLACE: "0"}
_OWN |= dict.fromkeys(("experiments", "experiment_tags"), "experiment_id != 0")
_CAUSES = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a SQLite store's file, or None for another store.

    Raises:
        ConfigError: It ends in a query, as a URI may have one, or is no text.
    """
    if uri.startswith(_QUOTED):
        return Path(unquote(uri.removeprefix(_QUOTED))).resolve()
    if not uri.startswith(_PATH):
        return None
    text = uri.removeprefix(_PATH)
    if re.search(r"\?\w+=[^/]*$", text):
        raise ConfigError("tracking.uri", "the path of a SQLite file, without a query", uri)
    path = Path(text).expanduser().resolve()
    if not is_text(path):
        raise ConfigError("tracking.uri", "a folder with a name in UTF-8", str(path))
    return path


def is_text(path: Path) -> bool:
    """Tell whether a path can be written as text, as all that MLflow keeps has to be."""
    return not re.search("[\ud800-\udfff]", str(path))


def sqlite_uri(path: Path) -> str:
    """Return the URI by which MLflow finds a SQLite file.

    It takes a `?` for the beginning of a query and `%20` for a space, and where they are quoted
    makes the folder of that name, unless SQLite's driver is named.
    """
    text = str(path)
    return f"{_QUOTED}{quote(text)}" if "?" in text or "%" in text else f"{_PATH}{text}"


def location(path: Path) -> str:
    """Return a folder as MLflow takes a place of artifacts: a path, quoted where need be."""
    return str(path) if _PLAIN.fullmatch(str(path)) else path.as_uri()


def local_path(location: str) -> Path | None:
    """Return the folder of a place of artifacts as MLflow finds it, None for one elsewhere."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path if parts.scheme else location))


def ensure_sqlite(uri: str) -> None:
    """Create a SQLite store or bring its tables up to date, one process at a time.

    Parallel searches would otherwise build the same tables into each other. A file from an older
    MLflow is copied beside itself before its tables change. Of a store that was moved or copied
    with its folder, the artifacts are where it is now.

    Raises:
        ConfigError: The file is no database of MLflow, or one from a newer MLflow.
        OSError: The folder cannot be written.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(uri), _explained(path), closing(_connect(path)) as store:
        # Fails at once on what is no database: MLflow would try it for minutes.
        store.execute("pragma schema_version").fetchone()
        _bring_up_to_date(store, path)
        try:
            _settle(store, path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                raise


def move_artifacts(uri: str, old: Path, new: Path) -> None:
    """Let a SQLite store find in one folder what it has recorded in another that is gone."""
    path = sqlite_path(uri)
    if path is not None:
        with _explained(path), closing(_connect(path)) as store, _whole(store):
            _rewrite(store, old, new)


class _Connection(sqlite3.Connection):
    """Takes no part of a transaction for the whole: MLflow's migrations commit as they go."""

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass


def _connect(path: Path) -> _Connection:
    # A path, not a URI: no character in it means anything.
    return sqlite3.connect(path, isolation_level=None, factory=_Connection, check_same_thread=False)


@contextmanager
def _whole(store: sqlite3.Connection) -> Iterator[None]:
    """Do all or nothing; nobody else writes meanwhile."""
    store.execute("begin immediate")
    try:
        yield
        store.execute("commit")
    except BaseException:
        with suppress(sqlite3.Error):  # a disk that is full has ended it already
            store.execute("rollback")
        raise


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """Keep other processes of this program from a SQLite store; of another store nothing can."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise what SQLite cannot do as an error of the disk, or of what the file is."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if number := _CAUSES.get(code):
            raise OSError(number, f"{os.strerror(number)} ({error})", str(path)) from error
        if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise _unusable(path, error) from error
        expected = "the file of a SQLite database"
        if code == sqlite3.SQLITE_BUSY:
            expected += ", which no other program keeps for itself"
        raise ConfigError("tracking.uri", expected, str(path), str(error)) from error


def _bring_up_to_date(store: sqlite3.Connection, path: Path) -> None:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db import utils

    script = ScriptDirectory.from_config(utils._get_alembic_config(""))
    revision = _revision(store)
    if revision == script.get_current_head():
        return
    try:
        script.get_revision(revision or "base")
    except CommandError as error:
        expected = "a database that this version of MLflow knows"
        raise ConfigError("tracking.uri", expected, str(path), str(error)) from error
    backup = path.with_suffix(".db.backup")
    part = backup.with_name(f"{backup.name}.part")
    part.unlink(missing_ok=True)  # of a process that was killed
    with _whole(store):
        is_used = _is_used(store)
        if is_used:
            with closing(sqlite3.connect(path)) as before, closing(sqlite3.connect(part)) as copy:
                before.backup(copy)
        try:
            _migrate(store, is_new=not is_used)
        except Exception as error:
            part.unlink(missing_ok=True)
            original = getattr(error, "orig", error)
            if isinstance(original, sqlite3.Error):
                raise original from error
            raise _unusable(path, error) from error
        if is_used:
            part.replace(backup)


def _migrate(store: sqlite3.Connection, *, is_new: bool) -> None:
    """Change the tables of a store, or build them; what is committed is left to the caller."""
    import sqlalchemy
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy.pool import StaticPool

    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: store, poolclass=StaticPool)
    if is_new:
        # What a process that was killed has left of them: earlier versions built piece by piece.
        for name in _tables(store):
            store.execute(f'drop table "{name}"')
        Base.metadata.create_all(engine)
    with engine.connect() as connection:
        config = utils._get_alembic_config("")
        config.attributes["connection"] = connection
        command.upgrade(config, "heads")


def _unusable(path: Path, error: Exception) -> ConfigError:
    backup = path.with_suffix(".db.backup")
    hint = str(error).partition("\n")[0]
    if backup.exists():
        command = shlex.join(["mv", str(backup), str(path)])
        hint += f". It was copied before its tables were changed: `{command}` takes the copy"
    expected = "a database that this version of MLflow can use"
    return ConfigError("tracking.uri", expected, str(path), hint)


def _tables(store: sqlite3.Connection) -> list[str]:
    words = "select name from sqlite_master where type = 'table' and name not like 'sqlite^_%'"
    return [name for (name,) in store.execute(f"{words} escape '^'").fetchall()]


def _revision(store: sqlite3.Connection) -> str | None:
    if "alembic_version" not in _tables(store):
        return None
    row = store.execute("select version_num from alembic_version").fetchone()
    return str(row[0]) if row else None


def _is_used(store: sqlite3.Connection) -> bool:
    """Tell whether a database holds anything that somebody has put there, or is not MLflow's."""
    tables = [name for name in _tables(store) if name != "alembic_version"]
    # Of what MLflow builds, this is the first; a change of it makes a copy, and renames that.
    if tables and not {"experiments", "_alembic_tmp_experiments"} & set(tables):
        return True
    words = [f'select 1 from "{name}" where {_OWN.get(name, "1")} limit 1' for name in tables]
    return any(store.execute(word).fetchone() for word in words)


def _settle(store: sqlite3.Connection, path: Path) -> None:
    """Let the artifacts of a store that was moved or copied be where it is now."""
    here, (was, is_sure) = path.parent, _last_place(store)
    if was == here and is_sure:
        return
    with _whole(store):
        _add_default(store, here)
        if was and was != here and (is_sure or _has_followed(store, was, here)):
            with suppress(OSError):
                if path.samefile(was / path.name):
                    return  # the same folder by another name
            _rewrite(store, was, here)
            for old, new in _roots(was, here):
                _rewrite(store, old, new, only_found=True)
        store.execute(f"create table if not exists {_PLACE} (folder text not null)")
        store.execute(f"delete from {_PLACE}")
        store.execute(f"insert into {_PLACE} values (?)", [str(here)])


def _add_default(store: sqlite3.Connection, here: Path) -> None:
    """Add MLflow's own experiment: of some paths MLflow would make something else than a text."""
    if store.execute("select 1 from experiments").fetchone() is None:
        now = time.time_ns() // 1_000_000
        words = "experiment_id, name, artifact_location, lifecycle_stage, creation_time"
        words = f"insert into experiments ({words}, last_update_time) values (?, ?, ?, ?, ?, ?)"
        store.execute(words, [0, "Default", location(here / "0"), "active", now, now])


def _last_place(store: sqlite3.Connection) -> tuple[Path | None, bool]:
    """Return the folder in which a store was last, and whether that is sure.

    Before it was noted, the artifacts of MLflow's own experiment tell of the usual place.
    """
    if _PLACE in _tables(store) and (row := store.execute(f"select * from {_PLACE}").fetchone()):
        return Path(row[0]), True
    words = "select artifact_location from experiments where experiment_id = 0"
    row = store.execute(words).fetchone()
    found = local_path(row[0]) if row and row[0] else None
    return (found.parent, False) if found and found.parent.name == "mlruns" else (None, False)


def _has_followed(store: sqlite3.Connection, was: Path, here: Path) -> bool:
    """Tell whether artifacts are in a folder as they were in another, or that project is gone."""
    found = store.execute("select artifact_location from experiments").fetchall()
    paths = [path for (given,) in found if given and (path := local_path(given))]
    inside = [here / path.relative_to(was) for path in paths if path.is_relative_to(was)]
    return not was.parent.exists() or any(path.exists() for path in inside)


def _roots(was: Path, here: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the folders that were moved, where they are above those of the store."""
    while was.name == here.name and was.name:
        was, here = was.parent, here.parent
        if was.name != here.name and was.name:
            yield was, here


def _rewrite(store: sqlite3.Connection, old: Path, new: Path, *, only_found: bool = False) -> None:
    """Put the places of artifacts that are below a folder below another.

    With `only_found`, what is still there and not in the new place stays.
    """
    for table, column, condition in _LOCATIONS:
        words = f"select rowid, {column} from {table} where {column} is not null{condition}"
        for rowid, given in store.execute(words).fetchall():
            path = local_path(given)
            if path is None or not path.is_relative_to(old):
                continue
            now = new / path.relative_to(old)
            stays = path.is_relative_to(new) or (path.exists() and not now.exists())
            if not only_found or not stays:
                change = f"update {table} set {column} = ? where rowid = ?"
                store.execute(change, [location(now), rowid])

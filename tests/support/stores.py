"""MLflow's SQLite stores without what only a loss of power would need, nor the same work twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def keep() -> None:
    """Let no commit wait for the disk, and read each of MLflow's migrations once.

    What processes that are killed leave behind is as ever: the system has all that was written.
    """
    from alembic.util import pyfiles
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    load, modules = pyfiles.load_module_py, dict[str, Any]()

    def load_once(module_id: str, path: Any) -> Any:
        name = str(path)
        if Path(name).parent.name != "versions":  # the others do something when they are loaded
            return load(module_id, path)
        if name not in modules:
            modules[name] = load(module_id, path)
        return modules[name]

    def connected(connection: Any, _: object) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("pragma synchronous = off")

    pyfiles.load_module_py = load_once
    event.listen(Engine, "connect", connected)

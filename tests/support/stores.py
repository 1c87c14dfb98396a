"""MLflow's SQLite stores without what only a loss of power would need, nor the same work twice."""

from __future__ import annotations

from typing import Any


def keep() -> None:
    """Let no commit wait for the disk, and read MLflow's migrations once.

    What processes that are killed leave behind is as ever: the system has all that was written.
    """
    from alembic.script import ScriptDirectory
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    read, found = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def read_once(config: Any) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in found:
            found[place] = read(config)
        return found[place]

    def connected(connection: Any, _: object) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("pragma synchronous = off")

    ScriptDirectory.from_config = staticmethod(read_once)  # type: ignore[method-assign, assignment]
    event.listen(Engine, "connect", connected)

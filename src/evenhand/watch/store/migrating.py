"""Bring a database's tables to this version, by Alembic's migrations, under a lock."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from evenhand.core.errors import StorageError
from evenhand.watch.store.tables import Table

FOLDER = Path(__file__).parent / "migrations"

_LOCK_NUMBER = 0x45564E48  # "EVNH": names Evenhand's lock among a PostgreSQL server's others
# Alembic's environment is global to the process.
_one_at_a_time = threading.Lock()


def migrate(engine: Engine, shown: str) -> None:
    """Apply the migrations that a database lacks, all or none of them.

    Processes that start at once take turns: SQLite's write lock and PostgreSQL's advisory lock are
    held until the transaction ends. ``shown`` names the database in messages.

    Raises:
        StorageError: a newer version of Evenhand made the tables, or something else did.
    """
    with engine.connect() as connection:
        if _is_current(connection, shown):
            return
    with _one_at_a_time, engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _LOCK_NUMBER})
        if not _is_current(connection, shown):
            command.upgrade(configure(connection), "head")


def configure(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration: the package's scripts, on this connection."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _is_current(connection: Connection, shown: str) -> bool:
    """Whether no migration is missing; a database that this version cannot use is refused."""
    scripts = ScriptDirectory.from_config(configure())
    known = {script.revision for script in scripts.walk_revisions()}
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in known:
        raise StorageError(
            f'the database {shown} is at revision "{revision}", which this version of Evenhand '
            "does not know",
            hint="a newer version made its tables: use that version, or another database",
        )
    if revision is None:
        foreign = sorted(set(inspect(connection).get_table_names()) & set(Table.metadata.tables))
        if foreign:
            raise StorageError(
                f"the database {shown} has tables that Evenhand did not make: {', '.join(foreign)}",
                hint="name a database of Evenhand's own, or an empty one",
            )
    return revision == scripts.get_current_head()

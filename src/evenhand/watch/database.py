"""The database of production: SQLite in a file by default, PostgreSQL by URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from evenhand.watch.tables import Table


@dataclass(frozen=True)
class Database:
    """An open database whose tables are those of this version."""

    engine: Engine
    _sessions: sessionmaker[Session]

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session of one transaction: committed at the end, undone by an exception."""
        with self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def default_url(run: Path) -> str:
    """Return the URL of a run's own SQLite database, ``RUN/production.sqlite``."""
    return f"sqlite:///{(run / 'production.sqlite').resolve()}"


def open_database(url: str) -> Database:
    """Open a database and bring its tables to this version."""
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    Table.metadata.create_all(engine)
    return Database(engine, sessionmaker(engine, expire_on_commit=False))


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()

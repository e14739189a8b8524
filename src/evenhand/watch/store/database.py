"""The database of production: SQLite in a file by default, PostgreSQL by URL."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from evenhand.core.errors import StorageError

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
_READING = "evenhand_reading"
_BUSY_MILLISECONDS = 10_000
_LOG_BUSY_MILLISECONDS = 200
_RETRY_SECONDS = 0.02
_CONNECT_SECONDS = 10
_LOST_MILLISECONDS = 20_000
# Mistakes of the code or of one row, not faults of the storage.
_NOT_STORAGE = (IntegrityError, DataError, ProgrammingError, NotSupportedError)


class RowError(StorageError):
    """The database works, and refused a row: others can be stored."""


@dataclass(frozen=True)
class Database:
    """An open database whose tables are those of this version.

    Attributes:
        engine: SQLAlchemy's.
        shown: the URL without its password, for messages.
    """

    engine: Engine
    shown: str
    _writing: sessionmaker[Session]
    _reading: sessionmaker[Session]

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session of one transaction: committed at the end, undone by an exception.

        On SQLite it holds the only write lock from its start, so that writers wait for each other
        instead of failing half-way: keep it short, and use :meth:`reading` to read.

        Raises:
            StorageError: the database cannot be reached, read or written.
        """
        with storage_faults(self.shown), self._writing.begin() as session:
            yield session

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that reads one state of the database and keeps nobody from writing.

        Raises:
            StorageError: the database cannot be reached or read, or the session wrote.
        """
        with storage_faults(self.shown), self._reading.begin() as session:
            yield session

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def default_url(run: Path) -> str:
    """Return the URL of a run's own SQLite database, ``RUN/production.sqlite``."""
    path = (run / "production.sqlite").resolve()
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def open_database(url: str) -> Database:
    """Open a database and bring its tables to this version.

    Raises:
        StorageError: the URL is wrong, its driver is missing, the server or file cannot be used,
            or a newer version of Evenhand made the tables.
    """
    from evenhand.watch.store.migrating import migrate

    parsed = _parse(url)
    # A query may hold a password as well.
    shown = parsed.set(query={}).render_as_string(hide_password=True)
    shown = shown.replace("postgresql+psycopg:", "postgresql:", 1)
    engine = _create(parsed, shown)
    try:
        with storage_faults(shown):
            migrate(engine, shown)
    except BaseException:
        engine.dispose()
        raise
    options: dict[str, Any] = {_READING: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return Database(
        engine,
        shown,
        sessionmaker(engine, expire_on_commit=False),
        sessionmaker(engine.execution_options(**options), expire_on_commit=False),
    )


def empty_log_after(session: Session) -> None:
    """Have SQLite's write-ahead log emptied once the session has committed.

    The log keeps what was erased, in full, until other writes happen to run over it. If somebody
    reads just then it stays as it is, to be emptied the next time; writers wait no longer for it
    than a fraction of a second.
    """
    bind = session.get_bind()
    if bind.dialect.name == "sqlite":
        event.listen(session, "after_commit", lambda _: _empty_log(bind.engine), once=True)


def _empty_log(engine: Engine) -> None:
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_LOG_BUSY_MILLISECONDS}")
        with contextlib.suppress(sqlite3.OperationalError):  # what was asked for is committed
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            cursor.fetchall()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        cursor.close()
    finally:
        connection.close()


@contextlib.contextmanager
def storage_faults(shown: str) -> Iterator[None]:
    """Turn the database's own faults into a :class:`StorageError` that names the remedy."""
    try:
        yield
    except _NOT_STORAGE:
        raise
    except (DBAPIError, PoolTimeoutError) as error:
        raise storage_error(error, shown) from error


def storage_error(error: SQLAlchemyError, shown: str) -> StorageError:
    """Return the error that a fault of the database is shown as; it holds no row's content."""
    # The driver's own words: SQLAlchemy's add the statement and its parameters, that is, posts.
    cause = error.orig if isinstance(error, DBAPIError) else None
    lines = str(cause or type(error).__name__).strip().splitlines()
    reason = lines[0] if lines else type(cause).__name__
    if isinstance(error, _NOT_STORAGE):
        return RowError(f"the database {shown} does not take a row: {reason}")
    return StorageError(f"the database {shown} cannot be used: {reason}", hint=_remedy(reason))


def _remedy(reason: str) -> str:
    text = reason.casefold()
    for found, remedy in (
        ("readonly", "give this user the right to write to the file and to its folder"),
        ("unable to open", "make its folder, or name a file in a folder that may be written to"),
        ("not a database", "the file holds something else: name another one"),
        ("disk is full", "free some space, then start again; what was stored before is intact"),
        ("locked", "another process holds the database: wait for it or stop it"),
        ("malformed", "the file is damaged: restore it from a backup"),
        ("password", "check the user's name and password in the URL"),
        ("does not exist", "create the database or the role first, or correct the URL"),
    ):
        if found in text:
            return remedy
    return "check that the server runs and that the URL names it: postgresql://USER@HOST:PORT/NAME"


def _parse(url: str) -> URL:
    """Return the URL with this project's driver in it; what is wrong is never shown whole."""
    forms = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StorageError("the database's URL cannot be read", hint=f"write {forms}") from error
    if parsed.drivername in _POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise StorageError(
            f'"{parsed.drivername}" is no kind of database that is known', hint=f"write {forms}"
        )
    if parsed.database in (None, "", ":memory:"):
        raise StorageError(
            "a database in memory is lost with the process, and threads do not share it",
            hint="name a file: sqlite:///production.sqlite",
        )
    return parsed


def _create(url: URL, shown: str) -> Engine:
    if url.drivername == "sqlite":
        _make_private(url)
        # Web servers answer in up to 40 threads; each may hold one connection.
        engine = create_engine(url, pool_size=5, max_overflow=35, hide_parameters=True)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # Without the second a server that vanishes is waited for as long as TCP resends: 15 minutes.
    query = {
        "connect_timeout": str(_CONNECT_SECONDS),
        "tcp_user_timeout": str(_LOST_MILLISECONDS),
        **url.query,
    }
    try:
        return create_engine(
            url.set(query=query),
            pool_size=5,
            max_overflow=35,
            pool_pre_ping=True,
            hide_parameters=True,
        )
    except ImportError as error:
        raise StorageError(
            f"the database {shown} needs the driver psycopg, which is not installed",
            hint='pip install "evenhand[postgres]"',
        ) from error


def _make_private(url: URL) -> None:
    """Make a new file that its owner alone can read: it holds posts, and hashes of passwords.

    SQLite gives the log beside it the same rights. A file that is there keeps its own.
    """
    if url.database is None or url.database.startswith("file:"):
        return
    with contextlib.suppress(OSError):  # SQLite itself says better what is wrong
        os.close(os.open(url.database, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _set_up_sqlite(connection: Any, _: object) -> None:
    # The driver starts no transaction of its own: "begin" below does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    _turn_log_on(cursor)
    for pragma in (
        "synchronous=FULL",  # an answered post is on the disk, not in a cache
        "foreign_keys=ON",
        "secure_delete=ON",  # erased texts are overwritten, not left in free pages
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _turn_log_on(cursor: sqlite3.Cursor) -> None:
    """Switch to the write-ahead log, which fails at once, whatever the timeout, if others do so."""
    end = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(_RETRY_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if reading else 'OFF'}")
    # A transaction that first reads and then writes could fail, however long it waits: another
    # may have written between. One that takes the lock at its start waits for its turn.
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

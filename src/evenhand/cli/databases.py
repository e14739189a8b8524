"""The database that ``keys``, ``review`` and ``watch`` work on: named in one way, opened in one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evenhand.watch.store.database import Database

RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="RUN", help="Use the run's own database, RUN/production.sqlite."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="Use sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME.",
    ),
]


@contextlib.contextmanager
def opened_database(run: Path | None, url: str | None, *, make: bool = False) -> Iterator[Database]:
    """Yield the database that the options name, exactly one of them, and close it.

    Args:
        run: the run whose own database is meant.
        url: the database's URL.
        make: make an SQLite file that is not there; else a mistyped name would be a new, empty
            database, and the answer about it would be wrong without a word.

    Raises:
        ConfigError: none or both are named, or there is no such run or file.
        StorageError: the database cannot be used.
    """
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.watch.store.database import default_url, open_database

    problem = None
    if (run is None) == (url is None):
        message = "name the database by one of them: --run RUN or --database URL"
        problem = Problem("--run, --database", message)
    elif run is not None:
        own = run / "production.sqlite"
        if not own.is_file() and not (run / "config.json").is_file():
            problem = Problem("RUN", f"{run} is not a run folder")
        elif not own.is_file() and not make:
            message = f"{run} has no production.sqlite: nothing was served from it; --database URL"
            problem = Problem("RUN", f"{message} names another database")
        url = default_url(run)
    elif url is not None and not make and (missing := _missing_file(url)) is not None:
        message = f"there is no file {missing}; `evenhand serve RUN --database URL` makes it"
        problem = Problem("--database", message)
    if problem is not None:
        raise ConfigError("the command", [problem])
    assert url is not None
    opened = open_database(url)
    try:
        yield opened
    finally:
        opened.close()


def now() -> datetime:
    """Return the time of a command."""
    return datetime.now(UTC)


def moment(time: datetime | None) -> str:
    """Return a time in UTC to the minute; nothing for None.

    >>> moment(datetime(2026, 3, 2, 9, 14, 7, tzinfo=UTC)), moment(None)
    ('2026-03-02 09:14', '')
    """
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _missing_file(url: str) -> str | None:
    """The SQLite file of a URL, where it is not there; a wrong URL is for the opening to refuse."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return None
    is_file = parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:")
    return parsed.database if is_file and not Path(str(parsed.database)).exists() else None

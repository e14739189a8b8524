"""What the tests of the monitor share: a database, a release, a started intake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import empty_database, postgres_database_url, postgres_url
from tests.watch.made_up import make_release, start_intake

from evenhand.core.production import Release
from evenhand.watch.store.database import Database, open_database
from evenhand.watch.store.intake import Intake

__all__ = ["postgres_database_url", "postgres_url"]


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """An empty SQLite database in a file of its own."""
    opened = open_database(f"sqlite:///{tmp_path / 'production.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres_template_url(postgres_url: str) -> Iterator[str]:
    """A PostgreSQL database with all tables, of which each test gets a copy."""
    with empty_database(postgres_url) as url:
        open_database(url).close()
        yield url


@pytest.fixture
def postgres_database(postgres_url: str, postgres_template_url: str) -> Iterator[Database]:
    """An empty PostgreSQL database of the test's own."""
    with empty_database(postgres_url, template_url=postgres_template_url) as url:
        opened = open_database(url)
        yield opened
        opened.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database: SQLite, and in the slow tests PostgreSQL as well."""
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
def release() -> Release:
    return make_release()


@pytest.fixture
def intake(database: Database, release: Release) -> Intake:
    """A started intake with the default settings."""
    return start_intake(database, release)

"""Which release a database is about, and the settings that it was last served with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.errors import ConfigError, Problem, StorageError
from evenhand.core.production import Release
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import ReleaseRow, StartRow


@dataclass(frozen=True)
class Served:
    """A release as the database knows it.

    Attributes:
        release_id: ``Release.sha256``.
        first_started: when it was first served.
        reference: the offline evaluation's rates that were registered with it.
        settings: of its last start.
    """

    release_id: str
    release: Release
    first_started: datetime
    reference: Mapping[str, Any]
    settings: ProductionConfig


def find_served(database: Database, release: str | None = None) -> Served:
    """Return a release by the beginning of its id, or the one that was started last.

    Raises:
        ConfigError: nothing was ever served, or no release or several have such an id.
        StorageError: the database cannot be read, or another version wrote what it holds.
    """
    with database.reading() as session:
        return read_served(session, release)


def read_served(session: Session, release: str | None = None) -> Served:
    """Do the same in an open session."""
    row = _latest(session) if release is None else _named(session, release)
    start = session.scalars(
        select(StartRow)
        .where(StartRow.release_id == row.id)
        .order_by(StartRow.time.desc(), StartRow.id.desc())
        .limit(1)
    ).first()
    try:
        return Served(
            release_id=row.id,
            release=Release.model_validate(row.release),
            first_started=row.first_started,
            reference=row.reference,
            settings=ProductionConfig.model_validate({} if start is None else start.settings),
        )
    except ValidationError as error:
        raise StorageError(
            f"release {row.id[:12]} was registered by another version of Evenhand",
            hint="start the server once with this version: it registers the release anew",
        ) from error


def _latest(session: Session) -> ReleaseRow:
    query = (
        select(ReleaseRow)
        .outerjoin(StartRow, StartRow.release_id == ReleaseRow.id)
        .order_by(func.coalesce(StartRow.time, ReleaseRow.first_started).desc(), StartRow.id.desc())
        .limit(1)
    )
    row = session.scalars(query).first()
    if row is None:
        problem = Problem("release", "nothing was served with this database yet")
        raise ConfigError(
            "the database", [problem], hint="`evenhand serve RUN` registers a release"
        )
    return row


def _named(session: Session, release: str) -> ReleaseRow:
    rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.first_started)).all()
    found = [row for row in rows if release and row.id.startswith(release)]
    if len(found) == 1:
        return found[0]
    what = "is the beginning of several releases" if found else "is no release of this database"
    known = ", ".join(row.id[:12] for row in rows) or "none"
    raise ConfigError(
        "the database", [Problem("--release", f'"{release}" {what}; it has: {known}')]
    )

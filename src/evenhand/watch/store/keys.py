"""The callers' API keys: made once, kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from evenhand.core.errors import ConfigError, Problem, StorageError
from evenhand.core.registry import suggest
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import ApiKeyRow
from evenhand.watch.store.texts import storable

PREFIX = "eh_"
_KEY_BYTES = 32  # 43 characters in URL-safe Base64
_NAME_CHARS = 64


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What is known of a key; the key itself was shown once and is not stored."""

    name: str
    created: datetime
    revoked: datetime | None


def add_key(session: Session, name: str, *, now: datetime) -> str:
    """Make a key for a caller and return it: the only time that it can be seen.

    The key has 256 random bits, so its plain SHA-256 can be stored: there is nothing to guess.

    Raises:
        ConfigError: the name is empty, too long, or was used before.
    """
    problem = _name_problem(session, name)
    if problem is not None:
        raise ConfigError("the command", [Problem("NAME", problem)], consequence="no key was made")
    key = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    session.add(ApiKeyRow(name=name, key_sha256=_sha256(key), created=now))
    session.flush()
    return key


def list_keys(session: Session) -> list[KeyInfo]:
    """Return every key, revoked ones included, in the order in which they were made."""
    rows = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.id))
    return [KeyInfo(row.name, row.created, row.revoked) for row in rows]


def revoke_key(session: Session, name: str, *, now: datetime) -> KeyInfo:
    """Make a key invalid for good; running servers refuse it within seconds.

    Raises:
        ConfigError: there is no key of that name.
    """
    row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.name == storable(name))).first()
    if row is None:
        known = [one.name for one in list_keys(session) if one.revoked is None]
        message = f'there is no key "{name}"{suggest(name, known)}'
        raise ConfigError(
            "the command", [Problem("NAME", message)], consequence="no key was revoked"
        )
    if row.revoked is None:
        row.revoked = now
    return KeyInfo(row.name, row.created, row.revoked)


class KeyRing:
    """Checks callers' keys against the database, which it reads every few seconds at most.

    That holds for a database that cannot be reached as well: callers who wait for it one after the
    other would each wait as long as the first.
    """

    def __init__(
        self,
        database: Database,
        *,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._seconds = seconds
        self._clock = clock
        self._turn = threading.Lock()
        self._read_at: float | None = None
        self._active: tuple[tuple[str, str], ...] = ()
        self._is_empty = True
        self._failure: Exception | None = None

    def check(self, key: str) -> str | None:
        """Return the name of the caller whose key this is; None where it is nobody's.

        Raises:
            StorageError: the database cannot be read.
        """
        given = _sha256(key)
        found = None
        # Every key is compared, so that the time taken tells nothing.
        for name, sha256 in self._current():
            if hmac.compare_digest(sha256, given):
                found = name
        return found

    @property
    def is_empty(self) -> bool:
        """Whether no key was ever made. Once there was one, revoked or not, callers need a key."""
        self._current()
        return self._is_empty

    def _current(self) -> tuple[tuple[str, str], ...]:
        with self._turn:
            if self._read_at is None or self._clock() - self._read_at >= self._seconds:
                self._failure = None
                try:
                    self._read()
                except Exception as error:  # whatever it is: no key was read, so none is valid
                    self._failure = error
                    raise
                finally:
                    self._read_at = self._clock()
            if self._failure is not None:
                raise StorageError("keys could not be read a moment ago") from self._failure
            return self._active

    def _read(self) -> None:
        with self._database.reading() as session:
            rows = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.id)).all()
        self._active = tuple((r.name, r.key_sha256) for r in rows if r.revoked is None)
        self._is_empty = not rows


def _name_problem(session: Session, name: str) -> str | None:
    if not name.strip() or not name.isprintable():
        return "must be a name of printable characters"
    if len(name) > _NAME_CHARS:
        return f"has {len(name)} characters; {_NAME_CHARS} are allowed"
    used = session.scalars(select(ApiKeyRow).where(ApiKeyRow.name == name)).first()
    if used is None:
        return None
    state = "is in use" if used.revoked is None else "was revoked, and names are not used twice"
    return f'"{name}" {state}; choose another name'


def _sha256(key: str) -> str:
    # A header may hold anything: what cannot be encoded is nobody's key, and no error.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()

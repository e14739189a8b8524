from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import select
from tests.watch.made_up import START

from evenhand.core.errors import ConfigError, StorageError
from evenhand.watch.store.database import Database
from evenhand.watch.store.keys import KeyRing, add_key, list_keys, revoke_key
from evenhand.watch.store.tables import ApiKeyRow


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_key_is_shown_once_and_stored_as_a_hash(database: Database) -> None:
    with database.session() as session:
        key = add_key(session, "forum", now=START)
    assert re.fullmatch(r"eh_[A-Za-z0-9_-]{43}", key)
    with database.reading() as session:
        row = session.scalars(select(ApiKeyRow)).one()
        assert key[3:] not in str(vars(row))
        assert re.fullmatch("[0-9a-f]{64}", row.key_sha256)


def test_keys_are_checked_by_name(database: Database) -> None:
    with database.session() as session:
        keys = {name: add_key(session, name, now=START) for name in ("forum", "app")}
    ring = KeyRing(database)
    assert {name: ring.check(key) for name, key in keys.items()} == {"forum": "forum", "app": "app"}
    for wrong in ("", "eh_", keys["app"][:-1], keys["app"] + "a", keys["app"].lower(), "\ud800"):
        assert ring.check(wrong) is None


def test_a_revoked_key_fails_within_seconds_without_a_restart(database: Database) -> None:
    clock = Clock()
    with database.session() as session:
        key = add_key(session, "forum", now=START)
    ring = KeyRing(database, seconds=2.0, clock=clock)
    assert ring.check(key) == "forum"
    with database.session() as session:
        revoked = revoke_key(session, "forum", now=START + timedelta(days=1))
    assert revoked.revoked == START + timedelta(days=1)
    clock.time = 1.9
    assert ring.check(key) == "forum"  # from memory: the database is not asked for each post
    clock.time = 2.0
    assert ring.check(key) is None


def test_a_new_key_works_without_a_restart(database: Database) -> None:
    clock = Clock()
    ring = KeyRing(database, clock=clock)
    assert ring.is_empty
    with database.session() as session:
        key = add_key(session, "forum", now=START)
    clock.time = 5.0
    assert (ring.check(key), ring.is_empty) == ("forum", False)


def test_revoking_the_last_key_does_not_open_the_server(database: Database) -> None:
    with database.session() as session:
        add_key(session, "forum", now=START)
        revoke_key(session, "forum", now=START)
    assert not KeyRing(database).is_empty


def test_a_database_that_is_gone_is_asked_once_in_a_while_and_opens_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred callers must not wait for its timeout one after the other."""
    asked: list[None] = []

    def gone(_: Database) -> None:
        asked.append(None)
        raise StorageError("gone")

    clock = Clock()
    ring = KeyRing(database, seconds=2.0, clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "reading", gone)
        for _ in range(5):
            with pytest.raises(StorageError):
                ring.check("eh_x")
            with pytest.raises(StorageError):
                assert ring.is_empty
    assert len(asked) == 1
    clock.time = 2.0
    assert ring.is_empty


def test_names(database: Database) -> None:
    def problem(name: str) -> str:
        with pytest.raises(ConfigError) as caught, database.session() as session:
            add_key(session, name, now=START)
        return caught.value.render()

    with database.session() as session:
        add_key(session, "forum", now=START)
    assert "is in use" in problem("forum")
    with database.session() as session:
        revoke_key(session, "forum", now=START)
        again = revoke_key(session, "forum", now=START + timedelta(days=1))
        assert again.revoked == START  # the first time counts
    assert "was revoked" in problem("forum")
    for name in ("", "  ", "a\nb", "a\x00", "\x1b[31m", "\u202ea"):
        assert "printable" in problem(name)
    assert "65 characters" in problem("a" * 65)
    with pytest.raises(ConfigError, match="1 problem"), database.session() as session:
        revoke_key(session, "nobody", now=START)
    with database.reading() as session:
        assert [(one.name, one.created, one.revoked) for one in list_keys(session)] == [
            ("forum", START, START)
        ]

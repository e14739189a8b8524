"""People, posts to review and golden items that tests of the queue make up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from argon2 import PasswordHasher
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evenhand.config.production_schema import ReviewConfig
from evenhand.core.records import Row
from evenhand.watch.reviewing import users
from evenhand.watch.reviewing.golden import add_golden
from evenhand.watch.reviewing.queue import QueueItem, next_item, submit
from evenhand.watch.reviewing.users import Login, add_user, open_login
from evenhand.watch.store.tables import ItemRow, PostRow, ReleaseRow, UserRow

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
PASSWORD = "correct horse battery"
PLAIN = ReviewConfig(golden_share=0.0, second_review_share=0.0)
"""Settings without golden items."""


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hash passwords with argon2's least cost; import this fixture to use it."""
    monkeypatch.setattr(users, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    return iter(())


def person(session: Session, name: str, *, role: str = "reviewer", now: datetime = NOW) -> Login:
    """Return the open login of a new person."""
    user = add_user(session, name, role=role, password=PASSWORD, now=now)
    return open_login(session, user, hours=100, now=now)


def add_items(
    session: Session,
    n: int = 1,
    *,
    needed: int = 1,
    proposed: Sequence[str] = (),
    now: datetime = NOW,
) -> list[int]:
    """Add sampled posts that wait for review and return their items' ids."""
    if session.get(ReleaseRow, "r" * 64) is None:
        session.add(ReleaseRow(id="r" * 64, first_started=now, release={}, reference={}))
        session.flush()
    start = session.scalar(select(func.count()).select_from(PostRow)) or 0
    ids = []
    for number in range(start, start + n):
        post = PostRow(
            id=f"post-{number:05d}",
            time=now,
            release_id="r" * 64,
            status="ok",
            score=0.7,
            decision="hate",
            proposed=list(proposed),
            stratum="none/hate/far",
            inclusion=0.5,
            sampled=True,
            text=f"post number {number}",
        )
        session.add(post)
        session.flush()
        item = ItemRow(kind="sample", post_id=post.id, created=now, reviews_needed=needed)
        session.add(item)
        session.flush()
        ids.append(item.id)
    return ids


def add_known(
    session: Session, n: int, *, label: str = "hate", groups: tuple[str, ...] = ()
) -> None:
    """Add golden items."""
    rows = [Row(f"g{i}", f"known {label} {groups} {i}", label, groups) for i in range(n)]
    add_golden(session, rows, now=NOW)


def open_next(
    session: Session,
    login: Login,
    settings: ReviewConfig = PLAIN,
    *,
    now: datetime = NOW,
    seed: int = 0,
) -> Any:
    """Return what the queue gives a person."""
    rng = np.random.default_rng(seed)
    return next_item(session, login.user, login, settings, now=now, rng=rng)


def say(
    session: Session,
    login: Login,
    label: str = "normal",
    groups: Sequence[str] = (),
    *,
    settings: ReviewConfig = PLAIN,
    now: datetime = NOW,
) -> int:
    """Let a person label their next post; return its item."""
    item = open_next(session, login, settings, now=now)
    assert isinstance(item, QueueItem), item
    submit(session, login.user, item.id, label=label, groups=groups, rationale=None, now=now)
    return item.id


def state(session: Session, item_id: int) -> tuple[str, str | None, list[str] | None]:
    """Return an item's state, label and groups."""
    item = session.get_one(ItemRow, item_id, populate_existing=True)
    return item.state, item.label, item.groups


def reload(session: Session, login: Login) -> UserRow:
    """Return a login's user as the database has it."""
    return session.get_one(UserRow, login.user.id, populate_existing=True)

"""The tables of production: releases, posts, the review queue, reviews, alarms, people.

Times are UTC. Everything that a reviewer or an operator does is a new row: nothing is overwritten
but what is derived (an item's state) and what must be erased (texts).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, MetaData, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

_NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcTime(TypeDecorator[datetime]):
    """An aware time, stored in UTC; SQLite forgets the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the time in UTC; a time without a zone is a mistake."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Base of the tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy, once
        datetime: UtcTime,
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
    }


class ReleaseRow(Table):
    """A release (:class:`evenhand.core.production.Release`) that has been served."""

    __tablename__ = "releases"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # Release.sha256
    first_started: Mapped[datetime]
    release: Mapped[dict[str, Any]]  # as it was last started
    reference: Mapped[dict[str, Any]]  # offline evaluation: {"set", "fpr": {group: ...}, ...}


class StartRow(Table):
    """One start of a server: with which settings, and what the operator accepted."""

    __tablename__ = "starts"

    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"), index=True)
    time: Mapped[datetime]
    settings: Mapped[dict[str, Any]]  # ProductionConfig as JSON
    overrides: Mapped[list[str]]  # each Override as JSON text
    proposer: Mapped[dict[str, Any]]  # {"name", "sha256"}
    versions: Mapped[dict[str, Any]]


class PlanRow(Table):
    """The sampling rates in force from a time on, set before any post that they apply to."""

    __tablename__ = "plans"

    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"), index=True)
    time: Mapped[datetime]
    rates: Mapped[dict[str, Any]]  # stratum -> inclusion probability
    default_rate: Mapped[float]  # of a stratum that the plan does not name
    expected: Mapped[dict[str, Any]]  # stratum -> posts a day that it was made for
    labels_per_day: Mapped[float]


class PostRow(Table):
    """One answered post."""

    __tablename__ = "posts"
    # The windows of the drift tests are read in this order, every minute.
    __table_args__ = (Index("ix_posts_release_time", "release_id", "time", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    time: Mapped[datetime] = mapped_column(index=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    plan_id: Mapped[int | None] = mapped_column(ForeignKey("plans.id"))
    caller_id: Mapped[str | None] = mapped_column(String(256), index=True)
    caller_group: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(8))
    score: Mapped[float | None]
    probability: Mapped[float | None]
    decision: Mapped[str | None] = mapped_column(String(8))
    proposed: Mapped[list[str]]
    stratum: Mapped[str | None] = mapped_column(String(96))
    inclusion: Mapped[float | None]  # the probability with which it was sampled for review
    sampled: Mapped[bool] = mapped_column(default=False)
    text: Mapped[str | None] = mapped_column(Text)
    text_hmac: Mapped[str | None] = mapped_column(String(64), index=True)
    meta: Mapped[dict[str, Any] | None]
    text_until: Mapped[datetime | None] = mapped_column(index=True)


class ItemRow(Table):
    """One entry of the review queue; ``id`` is its place in the queue.

    ``kind``: ``sample`` (a sampled post) or ``golden`` (a known answer, of which each reviewer sees
    some; never part of an estimate). ``state``: ``open`` (waits for reviews), ``disputed`` (two
    reviewers differ; an admin adjudicates), ``done``, ``erased`` (its text is gone unlabelled).
    """

    __tablename__ = "items"
    __table_args__ = (Index("ix_items_state_id", "state", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    post_id: Mapped[str | None] = mapped_column(ForeignKey("posts.id"), unique=True)
    golden_text: Mapped[str | None] = mapped_column(Text)
    golden_label: Mapped[str | None] = mapped_column(String(8))
    created: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(8), default="open")
    reviews_needed: Mapped[int] = mapped_column(default=1)
    label: Mapped[str | None] = mapped_column(String(8))  # that holds: hate or normal; or None
    groups: Mapped[list[str] | None]  # that hold
    closed: Mapped[datetime | None]  # when the label that holds was given
    held_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    held_until: Mapped[datetime | None]


class ReviewRow(Table):
    """One act of a reviewer on an item; the history.

    ``action``: ``label``, ``skip``, ``undo`` (of the row ``undoes``), ``adjudicate``, ``import``.
    """

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    time: Mapped[datetime]
    action: Mapped[str] = mapped_column(String(12))
    label: Mapped[str | None] = mapped_column(String(8))
    groups: Mapped[list[str] | None]
    rationale: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    undoes: Mapped[int | None] = mapped_column(ForeignKey("reviews.id"))


class UserRow(Table):
    """A reviewer or an admin. ``pseudonym`` stands for the person in every export."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    pseudonym: Mapped[str] = mapped_column(String(32), unique=True)
    role: Mapped[str] = mapped_column(String(8))  # reviewer | admin
    password_hash: Mapped[str] = mapped_column(String(256))
    opted_out: Mapped[list[str]]  # proposed groups that the reviewer does not want to see
    is_active: Mapped[bool] = mapped_column(default=True)
    created: Mapped[datetime]
    break_until: Mapped[datetime | None]


class LoginRow(Table):
    """One login; the cookie's token is known by its hash alone."""

    __tablename__ = "logins"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    csrf: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime]
    expires: Mapped[datetime]
    sitting_started: Mapped[datetime]  # since the last break
    sitting_items: Mapped[int] = mapped_column(default=0)


class ApiKeyRow(Table):
    """A caller's key, known by its hash alone."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime]
    revoked: Mapped[datetime | None]


class EstimateRow(Table):
    """One estimate as it stood at a check: the points of the dashboard's curves."""

    __tablename__ = "estimates"
    __table_args__ = (Index("ix_estimates_release_time", "release_id", "time"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    time: Mapped[datetime]
    metric: Mapped[str] = mapped_column(String(8))  # fpr | fnr
    group: Mapped[str | None] = mapped_column("group_name", String(64))  # None: all posts
    value: Mapped[float | None]
    low: Mapped[float]
    high: Mapped[float]
    labels: Mapped[int]  # reviewed posts of the class behind it
    pending: Mapped[int]


class AlarmRow(Table):
    """An alarm: opened once for its kind and subject, until somebody closes it with a reason."""

    __tablename__ = "alarms"

    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))  # fpr | gap | score | errors | mix | duty
    subject: Mapped[str] = mapped_column(String(64))
    opened: Mapped[datetime]
    message: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]]
    closed: Mapped[datetime | None]
    closed_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    reason: Mapped[str | None] = mapped_column(Text)

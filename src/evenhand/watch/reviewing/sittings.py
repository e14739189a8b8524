"""Care for those who read hateful posts for hours: breaks, caps on a sitting and on a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from evenhand.config.production_schema import ReviewConfig
from evenhand.watch.store.tables import ItemRow, LoginRow, ReviewRow, UserRow

NIGHT = timedelta(hours=8)
"""A reviewer's day ends with so long a pause, wherever on earth they work."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Why there is no post now: a ``break``, or the ``day`` is done; ``until`` is its end."""

    kind: Literal["break", "day"]
    until: datetime
    message: str


def pause_due(
    session: Session, user: UserRow, login: LoginRow, settings: ReviewConfig, *, now: datetime
) -> Pause | None:
    """Return the pause that a reviewer is in or must begin, and bring the sitting up to date."""
    if user.break_until is not None and now < user.break_until:
        return _break(user.break_until)
    until = _day_done(session, user, settings, now=now)
    if until is not None:
        return Pause(
            "day",
            until,
            f"That was a day's work: {settings.day_items} posts. "
            "The queue opens again for you after a pause of 8 hours.",
        )
    if _has_rested(session, user, login, settings, now=now):
        login.sitting_started, login.sitting_items = now, 0
    long = timedelta(minutes=settings.session_minutes)
    if login.sitting_items < settings.session_items and now - login.sitting_started < long:
        return None
    return take_break(user, settings, now=now)


def take_break(user: UserRow, settings: ReviewConfig, *, now: datetime) -> Pause:
    """Begin a break, due or wished for."""
    until = now + timedelta(minutes=settings.break_minutes)
    user.break_until = until
    return _break(until)


def count_item(session: Session, user: UserRow) -> None:
    """Count a post towards the sitting, in every login that the person has open."""
    session.execute(
        update(LoginRow)
        .where(LoginRow.user_id == user.id)
        .values(sitting_items=LoginRow.sitting_items + 1)
    )


def _break(until: datetime) -> Pause:
    return Pause("break", until, f"Time for a break. The queue opens again at {until:%H:%M} UTC.")


def _has_rested(
    session: Session, user: UserRow, login: LoginRow, settings: ReviewConfig, *, now: datetime
) -> bool:
    """Whether a break was taken since the sitting began, called one or not."""
    if user.break_until is not None and login.sitting_started < user.break_until:
        return True
    last_act = session.scalar(
        select(ReviewRow.time)
        .where(ReviewRow.user_id == user.id)
        .order_by(ReviewRow.id.desc())
        .limit(1)
    )
    held_until = session.scalar(
        select(ItemRow.held_until)
        .where(ItemRow.held_by == user.id)
        .order_by(ItemRow.held_until.desc())
        .limit(1)
    )
    lease = timedelta(minutes=settings.lease_minutes)
    opened = None if held_until is None else held_until - lease
    active = [time for time in (last_act, opened) if time is not None]
    return not active or now - max(active) >= timedelta(minutes=settings.break_minutes)


def _day_done(
    session: Session, user: UserRow, settings: ReviewConfig, *, now: datetime
) -> datetime | None:
    """Return when the next day begins, if as many posts were labelled as a day allows."""
    times = session.scalars(
        select(ReviewRow.time)
        .where(ReviewRow.user_id == user.id, ReviewRow.action == "label")
        .order_by(ReviewRow.id.desc())
        .limit(settings.day_items)
    ).all()
    if len(times) < settings.day_items:
        return None
    later = [now, *times]
    nights = (first - second >= NIGHT for first, second in zip(later, times, strict=False))
    return None if any(nights) else times[0] + NIGHT

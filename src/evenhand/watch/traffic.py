"""Counts of what was answered and reviewed: traffic by day, errors, the queue, the budget."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Case, ColumnElement, Text, case, cast, exists, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from evenhand.watch.store.tables import ItemRow, PostRow, ReviewRow

_LABELS = ("label", "import", "adjudicate")


@dataclass(frozen=True, slots=True)
class TrafficDay:
    """The posts of one day (UTC).

    Attributes:
        decisions: posts by ``hate``, ``normal`` and ``error``.
        groups: posts by proposed group; ``none`` where nothing was proposed. A post with several
            groups counts in each.
        sampled: posts drawn for review.
        labels: sampled posts that reviewers labelled that day.
    """

    day: date
    posts: int
    decisions: Mapping[str, int]
    groups: Mapping[str, int]
    sampled: int
    labels: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The labelling budget.

    Attributes:
        per_day: posts that are to be reviewed a day.
        used_today: sampled posts that reviewers labelled since midnight (UTC).
        sampled_today: posts drawn for review since midnight.
    """

    per_day: float
    used_today: int
    sampled_today: int


@dataclass(frozen=True, slots=True)
class Queue:
    """The sampled items of a release by state.

    Attributes:
        open: wait for a review; ``second`` of them have one label and wait for another person's.
        disputed: wait for an admin.
        done: settled.
        erased: their text went before anybody labelled them.
    """

    open: int = 0
    second: int = 0
    disputed: int = 0
    done: int = 0
    erased: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """All posts of a release: in total, and of the last days, oldest first."""

    posts: int = 0
    errors: int = 0
    days: tuple[TrafficDay, ...] = ()

    @property
    def error_rate(self) -> float | None:
        """The share of posts that could not be scored; None without posts."""
        return self.errors / self.posts if self.posts else None


def read_traffic(session: Session, release_id: str, *, now: datetime, days: int) -> Traffic:
    """Return a release's posts in total, and by day of the last ``days`` (today among them)."""
    of_release = PostRow.release_id == release_id
    by_status = dict(
        session.execute(
            select(PostRow.status, func.count()).where(of_release).group_by(PostRow.status)
        ).all()
    )
    starts = _starts(now, days)
    bucket = _bucket(PostRow.time, starts)
    # Lists in JSON cannot be compared in PostgreSQL, their text can.
    proposed = cast(PostRow.proposed, Text)
    query = (
        select(bucket, PostRow.status, PostRow.decision, proposed, PostRow.sampled, func.count())
        .where(of_release, PostRow.time >= starts[0])
        .group_by(bucket, PostRow.status, PostRow.decision, proposed, PostRow.sampled)
    )
    decisions = [Counter[str]() for _ in starts]
    groups = [Counter[str]() for _ in starts]
    sampled = [0] * len(starts)
    for at, status, decision, names, was_sampled, number in session.execute(query):
        decisions[at][decision if status == "ok" and decision else "error"] += number
        for name in json.loads(names) or ("none",):
            groups[at][name] += number
        sampled[at] += number if was_sampled else 0
    labels = _labelled(session, release_id, starts)
    return Traffic(
        posts=sum(by_status.values()),
        errors=by_status.get("error", 0),
        days=tuple(
            TrafficDay(
                day=start.date(),
                posts=sum(decisions[at].values()),
                decisions=dict(decisions[at]),
                groups=dict(groups[at]),
                sampled=sampled[at],
                labels=labels[at],
            )
            for at, start in enumerate(starts)
        ),
    )


def read_queue(session: Session, release_id: str) -> Queue:
    """Return how many sampled posts of a release are in which state."""
    items = (
        select(ItemRow.state, func.count())
        .join(PostRow, PostRow.id == ItemRow.post_id)
        .where(PostRow.release_id == release_id, ItemRow.kind == "sample")
    )
    states = dict(session.execute(items.group_by(ItemRow.state)).all())
    labelled = ItemRow.id.in_(select(ReviewRow.item_id).where(*_standing_label()))
    second = dict(
        session.execute(
            items.where(ItemRow.state == "open", labelled).group_by(ItemRow.state)
        ).all()
    )
    return Queue(
        open=states.get("open", 0),
        second=second.get("open", 0),
        disputed=states.get("disputed", 0),
        done=states.get("done", 0),
        erased=states.get("erased", 0),
    )


def _labelled(session: Session, release_id: str, starts: list[datetime]) -> list[int]:
    """The sampled posts that were labelled, day by day; a post counts once a day."""
    bucket = _bucket(ReviewRow.time, starts)
    query = (
        select(bucket, func.count(func.distinct(ReviewRow.item_id)))
        .join(ItemRow, ItemRow.id == ReviewRow.item_id)
        .join(PostRow, PostRow.id == ItemRow.post_id)
        .where(
            PostRow.release_id == release_id,
            ItemRow.kind == "sample",
            ReviewRow.time >= starts[0],
            *_standing_label(),
        )
        .group_by(bucket)
    )
    found = dict(session.execute(query).all())
    return [found.get(at, 0) for at in range(len(starts))]


def _standing_label() -> tuple[ColumnElement[bool], ...]:
    """The acts that label an item and were not undone."""
    later = aliased(ReviewRow)
    undone = exists().where(later.undoes == ReviewRow.id)
    return ReviewRow.action.in_(_LABELS), ~undone


def _starts(now: datetime, days: int) -> list[datetime]:
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [midnight - timedelta(days=back) for back in range(days - 1, -1, -1)]


def _bucket(time: InstrumentedAttribute[datetime], starts: list[datetime]) -> Case[int]:
    """The number of the day that a time falls in, in words that every database knows."""
    ends = [(time < end, at) for at, end in enumerate(starts[1:])]
    return case(*ends, else_=len(starts) - 1) if ends else case((time < starts[0], 0), else_=0)

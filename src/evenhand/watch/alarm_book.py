"""Alarms as they are kept: opened once, until somebody closes them with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from evenhand.core.errors import ConfigError, Problem
from evenhand.watch.store.tables import AlarmRow, ReleaseRow

Key = tuple[str, str]
"""Kind and subject."""

_REASON_CHARS = 2000


@dataclass(frozen=True)
class Raised:
    """Something that should be an open alarm.

    Attributes:
        kind: fpr, gap, score, mix, errors or duty.
        subject: the group, ``all posts``, or the duty's name.
        message: a plain sentence with the figures.
        evidence: the figures, as JSON can hold them.
    """

    kind: str
    subject: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptAlarm:
    """An alarm of the database.

    Attributes:
        id: of its row; ``evenhand watch close ID`` closes it.
        kind: fpr, gap, score, mix, errors or duty.
        subject: the group, ``all posts``, or the duty's name.
        message: a plain sentence with the figures.
        evidence: the figures.
        closed: when somebody closed it; None while it is open.
        reason: what was given as the reason.
    """

    id: int
    kind: str
    subject: str
    opened: datetime
    message: str
    evidence: Mapping[str, Any]
    closed: datetime | None = None
    reason: str | None = None

    @property
    def key(self) -> Key:
        """Kind and subject, of which one alarm is open at a time."""
        return self.kind, self.subject


def read_alarms(
    session: Session, release_id: str, *, with_closed: bool = False
) -> tuple[KeptAlarm, ...]:
    """Return a release's open alarms, or all of them, the latest first."""
    query = select(AlarmRow).where(AlarmRow.release_id == release_id).order_by(AlarmRow.id.desc())
    if not with_closed:
        query = query.where(AlarmRow.closed.is_(None))
    return tuple(
        KeptAlarm(
            id=row.id,
            kind=row.kind,
            subject=row.subject,
            opened=row.opened,
            message=row.message,
            evidence=row.evidence,
            closed=row.closed,
            reason=row.reason,
        )
        for row in session.scalars(query)
    )


def closed_since(alarms: Iterable[KeptAlarm]) -> dict[Key, datetime]:
    """Return when the last alarm of each kind and subject was closed."""
    found: dict[Key, datetime] = {}
    for one in alarms:
        if one.closed is not None:
            found[one.key] = max(one.closed, found.get(one.key, one.closed))
    return found


def is_new(raised: Raised, alarms: Sequence[KeptAlarm]) -> bool:
    """Whether no alarm stands for it yet.

    An open alarm of the kind and subject does. So does a closed one of a duty with the same date:
    somebody has said why it need not be looked at again.
    """
    of_key = [one for one in alarms if one.key == (raised.kind, raised.subject)]
    if any(one.closed is None for one in of_key):
        return False
    return raised.kind != "duty" or all(
        one.evidence.get("due") != raised.evidence.get("due") for one in of_key
    )


def open_alarms(
    session: Session,
    release_id: str,
    raised: Iterable[Raised],
    *,
    known: Mapping[Key, datetime],
    now: datetime,
) -> int:
    """Open what is not open yet; return how many alarms that were.

    The row of the release is locked first, so that of two processes the second finds the alarms of
    the first.

    Args:
        session: an open transaction.
        release_id: whose alarms.
        raised: what the evidence supports.
        known: when the last alarm of each kind and subject was closed, as the evidence took it. One
            that was closed since may rest on the same evidence, so it waits for the next check.
        now: when they are opened.
    """
    session.execute(
        select(ReleaseRow.id).where(ReleaseRow.id == release_id).with_for_update()
    ).scalar_one()
    there = read_alarms(session, release_id, with_closed=True)
    closed = closed_since(there)
    new = [
        one
        for one in raised
        if is_new(one, there)
        and closed.get((one.kind, one.subject)) == known.get((one.kind, one.subject))
    ]
    session.add_all(
        AlarmRow(
            release_id=release_id,
            kind=one.kind,
            subject=one.subject,
            opened=now,
            message=one.message,
            evidence=dict(one.evidence),
        )
        for one in new
    )
    return len(new)


def close_alarm(
    session: Session, alarm_id: int, *, reason: str, now: datetime, user_id: int | None = None
) -> None:
    """Close an alarm; what it rested on does not count again.

    Args:
        session: an open transaction.
        alarm_id: of an open alarm.
        reason: why it may be closed; not empty.
        now: when.
        user_id: who; None for an operator at the command line.

    Raises:
        ConfigError: there is no such alarm, it is closed, or no reason is given.
    """
    row = session.get(AlarmRow, alarm_id, with_for_update=True)
    problems = []
    if row is None:
        problems.append(Problem("alarm", f"there is no alarm {alarm_id}"))
    elif row.closed is not None:
        problems.append(Problem("alarm", f"{alarm_id} was closed on {row.closed:%Y-%m-%d %H:%M}"))
    if not reason.strip():
        problems.append(Problem("reason", "say why the alarm may be closed"))
    if problems or row is None:
        raise ConfigError("the command", problems, consequence="nothing was changed")
    row.closed, row.closed_by, row.reason = now, user_id, reason.strip()[:_REASON_CHARS]

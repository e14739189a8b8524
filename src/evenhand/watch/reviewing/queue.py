"""The review queue: who gets which post, and what becomes of what they say of it.

Items are given out in the order of their ids, each to one person at a time by a lease. Every act
is a new row; an item's state is derived anew from all of them (:func:`settling.settle`). An item
that needs two reviews waits for a second person, however long: the first label holds meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, cast

import numpy as np
from sqlalchemy import CursorResult, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from evenhand.config.production_schema import ReviewConfig
from evenhand.core.errors import Problem
from evenhand.watch.reviewing.acts import (
    ReviewError,
    acts_on,
    clean_groups,
    clean_words,
    has_acted,
    history,
    is_adjudicated,
    is_undone,
    label_problems,
    last_act,
    lock_item,
    lock_user,
    record,
    text_of,
    words_problems,
)
from evenhand.watch.reviewing.settling import LABELLING, Act, labels_of
from evenhand.watch.reviewing.sittings import Pause, count_item, pause_due, take_break
from evenhand.watch.reviewing.users import Login, let_go
from evenhand.watch.store.tables import ItemRow, PostRow, ReviewRow, UserRow

__all__ = [
    "Act",
    "Dispute",
    "Pause",
    "QueueItem",
    "QueueStatus",
    "ReviewError",
    "adjudicate",
    "disputed",
    "history",
    "next_item",
    "open_item",
    "queue_status",
    "skip",
    "start_break",
    "submit",
    "undo",
]

_PAGE_ITEMS = 50
_NOT_OPEN = "is not open for you any more; it was open too long, or its text was erased"


@dataclass(frozen=True, slots=True)
class QueueItem:
    """A post as a reviewer sees it: never its score, its decision, or another's label.

    Attributes:
        id: the item; never shown to a reviewer, since sampled items come in the order of their
            ids and golden ones do not.
        text: the post, verbatim.
        proposed: the groups that were proposed for it.
    """

    id: int
    text: str
    proposed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dispute:
    """A post on which two reviewers differ, with what each of them said."""

    item: QueueItem
    reviews: tuple[Act, ...]


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How the queue stands, golden items not counted.

    Attributes:
        open: posts that wait for a review.
        second: those of them that wait for a second one.
        disputed: posts that wait for an admin.
        done: posts with a settled label.
        erased: posts whose text went before they were labelled.
        reviewers: people who can review.
        notes: what somebody should know, in sentences.
    """

    open: int
    second: int
    disputed: int
    done: int
    erased: int
    reviewers: int
    notes: tuple[str, ...]


def next_item(
    session: Session,
    user: UserRow,
    login: Login,
    settings: ReviewConfig,
    *,
    now: datetime,
    rng: np.random.Generator,
) -> QueueItem | Pause | None:
    """Return the post that the reviewer has open, else lease the next; None: nothing waits.

    Args:
        session: an open transaction.
        user: the reviewer.
        login: their login, which counts the sitting.
        settings: shares, caps and the length of a lease.
        now: the time, in UTC.
        rng: decides whether a golden item comes, and which.
    """
    lock_user(session, user)
    pause = pause_due(session, user, login.row, settings, now=now)
    if pause is not None:
        let_go(session, user)
        return pause
    until = now + timedelta(minutes=settings.lease_minutes)
    for item_id in [*_offered(session, user, ItemRow.held_by == user.id)]:
        if _take(session, user, item_id, now=now, until=until):
            return queue_item(session, item_id)
    let_go(session, user)
    waiting = _offered(session, user, ItemRow.kind == "sample", _is_free(now))
    first = next(waiting, None)
    if first is None:
        return None
    golden: list[int] = []
    if rng.random() < settings.golden_share:
        unseen = [*_offered(session, user, ItemRow.kind == "golden", _is_free(now))]
        golden = [unseen[int(rng.integers(len(unseen)))]] if unseen else []
    for item_id in chain(golden, (first,), waiting):
        if _take(session, user, item_id, now=now, until=until):
            return queue_item(session, item_id)
    return None


def open_item(session: Session, user: UserRow, is_meant: Callable[[int], bool]) -> int:
    """Return the item that the reviewer has open, if it is the one that is meant.

    Raises:
        ReviewError: it is another one, or there is none.
    """
    held = session.scalars(select(ItemRow.id).where(ItemRow.held_by == user.id))
    for item_id in held:
        if is_meant(item_id):
            return item_id
    raise ReviewError([Problem("item", _NOT_OPEN)])


def submit(
    session: Session,
    user: UserRow,
    item_id: int,
    *,
    label: str,
    groups: Sequence[str],
    rationale: str | None,
    now: datetime,
) -> None:
    """Record what the reviewer says of the post that they have open.

    Raises:
        ReviewError: the post is not theirs any more, or label, groups or rationale are unusable.
    """
    problems = [*label_problems(label, groups), *words_problems("rationale", rationale)]
    if problems:
        raise ReviewError(problems)
    item = _own_item(session, user, item_id)
    item.held_by = item.held_until = None
    given = {"label": label, "groups": clean_groups(groups), "rationale": clean_words(rationale)}
    record(session, user, item, action="label", now=now, **given)
    count_item(session, user)


def skip(session: Session, user: UserRow, item_id: int, *, now: datetime) -> None:
    """Pass on a post without a word: it is not offered to this reviewer again.

    Raises:
        ReviewError: the post is not theirs any more.
    """
    item = _own_item(session, user, item_id)
    item.held_by = item.held_until = None
    record(session, user, item, action="skip", now=now)
    count_item(session, user)


def undo(session: Session, user: UserRow, *, now: datetime, reason: str) -> QueueItem | None:
    """Take back the reviewer's last label or skip that still counts, and open its post again.

    Returns:
        The post, which the reviewer has open again; None where the act was taken back but another
        reviewer has the post open: it comes back in its turn.

    Raises:
        ReviewError: there is nothing to undo, no reason, or the post was adjudicated or erased.
    """
    lock_user(session, user)
    problems = words_problems("reason", reason, needed=True)
    act = last_act(session, user, ("label", "skip", "adjudicate"))
    if act is None:
        raise ReviewError([*problems, Problem("undo", "there is nothing to undo")])
    item = lock_item(session, act.item_id)
    if is_adjudicated(session, item.id):
        problems.append(Problem("undo", "the post has been adjudicated; that decision stands"))
    elif item.state == "erased" or text_of(session, item) is None:
        problems.append(Problem("undo", "the post's text has been erased; the review stands"))
    if problems:
        raise ReviewError(problems)
    record(session, user, item, action="undo", now=now, reason=clean_words(reason), undoes=act.id)
    let_go(session, user)
    # next_item, to which the page goes, replaces this by the length that the settings name.
    until = now + timedelta(minutes=ReviewConfig().lease_minutes)
    if not _take(session, user, item.id, now=now, until=until):
        return None
    return queue_item(session, item.id)


def adjudicate(
    session: Session,
    user: UserRow,
    item_id: int,
    *,
    label: str,
    groups: Sequence[str],
    reason: str,
    now: datetime,
) -> None:
    """Decide a dispute, or correct an earlier adjudication by a further one.

    Raises:
        ReviewError: the person is no admin, the item not disputed, or something is unusable.
    """
    problems = [*label_problems(label, groups), *words_problems("reason", reason, needed=True)]
    if user.role != "admin":
        problems.append(Problem("user", "only an admin adjudicates"))
    item = lock_item(session, item_id)
    if item.state != "disputed" and not is_adjudicated(session, item.id):
        problems.append(Problem("item", "is not disputed"))
    if text_of(session, item) is None:
        problems.append(Problem("item", "its text has been erased"))
    if problems:
        raise ReviewError(problems)
    given = {"label": label, "groups": clean_groups(groups), "reason": clean_words(reason)}
    record(session, user, item, action="adjudicate", now=now, **given)


def disputed(session: Session) -> list[Dispute]:
    """Return the posts on which reviewers differ, the longest waiting first."""
    found = session.scalars(
        select(ItemRow.id)
        .join(PostRow, PostRow.id == ItemRow.post_id)
        .where(ItemRow.state == "disputed", PostRow.text.is_not(None))
        .order_by(ItemRow.id)
    ).all()
    return [
        Dispute(queue_item(session, item_id), tuple(labels_of(acts_on(session, item_id))))
        for item_id in found
    ]


def start_break(session: Session, user: UserRow, settings: ReviewConfig, *, now: datetime) -> Pause:
    """Begin a break that the reviewer wishes for; the post that they have open is let go."""
    lock_user(session, user)
    let_go(session, user)
    return take_break(user, settings, now=now)


def queue_status(session: Session) -> QueueStatus:
    """Count the queue and say what stands in its way."""
    sampled = ItemRow.kind == "sample"
    by_state = select(ItemRow.state, func.count()).where(sampled).group_by(ItemRow.state)
    counts = dict(session.execute(by_state).all())
    labelled = exists().where(
        ReviewRow.item_id == ItemRow.id, ReviewRow.action.in_(LABELLING), ~is_undone()
    )
    half_done = select(func.count()).where(sampled, ItemRow.state == "open", labelled)
    second = session.scalar(half_done) or 0
    active = select(func.count()).select_from(UserRow).where(UserRow.is_active)
    reviewers = session.scalar(active) or 0
    return QueueStatus(
        open=counts.get("open", 0),
        second=second,
        disputed=counts.get("disputed", 0),
        done=counts.get("done", 0),
        erased=counts.get("erased", 0),
        reviewers=reviewers,
        notes=_notes(counts, second=second, reviewers=reviewers),
    )


def queue_item(session: Session, item_id: int) -> QueueItem:
    """Return an item as a reviewer sees it, whoever has it open."""
    item = session.get_one(ItemRow, item_id)
    if item.kind == "golden":
        return QueueItem(item.id, item.golden_text or "", tuple(item.groups or ()))
    post = session.get_one(PostRow, item.post_id)
    return QueueItem(item.id, post.text or "", tuple(post.proposed))


def _offered(session: Session, user: UserRow, *conditions: Any) -> Iterator[int]:
    """Yield, in order, the what could be shown to a person: readable, not acted on, wanted."""
    readable = or_(
        and_(ItemRow.kind == "sample", ItemRow.state == "open", PostRow.text.is_not(None)),
        and_(ItemRow.kind == "golden", ItemRow.golden_text.is_not(None)),
    )
    wanted = (
        select(ItemRow.id, ItemRow.kind, ItemRow.groups, PostRow.proposed)
        .outerjoin(PostRow, PostRow.id == ItemRow.post_id)
        .where(readable, ~has_acted(user), *conditions)
        .order_by(ItemRow.id)
        .limit(_PAGE_ITEMS)
    )
    opted_out = set(user.opted_out)
    last = 0
    while page := session.execute(wanted.where(ItemRow.id > last)).all():
        for item_id, kind, groups, proposed in page:
            # As in queue_item: a golden item's groups stand for what would be proposed.
            if opted_out.isdisjoint((groups if kind == "golden" else proposed) or ()):
                yield item_id
        last = page[-1][0]


def _is_free(now: datetime) -> Any:
    return or_(ItemRow.held_by.is_(None), ItemRow.held_until <= now)


def _take(session: Session, user: UserRow, item_id: int, *, now: datetime, until: datetime) -> bool:
    """Try to take a lease; whoever comes second finds the row changed and has not won it."""
    taken = session.execute(
        update(ItemRow)
        .where(
            ItemRow.id == item_id,
            or_(ItemRow.state == "open", ItemRow.kind == "golden"),
            or_(_is_free(now), ItemRow.held_by == user.id),
        )
        .values(held_by=user.id, held_until=until)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", taken).rowcount == 1


def _own_item(session: Session, user: UserRow, item_id: int) -> ItemRow:
    """Return, locked, the item that a person has open."""
    lock_user(session, user)
    item = lock_item(session, item_id)
    gone = item.kind == "sample" and item.state != "open"
    if gone or item.held_by != user.id:
        raise ReviewError([Problem("item", _NOT_OPEN)])
    return item


def _notes(counts: dict[str, int], *, second: int, reviewers: int) -> tuple[str, ...]:
    notes = []
    if counts.get("open") and not reviewers:
        notes.append("Nobody can review: add people with `evenhand review user add NAME`.")
    if second and reviewers == 1:
        notes.append(
            f"{second:,} reviewed posts need a second reviewer and there is only one person; the "
            "first label holds until somebody else has labelled them."
        )
    if counts.get("disputed"):
        notes.append(f"{counts['disputed']:,} posts wait for an admin to adjudicate.")
    return tuple(notes)

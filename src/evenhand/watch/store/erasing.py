"""Erasing: texts whose time has passed, and posts that somebody asks to have deleted.

What is reached: the post's text, its HMAC, metadata, the caller's id and group; the queue's item;
the reviewers' free text (rationales and reasons may quote a post). Golden items stay: they are the
operator's own examples.

What stays of a deleted post, and only if it was drawn for review, is what the estimates need:
stratum, decision, sampling probability and plan, the score to two decimals, the day, the settled
label and groups and the reviewers' labels. All of it stands under a new random id. To leave it out
would bias the error rates, since people are likelier to delete some posts than others; what is
left does not say whose post it was or what it said. Of any other post nothing stays.

What is not reached: copies outside the database, such as exports made before, backups, and a
server's replicas. SQLite overwrites what is erased (``secure_delete``), and its write-ahead log is
emptied right after, or by a later call if somebody reads just then; PostgreSQL drops what was
erased at the next vacuum.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, null, or_, select, update
from sqlalchemy.orm import Session

from evenhand.watch.store.database import empty_log_after
from evenhand.watch.store.tables import ItemRow, PostRow, ReviewRow
from evenhand.watch.store.texts import storable

_UNSETTLED = ("open", "disputed")
_CHUNK = 500  # ids in one statement
_NO_TEXT: dict[str, Any] = {
    "text": None,
    "text_hmac": None,
    "meta": null(),
    "text_until": None,
}


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion did.

    Attributes:
        posts: posts that were deleted.
        items: entries of the review queue that they had; their weights and labels stay for the
            estimates, without any reference to the post.
        reviews: reviews whose free text was erased.
        unknown: ids that no post has.
    """

    posts: int
    items: int
    reviews: int
    unknown: tuple[str, ...]


def erase_due(session: Session, *, now: datetime) -> int:
    """Erase the texts whose retention has passed; return how many posts were concerned.

    The decisions stay. Items that wait for a review of such a post become ``erased``: they stay in
    the sample as pending. Where only the second review is missing, the first one's label stands.
    """
    empty_log_after(session)
    due = select(PostRow.id).where(PostRow.text_until <= now)
    post_ids = session.scalars(due).all()
    for chunk in _chunks(post_ids):
        _erase_items(session, ItemRow.post_id.in_(chunk), now=now)
        session.execute(update(PostRow).where(PostRow.id.in_(chunk)).values(_NO_TEXT))
    return len(post_ids)


def delete_posts(
    session: Session,
    *,
    post_ids: Sequence[str] = (),
    caller_ids: Sequence[str] = (),
    now: datetime,
) -> Deleted:
    """Delete posts by the server's ids or the callers' own; see the module's text for what stays.

    A caller's id may stand for several posts: all of them are deleted.
    """
    empty_log_after(session)
    found: dict[str, str | None] = {}
    for column, ids in ((PostRow.id, post_ids), (PostRow.caller_id, caller_ids)):
        for chunk in _chunks([storable(one) for one in ids]):
            query = select(PostRow.id, PostRow.caller_id).where(column.in_(chunk))
            found |= {row.id: row.caller_id for row in session.execute(query)}
    callers = set(found.values())
    unknown = [one for one in post_ids if storable(one) not in found]
    unknown += [one for one in caller_ids if storable(one) not in callers]
    items = reviews = 0
    for chunk in _chunks(list(found)):
        of_these = ItemRow.post_id.in_(chunk)
        reviews += _erase_items(session, of_these, now=now)
        items += _detach(session, of_these)
        session.execute(delete(PostRow).where(PostRow.id.in_(chunk)))
    return Deleted(
        posts=len(found),
        items=items,
        reviews=reviews,
        unknown=tuple(dict.fromkeys(unknown)),
    )


def _erase_items(session: Session, which: ColumnElement[bool], *, now: datetime) -> int:
    """Close unsettled items and erase the reviews' free text; return how many reviews had some."""
    # No second reviewer can see the text any more, so the first one's label stands.
    session.execute(
        update(ItemRow)
        .where(which, ItemRow.state == "open", ItemRow.label.is_not(None))
        .values(state="done", reviews_needed=1)
    )
    session.execute(
        update(ItemRow)
        .where(which, ItemRow.state.in_(_UNSETTLED))
        .values(state="erased", closed=now)
    )
    session.execute(update(ItemRow).where(which).values(held_by=None, held_until=None))
    cleared = session.execute(
        update(ReviewRow)
        .where(
            ReviewRow.item_id.in_(select(ItemRow.id).where(which)),
            or_(ReviewRow.rationale.is_not(None), ReviewRow.reason.is_not(None)),
        )
        .values(rationale=None, reason=None)
    )
    return cleared.rowcount  # pyright: ignore[reportAttributeAccessIssue] - of an UPDATE


def _detach(session: Session, which: ColumnElement[bool]) -> int:
    """Put what the estimates need in the place of each item's post; return how many there were."""
    found = session.execute(
        select(ItemRow, PostRow).join(PostRow, PostRow.id == ItemRow.post_id).where(which)
    ).all()
    pairs = [(item, _rest_of(post)) for item, post in found]
    session.add_all(rest for _, rest in pairs)
    session.flush()
    for item, rest in pairs:
        item.post_id = rest.id
        item.created = rest.time
    session.flush()
    return len(pairs)


def _rest_of(post: PostRow) -> PostRow:
    """Return what stays of a sampled post, under a random id.

    A full score would say which text it was to anybody who has the model and a guess.
    """
    return PostRow(
        id=f"deleted-{secrets.token_hex(12)}",
        time=post.time.replace(hour=0, minute=0, second=0, microsecond=0),
        release_id=post.release_id,
        plan_id=post.plan_id,
        status=post.status,
        score=None if post.score is None else round(post.score, 2),
        decision=post.decision,
        proposed=[],
        stratum=post.stratum,
        inclusion=post.inclusion,
        sampled=post.sampled,
    )


def _chunks(ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    rest = iter(ids)
    while chunk := tuple(itertools.islice(rest, _CHUNK)):
        yield chunk

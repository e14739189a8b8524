"""The history of reviewing: acts are added and read, and the state of items follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, Select, exists, select
from sqlalchemy.orm import Session, aliased

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import LABELS
from evenhand.watch.reviewing.settling import Act, ActionName, settle
from evenhand.watch.store.tables import ItemRow, PostRow, ReviewRow, UserRow

MAX_WORDS_CHARS = 4000
"""Of a rationale or a reason."""
MAX_GROUP_CHARS = 64
MAX_GROUPS = 32

# SQLite allows 32,766 values in a statement.
_ITEMS_AT_ONCE = 1000
# PostgreSQL's integers; a form can send any number.
LARGEST_ID = 2**31 - 1


class ReviewError(ConfigError):
    """An act that cannot be recorded; every problem is listed, nothing was."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__("the review", problems, consequence="nothing was recorded")


def record(
    session: Session,
    user: UserRow,
    item: ItemRow,
    *,
    action: ActionName,
    now: datetime,
    **fields: Any,
) -> None:
    """Add an act to the history and derive the item's state anew.

    Args:
        session: an open transaction, in which the item was locked.
        user: who acts.
        item: on what.
        action: what they do.
        now: when, in UTC.
        **fields: further columns of the row, checked and cleaned.
    """
    session.add(ReviewRow(item_id=item.id, user_id=user.id, time=now, action=action, **fields))
    session.flush()
    settled = settle(item, acts_on(session, item.id))
    item.state, item.label, item.closed = settled.state, settled.label, settled.closed
    item.groups = None if settled.groups is None else list(settled.groups)
    session.flush()


def history(
    session: Session, *, item_id: int | None = None, user: UserRow | None = None, limit: int = 200
) -> list[Act]:
    """Return acts, the latest first: of an item, of a person, or all."""
    wanted = _acts().order_by(ReviewRow.id.desc()).limit(limit)
    if item_id is not None:
        wanted = wanted.where(ReviewRow.item_id == item_id)
    if user is not None:
        wanted = wanted.where(ReviewRow.user_id == user.id)
    return [_act(row) for row in session.execute(wanted)]


def acts_on(session: Session, item_id: int) -> list[Act]:
    """Return everything that was done to an item, in order."""
    wanted = _acts().where(ReviewRow.item_id == item_id).order_by(ReviewRow.id)
    return [_act(row) for row in session.execute(wanted)]


def acts_for(session: Session, item_ids: Sequence[int]) -> dict[int, list[Act]]:
    """Return everything that was done to each of many items, in order; items without acts lack."""
    found: dict[int, list[Act]] = {}
    for start in range(0, len(item_ids), _ITEMS_AT_ONCE):
        some = item_ids[start : start + _ITEMS_AT_ONCE]
        wanted = _acts().where(ReviewRow.item_id.in_(some)).order_by(ReviewRow.id)
        for row in session.execute(wanted):
            act = _act(row)
            found.setdefault(act.item_id, []).append(act)
    return found


def last_act(session: Session, user: UserRow, actions: Sequence[ActionName]) -> ReviewRow | None:
    """Return a person's latest act of some kinds that was not taken back."""
    return session.scalars(
        select(ReviewRow)
        .where(ReviewRow.user_id == user.id, ReviewRow.action.in_(actions), ~is_undone())
        .order_by(ReviewRow.id.desc())
        .limit(1)
    ).first()


def is_undone() -> ColumnElement[bool]:
    """The condition that a later row takes a review back."""
    later = aliased(ReviewRow)
    return exists().where(later.undoes == ReviewRow.id, later.item_id == ReviewRow.item_id)


def has_acted(user: UserRow) -> ColumnElement[bool]:
    """The condition that a person has labelled, imported or skipped an item, and stands by it."""
    return exists().where(
        ReviewRow.item_id == ItemRow.id,
        ReviewRow.user_id == user.id,
        ReviewRow.action.in_(("label", "import", "skip")),
        ~is_undone(),
    )


def is_adjudicated(session: Session, item_id: int) -> bool:
    """Whether an admin has decided an item."""
    found = exists().where(ReviewRow.item_id == item_id, ReviewRow.action == "adjudicate")
    return bool(session.scalar(select(found)))


def lock_user(session: Session, user: UserRow) -> None:
    """Let one act of a person follow another, where they come at once (two windows)."""
    session.scalar(select(UserRow.id).where(UserRow.id == user.id).with_for_update(key_share=True))


def lock_item(session: Session, item_id: int) -> ItemRow:
    """Return an item as it is now, and keep others from changing it until the commit.

    Raises:
        ReviewError: there is no such item.
    """
    item = None
    if 0 < item_id <= LARGEST_ID:
        item = session.get(ItemRow, item_id, with_for_update=True, populate_existing=True)
    if item is None:
        raise ReviewError([Problem("item", f"there is no item {item_id}")])
    return item


def text_of(session: Session, item: ItemRow) -> str | None:
    """Return an item's post; None where it has been erased."""
    if item.kind == "golden":
        return item.golden_text
    return session.scalar(select(PostRow.text).where(PostRow.id == item.post_id))


def label_problems(label: str, groups: Sequence[str]) -> list[Problem]:
    """Return what is wrong with a label and its groups."""
    problems = []
    if label not in LABELS:
        problems.append(Problem("label", f'"{_shown(label)}" is not one of {list(LABELS)}'))
    if len(groups) > MAX_GROUPS:
        problems.append(Problem("groups", f"are {len(groups)}; at most {MAX_GROUPS} are possible"))
    for group in groups[:MAX_GROUPS]:
        if not group.strip():
            problems.append(Problem("groups", "one has no name"))
        elif len(group) > MAX_GROUP_CHARS or not group.isprintable():
            message = f'"{_shown(group)}" is no group\'s name: too long, or with control characters'
            problems.append(Problem("groups", message))
    return problems


def words_problems(place: str, words: str | None, *, needed: bool = False) -> list[Problem]:
    """Return what is wrong with a rationale or a reason."""
    if needed and clean_words(words) is None:
        return [Problem(place, "is missing")]
    if words is not None and len(words) > MAX_WORDS_CHARS:
        return [Problem(place, f"is longer than {MAX_WORDS_CHARS:,} characters")]
    return []


def clean_groups(groups: Iterable[str]) -> list[str]:
    """Return groups in the form in which they are compared: each once, sorted.

    >>> clean_groups(["women", " lgbtq", "women"])
    ['lgbtq', 'women']
    """
    return sorted({group.strip() for group in groups})


def clean_words(words: str | None) -> str | None:
    """Return a free text as every database can store it; None where it says nothing.

    >>> clean_words(" quoted, not meant "), clean_words("  ")
    ('quoted, not meant', None)
    """
    if words is None:
        return None
    storable = words.replace("\x00", "\u2400").encode("utf-8", "replace").decode("utf-8")
    return storable.strip() or None


def _shown(word: str) -> str:
    short = word[:40].encode("utf-8", "replace").decode("utf-8")
    return short if len(word) <= 40 else f"{short}..."


def _acts() -> Select[ReviewRow, str, bool]:
    return select(ReviewRow, UserRow.pseudonym, is_undone().label("is_undone")).join(
        UserRow, UserRow.id == ReviewRow.user_id
    )


def _act(row: Row[ReviewRow, str, bool]) -> Act:
    review, pseudonym, undone = row
    return Act(
        id=review.id,
        item_id=review.item_id,
        reviewer=pseudonym,
        time=review.time,
        action=cast("ActionName", review.action),
        label=review.label,
        groups=None if review.groups is None else tuple(review.groups),
        rationale=review.rationale,
        reason=review.reason,
        undoes=review.undoes,
        is_undone=undone,
    )

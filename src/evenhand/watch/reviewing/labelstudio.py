"""The review queue in Label Studio's JSON: tasks out, annotations in as reviews.

Form: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks. Annotations
that are exported name no ``completed_by``, because Label Studio refuses annotators that it does not
know; the pseudonym stands in the label's ``meta``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.sax.saxutils import quoteattr

from sqlalchemy import select
from sqlalchemy.orm import Session

from evenhand.config.production_schema import GROUPS
from evenhand.core.errors import Problem
from evenhand.core.paths import sha256_text
from evenhand.core.records import LABELS
from evenhand.watch.reviewing.acts import acts_for, acts_on, lock_item, lock_user, record
from evenhand.watch.reviewing.annotations import (
    GROUPS_FIELD,
    LABEL,
    OURS,
    RATIONALE,
    Annotation,
    AnnotationFile,
    refused,
)
from evenhand.watch.reviewing.settling import LABELLING, Act, labels_of, remaining
from evenhand.watch.store.tables import ItemRow, PostRow, StartRow, UserRow

_POST_ID = re.compile(r"[\w.:-]{1,40}", re.ASCII)


@dataclass(slots=True)
class Imported:
    """What became of the annotations of a file, as counts.

    Attributes:
        added: reviews that were added.
        already: annotations that the person's reviews hold already.
        settled: annotations of posts that others have settled meanwhile; left out.
        erased: annotations of posts whose text was erased meanwhile; left out.
        cancelled: see :class:`AnnotationFile`.
        ours: likewise.
        others: likewise.
    """

    added: int = 0
    already: int = 0
    settled: int = 0
    erased: int = 0
    cancelled: int = 0
    ours: int = 0
    others: int = 0


def export_tasks(session: Session) -> list[dict[str, Any]]:
    """Return the queue as tasks, with the posts' texts and reviewers by pseudonym.

    Golden items are left out, and a first review whose post waits for a second: who labels it
    next must not see it. Posts whose text was erased have no task.
    """
    found = session.execute(
        select(ItemRow, PostRow)
        .join(PostRow, PostRow.id == ItemRow.post_id)
        .where(ItemRow.kind == "sample", PostRow.text.is_not(None))
        .order_by(ItemRow.id)
    ).all()
    acts = acts_for(session, [item.id for item, _ in found if item.state != "open"])
    return [
        {
            "id": item.id,
            "data": {
                "text": post.text,
                "post": post.id,
                "proposed": list(post.proposed),
                "text_sha256": sha256_text(post.text or ""),
            },
            "annotations": [_annotation(act) for act in _shown(acts.get(item.id, ()))],
            "predictions": [],
        }
        for item, post in found
    ]


def labelling_config(groups: Sequence[str]) -> str:
    """Return the labelling configuration that the tasks belong to.

    >>> print(labelling_config(["lgbtq"]).splitlines()[1].strip())
    <Text name="text" value="$text"/>
    """
    hotkeys = {"hate": "h", "normal": "n"}
    labels = [
        f"<Choice value={quoteattr(one)} hotkey={quoteattr(hotkeys[one])}/>" for one in LABELS
    ]
    named = [f"<Choice value={quoteattr(group)}/>" for group in groups]
    lines = [
        "<View>",
        '  <Text name="text" value="$text"/>',
        f'  <Choices name="{LABEL}" toName="text" choice="single" required="true">',
        *(f"    {one}" for one in labels),
        "  </Choices>",
        '  <Header value="Whom does the post speak of?"/>',
        f'  <Choices name="{GROUPS_FIELD}" toName="text" choice="multiple">',
        *(f"    {one}" for one in named),
        "  </Choices>",
        f'  <TextArea name="{RATIONALE}" toName="text" rows="2" maxSubmissions="1"/>',
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def watched_groups(session: Session) -> tuple[str, ...]:
    """Return the groups that the latest start of a server watches; the default ones before any."""
    latest = session.scalars(select(StartRow).order_by(StartRow.id.desc()).limit(1)).first()
    return GROUPS if latest is None else tuple(latest.settings["watch"]["groups"])


def import_annotations(
    session: Session, file: AnnotationFile, user: UserRow, *, now: datetime
) -> Imported:
    """Add a file's annotations as one person's reviews; a second time nothing is added.

    Raises:
        DataError: anything in the file is wrong, or does not fit the queue; nothing was imported.
    """
    lock_user(session, user)
    counts = Imported(cancelled=file.cancelled, ours=file.ours, others=file.others)
    problems = list(file.problems)
    for annotation in file.annotations:
        problems += _import_one(session, annotation, user, counts, now=now)
    if problems:
        raise refused(file.path, problems)
    return counts


def _import_one(
    session: Session, annotation: Annotation, user: UserRow, counts: Imported, *, now: datetime
) -> list[Problem]:
    """Add one annotation and count what became of it; return what keeps it from being added."""
    item_id = None
    if _POST_ID.fullmatch(annotation.post):
        item_id = session.scalar(select(ItemRow.id).where(ItemRow.post_id == annotation.post))
    if item_id is None:
        message = "its post is not in this queue; it comes from elsewhere, or was deleted"
        return [Problem(annotation.place, message)]
    item = lock_item(session, item_id)
    text = session.scalar(select(PostRow.text).where(PostRow.id == item.post_id))
    given = _sha256(annotation.text)
    if text is None:
        counts.erased += 1
        return []
    if given != sha256_text(text) or annotation.text_sha256 not in (None, given):
        return [Problem(annotation.place, "its text is not the one that was to be labelled")]
    acts = acts_on(session, item.id)
    mine = [act for act in labels_of(acts) if act.reviewer == user.pseudonym]
    if mine:
        if (mine[0].label, mine[0].groups) == (annotation.label, annotation.groups):
            counts.already += 1
            return []
        message = f"{user.name} has labelled this post otherwise; a file holds one person's answers"
        return [Problem(annotation.place, message)]
    if item.state != "open":
        counts.settled += 1
        return []
    record(
        session,
        user,
        item,
        action="import",
        now=now,
        label=annotation.label,
        groups=list(annotation.groups),
        rationale=annotation.rationale,
    )
    counts.added += 1
    return []


def _annotation(act: Act) -> dict[str, Any]:
    """Return an act as an annotation that Label Studio takes in."""

    def result(name: str, kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
        ours = f"{OURS}{act.id}-{name}"
        return {
            "id": ours,
            "from_name": name,
            "to_name": "text",
            "type": kind,
            "value": value,
        } | more

    results = [
        result(LABEL, "choices", {"choices": [act.label]}, meta={"text": [act.reviewer]}),
    ]
    if act.groups:
        results.append(result(GROUPS_FIELD, "choices", {"choices": list(act.groups)}))
    if act.rationale:
        results.append(result(RATIONALE, "textarea", {"text": [act.rationale]}))
    return {
        "result": results,
        "created_at": act.time.isoformat(),
        "was_cancelled": False,
        "ground_truth": act.action == "adjudicate",
    }


def _shown(acts: Iterable[Act]) -> list[Act]:
    return [act for act in remaining([*acts]) if act.action in (*LABELLING, "adjudicate")]


def _sha256(text: str) -> str | None:
    """Return the hash of a text; None where it is not Unicode, as no stored post is."""
    try:
        return sha256_text(text)
    except UnicodeEncodeError:
        return None

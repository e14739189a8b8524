"""What an item of the review queue is, given everything that was done to it: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from evenhand.watch.store.tables import ItemRow

ActionName = Literal["label", "skip", "undo", "adjudicate", "import"]
LABELLING: tuple[ActionName, ...] = ("label", "import")
"""The actions by which somebody says what a post is, independently of others."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act of a reviewer on an item.

    Attributes:
        id: its place in the history.
        item_id: the item.
        reviewer: the pseudonym of who did it.
        time: when, in UTC.
        action: ``label``, ``skip``, ``undo``, ``adjudicate`` or ``import``.
        label: ``hate`` or ``normal``, where the action gives one.
        groups: the groups that the post speaks of; None where the action gives none.
        rationale: why this label, in the reviewer's words.
        reason: why it was undone or adjudicated so.
        undoes: the act that it takes back.
        is_undone: whether a later act took it back.
    """

    id: int
    item_id: int
    reviewer: str
    time: datetime
    action: ActionName
    label: str | None = None
    groups: tuple[str, ...] | None = None
    rationale: str | None = None
    reason: str | None = None
    undoes: int | None = None
    is_undone: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """The state of an item that follows from its acts; ``closed``: when its label was given."""

    state: str
    label: str | None = None
    groups: tuple[str, ...] | None = None
    closed: datetime | None = None


def remaining(acts: Sequence[Act]) -> list[Act]:
    """Return the acts that count: all but those taken back and the taking back itself, in order."""
    undone = {act.undoes for act in acts if act.action == "undo"}
    kept = [act for act in acts if act.action != "undo" and act.id not in undone]
    return sorted(kept, key=lambda act: act.id)


def labels_of(acts: Sequence[Act]) -> list[Act]:
    """Return the independent labels that count, the first of each reviewer, in order."""
    first: dict[str, Act] = {}
    for act in remaining(acts):
        if act.action in LABELLING:
            first.setdefault(act.reviewer, act)
    return list(first.values())


def settle(item: ItemRow, acts: Sequence[Act]) -> Settled:
    """Derive an item's state from all acts on it.

    The last adjudication decides. Without one, the first ``reviews_needed`` labels settle the item
    if they agree in label and groups, and are a dispute if not. Fewer leave it open, with the first
    label as the one that holds meanwhile. Golden items and items whose text was erased stay as they
    are.
    """
    if item.kind == "golden" or item.state == "erased":
        groups = None if item.groups is None else tuple(item.groups)
        return Settled(item.state, item.label, groups, item.closed)
    decided = [act for act in remaining(acts) if act.action == "adjudicate"]
    labels = decided[-1:] or labels_of(acts)[: item.reviews_needed]
    if not labels:
        return Settled("open")
    if len({(act.label, act.groups) for act in labels}) > 1:
        return Settled("disputed")
    is_done = bool(decided) or len(labels) == item.reviews_needed
    state = "done" if is_done else "open"
    return Settled(state, labels[0].label, labels[0].groups, labels[-1].time)

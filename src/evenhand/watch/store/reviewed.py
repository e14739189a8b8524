"""Read the reviewed sample of a release from the database."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Select, Text, case, cast, func, select
from sqlalchemy.orm import Session

from evenhand.watch.statistics.sample import LABELLED, PENDING, ReviewedSample
from evenhand.watch.store.intake import plan_of
from evenhand.watch.store.tables import ItemRow, PlanRow, PostRow, Table


def read_reviewed(
    session: Session, release_id: str, *, until: datetime | None = None
) -> ReviewedSample:
    """Read a release's sample; golden items are never part of it.

    With ``until``, items that were settled later count as pending, and those that came later are
    left out.
    """
    plans = session.scalars(
        select(PlanRow).where(PlanRow.release_id == release_id).order_by(PlanRow.id)
    ).all()
    rows = session.execute(_query(release_id, until)).all()
    index = {plan.id: i for i, plan in enumerate(plans)}
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) or [()] * _N_COLUMNS
    item, post, plan, inclusion, score, decision, stratum, time, settled, label, groups = columns
    labelled = np.array(settled, dtype=bool)
    # Few combinations of groups occur, and decoding each row's would take most of the time.
    decoded = {text: tuple(json.loads(text) or ()) for text in {one for one in groups if one}}
    return ReviewedSample(
        item=np.array(item, dtype=np.int64),
        post=np.array(post, dtype=object),
        plan=np.array([index[one] for one in plan], dtype=np.int64),
        inclusion=np.array(inclusion, dtype=np.float64),
        score=np.array(score, dtype=np.float64),
        flagged=np.array([one == "hate" for one in decision], dtype=bool),
        stratum=np.array(stratum, dtype=object),
        time=np.array([one.replace(tzinfo=None) for one in time], dtype="datetime64[us]"),
        state=np.where(labelled, LABELLED, PENDING),
        hate=np.array([one == "hate" for one in label], dtype=bool) & labelled,
        groups=tuple(
            decoded.get(named, ()) if known else ()
            for named, known in zip(groups, labelled.tolist(), strict=True)
        ),
        plans=tuple(plan_of(one) for one in plans),
    )


_N_COLUMNS = 11


def _query(release_id: str, until: datetime | None) -> Select[*tuple[Any, ...]]:
    # Columns of the tables, not attributes of rows: the ORM would take as long as the database.
    items, posts = (Table.metadata.tables[t.__tablename__].c for t in (ItemRow, PostRow))
    # An open item with a label waits for a second reviewer; until then the first one's holds.
    settled = items.state.in_(("done", "open")) & items.label.is_not(None)
    is_sample = (items.kind == "sample") & (posts.release_id == release_id)
    if until is not None:
        settled &= items.closed <= until
        is_sample &= items.created <= until
    frontier = (
        select(func.max(items.id))
        .join_from(items.id.table, posts.id.table, posts.id == items.post_id)
        .where(is_sample, settled)
        .scalar_subquery()
    )
    return (
        select(
            items.id,
            posts.id,
            posts.plan_id,
            posts.inclusion,
            posts.score,
            posts.decision,
            posts.stratum,
            posts.time,
            case((settled, 1), else_=0),
            items.label,
            cast(items.groups, Text),
        )
        .join_from(items.id.table, posts.id.table, posts.id == items.post_id)
        .where(is_sample, items.id <= frontier)
        .order_by(items.id)
    )

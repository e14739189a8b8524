"""A release's posts in windows of a fixed number, as the drift tests take them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evenhand.watch.statistics.drift import Window
from evenhand.watch.statistics.sampling import NO_GROUP
from evenhand.watch.store.tables import PostRow

WINDOW_POSTS = 500
LATEST = 20
"""Full windows that are read beside the first; testing one again costs nothing and finds nothing
new, and older ones were tested when they were the latest."""


def read_windows(session: Session, release_id: str) -> tuple[Window, ...]:
    """Return the first window and the latest full ones, by number."""
    of_release = PostRow.release_id == release_id
    posts = session.scalar(select(func.count()).where(of_release)) or 0
    full = posts // WINDOW_POSTS
    if not full:
        return ()
    latest = range(max(2, full - LATEST + 1), full + 1)
    return tuple(_read(session, release_id, number) for number in (1, *latest))


def _read(session: Session, release_id: str, number: int) -> Window:
    rows = session.execute(
        select(PostRow.time, PostRow.status, PostRow.score, PostRow.proposed)
        .where(PostRow.release_id == release_id)
        .order_by(PostRow.time, PostRow.id)
        .offset((number - 1) * WINDOW_POSTS)
        .limit(WINDOW_POSTS)
    ).all()
    scores = [score for _, status, score, _ in rows if status == "ok" and score is not None]
    # Several groups count as one kind of post, so that each post is in one cell of the test.
    proposed = Counter("+".join(sorted(names)) or NO_GROUP for *_, names in rows)
    return Window(
        number=number,
        scores=np.array(scores, dtype=np.float64),
        proposed=proposed,
        errors=len(rows) - len(scores),
        start=rows[0][0],
        end=rows[-1][0],
    )

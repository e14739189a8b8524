"""A release's posts in windows of a fixed number, as the drift tests take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from evenhand.watch.statistics.drift import Window
from evenhand.watch.statistics.sampling import NO_GROUP
from evenhand.watch.store.tables import PostRow, Table

WINDOW_POSTS = 500
LATEST = 20
"""Full windows that are read beside the first; testing one again costs nothing and finds nothing
new, and older ones were tested when they were the latest."""


def read_windows(session: Session, release_id: str) -> tuple[Window, ...]:
    """Return the first window and the latest full ones, by number."""
    posts = Table.metadata.tables[PostRow.__tablename__].c
    of_release = posts.release_id == release_id
    # Counted by the same statement, so that posts which come meanwhile shift no window.
    total = select(func.count()).where(of_release).scalar_subquery()
    query = select(total, posts.time, posts.status, posts.score, posts.proposed).where(of_release)
    # From the end: what lies between the first window and the latest is not walked over.
    latest = query.order_by(posts.time.desc(), posts.id.desc())
    rows = session.execute(latest.limit((LATEST + 1) * WINDOW_POSTS - 1)).all()[::-1]
    if not rows:
        return ()
    before = rows[0][0] - len(rows)  # posts that came before those read
    windows = [
        _window(number, rows[(number - 1) * WINDOW_POSTS - before :][:WINDOW_POSTS])
        for number in range(-(-before // WINDOW_POSTS) + 1, rows[0][0] // WINDOW_POSTS + 1)
    ]
    if before:
        first = query.order_by(posts.time, posts.id).limit(WINDOW_POSTS)
        windows.insert(0, _window(1, session.execute(first).all()))
    return tuple(windows)


def _window(number: int, rows: Sequence[Row[int, Any, Any, Any, Any]]) -> Window:
    scores = [score for *_, status, score, _ in rows if status == "ok" and score is not None]
    # Several groups count as one kind of post, so that each post is in one cell of the test.
    proposed = Counter("+".join(sorted(names)) or NO_GROUP for *_, names in rows)
    return Window(
        number=number,
        scores=np.array(scores, dtype=np.float64),
        proposed=proposed,
        errors=len(rows) - len(scores),
        start=rows[0].time,
        end=rows[-1].time,
    )

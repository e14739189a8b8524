"""Golden items: posts with a known answer, mixed into the queue to see how reviewers label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from evenhand.core.errors import DataError, Problem
from evenhand.core.records import LABELS, Row
from evenhand.data.starter import generate
from evenhand.watch.reviewing.acts import clean_groups, clean_words
from evenhand.watch.store.tables import ItemRow

STARTER_COUNT = 60
"""How many rows of the starter corpus are taken where nothing else is said."""


@dataclass(frozen=True, slots=True)
class GoldenAdded:
    """How many golden items were added, and how many of the rows were there already."""

    added: int
    already: int


def add_golden(session: Session, rows: Iterable[Row], *, now: datetime) -> GoldenAdded:
    """Add labelled rows as golden items; a text that is one already is not added again.

    A golden item is never open and never done with: each reviewer sees it at most once. Its groups
    stand for those that would be proposed.

    Raises:
        DataError: a row has no label.
    """
    given = list(rows)
    problems = [
        Problem(row.id, "has no label: hate or normal") for row in given if row.label not in LABELS
    ]
    if problems:
        raise DataError("the golden rows", problems, consequence="nothing was added")
    known = set(session.scalars(select(ItemRow.golden_text).where(ItemRow.kind == "golden")))
    already = 0
    for row in given:
        text = clean_words(row.text)
        if text in known:
            already += 1
            continue
        known.add(text)
        session.add(
            ItemRow(
                kind="golden",
                golden_text=text,
                golden_label=row.label,
                groups=clean_groups(row.groups),
                created=now,
                state="done",
            )
        )
    session.flush()
    return GoldenAdded(len(given) - already, already)


def choose_golden(rows: Sequence[Row], *, count: int, rng: np.random.Generator) -> tuple[Row, ...]:
    """Return ``count`` rows at most, spread evenly over groups and labels."""
    cells: dict[tuple[tuple[str, ...], str | None], list[Row]] = {}
    for position in rng.permutation(len(rows)):
        row = rows[position]
        cells.setdefault((row.groups, row.label), []).append(row)
    order = sorted(cells, key=lambda cell: (cell[0], cell[1] or ""))
    rounds = max((len(cell) for cell in cells.values()), default=0)
    spread = [cells[key][turn] for turn in range(rounds) for key in order if turn < len(cells[key])]
    return tuple(spread[:count])


def starter_rows(*, seed: int = 0) -> tuple[Row, ...]:
    """Return the starter corpus's test rows, which no model was trained on by `evenhand demo`."""
    return generate(seed)["test"]

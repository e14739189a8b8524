"""Equal shares: undersampling to the smallest cell, and even draws over cells."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import Row
from evenhand.core.registry import suggest

Cell = TypeVar("Cell", bound=Hashable)

BALANCE_KEYS: Mapping[str, Callable[[Row], Hashable]] = {
    "source": lambda row: row.source,
    "label": lambda row: row.label,
    "group": lambda row: row.groups,
}
"""What a corpus can be balanced by."""


def balance_rows(rows: Sequence[Row], *, by: Sequence[str], rng: np.random.Generator) -> list[Row]:
    """Undersample so that every combination of the keys in ``by`` has as many rows.

    Keys are ``source``, ``label`` and ``group`` (the combination of a row's groups). Rows keep
    their order.

    Raises:
        ConfigError: an unknown key, or a combination without rows, which nothing can balance.
    """
    problems = [
        Problem("balance", f'"{key}" is not known{suggest(key, BALANCE_KEYS)}')
        for key in by
        if key not in BALANCE_KEYS
    ]
    if problems:
        raise ConfigError("the balance", problems, hint=f"keys: {', '.join(BALANCE_KEYS)}")
    if not by or not rows:
        return list(rows)
    values = [sorted({BALANCE_KEYS[key](row) for row in rows}, key=str) for key in by]
    cells = _cells(rows, lambda row: tuple(BALANCE_KEYS[key](row) for key in by))
    empty = [cell for cell in itertools.product(*values) if cell not in cells]
    if empty:
        raise ConfigError(
            "the balance",
            [
                Problem(" x ".join(by), f"no rows with {', '.join(map(str, cell))}")
                for cell in empty
            ],
            hint="balance by fewer keys, or choose fewer groups",
        )
    size = min(len(members) for members in cells.values())
    kept: list[int] = []
    for members in cells.values():
        kept += rng.permutation(members)[:size].tolist()
    return [rows[index] for index in sorted(kept)]


def draw_evenly(
    rows: Sequence[Row], *, n: int, cell: Callable[[Row], Hashable], rng: np.random.Generator
) -> tuple[Row, ...]:
    """Draw up to ``n`` rows without replacement, one from each cell in turn while it lasts.

    The rows come back in their own order.
    """
    cells = _cells(rows, cell)
    queues = [rng.permutation(cells[key]).tolist() for key in sorted(cells, key=str)]
    turns = itertools.zip_longest(*queues)
    drawn = [index for turn in turns for index in turn if index is not None][:n]
    return tuple(rows[index] for index in sorted(drawn))


def length_tertile(rows: Sequence[Row]) -> Callable[[Row], str]:
    """Return the function that calls a row's text short, medium or long among these rows."""
    if not rows:
        return lambda row: "short"  # noqa: ARG005 - the signature is the other one's
    lower, upper = np.quantile([len(row.text) for row in rows], [1 / 3, 2 / 3])

    def tertile(row: Row) -> str:
        length = len(row.text)
        return "short" if length <= lower else "medium" if length <= upper else "long"

    return tertile


def _cells(rows: Sequence[Row], cell: Callable[[Row], Cell]) -> dict[Cell, list[int]]:
    cells: defaultdict[Cell, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        cells[cell(row)].append(index)
    return dict(cells)

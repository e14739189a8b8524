"""Rows that other files name by their texts, and the built-in corpus as a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evenhand.core.errors import DataError, Problem
from evenhand.core.paths import sha256_text
from evenhand.core.records import Dataset
from evenhand.core.registry import suggest
from evenhand.data.fingerprint import normalise
from evenhand.data.sources import row_fields
from evenhand.data.starter import generate

STARTER_SEED = 0


def select_rows(
    data: Dataset,
    *,
    within: Dataset | None = None,
    without: Sequence[Dataset] = (),
    without_groups: Sequence[str] = (),
    max_rows: int | None = None,
) -> Dataset:
    """Keep the rows that ``within`` has and none of ``without`` has, then the first few.

    Rows about one of ``without_groups`` are left out too.

    Texts are equal as :func:`evenhand.data.fingerprint.normalise` compares them.

    Raises:
        DataError: no row is left, or none is about a group that is to be left out.

    >>> from evenhand.core.records import Row
    >>> data = Dataset("all", (Row("a", "One."), Row("b", "Two."), Row("c", "Three.")))
    >>> [row.id for row in select_rows(data, without=[Dataset("x", (Row("x", "TWO."),))]).rows]
    ['a', 'c']
    """
    kept = data.rows
    if within is not None:
        wanted = _texts(within)
        kept = tuple(row for row in kept if normalise(row.text) in wanted)
        _check_left(data, len(kept), "within", f"no text of it is in {within.name}")
    if without:
        unwanted = frozenset[str]().union(*map(_texts, without))
        kept = tuple(row for row in kept if normalise(row.text) not in unwanted)
        names = ", ".join(one.name for one in without)
        _check_left(data, len(kept), "without", f"all texts that were kept are in {names}")
    if without_groups:
        _check_groups(data, without_groups)
        unwanted = frozenset(without_groups)
        kept = tuple(row for row in kept if unwanted.isdisjoint(row.groups))
        _check_left(data, len(kept), "without_groups", "all rows that were kept are about them")
    return replace(data, rows=kept[:max_rows])


def read_starter(part: str, *, name: str | None = None) -> Dataset:
    """Return a part of the starter corpus (seed 0) as a data set; its path is ``starter:PART``.

    >>> len(read_starter("train"))
    2680
    """
    rows = generate(STARTER_SEED)[part]
    content = json.dumps([row_fields(row) for row in rows], ensure_ascii=False)
    return Dataset(name or part, rows, Path(f"starter:{part}"), sha256_text(content))


def _texts(data: Dataset) -> frozenset[str]:
    return frozenset(normalise(row.text) for row in data.rows)


def _check_groups(data: Dataset, groups: Sequence[str]) -> None:
    known = sorted({group for row in data.rows for group in row.groups})
    problems = [
        Problem("without_groups", f'no row is about "{group}"{suggest(group, known)}')
        for group in groups
        if group not in known
    ]
    if problems:
        raise DataError(str(data.path or data.name), problems, hint=f"groups: {', '.join(known)}")


def _check_left(data: Dataset, left: int, key: str, reason: str) -> None:
    if not left:
        message = f'leaves no row of set "{data.name}": {reason}'
        raise DataError(str(data.path or data.name), [Problem(key, message)])

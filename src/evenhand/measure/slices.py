"""Slices: the rows that share a value of one column, or the values of several crossed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd

from evenhand.core.errors import DataError, Problem
from evenhand.core.evaluation import Slice
from evenhand.core.registry import suggest
from evenhand.measure.metrics import (
    accuracy,
    false_negative_rate,
    false_positive_rate,
    sample_size,
)
from evenhand.measure.sample import Sample

Crossing = tuple[str, ...]

DEFAULT_SLICES: tuple[Crossing, ...] = (
    ("source",),
    ("fine_label",),
    ("group", "fine_label"),
    ("group", "source", "fine_label"),
)
_GROUP = "group"
_COLUMNS = (_GROUP, "label", "source", "fine_label", "cluster", "decision", "status")
_MISSING = "(missing)"


def slices(
    frame: pd.DataFrame,
    sample: Sample,
    members: Mapping[str, np.ndarray],
    *,
    by: Sequence[Crossing] = DEFAULT_SLICES,
) -> tuple[Slice, ...]:
    """Measure the rows of every combination of values that occurs, for each crossing in ``by``.

    A crossing names columns of the predictions or keys of their ``extra``. Rows of several groups
    are in a slice of each; rows of none are in no slice by group. A row without a value elsewhere
    has the value ``(missing)``. Of the default crossings those are left out that name an empty
    column, or that divide the rows no further than another one does.

    Args:
        frame: predictions, in the order of ``sample``.
        sample: the rows as arrays.
        members: per group a boolean mask over the rows.
        by: the crossings; the order of the columns is kept, repeated crossings count once.

    Raises:
        DataError: a crossing that is no default one names a column that no row has.
    """
    check_slices(frame, by)
    wanted = list({frozenset(crossing): crossing for crossing in by}.values())
    columns = {name: _codes(frame, name) for name in set(chain.from_iterable(wanted)) - {_GROUP}}
    present = {name: column for name, column in columns.items() if column is not None}
    known = {*present, _GROUP} if members else set(present)
    cut = {
        crossing: _cut(crossing, present, members)
        for crossing in wanted
        if known.issuperset(crossing)
    }
    kept = [one for one in cut if one not in DEFAULT_SLICES or not _adds_nothing(one, cut)]
    return tuple(
        _slice(keys, sample.where(rows)) for crossing in kept for keys, rows in cut[crossing]
    )


def check_slices(frame: pd.DataFrame, by: Sequence[Crossing]) -> None:
    """Refuse crossings, other than the default ones, that name a column which no row has.

    Raises:
        DataError: with every such column, and what there is instead.
    """
    asked = set(chain.from_iterable(one for one in by if one not in DEFAULT_SLICES))
    names = {name for name in _COLUMNS if name != _GROUP and frame[name].notna().any()}
    names.update(chain.from_iterable(frame["extra"]))
    if any(frame[_GROUP]):
        names.add(_GROUP)
    problems = [
        Problem(
            f'slice by "{name}"',
            "no row has a value of this column"
            + (suggest(name, names) or f"; there are: {', '.join(sorted(names))}"),
        )
        for name in sorted(asked - names)
    ]
    if problems:
        raise DataError("predictions", problems, consequence="nothing was evaluated")


def _codes(frame: pd.DataFrame, name: str) -> tuple[np.ndarray, list[str]] | None:
    """Return the number of each row's value and the values, sorted; None where no row has one."""
    if name in _COLUMNS:
        column = frame[name]
    else:
        column = pd.Series([extra.get(name) for extra in frame["extra"]], dtype=object)
    if column.isna().all():
        return None
    codes, values = pd.factorize(column.where(column.notna(), _MISSING).astype(str), sort=True)
    return codes.astype(np.int64), [str(value) for value in values]


def _cut(
    crossing: Crossing,
    columns: Mapping[str, tuple[np.ndarray, list[str]]],
    members: Mapping[str, np.ndarray],
) -> list[tuple[dict[str, str], np.ndarray]]:
    """Return the values and the row numbers of every slice of a crossing."""
    plain = [name for name in crossing if name != _GROUP]
    whole = {"": np.ones(len(next(iter(columns.values()))[0]), dtype=bool)} if plain else {}
    parts = []
    for group, mask in (members if _GROUP in crossing else whole).items():
        for values, rows in _combinations(np.flatnonzero(mask), [columns[name] for name in plain]):
            found = {**dict(zip(plain, values, strict=True)), _GROUP: group}
            parts.append(({name: found[name] for name in crossing}, rows))
    return sorted(parts, key=lambda part: tuple(part[0].values()))


def _combinations(
    rows: np.ndarray, columns: Sequence[tuple[np.ndarray, list[str]]]
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Divide rows by the values of several columns."""
    code = np.zeros(len(rows), dtype=np.int64)
    for codes, values in columns:
        code = np.unique(code * len(values) + codes[rows], return_inverse=True)[1]
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order])) + 1
    for part in np.split(rows[order], starts):
        if len(part):
            yield tuple(values[codes[part[0]]] for codes, values in columns), part


def _adds_nothing(crossing: Crossing, cut: Mapping[Crossing, Sequence[object]]) -> bool:
    """Return whether a crossing of fewer columns has the very same slices."""
    return any(
        set(other) < set(crossing)
        and (_GROUP in other) == (_GROUP in crossing)
        and len(cut[other]) == len(cut[crossing])
        for other in cut
    )


def _slice(keys: Mapping[str, str], part: Sample) -> Slice:
    fpr, fnr = false_positive_rate(part), false_negative_rate(part)
    return Slice(
        keys=keys,
        **part.counts(),
        confusion=part.confusion(),
        accuracy=accuracy(part),
        fpr=fpr,
        fnr=fnr,
        negatives=sample_size(fpr),
        positives=sample_size(fnr),
    )

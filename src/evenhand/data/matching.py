"""Which row of a data set a post of another table is, and ids that need no data set."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from evenhand.core.records import Row
from evenhand.data.fingerprint import fingerprint


@dataclass(frozen=True, slots=True)
class Matching:
    """Rows of two tables brought together.

    Attributes:
        partner: for each asked row its position in the data set; None where it has none.
        reasons: for each asked row without a partner, by position, why.
        left_over: positions in the data set that no row asked for.
    """

    partner: tuple[int | None, ...]
    reasons: dict[int, str]
    left_over: tuple[int, ...]


def content_ids(rows: Sequence[Row]) -> list[str]:
    """Return ids that follow from what the posts say, whatever their order.

    The id is the fingerprint of the text; texts that share one are numbered in the order of their
    labels and groups, and as they come where these are the same too.

    >>> posts = [Row("", "A post", "hate"), Row("", "Another"), Row("", "a  post", "normal")]
    >>> [one.partition("#")[2] for one in content_ids(posts)]
    ['', '', '2']
    """
    same: defaultdict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        same[fingerprint(row.text)].append(position)
    ids = [""] * len(rows)
    for mark, positions in same.items():
        positions.sort(key=lambda at: (rows[at].label or "", rows[at].groups, rows[at].text, at))
        for number, position in enumerate(positions, 1):
            ids[position] = mark if number == 1 else f"{mark}#{number}"
    return ids


def match_rows(asked: Sequence[Row], rows: Sequence[Row], *, by_group: bool) -> Matching:
    """Find each asked row among a data set's, whatever the order of both.

    Rows with an id are found by it; others by text, label and groups as far as they have them.
    Equal rows are taken in order. A text that is nowhere verbatim is looked for by its
    fingerprint, since tables lose spaces and line ends.

    Args:
        asked: the rows of the other table.
        rows: the data set's.
        by_group: whether the groups of the asked rows are known.
    """
    with_ids = bool(asked) and all(row.id for row in asked)
    with_labels = bool(asked) and all(row.label is not None for row in asked)

    def rest(row: Row) -> Hashable:
        groups = tuple(sorted(row.groups)) if by_group else None
        return (row.label if with_labels else None, groups)

    if with_ids:
        keys = [lambda row: (row.id, rest(row)), lambda row: (row.id,)]
    else:
        keys = [
            lambda row: (row.text, rest(row)),
            lambda row: (fingerprint(row.text), rest(row)),
            lambda row: (fingerprint(row.text),),
        ]
    partner: list[int | None] = [None] * len(asked)
    reasons: dict[int, str] = {}
    free = list(range(len(rows)))
    for step, key in enumerate(keys):
        waiting: defaultdict[Hashable, deque[int]] = defaultdict(deque)
        for position in free:
            waiting[key(rows[position])].append(position)
        last = step == len(keys) - 1
        for position, row in enumerate(asked):
            if partner[position] is not None:
                continue
            found = waiting[key(row)].popleft() if waiting[key(row)] else None
            if not last:
                partner[position] = found
            elif found is None:
                reasons[position] = "is not in the data set"
            else:
                # The same post with another label or group: never taken for the row it is not.
                reasons[position] = _difference(row, rows[found], with_labels=with_labels)
        taken = {one for one in partner if one is not None}
        free = [position for position in free if position not in taken]
    return Matching(tuple(partner), reasons, tuple(free))


def _difference(row: Row, other: Row, *, with_labels: bool) -> str:
    if with_labels and row.label != other.label:
        return f"is {row.label} here and {other.label} in the data set"
    return f"is of {list(row.groups)} here and of {list(other.groups)} in the data set"

"""Weights under which the label tells nothing of the group: reweighing, without new rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from evenhand.core.records import Row

Cell = tuple[frozenset[str], str | None]


def cell_of(row: Row) -> Cell:
    """Return what a row is weighed by: its combination of groups (none is one too) and its label.

    >>> cell_of(Row("a", "text", "normal", groups=("women", "black"))) == (
    ...     frozenset({"black", "women"}),
    ...     "normal",
    ... )
    True
    """
    return frozenset(row.groups), row.label


def group_label_weights(rows: Sequence[Row]) -> np.ndarray:
    """Return each row's weight, shape (n,), mean 1: P(group) P(label) / P(group, label).

    The probabilities are shares of the rows; the group is the combination of a row's groups. Under
    the weights groups and labels are independent wherever a combination has both labels. One that
    has a single label cannot be balanced; its rows then keep less than their share, and all weights
    are divided by their mean. Source: Kamiran and Calders, *Data preprocessing techniques for
    classification without discrimination*, 2012 (AIF360's ``Reweighing``).

    >>> rows = [Row("a", "t", "hate", groups=("women",)), Row("b", "t", "normal")]
    >>> rows += [Row("c", "t", "normal", groups=("women",)), Row("d", "t", "normal")]
    >>> rows += [Row("e", "t", "hate"), Row("f", "t", "normal")]
    >>> group_label_weights(rows).round(3).tolist()
    [0.667, 0.889, 1.333, 0.889, 1.333, 0.889]
    """
    if not rows:
        return np.zeros(0)
    cells = [cell_of(row) for row in rows]
    joint = Counter(cells)
    by_group = Counter(groups for groups, _ in cells)
    by_label = Counter(label for _, label in cells)
    weights = np.array([by_group[one[0]] * by_label[one[1]] / joint[one] for one in cells])
    return weights / weights.mean()

"""The label policy: what rows of a fine label (HateXplain's *offensive*) are trained as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.records import LABELS, Row
from evenhand.core.registry import suggest

DROP = "drop"
_SHOWN = 10


def apply_label_policy(rows: Sequence[Row], policy: Mapping[str, str]) -> tuple[Row, ...]:
    """Return rows with the label that the policy gives their fine label; some are dropped.

    ``policy`` maps fine labels to ``hate``, ``normal`` or ``drop``; rows of other fine labels, and
    those without one, stay as they are. Made for training rows: evaluation keeps its labels, or two
    policies could not be compared. A relabelled row loses its verbatim chat, whose answer is the
    old label.

    Raises:
        ConfigError: a fine label that no row has, or fewer than two labels are left.

    >>> rows = [Row("a", "t", "normal", fine_label="offensive"), Row("b", "t", "normal")]
    >>> [row.label for row in apply_label_policy(rows, {"offensive": "hate"})]
    ['hate', 'normal']
    """
    known = sorted({row.fine_label for row in rows if row.fine_label is not None})
    problems = [
        Problem(f"label_policy.{name}", _unknown(name, known))
        for name in policy
        if name not in known
    ]
    if problems:
        raise ConfigError("the configuration", problems)
    decided = ((row, _decide(row, policy)) for row in rows)
    found = tuple(_relabelled(row, label) for row, label in decided if label != DROP)
    left = {row.label for row in found}
    if policy and not left.issuperset(LABELS):
        lost = " and ".join(f'"{name}"' for name in LABELS if name not in left)
        message = f"leaves no training row labelled {lost}; training needs both labels"
        raise ConfigError("the configuration", [Problem("label_policy", message)])
    return found


def _decide(row: Row, policy: Mapping[str, str]) -> str | None:
    return row.label if row.fine_label is None else policy.get(row.fine_label, row.label)


def _relabelled(row: Row, label: str | None) -> Row:
    return row if label == row.label else replace(row, label=label, messages=None)


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return "the training rows have no fine labels; leave the policy out, or name their column"
    there = ", ".join(f'"{one}"' for one in known[:_SHOWN])
    rest = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"no training row has this fine label{suggest(name, known)}; there are {there}{rest}"

"""Which column of a table holds what: presets, the user's map, and recognition by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evenhand.core.errors import DataError, Problem
from evenhand.core.registry import suggest


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each part of a row; None where there is none.

    Attributes:
        group: one or several columns whose values are target groups.
        group_separator: what stands between several groups in one cell.
        extra: further columns to keep; None for all the others.
    """

    text: str
    label: str | None = None
    group: tuple[str, ...] = ()
    id: str | None = None
    source: str | None = None
    fine_label: str | None = None
    cluster: str | None = None
    group_separator: str | None = None
    extra: tuple[str, ...] | None = None

    def mapped(self) -> set[str]:
        """Return the names of the columns that have a role."""
        single = (self.text, self.label, self.id, self.source, self.fine_label, self.cluster)
        return {name for name in (*single, *self.group) if name is not None}


ROLES = ("text", "label", "group", "id", "source", "fine_label", "cluster")

COMMON_NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "post", "comment", "tweet", "content", "sentence", "message", "body",
             "post_text", "comment_text", "tweet_text", "input_text"),
    "label": ("label", "label_binary", "class", "hate", "is_hate", "hateful", "hate_speech",
              "label_gold", "true_label", "gold_label"),
    "group": ("group", "groups", "target", "targets", "target_group", "target_groups",
              "target_group_norm", "target_ident", "identity", "identity_group"),
    "id": ("id", "post_id", "tweet_id", "comment_id", "case_id", "original_id", "row_id"),
    "source": ("source", "source_dataset", "corpus", "dataset"),
    "fine_label": ("fine_label", "label_multiclass", "functionality", "subtype"),
    "cluster": ("cluster", "template", "template_id", "templ_id", "thread_id",
                "conversation_id"),
}  # fmt: skip
"""Column names that are recognised where the user gives no map."""


def map_columns(
    path: Path, columns: Mapping[str, str | Sequence[str]], available: Collection[str]
) -> Columns:
    """Return the user's column map, checked against the file's columns.

    Raises:
        DataError: an unknown role, a column that is not in the file, or no text column.
    """
    problems = []
    for role in columns:
        if role not in (*ROLES, "group_separator"):
            message = f"is not a role{suggest(role, ROLES)}; roles: {', '.join(ROLES)}"
            problems.append(Problem(f"columns.{role}", message))
    for role in ROLES:
        names = _names(columns.get(role))
        if len(names) > 1 and role != "group":
            problems.append(
                Problem(f"columns.{role}", "takes one column; only group takes several")
            )
        problems += [
            Problem(f"columns.{role}", f'no column "{name}" in the file{_choices(name, available)}')
            for name in names
            if name not in available
        ]
    if not _names(columns.get("text")):
        problems.append(Problem("columns.text", f"missing{_choices('text', available)}"))
    if problems:
        raise DataError(str(path), problems)
    single = {
        role: _names(columns[role])[0] for role in ROLES if role in columns and role != "group"
    }
    separator = columns.get("group_separator")
    return replace(
        _of_roles(single),
        group=_names(columns.get("group")),
        group_separator=str(separator) if separator else None,
    )


def recognise_columns(path: Path, available: Sequence[str]) -> Columns:
    """Find each role's column by its common names, ignoring case and word separators.

    Raises:
        DataError: no text column, or more than one candidate for a role.
    """
    problems = []
    found: dict[str, str] = {}
    for role, names in COMMON_NAMES.items():
        candidates = [name for name in available if _plain(name) in names]
        if len(candidates) == 1:
            found[role] = candidates[0]
        elif candidates:
            message = f"columns {candidates} could all be it; name one (--column {role}=NAME)"
            problems.append(Problem(f"columns.{role}", message))
    if "text" not in found and not any(p.place == "columns.text" for p in problems):
        shown = ", ".join(f'"{name}"' for name in list(available)[:20])
        message = f"no column name was recognised; name it (--column text=NAME); columns: {shown}"
        problems.append(Problem("columns.text", message))
    if problems:
        raise DataError(str(path), problems)
    group = found.pop("group", None)
    return replace(_of_roles(found), group=() if group is None else (group,))


def _of_roles(found: Mapping[str, str]) -> Columns:
    return Columns(
        text=found["text"],
        label=found.get("label"),
        id=found.get("id"),
        source=found.get("source"),
        fine_label=found.get("fine_label"),
        cluster=found.get("cluster"),
    )


def _names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _choices(name: str, available: Collection[str]) -> str:
    return suggest(name, available) or "; columns: " + ", ".join(f'"{c}"' for c in available)


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", name.strip().casefold())

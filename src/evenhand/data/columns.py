"""Which column of a table holds what: presets, the user's map, and recognition by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
"""Column names that are recognised for the roles that the user gives no column."""


def find_columns(
    path: Path,
    available: Sequence[str],
    *,
    given: Mapping[str, str | Sequence[str]] | None = None,
    preset: Columns | None = None,
) -> Columns:
    """Return each role's column: the given one, else the preset's, else one with a common name.

    A role that is given an empty name or an empty list has no column. A given column has no
    second role. Common names are compared without regard to case and word separators.

    >>> find_columns(Path("posts.csv"), ["body", "Target"], given={"group_separator": ";"})
    ... # doctest: +ELLIPSIS
    Columns(text='body', label=None, group=('Target',), ..., group_separator=';', extra=None)

    Raises:
        DataError: an unknown role, a column that is not in the file, more than one candidate for
            a role, or no text column.
    """
    given = given or {}
    problems = _map_problems(given, available)
    chosen = {role: column_names(given[role]) for role in ROLES if role in given}
    taken = {name for names in chosen.values() for name in names}
    found = dict(chosen)
    for role in ROLES:
        if role in given:
            continue
        found[role] = tuple(n for n in _candidates(role, available, preset) if n not in taken)
        if len(found[role]) > 1:
            message = f"columns {list(found[role])} could all be it; {how_to_name(role)}"
            problems.append(Problem(f"columns.{role}", message))
    if not found["text"]:
        shown = ", ".join(f'"{name}"' for name in list(available)[:20])
        message = f"no column name was recognised; {how_to_name('text')}; columns: {shown}"
        problems.append(Problem("columns.text", message))
    if problems:
        raise DataError(str(path), problems)
    separator = given.get("group_separator")
    return Columns(
        text=found["text"][0],
        label=_only(found["label"]),
        group=found["group"],
        id=_only(found["id"]),
        source=_only(found["source"]),
        fine_label=_only(found["fine_label"]),
        cluster=_only(found["cluster"]),
        group_separator=str(separator) if separator else None,
        extra=None if preset is None else preset.extra,
    )


def how_to_name(role: str) -> str:
    """Return how a user names the column of a role, in an experiment and on the command line."""
    return f'name it: "columns": {{"{role}": NAME}} in the experiment, or --column {role}=NAME'


def common_columns(role: str, available: Iterable[str]) -> list[str]:
    """Return the columns whose names are common for a role.

    >>> common_columns("group", ["Target Group", "text", "identity"])
    ['Target Group', 'identity']
    """
    return [name for name in available if _plain(name) in COMMON_NAMES[role]]


def column_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several column names as a tuple, without empty ones."""
    return tuple(name for name in ((value,) if isinstance(value, str) else value) if name)


def _map_problems(
    given: Mapping[str, str | Sequence[str]], available: Sequence[str]
) -> list[Problem]:
    problems = []
    for role in given:
        if role not in (*ROLES, "group_separator"):
            message = f"is not a role{suggest(role, ROLES)}; roles: {', '.join(ROLES)}"
            problems.append(Problem(f"columns.{role}", message))
    for role in ROLES:
        names = column_names(given.get(role, ()))
        if len(names) > 1 and role != "group":
            message = "takes one column; only group takes several"
            problems.append(Problem(f"columns.{role}", message))
        problems += [
            Problem(f"columns.{role}", f'no column "{name}" in the file{_choices(name, available)}')
            for name in names
            if name not in available
        ]
    return problems


def _candidates(role: str, available: Sequence[str], preset: Columns | None) -> Iterable[str]:
    if preset is None:
        return common_columns(role, available)
    return [name for name in column_names(getattr(preset, role) or ()) if name in available]


def _only(names: Sequence[str]) -> str | None:
    return names[0] if names else None


def _choices(name: str, available: Sequence[str]) -> str:
    return suggest(name, available) or "; columns: " + ", ".join(f'"{c}"' for c in available)


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", name.strip().casefold())

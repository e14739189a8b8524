"""Frozen records that pass between stages; what is written to disk is made from these.

The two canonical labels are ``hate`` (the positive class) and ``normal``. Every reader maps the
words of its corpus onto them, and every prompt maps them onto the strings that the model answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HATE = "hate"
NORMAL = "normal"
LABELS: tuple[str, str] = (HATE, NORMAL)

Status = Literal["ok", "unparseable", "error"]


@dataclass(frozen=True, slots=True)
class Row:
    """One post with what is known of it.

    Attributes:
        id: unique within its dataset.
        text: the post, verbatim; never empty.
        label: ``hate`` or ``normal``; None where the row is unlabelled.
        groups: the target groups it speaks of, none or several.
        source: the corpus it comes from.
        fine_label: the corpus's own finer label (HateXplain's *offensive*, a functionality, ...).
        cluster: what makes rows dependent (a template, a thread); None where rows are independent.
        messages: the verbatim chat (role, content), where the row was read from chat JSONL.
        extra: further columns, by name.
    """

    id: str
    text: str
    label: str | None = None
    groups: tuple[str, ...] = ()
    source: str | None = None
    fine_label: str | None = None
    cluster: str | None = None
    messages: tuple[tuple[str, str], ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be used: file, line (1-based) or array position, and why."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows with their origin: the file, its sha256, and what was skipped."""

    name: str
    rows: tuple[Row, ...]
    path: Path | None = None
    sha256: str | None = None
    skipped: tuple[BadRow, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

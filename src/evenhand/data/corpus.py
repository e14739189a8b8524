"""A raw corpus as rows before any choice: its own labels, its own group names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evenhand.core.records import Row


@dataclass(frozen=True, slots=True)
class Corpus:
    """Posts of one raw corpus.

    Attributes:
        rows: ``label`` is None, ``fine_label`` the corpus's own label, ``groups`` its own names;
            ``extra`` has ``agreement`` (share of annotators with the majority label, or None),
            ``rationale_text`` and ``split`` (the corpus's own), each possibly None.
        dropped: why posts were left out -> how many.
        files: the files it was read from.
    """

    name: str
    rows: tuple[Row, ...]
    dropped: Mapping[str, int]
    files: tuple[Path, ...]

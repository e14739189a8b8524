"""What a dataset holds, in counts: labels, groups, lengths, duplicates, contradictions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from evenhand.core.records import LABELS, Dataset, Row
from evenhand.data.fingerprint import fingerprint

UNKNOWN = "(none)"


@dataclass(frozen=True, slots=True)
class Lengths:
    """The distribution of a length over rows: mean, median, 95th percentile, maximum."""

    mean: float
    median: float
    p95: float
    max: int


@dataclass(frozen=True, slots=True)
class Description:
    """A dataset in counts; a row that speaks of several groups counts in each of them.

    Attributes:
        label_by_group: group -> label -> rows.
        duplicate_rows: rows whose text (as compared by ``normalise``) came before.
        conflicts: the ids of rows with the same text and different labels, one tuple a text.
        skipped: rows that could not be read.
    """

    name: str
    n: int
    labels: Mapping[str, int]
    groups: Mapping[str, int]
    sources: Mapping[str, int]
    fine_labels: Mapping[str, int]
    label_by_group: Mapping[str, Mapping[str, int]]
    rows_with_several_groups: int
    characters: Lengths
    words: Lengths
    duplicate_rows: int
    conflicts: tuple[tuple[str, ...], ...]
    skipped: int


def describe(dataset: Dataset) -> Description:
    """Count what a dataset holds; a dataset has at least one row (``read_dataset`` sees to it)."""
    rows = dataset.rows
    label_by_group: defaultdict[str, Counter[str]] = defaultdict(Counter)
    same_text: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        same_text[fingerprint(row.text)].append(row)
        for group in row.groups or (UNKNOWN,):
            label_by_group[group][row.label or UNKNOWN] += 1
    groups = {group: sum(counts.values()) for group, counts in label_by_group.items()}
    return Description(
        name=dataset.name,
        n=len(rows),
        labels=_count(row.label for row in rows),
        groups=_by_size(groups),
        sources=_count(row.source for row in rows),
        fine_labels=_count(row.fine_label for row in rows),
        label_by_group={group: dict(label_by_group[group]) for group in _by_size(groups)},
        rows_with_several_groups=sum(len(row.groups) > 1 for row in rows),
        characters=_lengths(len(row.text) for row in rows),
        words=_lengths(len(row.text.split()) for row in rows),
        duplicate_rows=len(rows) - len(same_text),
        conflicts=tuple(
            tuple(row.id for row in copies)
            for copies in same_text.values()
            if len({row.label for row in copies if row.label is not None}) > 1
        ),
        skipped=len(dataset.skipped),
    )


def render_description(description: Description) -> str:
    """Return the description as plain text for a terminal."""
    parts = [f"{description.name}: {description.n:,} rows"]
    if description.skipped:
        parts[0] += f", {description.skipped:,} skipped"
    for title, counts in (
        ("label", description.labels),
        ("source", description.sources),
        ("fine label", description.fine_labels),
    ):
        parts.append(_table([title, "rows"], [[key, f"{n:,}"] for key, n in counts.items()]))
    present = [label for label in (*LABELS, UNKNOWN) if label in description.labels]
    by_group = [
        [group, f"{n:,}", *(f"{counts.get(label, 0):,}" for label in present)]
        for group, n in description.groups.items()
        for counts in (description.label_by_group[group],)
    ]
    parts.append(_table(["group", "rows", *present], by_group))
    parts.append(
        _table(
            ["length", "mean", "median", "95%", "max"],
            [
                [unit, f"{found.mean:.1f}", f"{found.median:g}", f"{found.p95:g}", f"{found.max}"]
                for unit, found in (
                    ("characters", description.characters),
                    ("words", description.words),
                )
            ],
        )
    )
    conflicts = f"texts with conflicting labels: {len(description.conflicts):,}"
    if description.conflicts:
        shown = "; ".join(", ".join(ids) for ids in description.conflicts[:5])
        conflicts += f" (ids {shown}{'; ...' if len(description.conflicts) > 5 else ''})"
    parts.append(
        f"rows with several groups: {description.rows_with_several_groups:,}\n"
        f"duplicate rows: {description.duplicate_rows:,}\n{conflicts}"
    )
    return "\n\n".join(parts)


def _count(values: Iterable[str | None]) -> dict[str, int]:
    return _by_size(Counter(value or UNKNOWN for value in values))


def _by_size(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _lengths(values: Iterable[int]) -> Lengths:
    lengths = np.fromiter(values, dtype=np.int64)
    return Lengths(
        mean=float(lengths.mean()),
        median=float(np.median(lengths)),
        p95=float(np.quantile(lengths, 0.95)),
        max=int(lengths.max()),
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )

"""The data card: what a prepared corpus is made of and which choices made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.core.records import HATE, NORMAL, Row


def render_card(parts: Mapping[str, Sequence[Row]], record: Mapping[str, Any]) -> str:
    """Return the card in Markdown, counts only, from the parts and the record of their making."""
    options = record["options"]
    chosen = ", ".join(options["groups"]) if options["groups"] else "all"
    sections = [
        "# Data card\n\nA hate-speech corpus built by `evenhand data prepare`. The posts are the "
        "work of others: the terms of each source corpus apply. Many are offensive.",
        "## Choices\n\n"
        + _table(
            ["Choice", "Value"],
            [
                ["HateXplain's offensive posts become", options["offensive"] or "(none present)"],
                ["ToxiGen toxic above", f"{options['toxicity_threshold']:g} of 5"],
                ["Groups", chosen],
                ["Balanced by", ", ".join(options["balance"]) or "nothing"],
                ["Split", ", ".join(f"{k} {v:g}" for k, v in options["fractions"].items())],
                ["Rows per canned sample", options["canned_rows"]],
                ["Seed", options["seed"]],
            ],
        ),
        "## Rows\n\n" + _table(["Step", "Rows left"], [*record["steps"].items()]),
    ]
    if record["dropped"]:
        sections.append("Left out:\n\n" + _table(["Reason", "Posts"], [*record["dropped"].items()]))
    if record["unmapped_groups"]:
        sections.append(
            "Group names that the map does not know, kept as they are:\n\n"
            + _table(["Name", "Posts"], [*record["unmapped_groups"].items()])
        )
    sections += [
        "## Parts\n\n"
        + _table(
            ["Part", "Rows", HATE, NORMAL],
            [[name, len(rows), *_label_counts(rows)] for name, rows in parts.items()],
        )
        + "\n\nThe canned samples are drawn from `heldout`, which is no other split's. They are "
        "small: use them for quick looks, not for choosing a model.",
        "## Groups\n\nA post that speaks of several groups counts in each.\n\n"
        + _counts_table("Group", parts, lambda row: row.groups or ("(none)",)),
        "## Source and its own label\n\n"
        + _counts_table("Source, label", parts, lambda row: (f"{row.source}, {row.fine_label}",)),
        "## Files\n\n"
        + _table(
            ["File", "Rows", "sha256"],
            [
                [f"`{name}`", entry["rows"], f"`{entry['sha256']}`"]
                for name, entry in record["files"].items()
            ],
        )
        + "\n\nMade from:\n\n"
        + _table(["File", "sha256"], [[f"`{k}`", f"`{v}`"] for k, v in record["inputs"].items()]),
    ]
    return "\n\n".join(sections) + "\n"


def _counts_table(title: str, parts: Mapping[str, Sequence[Row]], keys: Any) -> str:
    counts = {
        name: Counter((key, row.label) for row in rows for key in keys(row))
        for name, rows in parts.items()
    }
    names = sorted({key for counter in counts.values() for key, _ in counter})
    header = [title, *(f"{name} ({HATE} / {NORMAL})" for name in parts)]
    rows = [
        [key, *(f"{counts[part][key, HATE]} / {counts[part][key, NORMAL]}" for part in parts)]
        for key in names
    ]
    return _table(header, rows)


def _label_counts(rows: Sequence[Row]) -> tuple[int, int]:
    return sum(row.label == HATE for row in rows), sum(row.label == NORMAL for row in rows)


def _table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)

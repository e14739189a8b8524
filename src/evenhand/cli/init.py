"""``evenhand init``: a starting experiment for the user's own table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evenhand.core.records import Row

FRACTIONS = {"train": 0.70, "validation": 0.15, "test": 0.15}


def command(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV, JSON lines, JSON array or Parquet.")
    ],
    text: Annotated[str | None, typer.Option(help="Column of the post.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Column of the target group; may be repeated.")
    ] = None,
    group_separator: Annotated[
        str | None, typer.Option(help="What separates several groups in one cell.")
    ] = None,
    positive: Annotated[
        list[str] | None, typer.Option(help="Label word that means hate; may be repeated.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.json", help="The experiment to write; its data files go to FILE_data."
        ),
    ] = Path("experiment.json"),
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be used.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 42,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a starting experiment for your own table, and its three data files beside it.

    The rows are split 70/15/15 with equal texts kept together and each label and group in
    proportion; the experiment trains one small LoRA phase.

    Example: evenhand init posts.csv --text post --label verdict --positive hateful
    """
    from evenhand.config.starting import label_map, starting_experiment
    from evenhand.core.paths import write_json
    from evenhand.core.seeding import rng_for
    from evenhand.data.columns import ROLES
    from evenhand.data.labels import ALIASES, label_word
    from evenhand.data.sources import read_dataset, write_rows
    from evenhand.data.split import split_rows

    out = out if out.suffix else out.with_suffix(".json")
    folder = out.parent / f"{out.stem}_data"
    files = {name: folder / f"{name}.jsonl" for name in FRACTIONS}
    if not force:
        _refuse_existing([out, *files.values()])
    given = {"text": text, "label": label, "group": tuple(group or ())}
    columns, words = _columns(table, {role: value for role, value in given.items() if value})
    if group_separator is not None:
        columns["group_separator"] = group_separator
    labels = label_map(words, positive=[label_word(w) for w in positive or ()], known=ALIASES)
    dataset = read_dataset(
        table,
        # Roles that were not recognised above have no column: an id that repeats, for example.
        columns={**dict.fromkeys(ROLES, ()), **columns},
        labels=labels,
        format="table",
        on_bad_row="skip" if skip_bad_rows else "stop",
    )
    splits = split_rows(dataset.rows, fractions=FRACTIONS, rng=rng_for(seed, "init split"))
    _require_both_labels(table, splits)
    for name, rows in splits.items():
        write_rows(rows, files[name])
    write_json(out, starting_experiment(_folder_name(table.stem), data_folder=folder.name))

    summary: dict[str, Any] = {
        "experiment": str(out),
        "columns": columns,
        "labels": labels,
        "rows": {name: len(rows) for name, rows in splits.items()},
        "skipped": len(dataset.skipped),
    }
    if as_json:
        print_json(summary)
    else:
        typer.echo(_in_words(summary))


def _columns(
    table: Path, given: Mapping[str, str | Sequence[str]]
) -> tuple[dict[str, str | list[str]], list[str]]:
    """Return the table's column map and its label words, most frequent first."""
    from collections import Counter

    from evenhand.data.labels import label_word
    from evenhand.data.recognise import optional_columns, recognise_columns
    from evenhand.data.tables import read_records

    records = [record.fields for record in read_records(table) if record.fault is None]
    names = dict.fromkeys(name for fields in records for name in fields)
    values = {name: [fields.get(name) for fields in records] for name in names}
    found = recognise_columns(values, given=given)
    columns: dict[str, str | list[str]] = {"text": found.text, "label": found.label}
    if found.group:
        columns["group"] = list(found.group)
    taken = {found.text, found.label, *found.group}
    free = {name: values[name] for name in names if name not in taken}
    columns.update(optional_columns(free))
    cells = [cell for cell in values[found.label] if cell is not None and cell != ""]
    words = Counter(label_word(cell) for cell in cells)
    return columns, [word for word, _ in words.most_common()]


def _refuse_existing(paths: Sequence[Path]) -> None:
    from evenhand.core.errors import InputError, Problem

    existing = [Problem(str(path), "exists already") for path in paths if path.exists()]
    if existing:
        raise InputError(
            "the output",
            existing,
            consequence="nothing was written",
            hint="choose another --out, or replace them with --force",
        )


def _require_both_labels(table: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    from evenhand.core.errors import DataError, Problem
    from evenhand.core.records import LABELS

    problems = [
        Problem(name, f'would have no row labelled "{label}"')
        for name, rows in splits.items()
        for label in LABELS
        if not any(row.label == label for row in rows)
    ]
    if problems:
        raise DataError(
            str(table),
            problems,
            consequence="nothing was written",
            hint="a split needs at least a few different texts of each label",
        )


def _folder_name(stem: str) -> str:
    import re

    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:80] or "experiment"


def _in_words(summary: Mapping[str, Any]) -> str:
    columns = ", ".join(
        f"{role} = {name if isinstance(name, str) else ' + '.join(name)}"
        for role, name in summary["columns"].items()
    )
    labels = ", ".join(f'"{word}" = {label}' for word, label in summary["labels"].items())
    rows = ", ".join(f"{name} {count:,}" for name, count in summary["rows"].items())
    lines = [f"columns   {columns}", f"labels    {labels}", f"rows      {rows}"]
    if summary["skipped"]:
        lines.append(f"skipped   {summary['skipped']:,} rows that cannot be used")
    return "\n".join([*lines, "", f"next: evenhand run {summary['experiment']}"])

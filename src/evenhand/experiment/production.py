"""Production rows are for one look: every model that was evaluated on them is written down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenhand.core.paths import read_json, write_json
from evenhand.core.records import Dataset
from evenhand.experiment.inputs import rows_sha256
from evenhand.experiment.runs import Run, now
from evenhand.finetune.processes import World

BOOK = "production.json"
"""The file in an experiment's folder that counts."""


def count_use(book: Path, data: Dataset, runs: Sequence[Run], *, world: World) -> int:
    """Write down that runs are evaluated on production rows; return how many ever were."""
    uses = world.gather(read_uses(book))[0]
    rows = rows_sha256(data)
    known = {use["run"] for use in uses if use["rows"] == rows}
    new = [run for run in runs if run.inputs_sha256 not in known]
    uses += [
        {
            "set": data.name,
            "rows": rows,
            "run": run.inputs_sha256,
            "phase": run.path.name,
            "at": now(),
        }
        for run in new
    ]
    if world.is_first and new:
        write_json(book, uses)
    return len(known) + len(new)


def read_uses(book: Path) -> list[dict[str, Any]]:
    """Return every use that was written down: set, rows, run, phase, time."""
    return read_json(book) if book.is_file() else []


def count_if_production(run: Run, data: Dataset, *, world: World) -> int:
    """Count a run of an experiment on rows that are its production rows; 0 where they are not."""
    book = run.path.resolve().parents[1] / BOOK
    rows = rows_sha256(data)
    if not book.is_file() or all(use["rows"] != rows for use in read_json(book)):
        return 0
    return count_use(book, data, [run], world=world)


def describe_use(name: str, count: int) -> str:
    """Say what a number of uses means for the figures."""
    if count == 1:
        return f"{name} was used once, for the chosen phase."
    return (
        f"{name} was used for {count} models: its figures are no longer those of a test set "
        "that nothing was chosen on."
    )

"""A run's decisions replaced as one: the old ones go to ``RUN/history``, and no mix can pass."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from evenhand.core.evaluation import Record
from evenhand.core.paths import atomic_dir, storage_errors, write_json

_REMOVED_FIRST = ("deployment.json", "gate.json")
_WRITTEN = ("threshold_report.json", "threshold.json", "gate.json", "deployment.json")
RETUNE = "retune.json"


def replace_decisions(run: Path, new: Mapping[str, Record], *, now: datetime) -> Path:
    """Put new decisions in place of the old ones; return the folder that keeps the old.

    The approval goes first and comes last: after a crash anywhere in between, the folder holds a
    threshold that nobody has approved, which a server refuses and ``evenhand gate`` mends, and
    never a verdict on one threshold beside another.

    Args:
        run: the run folder, held by the caller.
        new: ``threshold_report.json``, ``threshold.json``, ``gate.json`` and ``deployment.json``.
        now: names the folder.

    Raises:
        StorageError: a file cannot be written.
    """
    assert set(new) == set(_WRITTEN)
    history = history_folder(run, now)
    with atomic_dir(history) as staging:
        for name in (*_WRITTEN, RETUNE):
            if (run / name).is_file():
                shutil.copy2(run / name, staging / name)
    for name in _REMOVED_FIRST:
        with storage_errors(run / name):
            (run / name).unlink(missing_ok=True)
    for name in _WRITTEN:
        write_json(run / name, new[name].model_dump(mode="json"))
    return history


def history_folder(run: Path, now: datetime) -> Path:
    """Return a folder in ``RUN/history`` that is named by the time and not there yet."""
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder, number = run / "history" / stamp, 1
    while folder.exists():
        number += 1
        folder = run / "history" / f"{stamp}-{number}"
    return folder

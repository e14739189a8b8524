"""Checkpoints that are whole or absent: written aside, hashed, renamed; the manifest comes last."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from evenhand.core.errors import StorageError
from evenhand.core.paths import read_json, sha256_file, write_json

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def staging_folder(folder: Path, step: int) -> Path:
    """Return the folder that a checkpoint is written to before it gets its name."""
    return folder / f".checkpoint-{step}.tmp"


def finish(folder: Path, step: int) -> Path:
    """Hash the staged files, write the manifest last, and give the checkpoint its name."""
    staging = staging_folder(folder, step)
    files = {
        str(one.relative_to(staging)): sha256_file(one)
        for one in sorted(staging.rglob("*"))
        if one.is_file()
    }
    write_json(staging / MANIFEST, {"step": step, "files": files})
    final = folder / f"checkpoint-{step}"
    if final.exists():  # resumed from an earlier step: this is the same checkpoint again
        shutil.rmtree(final)
    staging.rename(final)
    return final


def find_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the finished checkpoints as (step, folder), earliest first."""
    found = [
        (int(match[1]), one)
        for one in (folder.iterdir() if folder.is_dir() else ())
        if (match := _NAME.fullmatch(one.name)) and (one / MANIFEST).is_file()
    ]
    return sorted(found)


def verify(checkpoint: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises:
        StorageError: a file is missing or changed.
    """
    files = read_json(checkpoint / MANIFEST)["files"]
    bad = [
        name
        for name, expected in files.items()
        if not (checkpoint / name).is_file() or sha256_file(checkpoint / name) != expected
    ]
    if bad:
        raise StorageError(
            f"checkpoint {checkpoint} is damaged: {', '.join(bad)}",
            hint="delete this checkpoint's folder; training resumes from the one before",
        )


def clean(folder: Path) -> None:
    """Remove what a killed process left unfinished."""
    for one in folder.glob(".checkpoint-*.tmp") if folder.is_dir() else ():
        shutil.rmtree(one)


def rotate(folder: Path, *, keep: int | None, best_step: int | None) -> None:
    """Delete the oldest checkpoints over ``keep``; the best and the newest always stay."""
    if keep is None:
        return
    found = find_checkpoints(folder)
    newest = found[-1][0] if found else None
    spare = [(step, one) for step, one in found if step not in (best_step, newest)]
    for _, one in spare[: max(0, len(found) - max(keep, 1))]:
        # The manifest goes first, so that a half-deleted folder no longer counts as finished.
        (one / MANIFEST).unlink()
        shutil.rmtree(one)

"""Checkpoints that are whole or absent: written aside, hashed, renamed; the manifest comes last."""

from __future__ import annotations

import contextlib
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from evenhand.core.errors import StorageError
from evenhand.core.paths import read_json, sha256_file, write_json

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def staging_folder(folder: Path, step: int) -> Path:
    """Return the folder that a checkpoint is written to before it gets its name."""
    return folder / f".checkpoint-{step}.tmp"


def finish(folder: Path, step: int, *, facts: dict[str, Any] | None = None) -> Path:
    """Hash the staged files, write the manifest last, and give the checkpoint its name.

    ``facts`` are kept in the manifest.
    """
    staging = staging_folder(folder, step)
    files = {
        str(one.relative_to(staging)): sha256_file(one)
        for one in sorted(staging.rglob("*"))
        if one.is_file()
    }
    write_json(staging / MANIFEST, {"step": step, **(facts or {}), "files": files})
    final = folder / f"checkpoint-{step}"
    if final.exists():  # a half-deleted one: a finished one would have been resumed from
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


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest: ``step``, ``files`` with their hashes, and its facts."""
    return read_json(checkpoint / MANIFEST)


def verify(checkpoint: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises:
        StorageError: a file is missing or changed.
    """
    files = read_manifest(checkpoint)["files"]
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


def clean(folder: Path, *, keep_finished: bool) -> None:
    """Remove what a killed process left unfinished; the finished ones too, for a fresh start."""
    if not keep_finished:
        for _, one in find_checkpoints(folder):
            _remove(one)
    for one in folder.glob(".checkpoint-*.tmp"):
        shutil.rmtree(one)


def rotate(folder: Path, *, keep: int | None, best_step: int | None) -> None:
    """Delete the oldest checkpoints over ``keep``; the best and the newest always stay."""
    if keep is None:
        return
    found = find_checkpoints(folder)
    newest = found[-1][0] if found else None
    spare = [(step, one) for step, one in found if step not in (best_step, newest)]
    for _, one in spare[: max(0, len(found) - keep)]:
        _remove(one)


def _remove(checkpoint: Path) -> None:
    # The manifest goes first, so that a half-deleted folder no longer counts as finished.
    (checkpoint / MANIFEST).unlink()
    shutil.rmtree(checkpoint)


@contextlib.contextmanager
def file_errors(run: Path) -> Iterator[None]:
    """Turn what torch, safetensors or Python say of a file into what to do about it.

    Raises:
        StorageError: the disk is full, the folder cannot be written, or a checkpoint's state is
            something else than plain data.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise StorageError(
            f"a checkpoint in {run} holds more than plain data, and was not read",
            hint="train again into another folder",
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError of its file writer.
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["unknown"])[0]
        raise StorageError(
            f"training could not write to {run}: {reason}",
            hint="earlier checkpoints are intact; free some space and run again with --resume",
        ) from error

"""Files: atomic writes, hashes, the user cache folder, JSON in one form."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evenhand.core.errors import StorageError


def cache_dir() -> Path:
    """Return the user's cache folder: ``$EVENHAND_CACHE``, else ``$XDG_CACHE_HOME/evenhand``."""
    chosen = os.environ.get("EVENHAND_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "evenhand"


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Return the hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hex sha256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return sha256_text(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False))


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` on ``path`` into a :class:`StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cannot write {path}: {reason}; earlier results are intact",
            hint="free some space or choose another folder, then run the same command again",
        ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; rename it there only if the block succeeds."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a staging folder beside ``path``; swap it in only if the block succeeds."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        try:
            yield staging
            staging.chmod(0o777 & ~_umask())
            if path.exists():
                old = staging.with_suffix(".old")
                path.rename(old)
                staging.rename(path)
                shutil.rmtree(old)
            else:
                staging.rename(path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: two-space indent, UTF-8, NaN and infinities as null."""
    write_text(path, dump_json(value) + "\n")


def dump_json(value: Any) -> str:
    """Return JSON text; values that JSON has no word for (NaN, infinity) become null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> Any:
    """Read a JSON file that Evenhand wrote; a damaged one is a :class:`StorageError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

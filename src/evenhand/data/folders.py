"""Output folders that a command may replace as a whole."""

from __future__ import annotations

from pathlib import Path

from evenhand.core.errors import ConfigError, Problem


def replaceable_folder(path: Path, marker: str) -> Path:
    """Return the path if it is free, an empty folder, or has the file that marks our own output.

    Raises:
        ConfigError: something else stands there, which a swap would delete.
    """
    if path.is_dir():
        free = (path / marker).is_file() or not any(path.iterdir())
    else:
        free = not path.exists()
    if not free:
        message = f"exists and is not an earlier result (no {marker} in it); choose another folder"
        raise ConfigError(str(path), [Problem("--out", message)])
    return path

"""Where a file that a configuration names is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evenhand.core.registry import suggest


def search_folders(*folders: Path | None) -> tuple[Path, ...]:
    """Return the folders in which a relative name is tried, the current one last, each once."""
    wanted = [folder for folder in (*folders, Path.cwd()) if folder is not None]
    return tuple({folder.resolve(): folder for folder in wanted}.values())


def find(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the first existing file or folder: an absolute name as is, else in the folders."""
    candidates = [folder / Path(name).expanduser() for folder in folders]
    return next((path.resolve() for path in candidates if path.exists()), None)


def not_found(name: str, folders: Sequence[Path]) -> str:
    """Say where a name was looked for, and which similar name is there."""
    wanted = Path(name).expanduser()
    if wanted.is_absolute():
        return f'"{name}" does not exist{_similar(wanted)}'
    similar = next(filter(None, (_similar(folder / wanted) for folder in folders)), "")
    looked = ", ".join(shown(folder) for folder in folders)
    return f'"{name}" was not found; looked in {looked}{similar}'


def shown(path: Path) -> str:
    """Return a path as short as it can be: relative to the current folder where it lies near it."""
    path, here = path.resolve(), Path.cwd().resolve()
    for up, folder in (("", here), ("../", here.parent)):
        if path.is_relative_to(folder) and folder != folder.parent:
            return up + path.relative_to(folder).as_posix()
    return path.as_posix()


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return suggest(path.name, (entry.name for entry in path.parent.iterdir()))

"""The corpora's names of target groups, mapped onto one vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, Problem

GroupMap = Mapping[str, str | None]


def group_slug(name: str) -> str:
    """Return a group's name in the form in which names are compared.

    >>> group_slug("Black/African-American folks")
    'black_african_american_folks'
    """
    return re.sub(r"\W+", "_", name.strip().casefold()).strip("_")


def read_group_map(path: Path | None = None) -> GroupMap:
    """Read a group map, JSON of corpus name -> group (null: no group); the shipped one by default.

    Raises:
        ConfigError: the file is not such a map.
    """
    source = files("evenhand.data").joinpath("groups.json") if path is None else path
    try:
        value: Any = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(str(path), [Problem("the file", f"is not readable: {error}")]) from error
    if not isinstance(value, dict):
        raise ConfigError(str(path), [Problem("the file", "is not a JSON object of names")])
    problems = [
        Problem(name, "is neither a group's name nor null")
        for name, group in value.items()
        if not (group is None or (isinstance(group, str) and group.strip()))
    ]
    if problems:
        raise ConfigError(str(path), problems)
    return {group_slug(name): group for name, group in value.items()}


def map_groups(names: Iterable[str], group_map: GroupMap) -> tuple[str, ...]:
    """Return the groups that a corpus's names stand for, each once, in order.

    A name that the map does not know stays as it is, in slug form.

    >>> map_groups(["Arab", "None", "Martians"], {"arab": "middle_east", "none": None})
    ('middle_east', 'martians')
    """
    slugs = [group_slug(name) for name in names]
    mapped = [group_map.get(slug, slug) for slug in slugs]
    return tuple(dict.fromkeys(group for group in mapped if group))

"""Read the settings of ``evenhand serve``: a JSON file, changed by ``--set``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from evenhand.config import files
from evenhand.config.checking import found_problem, is_echo
from evenhand.config.overrides import apply_overrides, parse_overrides
from evenhand.config.production_schema import (
    AlarmConfig,
    ProductionConfig,
    ReviewConfig,
    ServeConfig,
    WatchConfig,
)
from evenhand.config.strict_json import read_object
from evenhand.core.errors import ConfigError, Problem

_MODEL_AT: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): ProductionConfig,
    ("serve",): ServeConfig,
    ("watch",): WatchConfig,
    ("watch", "alarms"): AlarmConfig,
    ("review",): ReviewConfig,
}


def load_production(path: Path | None = None, *, overrides: Sequence[str] = ()) -> ProductionConfig:
    """Read the settings from a file, or take the defaults; ``overrides`` are ``path=value``.

    >>> load_production(overrides=["watch.labels_per_day=80"]).watch.labels_per_day
    80.0

    Raises:
        ConfigError: with every problem of the file and of the overrides.
    """
    document: dict[str, Any] | None = {}
    problems: list[Problem] = []
    if path is not None:
        if not path.is_file():
            reason = "is a folder" if path.is_dir() else files.not_found(str(path), [Path.cwd()])
            raise ConfigError(str(path), [Problem("file", reason)])
        document, problems = read_object(path)
    values, more = parse_overrides(overrides)
    problems.extend(more)
    if document is not None:
        document, _, unapplied = apply_overrides(document, values)
        problems.extend(unapplied)
        settings, found = check_production(document)
        problems.extend(found)
        if settings is not None and not problems:
            return settings
    source = "the command" if path is None else files.shown(path)
    raise ConfigError(
        source, problems, hint="`evenhand explain production` says what each field means"
    )


def check_production(
    document: Mapping[str, Any],
) -> tuple[ProductionConfig | None, list[Problem]]:
    """Return the settings, or None, and everything that is wrong with them.

    >>> check_production({"watch": {"text": "hash", "groops": []}})[1][0].message
    'must be "keep", "hmac" or "drop", not "hash"'
    """
    try:
        return ProductionConfig.model_validate(dict(document)), []
    except ValidationError as error:
        problems = []
        for details in error.errors():
            if not is_echo(details):
                names = tuple(part for part in details["loc"][:-1] if isinstance(part, str))
                found = found_problem(details, _MODEL_AT.get(names, ProductionConfig))
                problems.append(Problem(found.place, found.message))
        return None, problems

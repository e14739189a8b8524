"""Options that several commands share, and the one way in which they print JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evenhand.core.paths import dump_json

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, logs on stderr.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override one field; may be given several times."
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", help="The folder to write to.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.json", help="A phase's configuration.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a trained phase.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="Which column holds text, label, group, ...; group may be given several times.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="WORD=LABEL", help="What a label word means: hate or normal; repeatable."
    ),
]
DataFormat = Annotated[
    str | None,
    typer.Option("--format", help="unified, chat, hatecheck, rows or table; else recognised."),
]
SkipBadRows = Annotated[
    bool,
    typer.Option("--skip-bad-rows", help="Count, list and skip bad rows instead of stopping."),
]
SliceBy = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        metavar="COLUMN[,COLUMN...]",
        help="Measure also by this column, or by several crossed; may be given several times.",
    ),
]
IncludePosts = Annotated[
    bool,
    typer.Option("--include-posts", help="Show the posts of the errors, not their ids alone."),
]


def key_values(values: list[str] | None, option: str) -> list[tuple[str, str]]:
    """Split ``KEY=VALUE`` words; those that are none are a :class:`ConfigError`, all at once."""
    from evenhand.core.errors import ConfigError, Problem

    pairs = [tuple(value.partition("=")) for value in values or ()]
    wrong = [f"{key}{sign}{value}" for key, sign, value in pairs if not (key and sign)]
    if wrong:
        raise ConfigError(
            "the command", [Problem(option, f'"{value}" is not KEY=VALUE') for value in wrong]
        )
    return [(key, value) for key, _, value in pairs]


def column_map(values: list[str] | None) -> dict[str, str | list[str]]:
    """Return the columns of ``--column``, as the readers take them."""
    columns: dict[str, str | list[str]] = {}
    for role, name in key_values(values, "--column"):
        columns[role] = [*columns.get("group", []), name] if role == "group" else name
    return columns


def slice_columns(given: list[str] | None) -> tuple[tuple[str, ...], ...]:
    """Return the columns of each ``--slice``; empty names are a :class:`ConfigError`."""
    from evenhand.core.errors import ConfigError, Problem

    crossings = [tuple(name.strip() for name in one.split(",")) for one in given or ()]
    problems = [
        Problem("--slice", f'"{one}" has a column without a name')
        for one, names in zip(given or (), crossings, strict=True)
        if "" in names
    ]
    if problems:
        raise ConfigError("the command", problems)
    return tuple(crossings)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(dump_json(value))

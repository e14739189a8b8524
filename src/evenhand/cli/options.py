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


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(dump_json(value))

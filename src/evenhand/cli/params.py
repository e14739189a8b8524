"""``evenhand params``: trainable and total parameters of a phase."""

from __future__ import annotations

import typer

from evenhand.cli.options import ConfigFile, JsonFlag, Overrides, print_json


def command(config: ConfigFile, overrides: Overrides = None, as_json: JsonFlag = False) -> None:
    """Count a phase's trainable and total parameters without reading any weights.

    Example: evenhand params configs/default.json
    """
    from evenhand.config.load import load_phase
    from evenhand.finetune.params import count_parameters

    phase = load_phase(config, overrides=overrides or (), check_files=False)
    found = count_parameters(phase.config)
    if as_json:
        counted = {"trainable": found.trainable, "total": found.total, "percent": found.percent}
        print_json(counted)
        return
    typer.echo(f"trainable  {found.trainable:>16,}  ({found.percent:.3f}%)")
    typer.echo(f"total      {found.total:>16,}")

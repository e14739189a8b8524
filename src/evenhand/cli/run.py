"""``evenhand run``: a whole experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.options import JsonFlag, Overrides, print_json

if TYPE_CHECKING:
    from evenhand.config.load import LoadedExperiment


def command(
    experiment: Annotated[
        Path, typer.Argument(metavar="EXPERIMENT.json", help="Phases, data sets, selection.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; experiments/NAME without it.")
    ] = None,
    overrides: Overrides = None,
    all_phases: Annotated[
        bool,
        typer.Option(
            "--all-phases", help="Run every phase on the production sets; recorded as reuse."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run an experiment: train and evaluate every phase, choose one, validate it, summarise.

    Run it again after an interruption, or after a change: only what is missing or whose inputs
    changed is done.

    Example: evenhand run configs/experiments/reference_cpu.json --out experiments/reference_cpu
    """
    from evenhand.config.load import load_experiment

    loaded = load_experiment(experiment, overrides=overrides or ())
    folder = out or Path("experiments") / loaded.config.name
    run_and_report(loaded, folder, all_phases=all_phases, as_json=as_json)


def run_and_report(
    loaded: LoadedExperiment, folder: Path, *, all_phases: bool = False, as_json: bool
) -> None:
    """Run a loaded experiment, write its summary and print its digest or its comparison."""
    from evenhand.cli.session import open_session
    from evenhand.experiment.runner import run_experiment
    from evenhand.experiment.summarise import summarise, write_summary
    from evenhand.report.summary import comparison_table, render_digest

    session = open_session(device=loaded.phases[0].config.device)
    result = run_experiment(loaded, folder, all_phases=all_phases, session=session)
    if not session.world.is_first:
        return
    summary = summarise(result)
    path = write_summary(summary, folder)
    if as_json:
        print_json(comparison_table(summary))
    else:
        typer.echo(render_digest(summary))
        typer.echo(f"summary: {path}")

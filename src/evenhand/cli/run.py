"""``evenhand run``: a whole experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.options import IncludePosts, JsonFlag, Overrides, print_json

if TYPE_CHECKING:
    from evenhand.config.load import LoadedExperiment
    from evenhand.experiment.runner import ExperimentResult


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
    enforce: Annotated[
        bool,
        typer.Option(
            "--enforce",
            help="Stop before training at an audit error; end with the gate's exit code.",
        ),
    ] = False,
    include_posts: IncludePosts = False,
    as_json: JsonFlag = False,
) -> int:
    """Run an experiment: audit, train, evaluate, compare, choose, tune, validate, judge, report.

    Run it again after an interruption, or after a change: only what is missing or whose inputs
    changed is done. It ends with 0 whatever it found; with --enforce with 5 at an audit error that
    the experiment does not accept, 4 where the gate failed and 3 where it needs a review.

    Example: evenhand run configs/experiments/reference_cpu.json --out experiments/reference_cpu
    """
    from evenhand.config.load import load_experiment

    loaded = load_experiment(experiment, overrides=overrides or ())
    folder = out or Path("experiments") / loaded.config.name
    result = run_and_report(
        loaded,
        folder,
        all_phases=all_phases,
        enforce=enforce,
        include_posts=include_posts,
        as_json=as_json,
    )
    return _exit_code(result) if enforce else 0


def run_and_report(
    loaded: LoadedExperiment,
    folder: Path,
    *,
    all_phases: bool = False,
    enforce: bool = False,
    include_posts: bool = False,
    as_json: bool,
) -> ExperimentResult:
    """Run a loaded experiment, write its report and print its digest or its comparison."""
    from evenhand.cli.session import open_session
    from evenhand.config.files import shown
    from evenhand.experiment.reporting import refuse_file, write_report
    from evenhand.experiment.runner import run_experiment
    from evenhand.experiment.summarise import summarise
    from evenhand.report.summary import comparison_table, render_digest

    refuse_file(folder)
    session = open_session(device=loaded.phases[0].config.device)
    result = run_experiment(loaded, folder, all_phases=all_phases, enforce=enforce, session=session)
    if session.world.is_first:
        summary = summarise(result, include_posts=include_posts)
        path = write_report(summary, folder)
        if as_json:
            print_json(comparison_table(summary))
        else:
            typer.echo(render_digest(summary))
            typer.echo(f"summary: {shown(path)}")
            typer.echo(f"page: {shown(path.with_suffix('.html'))}")
    return result


def _exit_code(result: ExperimentResult) -> int:
    from evenhand.core.errors import AuditError

    if result.audit.errors:
        return AuditError.exit_code
    verdict = result.chosen.results.decisions.verdict
    return 0 if verdict is None else verdict.exit_code

"""``evenhand compare``: runs side by side on the same rows, with paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from evenhand.core.decisions import Comparison
    from evenhand.experiment.results import Results
    from evenhand.report.records import Summary


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, trained or imported.")
    ],
    on: Annotated[str, typer.Option(help="The evaluation that every run has, by name.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Also write paired.md and paired.json to this folder."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs on the same rows: efficiency, performance, paired tests, a verdict per pair.

    Runs that differ only in their seed are compared as the mean over the seeds.

    Example: evenhand compare runs/default runs/high_capacity --on test
    """
    from evenhand.core.paths import write_json, write_text
    from evenhand.experiment.comparing import compare_runs
    from evenhand.experiment.reporting import refuse_file
    from evenhand.report.paired import comparison_document, render_comparison
    from evenhand.report.wording import terminal

    if out is not None:
        refuse_file(out)
    found = _open(runs)
    comparison = compare_runs(found, on=on)
    summary = _summary(found, comparison)
    document = comparison_document(summary, comparison)
    text = render_comparison(summary, comparison)
    if out is not None:
        write_json(out / "paired.json", document)
        write_text(out / "paired.md", f"{text}\n")
    if as_json:
        print_json(document)
    else:
        typer.echo(terminal(text))


def _open(paths: list[Path]) -> list[Results]:
    """Open the runs; the folders' names stand for them, so they must differ."""
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.experiment.results import open_results

    problems = []
    if len(paths) < 2:
        problems.append(Problem("RUN", "there is nothing to compare; name two folders at least"))
    seen: dict[str, Path] = {}
    for path in paths:
        same = seen.setdefault(path.resolve().name, path)
        if same is path:
            continue
        if same.resolve() == path.resolve():
            problems.append(Problem(str(path), "is named twice; name it once"))
        else:
            problems.append(Problem(str(path), f"has the name of {same}; rename one of the two"))
    if problems:
        raise ConfigError("the command", problems, consequence="nothing was compared")
    return [open_results(path) for path in paths]


def _summary(runs: list[Results], comparison: Comparison) -> Summary:
    """Return what is known of the runs, with the evaluations on the one set only."""
    from dataclasses import replace

    from evenhand.experiment.summarise import Context, summary_of

    name = comparison.set
    summary = summary_of(runs, context=Context(name=name, comparisons=(comparison,)))
    return replace(
        summary,
        sets=tuple(one for one in summary.sets if one.name == name),
        phases=tuple(
            replace(phase, evaluations={name: phase.evaluations[name]}) for phase in summary.phases
        ),
    )

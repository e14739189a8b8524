"""``evenhand compare``: runs side by side on the same rows, with paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evenhand.config.experiment_schema import AcceptanceConfig
    from evenhand.core.decisions import Comparison
    from evenhand.experiment.results import Results
    from evenhand.report.records import Summary


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, trained or imported.")
    ],
    on: Annotated[str, typer.Option(help="The evaluation that every run has, by name.")],
    control: Annotated[
        list[Path] | None,
        typer.Option(help="Compare with this one of the runs only; one seed stands for all."),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Decide which runs are accepted against the control.")
    ] = False,
    group: Annotated[
        list[str] | None,
        typer.Option(help="With --accept: a group whose FPR is to fall; by default any group."),
    ] = None,
    functional: Annotated[
        str | None,
        typer.Option(help="With --accept: the evaluation on functional cases, by name."),
    ] = None,
    f1_margin: Annotated[
        float | None, typer.Option(help="With --accept: the largest loss of F1; 0.03 by default.")
    ] = None,
    group_margin: Annotated[
        float | None,
        typer.Option(help="With --accept: the largest rise of a group's FPR or FNR; else 0.1."),
    ] = None,
    target_fnr_margin: Annotated[
        float | None,
        typer.Option(help="With --accept: that of a targeted group's own FNR; else 0.15."),
    ] = None,
    functional_margin: Annotated[
        float | None,
        typer.Option(help="With --accept: the largest loss on functional cases; else 0.15."),
    ] = None,
    at_recall: Annotated[
        float | None,
        typer.Option(help="With --accept: decide each run where it finds this share of the hate."),
    ] = None,
    fitted_on: Annotated[
        str | None,
        typer.Option(help="With --at-recall: the set that the thresholds are found on."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="With --accept: the level of every test; else 0.05.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write paired.md and paired.json to this folder."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs on the same rows: efficiency, performance, paired tests, a verdict per pair.

    Runs that differ only in their seed are compared as the mean over the seeds. With --accept each
    run is also held against the control: accepted only if a group's FPR falls and nothing else is
    lost beyond its margin.

    Example: evenhand compare runs/default runs/high_capacity --on test
    """
    from evenhand.core.paths import write_json, write_text
    from evenhand.experiment.accepting import accept_runs
    from evenhand.experiment.comparing import compare_runs
    from evenhand.experiment.reporting import refuse_file
    from evenhand.report.mitigations import outcome_table, render_acceptance
    from evenhand.report.paired import comparison_document, render_comparison
    from evenhand.report.wording import terminal

    if out is not None:
        refuse_file(out)
    settings = {
        "groups": group or None,
        "functional": functional,
        "f1_margin": f1_margin,
        "group_margin": group_margin,
        "target_fnr_margin": target_fnr_margin,
        "functional_margin": functional_margin,
        "at_recall": at_recall,
        "fitted_on": fitted_on,
        "alpha": alpha,
    }
    rule = _rule(on, settings, accept=accept, has_control=bool(control))
    found = _open(runs)
    untreated = _control(control or [], runs)
    accepted = None if rule is None else accept_runs(found, control=untreated, rule=rule)
    comparison = compare_runs(found, on=on, control=untreated)
    summary = _summary(found, comparison)
    document = comparison_document(summary, comparison)
    text = render_comparison(summary, comparison)
    if accepted is not None:
        document["acceptance"] = [one.model_dump(mode="json") for one in accepted]
        parts = [text, "## Acceptance", outcome_table(accepted), *map(render_acceptance, accepted)]
        text = "\n\n".join(parts)
    if out is not None:
        write_json(out / "paired.json", document)
        write_text(out / "paired.md", f"{text}\n")
    if as_json:
        print_json(document)
    else:
        typer.echo(terminal(text))


def _rule(
    on: str, settings: Mapping[str, Any], *, accept: bool, has_control: bool
) -> AcceptanceConfig | None:
    """Return by what rule runs are accepted; None where that was not asked for."""
    from pydantic import ValidationError

    from evenhand.config.checking import found_problem
    from evenhand.config.experiment_schema import AcceptanceConfig
    from evenhand.core.errors import ConfigError, Problem

    given = {key: value for key, value in settings.items() if value is not None}
    options = {key: f"--{key.replace('_', '-').removesuffix('s')}" for key in settings}
    problems = []
    rule = None
    if not accept:
        problems = [Problem(options[key], "needs --accept") for key in given]
    elif not has_control:
        problems = [Problem("--accept", "needs --control: the untreated run")]
    elif ("at_recall" in given) != ("fitted_on" in given):
        problems = [Problem("--at-recall", "goes with --fitted-on, the set of the thresholds")]
    if accept:
        try:
            rule = AcceptanceConfig(set=on, **given)
        except ValidationError as error:
            found = [found_problem(one, AcceptanceConfig) for one in error.errors()]
            problems += [
                Problem(options[one.place.partition("[")[0]], one.message) for one in found
            ]
    if problems:
        raise ConfigError("the command", problems, consequence="nothing was compared")
    return rule


def _control(control: list[Path], runs: list[Path]) -> list[str]:
    """Return the names of the control's runs, each given as its folder or by its name."""
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.core.registry import suggest

    names = [path.resolve().name for path in runs]
    problems = [
        Problem("--control", f"{path} is not among the runs{suggest(path.resolve().name, names)}")
        for path in control
        if path.resolve().name not in names
    ]
    if problems:
        raise ConfigError("the command", problems, consequence="nothing was compared")
    return [path.resolve().name for path in control]


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

"""``evenhand gate``: a run against criteria for deployment."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from evenhand.core.decisions import Deployment, GateVerdict
    from evenhand.core.errors import ConfigError


class Decisions(StrEnum):
    """Which decisions are judged."""

    AUTO = "auto"
    DEFAULT = "default"


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, trained or imported.")],
    on: Annotated[str, typer.Option(help="The evaluation that decides, by name.")],
    criteria: Annotated[
        str, typer.Option(help='"default", "reference", or a JSON file with criteria.')
    ] = "default",
    reference_run: Annotated[
        Path | None,
        typer.Option(help="The run whose evaluations the criteria refer to; else RUN itself."),
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help='The evaluation that criteria call "validation", by name.')
    ] = None,
    threshold: Annotated[
        Decisions,
        typer.Option(help="Judge at RUN's tuned threshold, or the decisions as they are."),
    ] = Decisions.AUTO,
    as_json: JsonFlag = False,
) -> int:
    """Judge a run: PASS, PASS WITH CONDITIONS (exit 0), REVIEW (3) or FAIL (4).

    Required criteria that a constant answer meets are an error (2). Writes gate.json and
    deployment.json to RUN.

    Example: evenhand gate runs/high_capacity --on production --criteria default
    """
    from evenhand.config.criteria import load_criteria
    from evenhand.experiment.deciding import judge_run
    from evenhand.experiment.results import open_results
    from evenhand.experiment.runs import hold
    from evenhand.finetune.processes import World

    found = open_results(run)
    asked = load_criteria(criteria)
    reference = None if reference_run is None else open_results(reference_run)
    with hold(run, world=World()):
        verdict, deployment = judge_run(
            found,
            on=on,
            criteria=asked,
            reference_run=reference,
            validation=validation,
            threshold=threshold.value,
        )
    if as_json:
        print_json(
            {
                "verdict": verdict.model_dump(mode="json"),
                "deployment": deployment.model_dump(mode="json"),
            }
        )
    else:
        typer.echo(_render(verdict, deployment))
    if verdict.vacuous:
        raise _vacuous(verdict)
    return verdict.exit_code


def _render(verdict: GateVerdict, deployment: Deployment) -> str:
    from evenhand.report.decided import (
        deployment_facts,
        gate_table,
        gate_warnings,
        outcome_words,
    )
    from evenhand.report.wording import cell, counted, terminal

    at = "" if verdict.threshold is None else f", at the threshold {verdict.threshold:g}"
    without = verdict.n - verdict.n_scored
    missing = f", {without:,} of them without an answer" if without else ""
    facts = "\n".join(f"{name}: {value}" for name, value in deployment_facts(deployment, verdict))
    return terminal(
        "\n\n".join(
            [
                f"{cell(verdict.set)} ({counted(verdict.n, 'row')}{missing}) by the criteria "
                f"{cell(verdict.criteria_name)}{at}",
                gate_table(verdict),
                f"Verdict: {cell(outcome_words(verdict))}",
                facts,
                *gate_warnings(verdict),
            ]
        )
    )


def _vacuous(verdict: GateVerdict) -> ConfigError:
    """The error of a gate whose required criteria a constant meets, with the constant's figures."""
    from evenhand.core.errors import ConfigError, Problem

    required = [one for one in verdict.results if one.role == "required"]
    problems = []
    for name in verdict.vacuous:
        word = name.removeprefix("always_")
        figures = ", ".join(f"{one.name}: {one.constants[name]:.4f}" for one in required)
        message = f'answering "{word}" always meets every required criterion ({figures})'
        problems.append(Problem(name, message))
    return ConfigError(
        f"the criteria {verdict.criteria_name}",
        problems,
        hint="add a required criterion that it does not meet: a bound on FPR beside one on recall, "
        "or F1 against the baseline always_hate; `--criteria default` has these",
        consequence="gate.json says so, and nothing is approved",
    )

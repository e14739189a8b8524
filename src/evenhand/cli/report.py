"""``evenhand report``: the summary of runs that are finished."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeGuard, get_args

import typer

from evenhand.cli.options import JsonFlag, OutFolder, key_values, print_json

if TYPE_CHECKING:
    from evenhand.core.errors import Problem
    from evenhand.decide.audit.inputs import Role
    from evenhand.experiment.results import Results


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN ...", help="Run folders, trained or imported.")
    ],
    out: OutFolder,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ROLE",
            help="What an evaluation set is for: train, validation, test or production; a set of "
            "such a name needs none. Repeatable.",
        ),
    ] = None,
    chosen: Annotated[
        str | None, typer.Option(metavar="RUN", help="The run that was chosen, by its name.")
    ] = None,
    include_posts: Annotated[
        bool,
        typer.Option("--include-posts", help="Show the posts of the errors, not their ids alone."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write what is known of runs: summary.md, summary.html with plots, comparison.json.

    The page is one file without outside parts. Posts are left out unless they are asked for.

    Example: evenhand report runs/default runs/high_capacity --out report --role test=production
    """
    import shlex
    import sys

    from evenhand.config.files import shown
    from evenhand.experiment.reporting import refuse_file, report_on, write_report
    from evenhand.report.summary import comparison_table, render_digest

    refuse_file(out)
    found, roles = _checked(runs, dict(key_values(role, "--role")), chosen)
    summary = report_on(
        found,
        roles=roles,
        chosen=chosen,
        include_posts=include_posts,
        command=shlex.join(["evenhand", *sys.argv[1:]]),
        warn=lambda note: typer.echo(f"warning: {note}", err=True),
    )
    path = write_report(summary, out)
    if as_json:
        print_json(comparison_table(summary))
    else:
        typer.echo(render_digest(summary))
        typer.echo(f"summary: {shown(path)}")
        typer.echo(f"page: {shown(path.with_suffix('.html'))}")


def _checked(
    paths: list[Path], roles: dict[str, str], chosen: str | None
) -> tuple[list[Results], dict[str, Role]]:
    """Open the runs; folders' names stand for them, so they must differ."""
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.core.registry import suggest
    from evenhand.experiment.results import open_results

    names = [path.resolve().name for path in paths]
    problems = [
        Problem("RUN", f'two folders are called "{name}"; rename one, tables go by the name')
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if chosen is not None and chosen not in names:
        problems.append(
            Problem("--chosen", f'"{chosen}" is none of the runs{suggest(chosen, names)}')
        )
    if problems:
        raise ConfigError("the command", problems, consequence="nothing was written")
    found = [open_results(path) for path in paths]
    problems = [
        Problem(str(one.path), "has no evaluation; run `evenhand evaluate` first")
        for one in found
        if not one.evaluation_names
    ]
    problems += _role_problems(found, roles)
    if problems:
        raise ConfigError("the command", problems, consequence="nothing was written")
    return found, {name: role for name, role in roles.items() if _is_role(role)}


def _is_role(word: str) -> TypeGuard[Role]:
    from evenhand.decide.audit.inputs import Role

    return word in get_args(Role)


def _role_problems(found: list[Results], roles: dict[str, str]) -> list[Problem]:
    from evenhand.core.errors import Problem
    from evenhand.core.registry import suggest
    from evenhand.decide.audit.inputs import Role

    known = get_args(Role)
    sets = sorted({name for one in found for name in one.evaluation_names})
    problems = []
    for name, role in roles.items():
        if name not in sets:
            message = f'no run has an evaluation "{name}"{suggest(name, sets)}'
            problems.append(Problem("--role", message))
        if not _is_role(role):
            message = f'"{role}" is no role{suggest(role, known)}; roles are {", ".join(known)}'
            problems.append(Problem("--role", message))
    return problems

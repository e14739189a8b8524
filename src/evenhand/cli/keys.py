"""``evenhand keys``: the callers' API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from evenhand.cli.databases import DatabaseUrl, RunOption, moment, now, opened_database
from evenhand.cli.options import JsonFlag, print_json

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Make, list and revoke the callers' API keys.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The caller's name.")]


@app.command("add")
def add_command(
    name: Name, run: RunOption = None, database: DatabaseUrl = None, as_json: JsonFlag = False
) -> None:
    """Make a key for a caller and print it, once: only its hash is stored.

    Example: evenhand keys add forum --run runs/high_capacity
    """
    from evenhand.watch.store.keys import add_key

    with opened_database(run, database, make=True) as opened, opened.session() as session:
        key = add_key(session, name, now=now())
    if as_json:
        print_json({"name": name, "key": key})
        return
    typer.echo(key)
    typer.echo(
        f'The key of "{name}". It cannot be shown again; callers send it as '
        '"Authorization: Bearer KEY".',
        err=True,
    )


@app.command("list")
def list_command(
    run: RunOption = None, database: DatabaseUrl = None, as_json: JsonFlag = False
) -> None:
    """List the callers' keys by name, revoked ones included.

    Example: evenhand keys list --run runs/high_capacity
    """
    from evenhand.report.wording import table, terminal
    from evenhand.watch.store.keys import list_keys

    with opened_database(run, database) as opened, opened.reading() as session:
        keys = list_keys(session)
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "created": _iso(one.created),
                    "revoked": _iso(one.revoked),
                }
                for one in keys
            ]
        )
        return
    if not keys:
        typer.echo("There are no keys. `evenhand keys add NAME` makes one.")
        return
    rows = [(one.name, moment(one.created), moment(one.revoked)) for one in keys]
    typer.echo(terminal(table(("Name", "Made (UTC)", "Revoked (UTC)"), rows)))


@app.command("revoke")
def revoke_command(
    name: Name, run: RunOption = None, database: DatabaseUrl = None, as_json: JsonFlag = False
) -> None:
    """Make a caller's key invalid for good; running servers refuse it within seconds.

    Example: evenhand keys revoke forum --run runs/high_capacity
    """
    from evenhand.watch.store.keys import revoke_key

    with opened_database(run, database) as opened, opened.session() as session:
        revoked = revoke_key(session, name, now=now())
    if as_json:
        print_json({"name": revoked.name, "revoked": _iso(revoked.revoked)})
        return
    typer.echo(f'The key of "{revoked.name}" is revoked.')


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()

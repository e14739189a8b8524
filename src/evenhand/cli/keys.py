"""``evenhand keys``: the callers' API keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Make, list and revoke the callers' API keys.",
)

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database", metavar="URL", help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="RUN", help="Use the run's own database, production.sqlite."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The caller's name.")]


@app.command("add")
def add_command(
    name: Name, database: DatabaseUrl = None, run: RunOption = None, as_json: JsonFlag = False
) -> None:
    """Make a key for a caller and print it, once: only its hash is stored.

    Example: evenhand keys add forum --run runs/high_capacity
    """
    from evenhand.watch.store.keys import add_key

    with _session(database, run) as session:
        key = add_key(session, name, now=datetime.now(UTC))
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
    database: DatabaseUrl = None, run: RunOption = None, as_json: JsonFlag = False
) -> None:
    """List the callers' keys by name, revoked ones included.

    Example: evenhand keys list --run runs/high_capacity
    """
    from evenhand.report.wording import table, terminal
    from evenhand.watch.store.keys import list_keys

    with _session(database, run) as session:
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
    rows = [(one.name, _moment(one.created), _moment(one.revoked)) for one in keys]
    typer.echo(terminal(table(("name", "made (UTC)", "revoked (UTC)"), rows)))


@app.command("revoke")
def revoke_command(
    name: Name, database: DatabaseUrl = None, run: RunOption = None, as_json: JsonFlag = False
) -> None:
    """Make a caller's key invalid for good; running servers refuse it within seconds.

    Example: evenhand keys revoke forum --run runs/high_capacity
    """
    from evenhand.watch.store.keys import revoke_key

    with _session(database, run) as session:
        revoked = revoke_key(session, name, now=datetime.now(UTC))
    if as_json:
        print_json({"name": revoked.name, "revoked": _iso(revoked.revoked)})
        return
    typer.echo(f'The key of "{revoked.name}" is revoked.')


@contextlib.contextmanager
def _session(database: str | None, run: Path | None) -> Iterator[Session]:
    """Yield a session on the database that the options name, exactly one of them."""
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.watch.store.database import default_url, open_database

    if (database is None) == (run is None):
        message = "give one of them: the database's URL, or the run whose own database is meant"
        raise ConfigError("the command", [Problem("--database, --run", message)])
    if run is not None and not run.is_dir():
        raise ConfigError("the command", [Problem("--run", f'"{run}" is no folder')])
    opened = open_database(default_url(run) if run is not None else str(database))
    try:
        with opened.session() as session:
            yield session
    finally:
        opened.close()


def _moment(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()

"""``evenhand review``: reviewers, golden items, the queue's exchange with Label Studio."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.databases import DatabaseUrl, RunOption, moment, now, opened_database
from evenhand.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from evenhand.watch.reviewing.settling import Act
    from evenhand.watch.store.tables import UserRow

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Manage reviewers and the review queue.",
)
user_app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Add, list and deactivate reviewers and admins.",
)
app.add_typer(user_app, name="user")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The person's name for logging in.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from stdin, one line.")
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Make a password and print it, this once.")
]


class Role(StrEnum):
    """What a person may do."""

    REVIEWER = "reviewer"
    ADMIN = "admin"


@user_app.command("add")
def add_command(
    name: Name,
    role: Annotated[Role, typer.Option(help="Admins adjudicate and see agreement as well.")],
    password_stdin: PasswordStdin = False,
    generate: Generate = False,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a reviewer or an admin; asks for a password of 12 characters or more.

    Example: evenhand review user add anna --role reviewer --generate --run runs/high_capacity
    """
    from evenhand.watch.reviewing.users import add_user

    with opened_database(run, database, make=True) as opened:
        password = _password(stdin=password_stdin, generate=generate)
        with opened.session() as session:
            user = add_user(session, name, role=role.value, password=password, now=now())
            shown = _user(user)
    _tell_user(shown, password if generate else None, as_json=as_json, done="added")


@user_app.command("list")
def list_command(
    run: RunOption = None, database: DatabaseUrl = None, as_json: JsonFlag = False
) -> None:
    """List reviewers and admins with their pseudonyms.

    Example: evenhand review user list --run runs/high_capacity
    """
    from evenhand.report.wording import table, terminal
    from evenhand.watch.reviewing.users import list_users

    with opened_database(run, database) as opened, opened.reading() as session:
        users = [_user(user) for user in list_users(session)]
    if as_json:
        print_json({"users": users})
        return
    if not users:
        typer.echo("There is nobody yet. `evenhand review user add NAME --role admin` adds one.")
        return
    header = ("Name", "Role", "Pseudonym", "State")
    rows = [
        (one["name"], one["role"], one["pseudonym"], "active" if one["active"] else "deactivated")
        for one in users
    ]
    typer.echo(terminal(table(header, rows)))


@user_app.command("deactivate")
def deactivate_command(
    name: Name,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """End a person's access; what they did stays in the history.

    Example: evenhand review user deactivate anna --run runs/high_capacity
    """
    from evenhand.watch.reviewing.users import deactivate

    with opened_database(run, database) as opened, opened.session() as session:
        shown = _user(deactivate(session, name, now=now()))
    _tell_user(shown, None, as_json=as_json, done="deactivated")


@user_app.command("password")
def password_command(
    name: Name,
    password_stdin: PasswordStdin = False,
    generate: Generate = False,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Set a person's password and end their logins.

    Example: evenhand review user password anna --generate --run runs/high_capacity
    """
    from evenhand.watch.reviewing.users import find_user, set_password

    with opened_database(run, database) as opened:
        with opened.reading() as session:
            find_user(session, name)
        password = _password(stdin=password_stdin, generate=generate)
        with opened.session() as session:
            user = find_user(session, name)
            set_password(session, user, password, now=now())
            shown = _user(user)
    _tell_user(shown, password if generate else None, as_json=as_json, done="has a new password")


@app.command("golden")
def golden_command(
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled posts, in any format that is read; else the starter corpus."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Take so many, spread over groups and labels; else 60, or FILE."),
    ] = None,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Add posts with known answers, which are mixed into every reviewer's queue unseen.

    Example: evenhand review golden --data checked.jsonl --run runs/high_capacity
    """
    from evenhand.core.seeding import rng_for
    from evenhand.data.sources import read_dataset
    from evenhand.watch.reviewing.golden import (
        STARTER_COUNT,
        add_golden,
        choose_golden,
        starter_rows,
    )

    rows = starter_rows() if data is None else read_dataset(data).rows
    wanted = count or (STARTER_COUNT if data is None else len(rows))
    chosen = choose_golden(rows, count=wanted, rng=rng_for(0, "golden"))
    with opened_database(run, database, make=True) as opened, opened.session() as session:
        result = add_golden(session, chosen, now=now())
    if as_json:
        print_json({"added": result.added, "already": result.already})
        return
    typer.echo(f"{result.added:,} golden items added, {result.already:,} were there already")


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSON file to write.")],
    config_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the labelling configuration (XML) here as well."),
    ] = None,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the queue as Label Studio tasks: WITH the posts' texts, reviewers by pseudonym.

    A later deletion of a post does not reach the file: keep it no longer than you need it.

    Example: evenhand review export --out queue.json --run runs/high_capacity
    """
    from evenhand.core.paths import write_json, write_text
    from evenhand.watch.reviewing.labelstudio import export_tasks, labelling_config, watched_groups

    with opened_database(run, database) as opened, opened.reading() as session:
        tasks, groups = export_tasks(session), watched_groups(session)
    write_json(out, tasks)
    if config_out is not None:
        write_text(config_out, labelling_config(groups))
    reviews = sum(len(task["annotations"]) for task in tasks)
    if as_json:
        print_json({"out": str(out), "tasks": len(tasks), "annotations": reviews})
        return
    typer.echo(f"{out}: {len(tasks):,} tasks with {reviews:,} annotations; it holds posts' texts")


@app.command("import")
def import_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Label Studio's export: JSON or JSON_MIN.")
    ],
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Whose reviews they are.")],
    annotator: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Take this annotator's alone: an id or e-mail address."),
    ] = None,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Add annotations as a person's reviews; done twice it adds nothing.

    Example: evenhand review import labelled.json --user anna --run runs/high_capacity
    """
    from dataclasses import asdict

    from evenhand.watch.reviewing.annotations import read_annotations
    from evenhand.watch.reviewing.labelstudio import import_annotations
    from evenhand.watch.reviewing.users import find_user

    read = read_annotations(file, annotator=annotator)
    with opened_database(run, database) as opened, opened.session() as session:
        result = import_annotations(session, read, find_user(session, user), now=now())
    counts = asdict(result)
    if as_json:
        print_json(counts)
        return
    words = {
        "added": "added as reviews",
        "already": "there already",
        "settled": "left out: settled by others meanwhile",
        "erased": "left out: the text was erased meanwhile",
        "cancelled": "left out: skipped in Label Studio",
        "ours": "left out: exported from here",
        "others": "left out: by other annotators",
    }
    for name, count in counts.items():
        if count or name == "added":
            typer.echo(f"{count:,} {words[name]}")


@app.command("history")
def history_command(
    limit: Annotated[int, typer.Option(min=1, help="The latest so many acts.")] = 100,
    item: Annotated[int | None, typer.Option(help="Of this item alone.")] = None,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what was labelled, skipped, undone and adjudicated: by pseudonym, without posts.

    Example: evenhand review history --limit 20 --run runs/high_capacity
    """
    from evenhand.watch.reviewing.acts import history

    with opened_database(run, database) as opened, opened.reading() as session:
        acts = history(session, item_id=item, limit=limit)
    if as_json:
        print_json({"acts": [_act(act) for act in acts]})
        return
    if not acts:
        typer.echo("Nothing was done yet." if item is None else f"Nothing was done to item {item}.")
    from evenhand.report.wording import cell, terminal

    for act in acts:
        said = " ".join([act.label or "", ", ".join(act.groups or ())]).strip()
        because = act.rationale or act.reason
        parts = [
            moment(act.time),
            act.reviewer,
            f"item {act.item_id}",
            act.action + (" (undone)" if act.is_undone else ""),
            cell(said),
            "" if because is None else f'"{cell(because)}"',
        ]
        typer.echo(terminal("  ".join(part for part in parts if part)))


def _password(*, stdin: bool, generate: bool) -> str:
    """Return a password: made, read, or asked for twice without showing it."""
    import sys

    from evenhand.core.errors import ConfigError, Problem

    problem = None
    if stdin and generate:
        problem = Problem("--generate", "does not go with --password-stdin")
    elif not (stdin or generate or sys.stdin.isatty()):
        message = "there is no terminal to ask for one: give --password-stdin or --generate"
        problem = Problem("password", message)
    if problem is not None:
        raise ConfigError("the command", [problem])
    if generate:
        import secrets

        return secrets.token_urlsafe(15)
    if stdin:
        return typer.get_text_stream("stdin").readline().rstrip("\r\n")
    return typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)


def _tell_user(user: dict[str, Any], password: str | None, *, as_json: bool, done: str) -> None:
    if as_json:
        print_json(user if password is None else {**user, "password": password})
        return
    typer.echo(f"{user['name']} ({user['role']}, {user['pseudonym']}) {done}")
    if password is not None:
        typer.echo(f"password: {password}")
        typer.echo("it is shown this once; pass it on by a safe way", err=True)


def _user(user: UserRow) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "pseudonym": user.pseudonym,
        "active": user.is_active,
        "opted_out": list(user.opted_out),
        "created": user.created.isoformat(),
    }


def _act(act: Act) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(act), "time": act.time.isoformat()}

"""``evenhand watch``: production's error rates and alarms, retuning, deletion, export."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.databases import DatabaseUrl, RunOption, now, opened_database
from evenhand.cli.options import JsonFlag, print_json

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="See how a release does in production, retune its threshold, delete and export.",
)

ALARMS_OPEN = 3
"""The exit code of ``check --enforce`` where an alarm is open."""

ReleaseId = Annotated[
    str | None,
    typer.Option(
        "--release",
        metavar="ID",
        help="The beginning of a release's id; else the one started last.",
    ),
]


class Maximise(StrEnum):
    """What the allowed thresholds compete on."""

    F1 = "f1"
    RECALL = "recall"


@app.command("status")
def status_command(
    run: RunOption = None,
    database: DatabaseUrl = None,
    release: ReleaseId = None,
    as_json: JsonFlag = False,
) -> None:
    """Show error rates, alarms, duties, traffic and budget; writes nothing.

    Example: evenhand watch status --run runs/high_capacity
    """
    from evenhand.cli.watch_tables import report_document, report_text
    from evenhand.watch.monitor import read_report
    from evenhand.watch.store.served import find_served

    with opened_database(run, database) as opened:
        served = find_served(opened, release)
        report = read_report(opened, served.release_id, served.settings, now=now())
    if as_json:
        print_json(report_document(report))
    else:
        typer.echo(report_text(report))


@app.command("check")
def check_command(
    run: RunOption = None,
    database: DatabaseUrl = None,
    release: ReleaseId = None,
    enforce: Annotated[
        bool, typer.Option("--enforce", help=f"Exit {ALARMS_OPEN} where an alarm is open.")
    ] = False,
    as_json: JsonFlag = False,
) -> int:
    """Bring estimates and alarms up to date once, erase what is due, and show the alarms.

    A running server does this by itself every minute.

    Example: evenhand watch check --run runs/high_capacity --enforce
    """
    from evenhand.cli.watch_tables import alarms_text, report_document
    from evenhand.watch.monitor import check
    from evenhand.watch.store.served import find_served

    with opened_database(run, database) as opened:
        served = find_served(opened, release)
        report = check(opened, served.release_id, served.settings, now=now())
    if as_json:
        print_json(report_document(report))
    else:
        typer.echo(alarms_text(report.alarms))
    return ALARMS_OPEN if enforce and report.alarms else 0


@app.command("alarms")
def alarms_command(
    run: RunOption = None,
    database: DatabaseUrl = None,
    release: ReleaseId = None,
    with_closed: Annotated[bool, typer.Option("--all", help="Closed alarms as well.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the open alarms of a release, the latest first.

    Example: evenhand watch alarms --run runs/high_capacity --all
    """
    from evenhand.cli.watch_tables import alarm_document, alarms_text
    from evenhand.watch.alarm_book import read_alarms
    from evenhand.watch.store.served import read_served

    with opened_database(run, database) as opened, opened.reading() as session:
        served = read_served(session, release)
        alarms = read_alarms(session, served.release_id, with_closed=with_closed)
    if as_json:
        print_json([alarm_document(one) for one in alarms])
    else:
        typer.echo(alarms_text(alarms))


@app.command("close")
def close_command(
    alarm: Annotated[int, typer.Argument(metavar="ID", help="The alarm's number.")],
    reason: Annotated[str, typer.Option(help="Why it may be closed; kept with it.")],
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Close an alarm; the posts that it rested on do not count again.

    Example: evenhand watch close 3 --reason "threshold retuned" --run runs/high_capacity
    """
    from evenhand.watch.alarm_book import close_alarm

    with opened_database(run, database) as opened, opened.session() as session:
        close_alarm(session, alarm, reason=reason, now=now())
    if as_json:
        print_json({"closed": alarm})
    else:
        typer.echo(f"Alarm {alarm} is closed.")


@app.command("retune")
def retune_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run that is served.")],
    on: Annotated[str, typer.Option(help="The evaluation that the gate judges on, by name.")],
    criteria: Annotated[
        str, typer.Option(help='"default", "reference", or a JSON file with criteria.')
    ] = "default",
    database: DatabaseUrl = None,
    release: ReleaseId = None,
    maximise: Annotated[
        Maximise | None, typer.Option(help="What the allowed thresholds compete on.")
    ] = None,
    max_group_fpr: Annotated[
        float | None, typer.Option(help="Highest FPR of any watched group, 0.30 for example.")
    ] = None,
    max_fpr_gap: Annotated[
        float | None, typer.Option(help="Highest excess of a group's FPR over the other posts.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="How sure the limits are to hold on new posts.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"],
            help="Only posts answered from this time on (UTC): since traffic changed, say.",
        ),
    ] = None,
    fit_share: Annotated[
        float, typer.Option(help="Fit on this share of the reviewed posts, report on the rest.")
    ] = 0.5,
    validation: Annotated[
        str | None, typer.Option(help='The evaluation that criteria call "validation", by name.')
    ] = None,
    accept_review: Annotated[
        bool, typer.Option("--accept-review", help="Replace the threshold on a REVIEW too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the split and of the bootstrap.")] = 0,
    as_json: JsonFlag = False,
) -> int:
    """Re-fit the threshold on reviewed posts; it replaces the old one if it passes the gate.

    What options leave out is as in RUN's threshold.json. Exits 0 where the threshold was replaced,
    3 for a REVIEW, 4 for a FAIL or where no threshold keeps the limits; then nothing was replaced.
    Writes RUN/retune.json in each case; old decisions go to RUN/history.

    Example: evenhand watch retune runs/high_capacity --on production --max-group-fpr 0.3
    """
    from evenhand.cli.watch_tables import retuned_text
    from evenhand.config.criteria import load_criteria
    from evenhand.experiment.results import open_results
    from evenhand.experiment.retuning import RetuneOptions, document, retune
    from evenhand.experiment.runs import hold
    from evenhand.finetune.processes import World

    asked, time = load_criteria(criteria), now()
    open_results(run)  # else the lock would make the folder of a mistyped name
    options = RetuneOptions(
        maximise=None if maximise is None else maximise.value,
        max_group_fpr=max_group_fpr,
        max_fpr_gap=max_fpr_gap,
        confidence=confidence,
        since=None if since is None else since.replace(tzinfo=UTC),
        fit_share=fit_share,
        seed=seed,
        validation=validation,
        accept_review=accept_review,
    )
    own = run if database is None else None
    with opened_database(own, database) as opened, hold(run, world=World()):
        retuned = retune(
            run, opened, release_id=release, on=on, criteria=asked, options=options, now=time
        )
    if as_json:
        print_json(document(retuned, now=time))
    else:
        typer.echo(retuned_text(retuned, run))
    return retuned.exit_code


@app.command("delete")
def delete_command(
    post: Annotated[
        list[str] | None, typer.Option("--post", metavar="ID", help="A post_id that was answered.")
    ] = None,
    caller_id: Annotated[
        list[str] | None,
        typer.Option("--caller-id", metavar="ID", help="The caller's own id of a post."),
    ] = None,
    run: RunOption = None,
    database: DatabaseUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete posts from the database, the review queue and the history; ids may be repeated.

    Exports and backups made before are out of reach.

    Example: evenhand watch delete --caller-id 4711 --run runs/high_capacity
    """
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.report.wording import counted, listed
    from evenhand.watch.store.erasing import delete_posts

    if not post and not caller_id:
        raise ConfigError("the command", [Problem("--post, --caller-id", "name at least one post")])
    with opened_database(run, database) as opened, opened.session() as session:
        deleted = delete_posts(session, post_ids=post or (), caller_ids=caller_id or (), now=now())
    if as_json:
        print_json(
            {
                "posts": deleted.posts,
                "items": deleted.items,
                "reviews": deleted.reviews,
                "unknown": list(deleted.unknown),
            }
        )
        return
    kept = "; of those in the review sample, weight and label stay" if deleted.items else ""
    typer.echo(
        f"Deleted {counted(deleted.posts, 'post')}{kept}. Exports and backups made before are out "
        "of reach."
    )
    if deleted.unknown:
        typer.echo(f"warning: no post has the id {listed(deleted.unknown)}", err=True)


@app.command("purge")
def purge_command(
    run: RunOption = None, database: DatabaseUrl = None, as_json: JsonFlag = False
) -> None:
    """Erase the texts whose retention has passed, now; a running server does it by itself.

    Example: evenhand watch purge --run runs/high_capacity
    """
    from evenhand.report.wording import counted
    from evenhand.watch.store.erasing import erase_due

    with opened_database(run, database) as opened, opened.session() as session:
        erased = erase_due(session, now=now())
    if as_json:
        print_json({"erased": erased})
    else:
        typer.echo(f"Erased the text of {counted(erased, 'post')}.")


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Option(help="A file that ends in .csv, .jsonl or .parquet.")],
    run: RunOption = None,
    database: DatabaseUrl = None,
    release: ReleaseId = None,
    include_posts: Annotated[
        bool, typer.Option("--include-posts", help="With kept texts, rationales and reasons.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a release's decisions with weights and labels; reviewers stand in it by pseudonym.

    Example: evenhand watch export --out decisions.parquet --run runs/high_capacity
    """
    from evenhand.report.wording import counted
    from evenhand.watch.store.exporting import export_decisions
    from evenhand.watch.store.served import read_served

    with opened_database(run, database) as opened, opened.reading() as session:
        served = read_served(session, release)
        count = export_decisions(
            session, out, release_id=served.release_id, include_posts=include_posts
        )
    if as_json:
        print_json({"out": str(out), "posts": count, "release": served.release_id})
        return
    typer.echo(f"Wrote {counted(count, 'decision')} to {out}.")
    typer.echo(
        "note: deletions by id do not reach this file; delete it when it is no longer needed.",
        err=True,
    )

"""``evenhand serve``: the model that passed the gate, its records and its reviews."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.databases import now
from evenhand.cli.options import JsonFlag, Overrides, print_json

if TYPE_CHECKING:
    from evenhand.experiment.releasing.release import PreparedRelease
    from evenhand.watch.store.database import Database


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a trained phase.")],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen at.")] = 8000,
    settings: Annotated[
        Path | None,
        typer.Option(help="Settings as JSON; `evenhand explain production` lists them."),
    ] = None,
    overrides: Overrides = None,
    database: Annotated[
        str | None, typer.Option(help="Database URL; else RUN/production.sqlite.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Start in spite of this problem; repeatable."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; needed with --accept, and recorded.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Verify and prove, print it, and serve nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Serve a model: POST /v1/classify and /v1/moderations, reviews at /review.

    It starts only where gate, threshold, prompt, adapter and base model belong together and golden
    rows get their offline scores again; `--accept CODE --reason TEXT` overrides a problem by name,
    which is recorded in the database and in RUN/serving.jsonl.

    Example: evenhand serve runs/high_capacity --port 8000
    """
    import os
    from contextlib import closing

    import numpy as np

    from evenhand.config.production import load_production
    from evenhand.experiment.releasing.address import check_exposure, is_loopback
    from evenhand.experiment.releasing.problems import Acceptance, check_acceptance
    from evenhand.experiment.releasing.release import prepare_release, record_start
    from evenhand.experiment.releasing.verify import check_run
    from evenhand.serve.app import create_app
    from evenhand.serve.running import bind, serve_forever
    from evenhand.serve.service import Service
    from evenhand.watch.store.database import default_url, open_database
    from evenhand.watch.store.intake import Intake
    from evenhand.watch.store.keys import KeyRing
    from evenhand.watch.store.proposer import load_proposer
    from evenhand.watch.store.texts import read_text_key

    config = load_production(settings, overrides=overrides or ())
    acceptance = Acceptance(tuple(accept or ()), reason)
    check_acceptance(acceptance)
    tolerance = config.serve.golden_tolerance
    if check:
        prepared = prepare_release(run, acceptance=acceptance, tolerance=tolerance)
        _tell(prepared, None, as_json=as_json)
        return
    check_run(run)
    text_key = read_text_key(config.watch, os.environ)
    proposer = load_proposer(config.watch.proposer, config.watch.groups)
    url = default_url(run) if database is None else database
    # The address is taken before a model is loaded for it.
    with bind(host, port) as taken, closing(open_database(url)) as opened:
        check_exposure(host, has_keys=not KeyRing(opened).is_empty, database=opened.shown)
        prepared = prepare_release(run, acceptance=acceptance, tolerance=tolerance)
        shown = f"[{host}]" if ":" in host else host
        where = f"http://{shown}:{taken.getsockname()[1]}"
        intake = Intake(
            opened,
            prepared.release,
            config,
            proposer,
            rng=np.random.default_rng(),
            text_key=text_key,
        )
        service = Service(
            release=prepared.release,
            scorer=prepared.scorer,
            database=opened,
            intake=intake,
            readiness=prepared.readiness,
            keyless=is_loopback(host),
        )
        app = create_app(service, config)
        started = now()
        record_start(prepared, now=started, where=where, database=opened.shown)
        intake.start(started, reference=prepared.reference, versions=prepared.versions)
        _tell(prepared, where, as_json=as_json)
        _tell_who_reviews(opened, config.watch.text)
        serve_forever(app, taken, settings=config)


def _tell(prepared: PreparedRelease, where: str | None, *, as_json: bool) -> None:
    """Say what is served and what was proved; warnings go to stderr, loudly."""
    from evenhand.experiment.releasing.describe import describe_release, render_release, warnings_of

    for line in warnings_of(prepared.release):
        typer.echo(f"WARNING: {line}", err=True)
    if as_json:
        print_json(describe_release(prepared, where))
    else:
        typer.echo(render_release(prepared, where))


def _tell_who_reviews(opened: Database, text: str) -> None:
    """Say what is missing before anybody can review; the server starts all the same."""
    from evenhand.watch.reviewing.users import list_users

    if text != "keep":
        lacking = f'watch.text is "{text}": nothing can be reviewed, so no error rate will be known'
    else:
        with opened.reading() as session:
            if any(one.is_active for one in list_users(session)):
                return
        lacking = (
            "nobody can log in to review yet: evenhand review user add NAME --role admin "
            f"--database {opened.shown}"
        )
    typer.echo(f"NOTE: {lacking}", err=True)

"""``evenhand score``: posts of any number, in shards that survive any interruption."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.options import Columns, JsonFlag, OutFolder, column_map, print_json


class EngineName(StrEnum):
    """Who does the work."""

    LOCAL = "local"
    ACCELERATE = "accelerate"
    RAY = "ray"


class FormatName(StrEnum):
    """The form of the scores of all rows."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


def command(
    posts: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Posts: CSV, JSON lines or Parquet.")
    ],
    run: Annotated[Path, typer.Option("--run", help="The folder of a trained phase.")],
    out: OutFolder,
    engine: Annotated[
        EngineName,
        typer.Option(help="One process; a launcher's processes; or a Ray cluster."),
    ] = EngineName.LOCAL,
    column: Columns = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Decide hate from this score on; else the tuned one."),
    ] = None,
    shard_rows: Annotated[
        int, typer.Option(min=1, help="Rows that are scored and written as one unit.")
    ] = 2048,
    include_text: Annotated[
        bool, typer.Option("--include-text", help="Write the posts beside their scores.")
    ] = False,
    output_format: Annotated[
        FormatName, typer.Option(help="The form of the scores of all rows.")
    ] = FormatName.PARQUET,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray actors; one a GPU, or one, by default.")
    ] = None,
    as_json: JsonFlag = False,
) -> int | None:
    """Score posts of any number with a trained phase, and decide each.

    Writes OUT/scores.parquet, one row for each row of INPUT, in its order. The work is done in
    shards: after any interruption the same command goes on where it stopped.

    Example: evenhand score posts.csv --run runs/default --out scores
    """
    from evenhand.cli.main import INTERRUPTED
    from evenhand.cli.session import open_session
    from evenhand.data.streams import survey_posts
    from evenhand.experiment.bulk.job import make_job
    from evenhand.experiment.bulk.scoring import (
        Options,
        check_engine,
        finished_shards,
        run_job,
    )
    from evenhand.experiment.runs import open_run

    found = open_run(run)
    # With Ray the actors have the devices; here the command only hands out the shards.
    on_ray = engine.value == "ray"
    session = open_session(device="cpu" if on_ray else found.config.device)
    options = Options(engine.value, output_format.value, workers)
    check_engine(options, world=session.world)
    try:
        # Every process looks for itself: a large file may take longer than a group's time limit.
        surveyed = survey_posts(posts, shard_rows=shard_rows, columns=column_map(column))
        job = make_job(surveyed, found, out, threshold=threshold, include_text=include_text)
        session.say(
            f"{posts}: {surveyed.rows:,} rows in {surveyed.shards:,} shards; "
            f"threshold {job.threshold:g} ({job.threshold_origin})"
        )
        summary = run_job(job, options, session=session)
    except KeyboardInterrupt:
        session.say(
            f"interrupted; {finished_shards(out):,} finished shards are kept in {out}, and the "
            "same command goes on from there"
        )
        return INTERRUPTED
    if summary is not None and as_json:
        print_json(summary.to_json())
    elif summary is not None:
        typer.echo(summary.render())
    return None

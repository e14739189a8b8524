"""``evenhand data``: describe, prepare and fetch data, write the starter corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.options import (
    Columns,
    DataFormat,
    JsonFlag,
    Labels,
    SkipBadRows,
    column_map,
    key_values,
    print_json,
)

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Describe, fetch or prepare data.",
)

DataFile = Annotated[Path, typer.Argument(metavar="FILE", help="The data file.")]
OutFolder = Annotated[Path, typer.Option("--out", help="The folder to write; swapped in whole.")]


@app.command("describe")
def describe_command(
    file: DataFile,
    format: DataFormat = None,
    column: Columns = None,
    label: Labels = None,
    skip_bad_rows: SkipBadRows = False,
    json: JsonFlag = False,
) -> None:
    """Count a file's labels, groups, sources, lengths, duplicates and contradictions.

    Example: evenhand data describe posts.csv --column text=body --label offensive=normal
    """
    from dataclasses import asdict

    from evenhand.data.describe import describe, render_description
    from evenhand.data.sources import read_dataset

    dataset = read_dataset(
        file,
        format=format,
        columns=column_map(column) or None,
        labels=dict(key_values(label, "--label")),
        on_bad_row="skip" if skip_bad_rows else "stop",
        require_labels=False,
    )
    description = describe(dataset)
    if json:
        skipped = [asdict(row) for row in dataset.skipped]
        print_json({**asdict(description), "sha256": dataset.sha256, "skipped_rows": skipped})
        return
    typer.echo(render_description(description))
    for row in dataset.skipped:
        typer.echo(f"skipped {row.path}:{row.line}: {row.reason}", err=True)


@app.command("prepare")
def prepare_command(
    out: OutFolder,
    hatexplain: Annotated[
        Path | None, typer.Option(help="Raw HateXplain: its folder or its dataset.json.")
    ] = None,
    toxigen: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Raw ToxiGen: a CSV, a Parquet file or a folder of them; repeatable.",
        ),
    ] = None,
    offensive: Annotated[
        str | None,
        typer.Option(help="What HateXplain's offensive becomes: hate, normal or drop. Required."),
    ] = None,
    toxicity_threshold: Annotated[
        float, typer.Option(help="ToxiGen posts above it are hate (annotators' mean, 1 to 5).")
    ] = 3.0,
    groups: Annotated[
        str | None, typer.Option(help="Keep these groups only, e.g. lgbtq,mexican,middle_east.")
    ] = None,
    group_map: Annotated[
        Path | None, typer.Option(help="JSON of corpus name -> group; the shipped map by default.")
    ] = None,
    balance: Annotated[
        str | None, typer.Option(help="Undersample to equal cells: source, label, group.")
    ] = None,
    fractions: Annotated[
        str, typer.Option(help="The splits' sizes.")
    ] = "train=0.7,validation=0.1,test=0.15,heldout=0.05",
    canned_rows: Annotated[int, typer.Option(help="Rows in each canned sample.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Build one corpus from raw HateXplain and ToxiGen: splits, canned samples, a data card.

    Example: evenhand data prepare --hatexplain corpora/hatexplain --offensive drop --out corpus
    """
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.data.groups import read_group_map
    from evenhand.data.hatexplain import read_hatexplain
    from evenhand.data.prepare import PrepareOptions, prepare, write_prepared
    from evenhand.data.toxigen import read_toxigen

    if hatexplain is None and not toxigen:
        message = "name at least one raw corpus: --hatexplain or --toxigen"
        raise ConfigError("the command", [Problem("corpora", message)])
    options = PrepareOptions(
        offensive=offensive,  # pyright: ignore[reportArgumentType] - prepare checks it
        toxicity_threshold=toxicity_threshold,
        groups=None if groups is None else tuple(_words(groups)),
        balance=() if balance is None else tuple(_words(balance)),
        fractions=_fractions(fractions),
        canned_rows=canned_rows,
        seed=seed,
    )
    corpora = [] if hatexplain is None else [read_hatexplain(hatexplain)]
    if toxigen:
        corpora.append(read_toxigen(toxigen, toxicity_threshold=toxicity_threshold))
    prepared = prepare(corpora, group_map=read_group_map(group_map), options=options)
    record = write_prepared(prepared, out, corpora=corpora, options=options)
    if json:
        print_json({"out": str(out), **record})
        return
    for name, entry in record["files"].items():
        typer.echo(f"{out / name}: {entry['rows']:,} rows")
    for name, count in prepared.unmapped.items():
        typer.echo(f'warning: the group map has no "{name}" ({count:,} posts)', err=True)
    typer.echo(f"{out / 'README.md'}: the data card")


@app.command("fetch")
def fetch_command(
    corpus: Annotated[str, typer.Argument(help="hatexplain, toxigen or hatecheck.")],
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="You have read the corpus's terms and accept.")
    ] = False,
    mirror: Annotated[
        Path | None, typer.Option("--from", help="Read the files from this folder instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; corpora/CORPUS by default.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show a public corpus's terms; once they are accepted, fetch and check it.

    Example: evenhand data fetch hatecheck --accept-terms
    """
    from evenhand.data.fetch import fetch_corpus, find_corpus

    known = find_corpus(corpus)
    folder = out or Path("corpora") / known.name
    record = fetch_corpus(known, folder, accept_terms=accept_terms, mirror=mirror)
    if json:
        print_json({"out": str(folder), **record})
        return
    for name, entry in record["files"].items():
        typer.echo(f"{folder / name}: {entry['bytes']:,} bytes, sha256 {entry['sha256']}")


@app.command("starter")
def starter_command(
    out: OutFolder,
    seed: Annotated[int, typer.Option(help="Seed of the words and the row order.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Write the project's own template corpus: train, validation, test, functional.

    Example: evenhand data starter --out starter
    """
    from evenhand.core.paths import atomic_dir, sha256_file, write_json
    from evenhand.data.folders import replaceable_folder
    from evenhand.data.sources import write_rows
    from evenhand.data.starter import generate

    files = {}
    with atomic_dir(replaceable_folder(out, "starter.json")) as staging:
        for name, rows in generate(seed=seed).items():
            path = staging / f"{name}.jsonl"
            write_rows(rows, path)
            files[path.name] = {"rows": len(rows), "sha256": sha256_file(path)}
        write_json(staging / "starter.json", {"seed": seed, "files": files})
    if json:
        print_json({"out": str(out), "seed": seed, "files": files})
        return
    for name, entry in files.items():
        typer.echo(f"{out / name}: {entry['rows']:,} rows")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _fractions(text: str) -> dict[str, float]:
    from evenhand.core.errors import ConfigError, Problem

    fractions: dict[str, float] = {}
    for name, value in key_values(_words(text), "--fractions"):
        try:
            fractions[name] = float(value)
        except ValueError:
            problem = Problem(f"fractions.{name}", f'"{value}" is not a number')
            raise ConfigError("the command", [problem]) from None
    return fractions

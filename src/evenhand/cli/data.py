"""``evenhand data``: describe, prepare, fetch and augment data, write the starter corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from evenhand.config.schema import AugmentConfig
    from evenhand.core.errors import Problem
    from evenhand.core.records import Dataset
    from evenhand.data.augmenting.augment import Augmented

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Describe, fetch, prepare or augment data.",
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


@app.command("augment")
def augment_command(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="The training rows.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, JSON lines.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="templates, swaps or corpus; repeatable; templates by default."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Group that the rows are about; repeatable; all of TRAIN by default."),
    ] = None,
    label_of_rows: Annotated[
        list[str] | None,
        typer.Option(help="Label of the added rows; repeatable; normal by default."),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(help="Most rows to add, as a share of TRAIN's; 0.2 by default."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of what is drawn; 0 by default.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the method corpus selects rows.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Rows to evaluate on, which no added row may equal or resemble; repeatable.",
        ),
    ] = None,
    no_evaluation: Annotated[
        bool, typer.Option("--no-evaluation", help="There is no evaluation file to keep out.")
    ] = False,
    added_only: Annotated[
        bool, typer.Option("--added-only", help="Write the added rows without TRAIN's.")
    ] = False,
    format: DataFormat = None,
    column: Columns = None,
    label: Labels = None,
    skip_bad_rows: SkipBadRows = False,
    json: JsonFlag = False,
) -> None:
    """Add training rows against a group's false positives, none of them in an evaluation file.

    Example: evenhand data augment train.csv --group lgbtq --evaluation test.csv --out more.jsonl
    """
    from evenhand.core.errors import ConfigError
    from evenhand.core.paths import sha256_file
    from evenhand.data.augmenting.augment import augment_rows, with_provenance
    from evenhand.data.sources import read_dataset, write_rows

    given = {
        "methods": method or ["templates"],
        "groups": group or None,
        "labels": label_of_rows or None,
        "ratio": ratio,
        "seed": seed,
        "corpus": None if corpus is None else str(corpus),
    }
    config, problems = _augment_config(given)
    inputs = [train, *(evaluation or ()), *([] if corpus is None else [corpus])]
    problems += _augment_problems(out, inputs, evaluation, no_evaluation=no_evaluation)
    if config is None or problems:
        raise ConfigError("the command", problems)

    def read(path: Path, *, is_train: bool) -> Dataset:
        return read_dataset(
            path,
            name=str(path),
            format=format if is_train else None,
            columns=(column_map(column) or None) if is_train else None,
            labels=dict(key_values(label, "--label")),
            on_bad_row="skip" if skip_bad_rows else "stop",
            require_labels=is_train or path == corpus,
        )

    dataset = read(train, is_train=True)
    found = augment_rows(
        dataset.rows,
        config,
        evaluation={str(path): read(path, is_train=False) for path in evaluation or ()},
        corpus=None if corpus is None else read(corpus, is_train=False),
    )
    rows = with_provenance([*(() if added_only else dataset.rows), *found.added])
    write_rows(rows, out)
    if json:
        counts = {
            "wanted": found.wanted,
            "added": found.counts,
            "short_of": found.short_of,
            "left_out": found.left_out,
            "repeated": found.repeated,
            "by_method": found.table(),
        }
        file = {"out": str(out), "rows": len(rows), "sha256": sha256_file(out)}
        print_json({**file, "config": config.model_dump(mode="json"), **counts})
        return
    typer.echo(f"{out}: {len(rows):,} rows, {len(found.added):,} of them added")
    for line in _augment_lines(found):
        typer.echo(line)


_AUGMENT_OPTIONS = {
    "methods": "--method",
    "groups": "--group",
    "labels": "--label-of-rows",
}


def _augment_config(given: dict[str, Any]) -> tuple[AugmentConfig | None, list[Problem]]:
    """Return the augmentation, checked as an experiment's, its keys called as the options are."""
    from evenhand.config.checking import check_phase
    from evenhand.core.errors import Problem

    set_keys = {key: value for key, value in given.items() if value is not None}
    phase, found = check_phase({"augment": set_keys})
    problems: dict[str, Problem] = {}
    for one in found:
        key = one.place.removeprefix("augment.").partition("[")[0]
        option = _AUGMENT_OPTIONS.get(key, f"--{key}")
        # A wrong entry is found first; that the list is too short without it is no news.
        problems.setdefault(option, Problem(option, one.message))
    return None if phase is None else phase.augment, list(problems.values())


def _augment_problems(
    out: Path, inputs: Sequence[Path], evaluation: list[Path] | None, *, no_evaluation: bool
) -> list[Problem]:
    from evenhand.core.errors import Problem

    problems = []
    if not evaluation and not no_evaluation:
        message = "is missing: name the files that are evaluated on, or say --no-evaluation"
        problems.append(Problem("--evaluation", message))
    if evaluation and no_evaluation:
        problems.append(Problem("--no-evaluation", "contradicts --evaluation; leave one out"))
    if any(out.resolve() == path.resolve() for path in inputs):
        problems.append(Problem("--out", f"{out} is read by this command; name another file"))
    return problems


def _augment_lines(found: Augmented) -> list[str]:
    """Return what was added and what was not, one line each."""
    lines = []
    for method, groups in found.table().items():
        short = found.short_of[method]
        less = f"; {short:,} more could not be made" if short else ""
        lines.append(f"{method}: {found.counts[method]:,} rows{less}")
        for group, labels in groups.items():
            counts = ", ".join(f"{count:,} {label}" for label, count in labels.items())
            lines.append(f"  {group}: {counts}")
    for name, count in found.left_out.items():
        lines.append(f"left out for {name}: {count:,} that equal or nearly equal a row of it")
    lines.append(f"left out as repetitions: {found.repeated:,}")
    return lines


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

"""``evenhand import``: results that were made elsewhere, as a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.options import (
    JsonFlag,
    Labels,
    SliceBy,
    column_map,
    key_values,
    print_json,
    slice_columns,
)

if TYPE_CHECKING:
    from evenhand.experiment.inputs import DataSource
    from evenhand.experiment.stages import Session


class LabelsFrom(StrEnum):
    """Which labels count where there are raw responses."""

    STORED = "stored"
    REPARSED = "reparsed"


def command(
    predictions: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Table of posts with true and predicted labels: CSV, Parquet or JSON lines.",
        ),
    ],
    name: Annotated[str, typer.Option(help="What these rows are called: canned, production, ...")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="RUN", help="The run folder to make, or an imported one to add to; one a model."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The data set that was evaluated: gives the rows their ids, sources, fine labels.",
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The rows it was trained on: for the TF-IDF baseline and audits."
        ),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The model's own words, for some or all of the rows."),
    ] = None,
    labels_from: Annotated[
        LabelsFrom,
        typer.Option(help="Count the predicted labels of the table, or those in the responses."),
    ] = LabelsFrom.STORED,
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The prompt that was answered: for its label words and audits."
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Strategy of --prompt-file, and whose rows of the table to take."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.json", help="The configuration that it was trained with."),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="What its training left: TensorBoard events, trainer_state.json, "
            "all_results.json, adapter_config.json.",
        ),
    ] = None,
    stated: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A figure that is claimed, f1=0.6308, to hold against the files; repeatable.",
        ),
    ] = None,
    stated_file: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Such figures: a JSON object, or a CSV table of metrics; repeatable.",
        ),
    ] = None,
    slice_by: SliceBy = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="Column of the table that holds text, label, prediction, score, group, ...; an "
            "empty NAME: none has the role; repeatable.",
        ),
    ] = None,
    data_column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=NAME", help="The same for the files of --data and --train."),
    ] = None,
    label: Labels = None,
    allow_unmatched: Annotated[
        bool,
        typer.Option(
            "--allow-unmatched",
            help="Count rows that only one of --predictions and --data has, instead of stopping.",
        ),
    ] = False,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Skip and count bad rows of --data and --train."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring results made elsewhere into a run folder, and measure them as our own.

    Columns are recognised by name, or named with --column. Rows without a predicted label count as
    unparseable; none is dropped. A second import into RUN with another --name adds an evaluation of
    the same model. The folder is then compared, audited, gated and reported like a trained one.

    Example: evenhand import --predictions results.csv --name test --out runs/theirs
    """
    from evenhand.experiment.importing.answers import AnswerSource
    from evenhand.experiment.importing.importer import ImportRequest, import_results
    from evenhand.report.summary import render_evaluation

    columns, words = column_map(column), dict(key_values(label, "--label"))
    row_words = {word: one for word, one in words.items() if one != "unparseable"}

    def source(path: Path | None) -> DataSource | None:
        from evenhand.experiment.inputs import DataSource

        if path is None:
            return None
        return DataSource(
            path=path,
            columns=column_map(data_column),
            labels=row_words,
            on_bad_row="skip" if skip_bad_rows else "stop",
        )

    request = ImportRequest(
        name=name,
        answers=AnswerSource(
            predictions=predictions,
            columns=columns,
            labels=words,
            strategy=strategy,
            data=source(data),
            allow_unmatched=allow_unmatched,
            responses=responses,
            labels_from=labels_from.value,
            prompt_file=prompt_file,
        ),
        train=source(train),
        config=config,
        history=history,
        slices=slice_columns(slice_by),
        stated=tuple(key_values(stated, "--stated")),
        stated_files=tuple(stated_file or ()),
    )
    imported = import_results(request, out, session=_session())
    for warning in imported.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        document = {
            "run": str(out),
            "evaluation": imported.evaluation.model_dump(mode="json"),
            "imported": imported.facts,
            "stated": imported.stated,
            "warnings": imported.warnings,
        }
        print_json(document)
    else:
        parts = [render_evaluation(imported.evaluation), *_facts(imported.facts, imported.stated)]
        typer.echo("\n\n".join(parts))


def _session() -> Session:
    import shlex
    import sys

    from evenhand.experiment.stages import Session

    return Session(command=shlex.join(["evenhand", *sys.argv[1:]]))


def _facts(facts: Mapping[str, Any], stated: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What was read, matched, read again and held against the files, part by part."""
    from evenhand.config.files import shown
    from evenhand.report.wording import count, table, terminal

    read = facts["predictions"]
    yield (
        f"imported: {count(read['rows'])} rows of {shown(Path(read['file']))}; without an answer "
        f"that can be read: {count(facts['unparseable'])}; in error: {count(facts['error'])}"
    )
    again = facts["responses"]
    if again is not None:
        counts = {
            "with a response": "responses",
            "without one": "rows_without_response",
            "read, and as stored": "agree",
            "read, but stored otherwise": "differ",
            "not read, but stored with a label": "label_without_reading",
            "read, but stored without a label": "reading_without_label",
            "neither read nor stored": "neither",
        }
        rows = [[words, count(again[key])] for words, key in counts.items()]
        yield terminal(table(["Raw responses, read strictly", "Rows"], rows))
        which = "stored labels" if again["labels_from"] == "stored" else "labels read again"
        yield f"the figures above count the {which} (--labels-from {again['labels_from']})"
    if stated:
        rows = [
            [key, _figure(one["value"]), one["status"], _figure(one["found"])]
            for key, one in stated.items()
        ]
        yield terminal(table(["Figure", "Stated", "Status", "Found"], rows))


def _figure(value: Any) -> str:
    """A figure as it was given; a found one with six digits, enough to see where they part."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)

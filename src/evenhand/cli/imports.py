"""``evenhand import``: results that were made elsewhere, as a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.options import JsonFlag, Labels, column_map, key_values, print_json

if TYPE_CHECKING:
    from evenhand.experiment.inputs import DataSource
    from evenhand.experiment.stages import Session


class LabelsFrom(StrEnum):
    """Which labels count where there are raw responses."""

    STORED = "stored"
    REPARSED = "reparsed"


def command(
    predictions: Annotated[
        Path, typer.Option(help="CSV, Parquet or JSON lines: posts, labels, predicted labels.")
    ],
    name: Annotated[str, typer.Option(help="Name of the evaluation, used for its folder.")],
    out: Annotated[Path, typer.Option(help="The run folder; a second import may add to it.")],
    responses: Annotated[
        Path | None, typer.Option(help="Raw responses of some or all rows, as JSON lines.")
    ] = None,
    labels_from: Annotated[
        LabelsFrom,
        typer.Option(help="Count the stored labels, or a strict reading of the responses."),
    ] = LabelsFrom.STORED,
    history: Annotated[
        Path | None,
        typer.Option(
            help="Folder that training left: TensorBoard events, trainer_state.json, "
            "all_results.json, adapter_config.json."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The phase's configuration.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The evaluated data set: its rows give ids, sources and fine labels."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="The training rows, for the baselines.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="Which column of the predictions holds text, label, prediction, score, group, "
            "...; an empty NAME: none.",
        ),
    ] = None,
    label: Labels = None,
    data_column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=NAME", help="The same for the files of --data and --train."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Whose rows to take, where there are several strategies.")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="The prompt that was answered, for its label strings.")
    ] = None,
    stated: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="A figure to hold against the files: f1=0.6308; repeatable."
        ),
    ] = None,
    stated_file: Annotated[
        list[Path] | None,
        typer.Option(help="Such figures as a JSON object, or a CSV table of metrics; repeatable."),
    ] = None,
    allow_unmatched: Annotated[
        bool,
        typer.Option("--allow-unmatched", help="Count rows that only one of the files has."),
    ] = False,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Skip and count bad rows of --data and --train."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring results made elsewhere into a run folder, and measure them as our own.

    Rows without a predicted label count as unparseable. Figures given with --stated are checked
    against the files; what no file proves is marked as stated.

    Example: evenhand import --predictions results.csv --name test --out runs/theirs
    """
    from evenhand.experiment.answered import AnswerSource
    from evenhand.experiment.imports import ImportRequest, import_results
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
    from evenhand.report.wording import cell, count, table

    read = facts["predictions"]
    yield (
        f"imported: {count(read['rows'])} rows of {read['file']}; without an answer that can be "
        f"read: {count(facts['unparseable'])}; in error: {count(facts['error'])}"
    )
    again = facts["responses"]
    if again is not None:
        yield table(
            ["Raw responses, read strictly", "Rows"],
            [
                ["with a response", count(again["responses"])],
                ["without one", count(again["rows_without_response"])],
                ["read, and as stored", count(again["agree"])],
                ["read, but stored otherwise", count(again["differ"])],
                ["not read, but stored with a label", count(again["label_without_reading"])],
                ["read, but stored without a label", count(again["reading_without_label"])],
                ["neither read nor stored", count(again["neither"])],
                [f"labels counted here: {again['labels_from']}", "-"],
            ],
        )
    if stated:
        yield table(
            ["Figure", "Stated", "Status", "Found"],
            [
                [cell(key), _figure(one["value"]), one["status"], _figure(one["found"])]
                for key, one in stated.items()
            ],
        )


def _figure(value: Any) -> str:
    """A figure as it was given; a found one with six digits, enough to see where they part."""
    from evenhand.report.wording import cell

    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else cell(value)

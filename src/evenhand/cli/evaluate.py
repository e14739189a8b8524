"""``evenhand evaluate``: a trained phase on a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.options import (
    Columns,
    DataFormat,
    JsonFlag,
    Labels,
    RunFolder,
    SkipBadRows,
    SliceBy,
    column_map,
    key_values,
    print_json,
    slice_columns,
)

if TYPE_CHECKING:
    from evenhand.core.records import Row
    from evenhand.experiment.runs import Run
    from evenhand.experiment.stages import Session


class Method(StrEnum):
    """How answers are obtained."""

    SCORE = "score"
    GENERATE = "generate"


def command(
    run: RunFolder,
    data: Annotated[Path, typer.Option(help="Data file with labels.")],
    name: Annotated[str, typer.Option(help="Name of the evaluation, used for its folder.")],
    method: Annotated[
        Method, typer.Option(help="Score the label strings, or let the model write an answer.")
    ] = Method.SCORE,
    format: DataFormat = None,
    column: Columns = None,
    label: Labels = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="Stop unless this prompt is the one of the training.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy of --prompt-file, or of the built-in prompt.")
    ] = None,
    slice_by: SliceBy = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a trained phase, overall and per target group, beside the baselines.

    Writes predictions.parquet and evaluation.json to RUN/evaluations/NAME. --slice names columns
    of the data, or group, label, source, fine_label, cluster, decision and status.

    Example: evenhand evaluate runs/default --data test.csv --name test
    """
    import numpy as np

    from evenhand.cli.session import open_session
    from evenhand.core.errors import ConfigError, Problem
    from evenhand.core.predictions import predictions_from_rows
    from evenhand.experiment.inputs import DataSource
    from evenhand.experiment.production import count_if_production, describe_use
    from evenhand.experiment.runs import hold, open_run
    from evenhand.experiment.stages import check_evaluation, evaluate_run, skip_warnings
    from evenhand.measure.slices import check_slices
    from evenhand.prompts.template import load_prompt
    from evenhand.report.summary import render_evaluation

    _check_name(name)
    slices = slice_columns(slice_by)
    found = open_run(run)
    if prompt_file is not None or strategy is not None:
        prompt = load_prompt(prompt_file, strategy=strategy)
        if prompt.sha256 != found.prompt.sha256:
            message = "is not the prompt that the run was trained with; scores would not compare"
            raise ConfigError(str(run), [Problem(f"{prompt.origin}, {prompt.strategy}", message)])
    source = DataSource(
        path=data,
        format=format,
        columns=column_map(column),
        labels=dict(key_values(label, "--label")),
        on_bad_row="skip" if skip_bad_rows else "stop",
    )
    rows = source.read(name)
    check_slices(predictions_from_rows(rows.rows, scores=np.zeros(len(rows))).frame, slices)
    session = open_session(device=found.config.device)
    for warning in skip_warnings([rows]):
        session.say(f"warning: {warning}")
    train_rows = _train_rows(found, session)
    with hold(run, world=session.world):
        check_evaluation(found, rows, method=method.value)
        uses = count_if_production(found, rows, world=session.world)
        if uses > 1:
            session.say(f"warning: {describe_use(name, uses)}")
        evaluation = evaluate_run(
            found,
            rows,
            method=method.value,
            train_rows=train_rows,
            slices=slices,
            session=session,
        )
    if not session.world.is_first:
        return
    if as_json:
        print_json(evaluation.model_dump(mode="json"))
    else:
        typer.echo(render_evaluation(evaluation))


def _check_name(name: str) -> None:
    """The name becomes a folder of the run."""
    import re

    from evenhand.config.values import FOLDER_NAME
    from evenhand.core.errors import ConfigError, Problem

    if re.fullmatch(FOLDER_NAME, name) is None:
        message = f'"{name}" must be letters, digits, _ and -, a letter or digit first'
        raise ConfigError("the command", [Problem("--name", message)])


def _train_rows(run: Run, session: Session) -> tuple[Row, ...] | None:
    """The rows that the run was trained on, for the baselines; None where they are gone."""
    from evenhand.core.errors import InputError
    from evenhand.experiment.remaking import ChangedRowsError, remake

    if run.train_source is None:
        return None
    file = run.train_source.path
    try:
        return remake(run)[1].rows
    except ChangedRowsError as error:
        session.say(f"warning: no baselines, since {error}")
    except InputError as error:
        other = "" if error.source == str(file) else f": {error.source}"
        session.say(f"warning: no baselines, since {file} cannot be read{other}")
    return None

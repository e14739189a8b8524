"""Another program's answers as predictions on identified rows, and a record of how it was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.config.files import shown
from evenhand.core.errors import ConfigError, DataError, Problem
from evenhand.core.paths import sha256_file
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Dataset
from evenhand.data.answers import Answer, AnswerTable, read_answers, read_responses
from evenhand.data.matching import content_ids, match_rows
from evenhand.experiment.importing.responses import LabelsFrom, attach_responses, read_again
from evenhand.experiment.inputs import DataSource
from evenhand.prompts.template import PromptTemplate, load_prompt

_SHOWN = 20
_WORDS = {"hate": "hate", "normal": "normal"}


@dataclass(frozen=True)
class AnswerSource:
    """Where the answers are and how they are read.

    Attributes:
        columns: role -> column of the predictions, beside those recognised by name.
        labels: further label words.
        strategy: whose rows to take, and the strategy of the prompt file.
        data: the evaluated data set, which gives the rows their ids.
        allow_unmatched: count rows that are in one of the two files only, instead of stopping.
        responses: raw responses of some or all rows.
        labels_from: whether the stored labels count, or a strict reading of the responses.
        prompt_file: the prompt that was answered, for its label strings.
    """

    predictions: Path
    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    strategy: str | None = None
    data: DataSource | None = None
    allow_unmatched: bool = False
    responses: Path | None = None
    labels_from: LabelsFrom = "stored"
    prompt_file: Path | None = None


@dataclass(frozen=True)
class Answered:
    """Predictions on identified rows.

    Attributes:
        data: the rows, in the order of the predictions; from the data set's file where one was
            named, else from the predictions' file, sorted by id.
        facts: for the manifest: what was read, counted, matched and read again.
        prompt: the prompt that was answered, where it was named.
    """

    data: Dataset
    predictions: Predictions
    facts: Mapping[str, Any]
    prompt: PromptTemplate | None


def read_answered(source: AnswerSource, *, name: str) -> Answered:
    """Read predictions and what belongs to them.

    Raises:
        ConfigError: options that do not fit the files.
        DataError: files or rows that cannot be used, or rows that the two files do not share.
    """
    data = None if source.data is None else source.data.read(name)
    table = read_answers(
        source.predictions,
        # With a file of responses, a response column is that file's.
        columns={**source.columns, **({} if source.responses is None else {"response": ""})},
        labels=source.labels,
        strategy=source.strategy,
        requires_labels=data is None,
    )
    prompt = _prompt(source, table)
    answers = table.answers
    if source.responses is not None:
        responses = read_responses(
            source.responses, columns=source.columns, strategy=table.strategy
        )
        answers = attach_responses(source.responses, answers, responses)
    report = None
    if any(answer.response is not None for answer in answers):
        words = _WORDS if prompt is None else prompt.labels
        reading = read_again(answers, words=words, labels_from=source.labels_from)
        answers, report = reading.answers, dict(reading.report)
    elif source.labels_from == "reparsed":
        message = "there is no response to read again; name them with --responses FILE.jsonl"
        raise ConfigError("the command", [Problem("--labels-from", message)])
    rows, placed, matching = _identified(source, table, answers, data, name)
    predictions = _predictions(rows, placed, has_scores=table.has("score"))
    facts = {
        "predictions": {
            "file": str(source.predictions.resolve()),
            "sha256": table.sha256,
            "rows": len(answers),
        },
        "columns": {role: list(names) for role, names in table.columns.items()},
        "given": {"columns": dict(source.columns), "labels": dict(source.labels)},
        "strategy": table.strategy,
        "other_strategies": dict(table.other_strategies),
        "rows": len(rows),
        "unparseable": sum(one is not None and one.status == "unparseable" for one in placed),
        "error": sum(one is None or one.status == "error" for one in placed),
        "empty_texts": list(table.empty_texts),
        "parser_failures": sum(one is not None and one.parser_failed for one in placed),
        "matching": matching,
        "responses": _response_facts(source, report, rows, placed, answers),
    }
    return Answered(rows, predictions, facts, prompt)


def answered_rows(facts: Mapping[str, Any], *, name: str) -> Dataset:
    """Return the rows of an import without a data set again, read from its predictions.

    ``facts`` are those of :class:`Answered`.

    Raises:
        DataError, ConfigError: the file cannot be read in the same way any more.
    """
    given = facts["given"]
    table = read_answers(
        Path(facts["predictions"]["file"]),
        columns=given["columns"],
        labels=given["labels"],
        strategy=facts["strategy"],
    )
    return _own_rows(table, table.answers, name)[0]


def _prompt(source: AnswerSource, table: AnswerTable) -> PromptTemplate | None:
    if source.prompt_file is not None:
        return load_prompt(source.prompt_file, strategy=source.strategy or table.strategy)
    if source.strategy is not None and not table.has("strategy"):
        message = "the predictions have no column of strategies; leave it out, or name the "
        message += "column: --column strategy=NAME"
        raise ConfigError("the command", [Problem("--strategy", message)])
    return None


def _identified(
    source: AnswerSource,
    table: AnswerTable,
    answers: Sequence[Answer],
    data: Dataset | None,
    name: str,
) -> tuple[Dataset, list[Answer | None], dict[str, Any] | None]:
    """Return the rows with their ids, and the answer to each."""
    asked = [answer.row for answer in answers]
    if data is None:
        return (*_own_rows(table, answers, name), None)
    found = match_rows(asked, data.rows, by_group=table.has("group"))
    matched = len(asked) - len(found.reasons)
    if not matched or ((found.reasons or found.left_over) and not source.allow_unmatched):
        raise _unmatched(source, found.reasons, [data.rows[at].id for at in found.left_over])
    placed: list[Answer | None] = [None] * len(data)
    for answer, partner in zip(answers, found.partner, strict=True):
        if partner is not None:
            placed[partner] = answer
    facts = {
        "file": str(data.path),
        "matched": matched,
        "predictions_left_out": len(found.reasons),
        "rows_without_prediction": len(found.left_over),
    }
    return data, placed, facts


def _own_rows(
    table: AnswerTable, answers: Sequence[Answer], name: str
) -> tuple[Dataset, list[Answer | None]]:
    """Return the rows of the predictions themselves, and the answer to each."""
    asked = [answer.row for answer in answers]
    ids = [row.id for row in asked] if table.has("id") else content_ids(asked)
    # Sorted, so that the same rows in another order make the same evaluation.
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rows = tuple(replace(asked[at], id=ids[at]) for at in order)
    dataset = Dataset(name=name, rows=rows, path=table.path, sha256=table.sha256)
    return dataset, [answers[at] for at in order]


def _unmatched(
    source: AnswerSource, reasons: Mapping[int, str], left_over: Sequence[str]
) -> DataError:
    assert source.data is not None
    problems = [
        Problem(f"prediction {at + 1}", reason) for at, reason in list(reasons.items())[:_SHOWN]
    ]
    if len(reasons) > _SHOWN:
        problems.append(Problem("...", f"and {len(reasons) - _SHOWN} more predictions"))
    if left_over:
        first = ", ".join(left_over[:5])
        problems.append(
            Problem(shown(source.data.path), f"{len(left_over)} rows have no prediction: {first}"
                    f"{', ...' if len(left_over) > 5 else ''}")
        )  # fmt: skip
    hint = (
        "--data names the file that these predictions are on; with --allow-unmatched, predictions "
        "of other rows are left out and rows without one count as errors, both counted"
    )
    return DataError(
        str(source.predictions), problems, hint=hint, consequence="nothing was imported"
    )


def _predictions(
    data: Dataset, placed: Sequence[Answer | None], *, has_scores: bool
) -> Predictions:
    scores = [float("nan") if one is None else one.score for one in placed]
    return predictions_from_rows(
        data.rows,
        scores=np.array(scores) if has_scores else None,
        decisions=[None if one is None else one.decision for one in placed],
        statuses=["error" if one is None else one.status for one in placed],
        raw_responses=[None if one is None else one.response for one in placed],
    )


def _response_facts(
    source: AnswerSource,
    report: dict[str, Any] | None,
    data: Dataset,
    placed: Sequence[Answer | None],
    answers: Sequence[Answer],
) -> dict[str, Any] | None:
    """Return the report on the responses, with the ids of rows in the place of positions."""
    if report is None:
        return None
    ids = {id(answer): row.id for answer, row in zip(placed, data.rows, strict=True)}
    for key in ("differing_rows", "label_without_reading_rows"):
        report[key] = [ids[id(answers[at])] for at in report[key] if id(answers[at]) in ids]
    file = source.responses
    return {
        "file": None if file is None else str(file.resolve()),
        "sha256": None if file is None else sha256_file(file),
        **report,
    }

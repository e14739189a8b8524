"""Raw responses of an imported model: whose they are, and what a strict reading makes of them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evenhand.core.errors import DataError, Problem
from evenhand.core.records import HATE
from evenhand.data.answers import Answer, Response
from evenhand.prompts.parse import parse_answer

LabelsFrom = Literal["stored", "reparsed"]
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """Stored labels beside what the responses say, read strictly.

    Attributes:
        answers: with the labels that were asked for, and with their responses.
        report: the counts, and positions among the answers, for the manifest.
    """

    answers: tuple[Answer, ...]
    report: Mapping[str, Any]


def attach_responses(
    path: Path, answers: Sequence[Answer], responses: Sequence[Response]
) -> tuple[Answer, ...]:
    """Give each answer its raw response, by id, else by text, else by position.

    Equal texts are taken in order, or by position (counted from 0) where the responses have it.

    Raises:
        DataError: responses that belong to no answer.
    """
    by_id = {answer.row.id: at for at, answer in enumerate(answers) if answer.row.id}
    by_text: defaultdict[str, deque[int]] = defaultdict(deque)
    for at, answer in enumerate(answers):
        if answer.row.text:
            by_text[answer.row.text].append(at)
    raws: dict[int, str | None] = {}
    problems = []
    for response in responses:
        at = _owner(response, answers, by_id=by_id, by_text=by_text, taken=raws)
        if at is None:
            problems.append(Problem(response.place, "belongs to no row of the predictions"))
        else:
            raws[at] = response.raw
    if problems:
        count = len(problems)
        if count > _SHOWN:
            problems = [*problems[:_SHOWN], Problem("...", f"and {count - _SHOWN} more")]
        hint = "are these the responses of that table, and of that --strategy?"
        raise DataError(str(path), problems, hint=hint, consequence="nothing was imported")
    return tuple(
        replace(answer, response=raws[at]) if at in raws else answer
        for at, answer in enumerate(answers)
    )


def read_again(
    answers: Sequence[Answer], *, words: Mapping[str, str], labels_from: LabelsFrom
) -> Reading:
    """Read every response strictly and compare with the stored labels.

    With ``reparsed`` the reading replaces the stored label wherever there is a response; a
    response that cannot be read makes the row unparseable, and rows without a response keep what
    is stored. Rows in error stay so.
    """
    counts: dict[str, int] = dict.fromkeys(
        ("agree", "differ", "label_without_reading", "reading_without_label", "neither"), 0
    )
    differing: list[int] = []
    without_reading: list[int] = []
    read = 0
    hate_to_normal = 0
    taken: list[Answer] = []
    for at, answer in enumerate(answers):
        if answer.response is None or answer.status == "error":
            taken.append(answer)
            continue
        said = parse_answer(answer.response, labels=words)
        read += said is not None
        if said is None:
            kind = "neither" if answer.decision is None else "label_without_reading"
        elif answer.decision is None:
            kind = "reading_without_label"
        else:
            kind = "agree" if said == answer.decision else "differ"
        counts[kind] += 1
        if kind == "differ":
            differing.append(at)
            hate_to_normal += answer.decision == HATE
        if kind == "label_without_reading":
            without_reading.append(at)
        taken.append(_as_read(answer, said) if labels_from == "reparsed" else answer)
    responses = sum(counts.values())
    report = {
        "labels_from": labels_from,
        "responses": responses,
        "rows_without_response": len(answers) - responses,
        "read": read,
        "unreadable": responses - read,
        **counts,
        "stored_hate_read_normal": hate_to_normal,
        "stored_normal_read_hate": counts["differ"] - hate_to_normal,
        "differing_rows": differing,
        "label_without_reading_rows": without_reading,
    }
    return Reading(tuple(taken), report)


def _as_read(answer: Answer, said: str | None) -> Answer:
    if said is None:
        return replace(answer, decision=None, score=float("nan"), status="unparseable")
    return replace(answer, decision=said, status="ok")


def _owner(
    response: Response,
    answers: Sequence[Answer],
    *,
    by_id: Mapping[str, int],
    by_text: Mapping[str, deque[int]],
    taken: Mapping[int, Any],
) -> int | None:
    if response.id is not None and by_id:
        at = by_id.get(response.id)
        return None if at in taken else at
    position = response.position
    at_position = position is not None and position < len(answers) and position not in taken
    if response.text is None or not by_text:
        return position if at_position else None
    if position is not None and at_position and answers[position].row.text == response.text:
        return position
    waiting = by_text.get(response.text)
    while waiting:
        at = waiting.popleft()
        if at not in taken:
            return at
    return None

"""A table of another program's answers: posts with their labels, and what a model said of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.core.errors import DataError, Problem
from evenhand.core.paths import sha256_file
from evenhand.core.records import HATE, NORMAL, Row, Status
from evenhand.core.registry import suggest
from evenhand.data.answer_columns import find_roles, listed, unrecognised
from evenhand.data.answer_words import NO_ANSWER, STATUS_WORDS, UNPARSEABLE, answer_words
from evenhand.data.columns import column_names
from evenhand.data.labels import label_word
from evenhand.data.tables import Record, places_of, read_records, record_problems

Chosen = Mapping[str, tuple[str, ...]]
_PARSER_FAILURE = re.compile(r"pars\w* (?:fail|error)|(?:failed to|could not be|not) parse")


@dataclass(frozen=True, slots=True)
class Answer:
    """A post and the answer to it; the row's id is empty where the table has none.

    ``score`` is p(hate), NaN where there is none. ``parser_failed`` is whether the table's own
    rationale says that the response could not be parsed.
    """

    row: Row
    decision: str | None
    score: float
    status: Status
    response: str | None
    parser_failed: bool


@dataclass(frozen=True)
class AnswerTable:
    """The answers of one file.

    Attributes:
        columns: the columns of each role that has any.
        strategy: the prompt strategy whose rows these are; None where the file names none.
        other_strategies: rows of other strategies that were left out, by strategy.
        empty_texts: the places of rows with an empty text.
    """

    path: Path
    sha256: str
    answers: tuple[Answer, ...]
    columns: Chosen
    strategy: str | None
    other_strategies: Mapping[str, int]
    empty_texts: tuple[str, ...] = ()

    def has(self, role: str) -> bool:
        """Whether a column has the role."""
        return role in self.columns


@dataclass(frozen=True, slots=True)
class Response:
    """The raw text of one answer, and what says whose it is."""

    place: str
    raw: str | None
    id: str | None
    text: str | None
    position: int | None


@dataclass(frozen=True)
class _Faults:
    """Faults of cells, gathered so that a thousand rows with one fault are one problem."""

    found: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, record: Record, column: str, message: str) -> None:
        self.found.setdefault((column, message), []).append(record.place)

    def problems(self) -> list[Problem]:
        return [
            Problem(column, f"{message} ({places_of(places)})")
            for (column, message), places in self.found.items()
        ]


def read_answers(
    path: Path,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    labels: Mapping[str, str] | None = None,
    strategy: str | None = None,
    requires_labels: bool = True,
) -> AnswerTable:
    """Read a CSV, Parquet or JSON-lines table of predictions.

    Columns are recognised by name, or named in ``columns`` (role -> column, an empty name: none).
    A predicted label that is empty or says that there is none makes the row unparseable; where
    there is no column of predicted labels, a score of at least 0.5 is hate.

    Args:
        path: the file.
        columns: for the roles of :mod:`evenhand.data.answer_columns`, and ``group_separator``.
        labels: further label words -> ``hate``, ``normal``, or (predicted labels) ``unparseable``.
        strategy: whose rows to take, where the file has those of several prompt strategies.
        requires_labels: whether every row must have its true label here.

    Raises:
        DataError: the file cannot be read, or a column, label, score or status in it; all at once.
        ConfigError: the label map names something that is not a label.
    """
    records = read_records(path)
    usable = [record for record in records if record.fault is None]
    problems = record_problems(records)
    if not usable:  # then of no column can be said that it is missing
        raise _error(path, problems)
    available = list(dict.fromkeys(name for record in usable for name in record.fields))
    chosen, wrong = find_roles(available, given=columns or {})
    problems += wrong
    missing = {
        "text": "text" not in chosen and "id" not in chosen,
        "label": "label" not in chosen and requires_labels,
        "prediction": "prediction" not in chosen and "score" not in chosen,
    }
    problems += [
        unrecognised(role, available)
        for role, is_missing in missing.items()
        if is_missing and not any(one.place == f"columns.{role}" for one in problems)
    ]
    if any(one.place.startswith("columns.") for one in problems):
        raise _error(path, problems)
    rows, others, wrong = _of_strategy(usable, chosen, strategy)
    problems += wrong
    words, no_answer = answer_words(labels or {})
    separator = (columns or {}).get("group_separator")
    reader = _Reader(chosen, separator, words, no_answer, requires_labels)
    answers = [reader.read(record) for record in rows]
    problems += [*reader.faults.problems(), *_repeated_ids(answers)]
    if problems:
        raise _error(path, problems)
    return AnswerTable(
        path=path,
        sha256=sha256_file(path),
        answers=tuple(answers),
        columns=chosen,
        strategy=_text(rows[0].fields.get(chosen["strategy"][0])) if "strategy" in chosen else None,
        other_strategies=others,
        empty_texts=tuple(
            record.place
            for record, answer in zip(rows, answers, strict=True)
            if "text" in chosen and not answer.row.text.strip()
        ),
    )


def read_responses(
    path: Path,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    strategy: str | None = None,
) -> tuple[Response, ...]:
    """Read the raw responses of a table, with what says whose they are.

    Raises:
        DataError: the file cannot be read, or has no response column, or nothing to match it by.
    """
    records = read_records(path)
    problems = record_problems(records)
    if all(record.fault is not None for record in records):
        raise _error(path, problems)
    available = list(dict.fromkeys(name for record in records for name in record.fields))
    roles = ("response", "text", "id", "position", "strategy")
    # The map is about the predictions; here it holds as far as its columns are there.
    given = {role: column_names((columns or {}).get(role, ())) for role in roles}
    there = ("response", *(role for role in roles if set(given[role]) <= set(available)))
    chosen, wrong = find_roles(available, given={r: given[r] for r in there if given[r]})
    problems += [one for one in wrong if one.place.removeprefix("columns.") in roles]
    if "response" not in chosen and not problems:
        problems.append(unrecognised("response", available))
    if not {"id", "text", "position"} & set(chosen):
        message = "has neither an id nor a text nor a sample_id column to match its rows by"
        problems.append(Problem("the file", message))
    if problems:
        raise _error(path, problems)
    found = []
    for record in records:
        if strategy is not None and _strategy_of(record, chosen) not in (None, strategy):
            continue
        cells = {
            role: record.fields.get(chosen[role][0])
            for role in ("response", "id", "text", "position")
            if role in chosen
        }
        raw, position = cells.get("response"), _text(cells.get("position"))
        if raw is not None and not isinstance(raw, str):
            problems.append(Problem(record.place, "its response is not a text"))
        found.append(
            Response(
                place=record.place,
                raw=raw if isinstance(raw, str) else None,
                id=_text(cells.get("id")),
                text=cells["text"] if isinstance(cells.get("text"), str) else None,
                position=int(position) if position and position.isdecimal() else None,
            )
        )
    if problems:
        raise _error(path, problems)
    return tuple(found)


@dataclass(frozen=True)
class _Reader:
    """Turns records into answers, and gathers what is wrong with their cells."""

    columns: Chosen
    group_separator: Any
    words: Mapping[str, str]
    no_answer: frozenset[str]
    requires_labels: bool
    faults: _Faults = field(default_factory=_Faults)

    def read(self, record: Record) -> Answer:
        """Return the answer of one record; a fault is noted and read over."""
        score = self._score(record)
        if "prediction" in self.columns:
            decision = self._prediction(record)
            undecided: Status = "unparseable"
        else:
            decision = None if math.isnan(score) else (HATE if score >= 0.5 else NORMAL)
            undecided = "error"
        status = self._status(record)
        if status == "ok" and decision is None:
            status = undecided
        answered = status == "ok"
        response = self._cell(record, "response")
        if response is not None and not isinstance(response, str):
            if not _is_missing(response):
                self.faults.add(record, self.columns["response"][0], "is not a text")
            response = None
        rationale = self._cell(record, "rationale")
        return Answer(
            row=self._row(record),
            decision=decision if answered else None,
            score=score if answered else math.nan,
            status=status,
            response=response,
            parser_failed=isinstance(rationale, str)
            and _PARSER_FAILURE.search(rationale.casefold()) is not None,
        )

    def _row(self, record: Record) -> Row:
        text = self._cell(record, "text")
        if "text" in self.columns and not isinstance(text, str):
            self.faults.add(record, self.columns["text"][0], "is missing or not a text")
        groups: list[str] = []
        for name in self.columns.get("group", ()):
            groups += _groups(record.fields.get(name), self.group_separator)
        return Row(
            id=_text(self._cell(record, "id")) or "",
            text=text if isinstance(text, str) else "",
            label=self._label(record),
            groups=tuple(dict.fromkeys(groups)),
            source=_text(self._cell(record, "source")),
            fine_label=_text(self._cell(record, "fine_label")),
            cluster=_text(self._cell(record, "cluster")),
        )

    def _cell(self, record: Record, role: str) -> Any:
        names = self.columns.get(role)
        return record.fields.get(names[0]) if names else None

    def _label(self, record: Record) -> str | None:
        value = _text(self._cell(record, "label"))
        if value is None:
            if self.requires_labels:
                self.faults.add(record, self.columns["label"][0], "is missing")
            return None
        label = self.words.get(label_word(value))
        if label is None:
            message = f'"{value}" is not known; say what it is: --label "{value}=hate" or =normal'
            self.faults.add(record, self.columns["label"][0], message)
        return label

    def _prediction(self, record: Record) -> str | None:
        value = _text(self._cell(record, "prediction"))
        word = "" if value is None else label_word(value)
        label = self.words.get(word)
        if label is None and word not in self.no_answer:
            message = (
                f'"{value}" is not known; say what it is: --label "{value}=hate", =normal or '
                f"={UNPARSEABLE}"
            )
            self.faults.add(record, self.columns["prediction"][0], message)
        return label

    def _score(self, record: Record) -> float:
        value = self._cell(record, "score")
        if _is_missing(value) or (isinstance(value, str) and label_word(value) in NO_ANSWER):
            return math.nan
        try:
            score = float(value)
        except (TypeError, ValueError):
            self.faults.add(record, self.columns["score"][0], f"{value!r} is not a number")
            return math.nan
        if not 0.0 <= score <= 1.0:
            message = "is not a probability of hate, from 0 to 1; convert it, or --column score="
            self.faults.add(record, self.columns["score"][0], message)
        return score

    def _status(self, record: Record) -> Status:
        value = _text(self._cell(record, "status"))
        if value is None:
            return "ok"
        status = STATUS_WORDS.get(label_word(value))
        if status is None:
            message = (
                f'"{value}" is not a status ({", ".join(STATUS_WORDS)}); leave it out with '
                "--column status="
            )
            self.faults.add(record, self.columns["status"][0], message)
        return status or "ok"


def _of_strategy(
    records: Sequence[Record], columns: Chosen, wanted: str | None
) -> tuple[list[Record], dict[str, int], list[Problem]]:
    """Return the rows of one prompt strategy, the counts of the others, and what is wrong."""
    counts: dict[str, int] = {}
    for record in records:
        name = _strategy_of(record, columns) or ""
        counts[name] = counts.get(name, 0) + 1
    if "strategy" not in columns:
        return list(records), {}, []
    chosen = next(iter(counts)) if wanted is None and len(counts) == 1 else wanted
    if chosen is None:
        message = f"the file has rows of several: {listed(counts)}; choose one"
        return list(records), {}, [Problem("--strategy", message)]
    if chosen not in counts:
        message = f'no row of "{chosen}"{suggest(chosen, counts)}; the file has: {listed(counts)}'
        return list(records), {}, [Problem("--strategy", message)]
    rows = [record for record in records if (_strategy_of(record, columns) or "") == chosen]
    return rows, {name: count for name, count in counts.items() if name != chosen}, []


def _strategy_of(record: Record, columns: Chosen) -> str | None:
    return _text(record.fields.get(columns["strategy"][0])) if "strategy" in columns else None


def _repeated_ids(answers: Sequence[Answer]) -> list[Problem]:
    ids = [answer.row.id for answer in answers if answer.row.id]
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        message = f"{len(repeated)} ids are used more than once, {repeated[0]!r} for example"
        return [Problem("columns.id", f"{message}; leave the column out with --column id=")]
    if ids and len(ids) < len(answers):
        return [Problem("columns.id", f"{len(answers) - len(ids)} rows have none")]
    return []


def _error(path: Path, problems: Sequence[Problem]) -> DataError:
    return DataError(str(path), problems, consequence="nothing was imported")


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str | None:
    if _is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a table with missing values has its integers as floats
    return str(value).strip() or None


def _groups(value: Any, separator: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        parts: Iterable[Any] = value
    elif isinstance(value, str) and separator:
        parts = value.split(str(separator))
    else:
        parts = (value,)
    return [name for name in map(_text, parts) if name is not None]

"""One model's answers on one dataset: the content of ``predictions.parquet``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evenhand.core.errors import DataError, Problem, StorageError
from evenhand.core.paths import atomic_path
from evenhand.core.records import HATE, LABELS, NORMAL, Row, Status
from evenhand.core.registry import suggest

_STRING = pa.string()
_SCHEMA = pa.schema(
    [
        ("id", _STRING),
        ("label", _STRING),
        ("group", pa.list_(_STRING)),
        ("source", _STRING),
        ("fine_label", _STRING),
        ("cluster", _STRING),
        ("score", pa.float64()),
        ("decision", _STRING),
        ("status", _STRING),
        ("raw_response", _STRING),
        ("extra", pa.map_(_STRING, _STRING)),
    ]
)
PREDICTION_COLUMNS: tuple[str, ...] = tuple(_SCHEMA.names)
_OPTIONAL = ("extra",)
_STATUSES: tuple[str, ...] = get_args(Status)
_EXCERPTS = ("rationale_text",)
_LONGEST_EXTRA = 200


@dataclass(frozen=True, eq=False)
class Predictions:
    """A validated table of predictions, one row per post. Treat ``frame`` as read-only.

    Attributes:
        frame: columns ``id``, ``label`` (hate, normal, None), ``group`` (list of str), ``source``,
            ``fine_label``, ``cluster``, ``score`` (p(hate) in [0, 1], NaN if none), ``decision``
            (hate, normal, None), ``status`` (ok, unparseable, error), ``raw_response``, and
            ``extra`` (dict of str: further columns by name; empty where the table has none).

    Raises:
        DataError: columns are missing or unknown, or values contradict each other; all at once.
    """

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        _refuse(_column_problems(self.frame))
        frame = _normalised(self.frame)
        _refuse(_value_problems(self.frame, frame))
        object.__setattr__(self, "frame", frame)

    def __len__(self) -> int:
        return len(self.frame)


def predictions_from_rows(
    rows: Sequence[Row],
    *,
    scores: np.ndarray | None = None,
    decisions: Sequence[str | None] | None = None,
    statuses: Sequence[Status] | None = None,
    raw_responses: Sequence[str | None] | None = None,
    threshold: float = 0.5,
) -> Predictions:
    """Join rows with a model's answers.

    Without ``decisions`` a row is decided ``hate`` if and only if its score is at least
    ``threshold``. Without ``statuses`` a row that has no decision is ``unparseable`` where
    decisions were given and ``error`` where scores were.

    The numbers and short texts in the rows' ``extra`` are kept, as text, to slice by. Texts over
    200 characters or with the post in them, and HateXplain's rationales, are not: a table of
    predictions holds no posts.

    Args:
        rows: the dataset's rows, in the order of the answers.
        scores: p(hate) per row, shape (n,); NaN where there is none.
        decisions: ``hate``, ``normal`` or None per row.
        statuses: ``ok``, ``unparseable`` or ``error`` per row.
        raw_responses: the model's text per row, where it generated one.
        threshold: the least score that is decided ``hate``.

    Raises:
        DataError: the answers do not fit the rows.

    >>> rows = [Row(id="a", text="x", label="normal"), Row(id="b", text="y", label="hate")]
    >>> predictions_from_rows(rows, scores=np.array([0.2, 0.5])).frame["decision"].tolist()
    ['normal', 'hate']
    """
    answers = {
        "scores": scores,
        "decisions": decisions,
        "statuses": statuses,
        "raw_responses": raw_responses,
    }
    problems = [
        Problem(name, f"{len(values)} values for {len(rows)} rows")
        for name, values in answers.items()
        if values is not None and len(values) != len(rows)
    ]
    if scores is None and decisions is None:
        problems.append(Problem("scores", "neither scores nor decisions were given"))
    _refuse(problems)
    score = np.full(len(rows), np.nan) if scores is None else np.asarray(scores, dtype=float)
    if decisions is None:
        decisions = _decisions(score, threshold)
        undecided: Status = "error"
    else:
        undecided = "unparseable"
    if statuses is None:
        statuses = ["ok" if decision is not None else undecided for decision in decisions]
    frame = pd.DataFrame(
        {
            "id": _objects([row.id for row in rows]),
            "label": _objects([row.label for row in rows]),
            "group": _objects([list(row.groups) for row in rows]),
            "source": _objects([row.source for row in rows]),
            "fine_label": _objects([row.fine_label for row in rows]),
            "cluster": _objects([row.cluster for row in rows]),
            "score": score,
            "decision": _objects(decisions),
            "status": _objects(statuses),
            "raw_response": _objects(
                [None] * len(rows) if raw_responses is None else raw_responses
            ),
            "extra": _objects([_to_slice_by(row) for row in rows]),
        }
    )
    return Predictions(frame)


def decided_at(predictions: Predictions, threshold: float) -> Predictions:
    """Decide every ok row again: hate if and only if its score is at least ``threshold``.

    Raises:
        DataError: ok rows have no score.

    >>> rows = [Row(id="a", text="x", label="normal"), Row(id="b", text="y", label="hate")]
    >>> strict = decided_at(predictions_from_rows(rows, scores=np.array([0.2, 0.5])), 0.6)
    >>> strict.frame["decision"].tolist()
    ['normal', 'normal']
    """
    frame = predictions.frame
    ok = (frame["status"] == "ok").to_numpy(dtype=bool)
    score = frame["score"].to_numpy(dtype=float)
    missing = int(np.isnan(score[ok]).sum())
    if missing:
        message = f"{missing} of {int(ok.sum())} ok rows have no score to decide by"
        _refuse([Problem("score", message)])
    return Predictions(frame.assign(decision=_objects(_decisions(score, threshold))))


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write ``predictions.parquet`` atomically."""
    columns = {name: predictions.frame[name].tolist() for name in PREDICTION_COLUMNS}
    columns["score"] = [None if np.isnan(value) else value for value in columns["score"]]
    columns["extra"] = [list(extra.items()) for extra in columns["extra"]]
    table = pa.Table.from_pydict(columns, schema=_SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_predictions(path: Path) -> Predictions:
    """Read ``predictions.parquet``.

    Raises:
        StorageError: the file is missing or damaged.
        DataError: its content is not a table of predictions.
    """
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read {path}: {error}", hint="run `evenhand evaluate` again to rewrite it"
        ) from error
    columns = {name: table[name].to_pylist() for name in table.column_names}
    if "extra" in columns and pa.types.is_map(table.schema.field("extra").type):
        columns["extra"] = [dict(pairs or ()) for pairs in columns["extra"]]
    return Predictions(pd.DataFrame({name: _objects(values) for name, values in columns.items()}))


def _decisions(score: np.ndarray, threshold: float) -> list[str | None]:
    decided = np.where(score >= threshold, HATE, NORMAL).astype(object)
    decided[np.isnan(score)] = None
    return decided.tolist()


def _to_slice_by(row: Row) -> dict[str, str]:
    """Return what rows can be told apart by, as text."""
    kept: dict[str, str] = {}
    for name, value in row.extra.items():
        missing = value is None or value != value or value == ""
        if name in _EXCERPTS or missing or not isinstance(value, (str, int, float)):
            continue
        text = str(value)
        if len(text) <= _LONGEST_EXTRA and row.text not in text:
            kept[str(name)] = text
    return kept


def _objects(values: Sequence[Any]) -> pd.Series:
    return pd.Series(list(values), dtype=object)


def _column_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    names = [str(name) for name in frame.columns]
    for name in PREDICTION_COLUMNS:
        if name not in names and name not in _OPTIONAL:
            yield Problem(name, "this column is missing")
    for name in names:
        if name not in PREDICTION_COLUMNS:
            yield Problem(name, f"unknown column{suggest(name, PREDICTION_COLUMNS)}")


def _normalised(frame: pd.DataFrame) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for name in PREDICTION_COLUMNS:
        if name not in frame.columns:
            columns[name] = _objects([{} for _ in range(len(frame))])
            continue
        column = frame[name].reset_index(drop=True)
        if name == "score":
            columns[name] = pd.to_numeric(column, errors="coerce").astype(float)
        elif name == "group":
            columns[name] = _objects([_group_list(value) for value in column])
        elif name == "extra":
            columns[name] = _objects([_extra_dict(value) for value in column])
        else:
            columns[name] = column.astype(object).where(column.notna(), None)
    return pd.DataFrame(columns)


def _group_list(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        return list(dict.fromkeys(value))
    return [] if value is None else value


def _extra_dict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return {} if value is None or value != value else value


def _value_problems(given: pd.DataFrame, frame: pd.DataFrame) -> Iterator[Problem]:
    ok = frame["status"] == "ok"
    known_status = frame["status"].isin(_STATUSES)
    decided = frame["decision"].notna()
    scored = frame["score"].notna()
    not_number = given["score"].notna().reset_index(drop=True) & ~scored
    checks: list[tuple[str, pd.Series, str]] = [
        ("id", ~_are_names(frame["id"]), "is not a non-empty string"),
        ("id", frame["id"].notna() & frame["id"].duplicated(), "repeats an earlier id"),
        ("label", ~_is_label(frame["label"]), 'is neither "hate" nor "normal"'),
        ("group", ~_are_name_lists(frame["group"]), "is not a list of group names"),
        ("extra", ~_are_text_dicts(frame["extra"]), "does not map names to text"),
        ("score", not_number, "is not a number"),
        (
            "score",
            scored & ~frame["score"].between(0.0, 1.0),
            "is not a probability; scores are p(hate), from 0 to 1",
        ),
        ("decision", ~_is_label(frame["decision"]), 'is neither "hate" nor "normal"'),
        ("decision", ok & ~decided, "is missing though the status is ok"),
        ("status", ~known_status, f"is not one of {', '.join(_STATUSES)}"),
        (
            "status",
            known_status & ~ok & (decided | scored),
            "is not ok, yet the row has a decision or a score",
        ),
    ]
    for name, bad, message in checks:
        flags = bad.to_numpy(dtype=bool)
        if flags.any():
            first = int(flags.argmax())
            value = given[name].iloc[first]
            yield Problem(
                name, f"{int(flags.sum())} of {len(frame)} rows: {message} (row {first}: {value!r})"
            )


def _are_names(column: pd.Series) -> pd.Series:
    if pd.api.types.infer_dtype(column, skipna=False) == "string":
        return column != ""
    return column.map(_is_name).astype(bool)


def _are_name_lists(column: pd.Series) -> pd.Series:
    # A million rows are checked at once; only a table with a fault is looked through row by row.
    if set(map(type, column)) <= {list} and all(map(_is_name, _items(column))):
        return pd.Series(True, index=column.index)
    return column.map(lambda value: isinstance(value, list) and all(map(_is_name, value)))


def _are_text_dicts(column: pd.Series) -> pd.Series:
    if set(map(type, column)) <= {dict} and all(map(_is_name, _items(column))):
        texts = {type(text) for extra in column for text in extra.values()}
        if texts <= {str}:
            return pd.Series(True, index=column.index)
    return column.map(
        lambda value: (
            isinstance(value, dict)
            and all(_is_name(name) and isinstance(text, str) for name, text in value.items())
        )
    )


def _items(column: pd.Series) -> set[Any]:
    """Return the distinct items of all rows; unhashable ones by themselves, as a fault."""
    try:
        return set(chain.from_iterable(column))
    except TypeError:
        return {None}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_label(column: pd.Series) -> pd.Series:
    return column.isna() | column.isin(LABELS)


def _refuse(problems: Iterable[Problem]) -> None:
    found = list(problems)
    if found:
        raise DataError("predictions", found, consequence="nothing was evaluated")

"""Raw ToxiGen: the human-annotated table, or the generations labelled by their prompt."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.core.errors import DataError, Problem
from evenhand.core.records import Row
from evenhand.data.corpus import Corpus
from evenhand.data.fingerprint import fingerprint
from evenhand.data.tables import Record, file_error, read_records

SOURCE = "toxigen"
TOXIC, BENIGN = "toxic_implicit", "benign_implicit"
SUFFIXES = (".csv", ".parquet")
ANNOTATED = ("text", "target_group", "toxicity_human")
GENERATED = ("generation", "group", "prompt_label")
PROBLEMS_SHOWN = 20

_BYTES_LITERAL = re.compile(r"""b(['"]).*\1""", re.DOTALL)


def read_toxigen(paths: Sequence[Path], *, toxicity_threshold: float) -> Corpus:
    """Read raw ToxiGen (Hartvigsen et al. 2022) from its files (CSV or Parquet) or folders.

    In the annotated table a post is toxic where ``toxicity_human``, the annotators' mean on a
    scale of 1 to 5, is above ``toxicity_threshold``. In the generated table it is toxic where
    its prompt was (``prompt_label`` 1), and posts from one prompt share a cluster. Agreement is
    unknown: the tables have no single votes.

    Raises:
        DataError: a file is missing or has neither table's columns, or rows are wrong.
    """
    files = tuple(file for path in paths for file in _files(path))
    rows: list[Row] = []
    empty = 0
    for file in files:
        records = read_records(file)
        converted = _rows(file, records, toxicity_threshold)
        rows += converted
        empty += len(records) - len(converted)
    return Corpus(name=SOURCE, rows=tuple(rows), dropped={"the text is empty": empty}, files=files)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise file_error(path, f"has no {' or '.join(SUFFIXES)} file in it")
    return found


def _rows(file: Path, records: Sequence[Record], threshold: float) -> list[Row]:
    annotated = _is_annotated(file, records)
    text_column, group_column, score_column = ANNOTATED if annotated else GENERATED
    rows: list[Row] = []
    problems: list[Problem] = []
    for record in records:
        score = _number(record.fields.get(score_column))
        text = record.fields.get(text_column) or ""
        if record.fault is not None:
            problems.append(Problem(record.place, record.fault))
        elif not isinstance(text, str):
            problems.append(Problem(record.place, f"{text_column} is not a string"))
        elif score is None:
            problems.append(Problem(record.place, f"{score_column} is not a number"))
        elif _plain_text(text).strip():
            group = str(record.fields.get(group_column) or "").strip()
            row = Row(
                id=f"{SOURCE}_{file.stem}_{record.position}",
                text=_plain_text(text),
                groups=(group,) if group else (),
                source=SOURCE,
                fine_label=TOXIC if score > (threshold if annotated else 0.5) else BENIGN,
                cluster=None if annotated else _prompt_cluster(record.fields),
                extra={"agreement": None, "rationale_text": None, "split": _split(file)},
            )
            rows.append(row)
    if problems:
        hint = f"{len(problems)} rows are not in ToxiGen's format; the first ones are shown"
        raise DataError(str(file), problems[:PROBLEMS_SHOWN], hint=hint)
    return rows


def _is_annotated(file: Path, records: Sequence[Record]) -> bool:
    available = {name for record in records for name in record.fields}
    if set(ANNOTATED) <= available:
        return True
    if set(GENERATED) <= available:
        return False
    wanted = f"{', '.join(ANNOTATED)} or {', '.join(GENERATED)}"
    raise file_error(file, f"is not raw ToxiGen: it has no columns {wanted}")


def _plain_text(text: str) -> str:
    """Return the text; some published files hold Python's form of bytes (``b'...'``)."""
    if _BYTES_LITERAL.fullmatch(text):
        try:
            return ast.literal_eval(text).decode("utf-8", errors="replace")
        except (SyntaxError, ValueError):
            return text
    return text


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number else None


def _prompt_cluster(fields: Mapping[str, Any]) -> str | None:
    prompt = fields.get("prompt")
    return f"{SOURCE}-{fingerprint(prompt)[:12]}" if isinstance(prompt, str) and prompt else None


def _split(file: Path) -> str | None:
    return next((name for name in ("train", "test") if name in file.stem.lower()), None)

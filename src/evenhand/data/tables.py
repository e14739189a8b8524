"""Records out of files: CSV, JSON lines, a JSON array or Parquet, each with its place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evenhand.core.errors import DataError, Problem

BOM = b"\xef\xbb\xbf"
DELIMITERS = (",", "\t", ";")
_MOST_CHARACTERS = 2**31 - 1  # the most that the limit of a CSV field can be everywhere
NOT_UNICODE = "invalid UTF-8; save the file as UTF-8"


@dataclass(frozen=True, slots=True)
class Record:
    """One raw record: its position (line, item or row, 1-based), its place in words, its fields.

    ``fault`` says why the record could not be read; its fields are then empty.
    """

    position: int
    place: str
    fields: Mapping[str, Any]
    fault: str | None = None


def read_records(path: Path) -> list[Record]:
    """Read a table's records, recognising the file's kind by content and extension.

    Unreadable records are returned with their fault, so that all of them can be reported at once.

    Raises:
        DataError: the file as a whole cannot be read (missing, empty, a broken JSON array, ...).
    """
    data = _read_bytes(path)
    if data.startswith(b"PAR1"):
        return _parquet(path)
    # Undecodable bytes become surrogates here and a fault of their own record below.
    text = data.removeprefix(BOM).decode("utf-8", errors="surrogateescape")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        records = _csv(path, text, delimiter="\t" if suffix == ".tsv" else None)
    elif text.lstrip().startswith("["):
        records = _json_array(path, text)
    elif suffix in (".jsonl", ".ndjson", ".json") or text.lstrip().startswith("{"):
        records = _json_lines(path, text)
    else:
        records = _csv(path, text)
    checked = [_check_unicode(record) for record in records]
    if not checked:
        raise file_error(path, "holds no rows")
    return checked


def record_problems(records: Iterable[Record]) -> list[Problem]:
    """Return the faults of records that cannot be read; those of the encoding are one problem."""
    faulty = [one for one in records if one.fault is not None]
    undecoded = [one.place for one in faulty if one.fault == NOT_UNICODE]
    problems = [Problem(one.place, str(one.fault)) for one in faulty if one.fault != NOT_UNICODE]
    if undecoded:
        problems.insert(0, Problem("the file", f"{NOT_UNICODE} ({places_of(undecoded)})"))
    return problems


def places_of(places: Sequence[str]) -> str:
    """Return where something stands, in a few words.

    >>> places_of(["line 3"]), places_of(["line 3", "line 9"])
    ('line 3', '2 rows, first line 3')
    """
    return places[0] if len(places) == 1 else f"{len(places):,} rows, first {places[0]}"


def file_error(path: Path, message: str, *, hint: str | None = None) -> DataError:
    """Return the error for a file that cannot be used as a whole."""
    return DataError(str(path), [Problem("the file", message)], hint=hint)


def is_unicode(value: Any) -> bool:
    """Tell whether every string in a JSON-like value can be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, Mapping):
        return all(is_unicode(key) and is_unicode(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_unicode(item) for item in value)
    return True


def _check_unicode(record: Record) -> Record:
    if is_unicode(record.fields):
        return record
    return Record(record.position, record.place, {}, NOT_UNICODE)


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise file_error(path, "is a folder; name a file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise file_error(path, "does not exist") from None
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror or error}") from error
    if not data.removeprefix(BOM).strip():
        raise file_error(path, "is empty")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise file_error(path, "is UTF-16; save it as UTF-8")
    if data.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise file_error(path, "is compressed; unpack it first")
    return data


def _parquet(path: Path) -> list[Record]:
    try:
        # ParquetFile, not read_table: that one reads "key=value" folders of the path as columns.
        with pq.ParquetFile(path) as file:
            rows = file.read().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise file_error(path, f"is not readable as Parquet: {error}") from error
    if not rows:
        raise file_error(path, "holds no rows")
    return [
        _check_unicode(Record(number, f"row {number}", row)) for number, row in enumerate(rows, 1)
    ]


def _parse_json(text: str) -> Any:
    """Parse JSON; whatever makes it unusable, depth included, is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _json_lines(path: Path, text: str) -> list[Record]:
    lines = text.split("\n")  # only \n: a post may hold U+2028 and its like
    content = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    records = []
    for number, line in content:
        fields, fault = _json_object(line)
        records.append(Record(number, f"line {number}", fields, fault))
    if len(records) > 1 and records[0].fault is not None:
        _refuse_single_object(path, text)
    return records


def _json_object(line: str) -> tuple[Mapping[str, Any], str | None]:
    try:
        value = _parse_json(line)
    except ValueError as error:
        return {}, f"malformed JSON: {error}"
    if not isinstance(value, dict):
        return {}, "is not a JSON object"
    return value, None


def _refuse_single_object(path: Path, text: str) -> None:
    try:
        value = _parse_json(text)
    except ValueError:
        return
    hint = None
    if isinstance(value, dict) and any(
        isinstance(item, dict) and "annotators" in item for item in value.values()
    ):
        hint = "this looks like raw HateXplain; run `evenhand data prepare` on it"
    raise file_error(path, "is one JSON object, not rows: use an array or JSON lines", hint=hint)


def _json_array(path: Path, text: str) -> list[Record]:
    decoder = json.JSONDecoder()
    records: list[Record] = []
    skip = _space_skipper(text)
    position = skip(skip(0) + 1)
    line, counted = 1, 0
    if text[position : position + 1] == "]":
        return []
    while True:
        line += text.count("\n", counted, position)
        counted = position
        number = len(records) + 1
        place = f"item {number} (line {line})"
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            message = f"malformed JSON in {place}: {error}; nothing after it can be read"
            raise file_error(path, message) from None
        if isinstance(value, dict):
            records.append(Record(number, place, value))
        else:
            records.append(Record(number, place, {}, "is not a JSON object"))
        position = skip(position)
        follows = text[position : position + 1]
        if follows == "]" and not text[position + 1 :].strip():
            return records
        if follows != ",":
            raise file_error(path, f"malformed JSON after {place}: expected ',' or a final ']'")
        position = skip(position + 1)


def _space_skipper(text: str) -> Callable[[int], int]:
    def skip(position: int) -> int:
        while text[position : position + 1] in (" ", "\t", "\r", "\n"):
            position += 1
        return position

    return skip


def _csv(path: Path, text: str, *, delimiter: str | None = None) -> list[Record]:
    first = text.lstrip().split("\n", 1)[0]
    if "\0" in first:
        raise file_error(path, "is not a text file; name a CSV, JSON or Parquet file")
    if not is_unicode(first):
        raise file_error(path, NOT_UNICODE)
    chosen = delimiter or max(DELIMITERS, key=first.count)
    # newline="" keeps quoted newlines as they are; strict, so that a quote which is never closed
    # is an error and does not swallow the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=chosen, strict=True)
    limit = csv.field_size_limit(_MOST_CHARACTERS)  # for every reader of the process
    try:
        rows = list(_csv_rows(reader))
    finally:
        csv.field_size_limit(limit)
    _, header, fault = rows[0]
    if fault is not None:
        raise file_error(path, f"the header is malformed CSV: {fault}")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise file_error(path, f"the header names {repeated} more than once")
    records = []
    for number, cells, fault in rows[1:]:
        if fault is not None:
            reason: str | None = f"malformed CSV: {fault}"
        elif len(cells) != len(header):
            reason = f"has {len(cells)} fields, the header has {len(header)}"
        else:
            reason = None
        fields = {} if reason else dict(zip(header, cells, strict=True))
        records.append(Record(number, f"line {number}", fields, reason))
    return records


def _csv_rows(reader: Any) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield (first line, cells, fault) for each row that is not blank."""
    while True:
        first_line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first_line, [], str(error)
        else:
            if cells:
                yield first_line, cells, None

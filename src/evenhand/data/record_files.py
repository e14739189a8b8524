"""Raw records of a file read from any row on: JSON lines, CSV and Parquet, never as a whole."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from evenhand.data.tables import BOM, DELIMITERS, NOT_UNICODE, Record, file_error, is_unicode

LONGEST_RECORD_BYTES = 2**26
"""What bounds the memory: a longer line, or CSV field, is a damaged file and not a post."""

_HEAD_BYTES = 2**16
_PARQUET_BATCH_ROWS = 512
_PARQUET_BUFFER_BYTES = 2**20


class Start(NamedTuple):
    """Where a record begins: the byte (Parquet: row) and the number of lines (rows) before it."""

    offset: int
    lines: int


@dataclass(frozen=True)
class RecordFile(ABC):
    """A file of records; each kind is a subclass.

    Attributes:
        first: where the first record begins.
        columns: the only columns that are read; None where a record is always read whole.
    """

    path: Path
    first: Start
    columns: tuple[str, ...] | None = None

    @abstractmethod
    def scan(self) -> Iterator[Start]:
        """Yield where each record begins.

        Raises:
            DataError: the file is damaged so that nothing after a line can be read.
        """

    @abstractmethod
    def read(self, start: Start) -> Iterator[Record]:
        """Yield the records from ``start`` on; one that is damaged has a fault."""


def open_record_file(path: Path) -> RecordFile:
    """Recognise a file's kind by its content and extension.

    Raises:
        DataError: it is missing, empty, or of a kind that cannot be read in parts.
    """
    head = _read_head(path)
    if head.startswith(b"PAR1"):
        return ParquetRows.open(path)
    begin = len(BOM) if head.startswith(BOM) else 0
    text = head[begin:].decode("utf-8", errors="surrogateescape").lstrip()
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return CsvRows.open(path, begin, text, delimiter="\t" if suffix == ".tsv" else None)
    if text.startswith("["):
        raise file_error(
            path,
            "is a JSON array, which cannot be read in parts",
            hint="write it as JSON lines, one object a line (jq -c '.[]'), or as CSV or Parquet",
        )
    if suffix in (".jsonl", ".ndjson", ".json") or text.startswith("{"):
        return JsonLines(path, Start(begin, 0))
    return CsvRows.open(path, begin, text)


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise file_error(path, "is a folder; name a file")
    if not path.exists():
        raise file_error(path, "does not exist")
    if not path.is_file():
        raise file_error(path, "is no regular file: it must be possible to read it again")
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror or error}") from error
    if len(head) < _HEAD_BYTES and not head.removeprefix(BOM).strip():
        raise file_error(path, "is empty")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise file_error(path, "is UTF-16; save it as UTF-8")
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise file_error(path, "is compressed; unpack it first")
    return head


@dataclass(frozen=True)
class JsonLines(RecordFile):
    """One JSON object a line; blank lines are no records."""

    def scan(self) -> Iterator[Start]:
        """Yield where each line that is not blank begins."""
        for start, _ in self._lines(self.first):
            yield start

    def read(self, start: Start) -> Iterator[Record]:
        """Yield the records from ``start`` on."""
        for at, line in self._lines(start):
            number = at.lines + 1
            fields, fault = {}, None
            try:
                fields = json.loads(line.decode("utf-8", errors="surrogateescape"))
            except RecursionError:
                fault = "malformed JSON: nested too deeply"
            except ValueError as error:
                fault = f"malformed JSON: {error}"
            if fault is None and not isinstance(fields, dict):
                fault = "is not a JSON object"
            yield Record(number, f"line {number}", {} if fault else fields, fault)

    def _lines(self, start: Start) -> Iterator[tuple[Start, bytes]]:
        offset, number = start
        with self.path.open("rb") as stream:
            stream.seek(offset)
            while line := _read_line(stream, self.path, number):
                if line.strip():
                    yield Start(offset, number), line
                offset += len(line)
                number += 1


@dataclass(frozen=True)
class CsvRows(RecordFile):
    """CSV with a header; a row may go on over several lines in quotes."""

    header: tuple[str, ...] = ()
    delimiter: str = ","

    @classmethod
    def open(cls, path: Path, begin: int, head: str, *, delimiter: str | None = None) -> Self:
        """Read the header; ``head`` is the beginning of the file's text.

        Raises:
            DataError: it is damaged, or names a column twice.
        """
        line = head.split("\n", 1)[0]
        if "\0" in line:
            raise file_error(path, "is not a text file; name a CSV, JSON lines or Parquet file")
        if not is_unicode(line):
            raise file_error(path, NOT_UNICODE)
        found = cls(path, Start(begin, 0), delimiter=delimiter or max(DELIMITERS, key=line.count))
        rows = found._rows(found.first)
        _, header, fault = next(rows)
        if fault is not None:
            raise file_error(path, f"the header is malformed CSV: {fault}")
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise file_error(path, f"the header names {repeated} more than once")
        after = next((start for start, _, _ in rows), None)
        if after is None:
            raise file_error(path, "holds no rows")
        return cls(path, after, header=tuple(header), delimiter=found.delimiter)

    def scan(self) -> Iterator[Start]:
        """Yield where each row begins."""
        for start, _, _ in self._rows(self.first):
            yield start

    def read(self, start: Start) -> Iterator[Record]:
        """Yield the rows from ``start`` on."""
        for at, cells, fault in self._rows(start):
            if fault is not None:
                reason: str | None = f"malformed CSV: {fault}"
            elif len(cells) != len(self.header):
                reason = f"has {len(cells)} fields, the header has {len(self.header)}"
            else:
                reason = None
            fields = {} if reason else dict(zip(self.header, cells, strict=True))
            number = at.lines + 1
            yield Record(number, f"line {number}", fields, reason)

    def _rows(self, start: Start) -> Iterator[tuple[Start, list[str], str | None]]:
        """Yield (place, cells, fault) for each row that is not blank."""
        with self.path.open("rb") as stream:
            stream.seek(start.offset)
            lines = _TextLines(stream, self.path, start)
            # strict, so that a quote which is never closed is an error
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
            while True:
                at = Start(lines.offset, lines.number)
                cells, fault = [], None
                limit = csv.field_size_limit(LONGEST_RECORD_BYTES)  # of the whole process
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    fault = str(error)
                finally:
                    csv.field_size_limit(limit)
                if fault is not None and ("end of data" in fault or "field limit" in fault):
                    message = f"the row in line {at.lines + 1} opens a quote that is never closed"
                    raise file_error(self.path, f"{message}; nothing after it can be read")
                if cells or fault is not None:
                    yield at, cells, fault


class _TextLines:
    """The lines of a CSV file as text, and how far they have been read.

    A line may also end in a lone carriage return, as in :mod:`evenhand.data.tables`.
    """

    def __init__(self, stream: IO[bytes], path: Path, start: Start) -> None:
        self.stream = stream
        self.path = path
        self.offset, self.number = start
        self.waiting: list[bytes] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not self.waiting:
            line = _read_line(self.stream, self.path, self.number)
            if not line:
                raise StopIteration
            self.waiting = line.splitlines(keepends=True)[::-1]
        piece = self.waiting.pop()
        self.offset += len(piece)
        self.number += 1
        # Undecodable bytes become surrogates here and a fault of their own row later.
        return piece.decode("utf-8", errors="surrogateescape")


def _read_line(stream: IO[bytes], path: Path, number: int) -> bytes:
    line = stream.readline(LONGEST_RECORD_BYTES + 1)
    if len(line) > LONGEST_RECORD_BYTES:
        limit = f"{LONGEST_RECORD_BYTES // 2**20} MiB"
        raise file_error(path, f"line {number + 1} is longer than {limit}")
    return line


@dataclass(frozen=True)
class ParquetRows(RecordFile):
    """The rows of a Parquet file, a few hundred at a time."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the column names.

        Raises:
            DataError: the file is damaged or holds no rows.
        """
        with _open_parquet(path) as file:
            if not file.metadata.num_rows:
                raise file_error(path, "holds no rows")
            return cls(path, Start(0, 0), columns=tuple(file.schema_arrow.names))

    def scan(self) -> Iterator[Start]:
        """Yield every row's number; the file says how many there are."""
        with _open_parquet(self.path) as file:
            rows = file.metadata.num_rows
        for row in range(rows):
            yield Start(row, row)

    def read(self, start: Start) -> Iterator[Record]:
        """Yield the rows from ``start`` on, with the columns that are read."""
        row = start.lines
        with _open_parquet(self.path) as file:
            skip, groups = row, []
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if groups or skip < size:
                    groups.append(group)
                else:
                    skip -= size
            batches = file.iter_batches(
                _PARQUET_BATCH_ROWS, row_groups=groups, columns=self.columns
            )
            try:
                for batch in batches:
                    wanted = batch.slice(min(skip, len(batch)))
                    skip -= len(batch) - len(wanted)
                    for fields in wanted.to_pylist():
                        row += 1
                        yield Record(row, f"row {row}", fields)
            except (pa.ArrowException, OSError) as error:
                message = f"is damaged after row {row:,}: {error}; nothing after it can be read"
                raise file_error(self.path, message) from error


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        # The buffer makes pyarrow read a column piece by piece, however long a row group is.
        return pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER_BYTES)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise file_error(path, f"is not readable as Parquet: {error}") from error

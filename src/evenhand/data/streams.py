"""Posts of a file of any size: looked over once, then read shard by shard in bounded memory.

:mod:`evenhand.data.sources` reads a data set as a whole, with its labels and groups. Here only the
text and the id of each row matter, a row that cannot be used is a row all the same, and no more
than one shard of the file is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from evenhand.core.errors import DataError, Problem
from evenhand.core.paths import sha256_file
from evenhand.data.chat import read_chat
from evenhand.data.columns import ROLES, find_columns
from evenhand.data.record_files import RecordFile, Start, open_record_file
from evenhand.data.sources import PRESETS, single_value
from evenhand.data.tables import NOT_UNICODE, Record, file_error, is_unicode

_SAMPLE_ROWS = 1000
"""JSON lines have no header: their columns are those of the first so many rows."""

_READ_ROLES = ("text", "id")


@dataclass(frozen=True, slots=True)
class Post:
    """One row of the input.

    Attributes:
        row: its number in the file, from 1; unique.
        id: the file's own id, else ``row-`` and its line (Parquet: its number), as in data sets.
        text: the post; empty where ``fault`` says why it cannot be scored.
        fault: the place and what is wrong with the row; None where it can be scored.
    """

    row: int
    id: str
    text: str
    fault: str | None = None


@dataclass(frozen=True)
class PostFile:
    """A file of posts that has been looked over, cut into shards of ``shard_rows`` rows.

    Shard k holds the rows k * shard_rows + 1 to (k + 1) * shard_rows; the last one may be shorter.
    """

    path: Path
    sha256: str
    rows: int
    shard_rows: int
    columns: Mapping[str, str | None]
    source: RecordFile
    starts: tuple[Start, ...]
    stamp: tuple[int, int]

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.starts)

    def rows_in(self, shard: int) -> int:
        """Return the number of rows of a shard."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def read(self, shards: Iterable[int]) -> Iterator[tuple[int, tuple[Post, ...]]]:
        """Yield (shard, its posts) for each of ``shards``, one shard in memory at a time.

        A shard is read from the place where it begins; one that follows the last, straight on.

        Raises:
            DataError: the file has changed since it was looked over, or cannot be read there.
        """
        records: Iterator[Record] = iter(())
        following = None
        for shard in shards:
            if shard != following:
                records = self.source.read(self.starts[shard])
            first = shard * self.shard_rows + 1
            numbered = enumerate(islice(records, self.rows_in(shard)), first)
            posts = tuple(_post(number, record, self.columns) for number, record in numbered)
            if len(posts) != self.rows_in(shard) or _stamp(self.path) != self.stamp:
                raise file_error(self.path, "has changed since it was looked over")
            yield shard, posts
            following = shard + 1


def survey_posts(
    path: str | Path,
    *,
    shard_rows: int,
    columns: Mapping[str, str | Sequence[str]] | None = None,
) -> PostFile:
    """Look a file over: its hash, its columns, how many rows it has, where each shard begins.

    CSV, JSON lines and Parquet are recognised by content and extension, and the columns by name,
    as :func:`evenhand.data.sources.read_dataset` does; chats give their post. ``columns`` names
    the ``text`` and ``id`` columns instead. Blank lines are no rows. Memory does not grow with the
    file, but for some bytes a shard.

    Raises:
        DataError: the file is missing, empty, of another kind (a JSON array), has no text column,
            or is damaged so that nothing after a line can be read.
    """
    path = Path(path)
    source = open_record_file(path)
    sample = list(islice(source.read(source.first), _SAMPLE_ROWS))
    chosen = _choose_columns(path, sample, columns or {})
    needed = [name for name in chosen.values() if name is not None]
    source = source if source.columns is None else replace(source, columns=tuple(needed))
    starts = []
    rows, stamp = 0, _stamp(path)
    for start in source.scan():
        if rows % shard_rows == 0:
            starts.append(start)
        rows += 1
    return PostFile(
        path=path,
        sha256=sha256_file(path),
        rows=rows,
        shard_rows=shard_rows,
        columns=chosen,
        source=source,
        starts=tuple(starts),
        stamp=stamp,
    )


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of the last change: what tells cheaply that a file has changed."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _choose_columns(
    path: Path, sample: Sequence[Record], given: Mapping[str, str | Sequence[str]]
) -> dict[str, str | None]:
    """Return the column of ``text`` and ``id``, or of the chat (``messages``) and ``id``."""
    readable = [record for record in sample if record.fault is None]
    if not readable:
        if not sample:
            raise file_error(path, "holds no rows")
        message = f"none of the first {len(sample)} rows can be read; {sample[0].place}: "
        raise file_error(
            path,
            message + str(sample[0].fault),
            hint="an input is CSV with a header, JSON lines (one object a line), or Parquet",
        )
    unread = [role for role in given if role in (*ROLES, "group_separator")]
    problems = [
        Problem(f"columns.{role}", "is not read in scoring; only text and id are")
        for role in unread
        if role not in _READ_ROLES
    ]
    if problems:
        raise DataError(str(path), problems)
    available = list(dict.fromkeys(name for record in readable for name in record.fields))
    if "messages" in available and "text" not in available and "text" not in given:
        identity = given.get("id", "id" if "id" in available else "")
        return {"messages": "messages", "id": str(identity) or None}
    hatecheck = PRESETS["hatecheck"]
    is_hatecheck = {hatecheck.text, hatecheck.label, hatecheck.fine_label} <= {*available}
    others: dict[str, str | Sequence[str]] = {r: () for r in ROLES if r not in _READ_ROLES}
    found = find_columns(
        path, available, given={**others, **given}, preset=hatecheck if is_hatecheck else None
    )
    return {"text": found.text, "id": found.id}


def _post(number: int, record: Record, columns: Mapping[str, str | None]) -> Post:
    fallback = f"row-{record.position:06d}"
    if record.fault is not None:
        return Post(number, fallback, "", f"{record.place}: {record.fault}")
    name, text = columns.get("text"), None
    faults = []
    try:
        if name is None:
            text = read_chat({"messages": _asked(record.fields.get("messages"))})["text"]
        else:
            text = _text(name, record.fields.get(name))
    except ValueError as error:
        faults.append(str(error))
    identity = None
    try:
        identity = _identity(columns["id"], record.fields)
    except ValueError as error:
        faults.append(str(error))
    if not faults and is_unicode(text) and is_unicode(identity):
        return Post(number, identity or fallback, str(text))
    reason = "; ".join(faults) or NOT_UNICODE
    kept = identity if is_unicode(identity) else None
    return Post(number, kept or fallback, "", f"{record.place}: {reason}")


def _asked(messages: Any) -> Any:
    """Return a chat without its answers, whose form does not matter here."""
    if not isinstance(messages, list):
        return messages
    return [t for t in messages if not (isinstance(t, Mapping) and t.get("role") == "assistant")]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        is_missing = value is None or value != value
        raise ValueError(f"{name} is {'missing' if is_missing else 'not a string'}")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    return value


def _identity(name: str | None, fields: Mapping[str, Any]) -> str | None:
    if name is None:
        return None
    try:
        return single_value(fields.get(name))
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None

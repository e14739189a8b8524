"""Data files as rows: unified JSON, chat JSONL, HateCheck's CSV, our own rows, any table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evenhand.core.errors import DataError, Problem
from evenhand.core.paths import atomic_path, sha256_file
from evenhand.core.records import BadRow, Dataset, Row
from evenhand.core.registry import suggest
from evenhand.data.chat import read_chat
from evenhand.data.columns import Columns, find_columns, how_to_name
from evenhand.data.labels import label_table, label_word, unknown_word
from evenhand.data.tables import NOT_UNICODE, Record, file_error, places_of, read_records

Format = Literal["unified", "chat", "hatecheck", "rows", "table"]
FORMATS: tuple[Format, ...] = ("unified", "chat", "hatecheck", "rows", "table")
BAD_ROWS_SHOWN = 1000

PRESETS: Mapping[str, Columns] = {
    "unified": Columns(
        text="text",
        label="label_binary",
        group=("target_group_norm",),
        id="original_id",
        source="source_dataset",
        fine_label="label_multiclass",
        cluster="cluster",
        extra=("persona_tag", "rationale_text", "agreement", "split"),
    ),
    "hatecheck": Columns(
        text="test_case",
        label="label_gold",
        group=("target_ident",),
        id="case_id",
        fine_label="functionality",
        cluster="templ_id",
        extra=("direction", "ref_case_id", "ref_templ_id"),
    ),
    "chat": Columns(text="text", label="label", group=("persona",), id="id", extra=()),
    "rows": Columns(
        text="text",
        label="label",
        group=("groups",),
        id="id",
        source="source",
        fine_label="fine_label",
        cluster="cluster",
        extra=(),
    ),
}
"""The columns of the formats that name them themselves."""

_SIGNATURES: Mapping[Format, tuple[str, ...]] = {
    "rows": ("id", "text", "label", "groups"),
    "chat": ("messages",),
    "unified": ("text", "label_binary", "target_group_norm"),
    "hatecheck": ("functionality", "test_case", "label_gold"),
}


def read_dataset(
    path: str | Path,
    *,
    name: str | None = None,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    labels: Mapping[str, str] | None = None,
    format: str | None = None,
    on_bad_row: Literal["stop", "skip"] = "stop",
    max_rows: int | None = None,
    require_labels: bool = True,
    texts_only: bool = False,
) -> Dataset:
    """Read a data file into validated rows.

    The format is recognised by its columns: ``unified``, ``chat``, ``hatecheck``, ``rows`` (see
    :func:`write_rows`), else ``table``: CSV, JSON lines, a JSON array or Parquet with the columns
    that ``columns`` names. A role that ``columns`` leaves out is found as without it. Rows without
    an id are called after their position (``row-000123``). Ids must be unique; only in the
    unified format, whose ``original_id`` may repeat, a repetition gets ``#2``, ``#3``, ... in file
    order.

    Args:
        path: the file.
        name: what to call the dataset; the file's stem by default.
        columns: role -> column, for ``text``, ``label``, ``group`` (one or a list), ``id``,
            ``source``, ``fine_label``, ``cluster``, and ``group_separator`` for several groups
            in one cell. An empty name or list: the role has no column.
        labels: further label words -> ``hate`` or ``normal``, before the built-in ones.
        format: one of :data:`FORMATS` instead of recognition.
        on_bad_row: ``stop`` raises with every bad row; ``skip`` lists them in ``skipped``.
        max_rows: look at the first so many records only.
        require_labels: whether a missing label makes a row bad; an unknown word always does.
        texts_only: whether nothing but the texts counts; no other column can make a row bad.

    Raises:
        DataError: the file cannot be read, a row is bad, or no row is left.
        ConfigError: the label map names something that is not a label.
    """
    path = Path(path)
    words = label_table(labels)
    records = read_records(path)[:max_rows]
    usable = [record for record in records if record.fault is None]
    rows: list[Row] = []
    bad = [(record, _Bad((record.fault,))) for record in records if record.fault is not None]
    if usable:
        reader = _reader(path, usable, columns, format)
        if texts_only:
            require_labels = False
            reader = replace(reader, columns=Columns(reader.columns.text, extra=()))
        if require_labels and reader.columns.label is None:
            message = f"no column name was recognised; {how_to_name('label')}"
            raise DataError(str(path), [Problem("columns.label", message)])
        converted = [(record, reader(record, words, require_labels)) for record in usable]
        bad += [(record, row) for record, row in converted if isinstance(row, _Bad)]
        good = [(record, row) for record, row in converted if isinstance(row, Row)]
        rows, repeated = _unique_ids(good, suffix=reader.format == "unified")
        bad += repeated
    bad.sort(key=lambda pair: pair[0].position)
    if bad and (on_bad_row == "stop" or not rows):
        raise _bad_rows_error(path, bad)
    return Dataset(
        name=name or path.stem,
        rows=tuple(rows),
        path=path,
        sha256=sha256_file(path),
        skipped=tuple(BadRow(str(path), record.position, one.reason) for record, one in bad),
    )


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSON lines in the ``rows`` format, atomically; :func:`read_dataset` reads it.

    Raises:
        StorageError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row_fields(row), ensure_ascii=False) + "\n")


def row_fields(row: Row) -> dict[str, Any]:
    """Return a row as JSON: its own fields, chat and extra columns only where it has them."""
    fields: dict[str, Any] = {
        "id": row.id,
        "text": row.text,
        "label": row.label,
        "groups": list(row.groups),
        "source": row.source,
        "fine_label": row.fine_label,
        "cluster": row.cluster,
    }
    if row.messages is not None:
        fields["messages"] = [{"role": role, "content": said} for role, said in row.messages]
    if row.extra:
        fields["extra"] = dict(row.extra)
    return fields


class _UnknownWordError(ValueError):
    """A cell has a label word that is not known: a fault of all rows with the word."""


@dataclass(frozen=True, slots=True)
class _Bad:
    """Why a record makes no row; ``words`` are the unknown label words' problems, by column."""

    faults: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        return "; ".join([*self.faults, *(f"{name} {message}" for name, message in self.words)])


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns a record into a row, or into the reasons why it cannot."""

    format: Format
    columns: Columns

    def __call__(
        self, record: Record, words: Mapping[str, str], require_labels: bool
    ) -> Row | _Bad:
        columns = self.columns
        fields = record.fields
        faults: list[str] = []
        unknown: list[tuple[str, str]] = []

        def cell(name: str | None, convert: Callable[[Any], Any] = single_value) -> Any:
            try:
                return None if name is None else convert(fields.get(name))
            except _UnknownWordError as error:
                unknown.append((str(name), str(error)))
                return None
            except ValueError as error:
                faults.append(f"{name} {error}")
                return None

        if self.format == "chat":
            try:
                fields = read_chat(fields)
            except ValueError as error:
                return _Bad((str(error),))
        text = fields.get(columns.text)
        if not isinstance(text, str):
            reason = "is missing" if _missing(text) else "is not a string"
            faults.append(f"{columns.text} {reason}")
        elif not text.strip():
            faults.append(f"{columns.text} is empty")
        label = cell(columns.label, lambda value: _label(value, words, require_labels))
        groups: list[str] = []
        for name in columns.group:
            groups += cell(name, lambda value: _groups(value, columns.group_separator)) or []
        row = Row(
            id=cell(columns.id) or f"row-{record.position:06d}",
            text=text if isinstance(text, str) else "",
            label=label,
            groups=tuple(dict.fromkeys(groups)),
            source=cell(columns.source) or ("hatecheck" if self.format == "hatecheck" else None),
            fine_label=cell(columns.fine_label),
            cluster=cell(columns.cluster),
            messages=cell("messages" if self.format in ("chat", "rows") else None, _messages),
            extra=cell("extra", _object) if self.format == "rows" else _others(fields, columns),
        )
        return _Bad(tuple(faults), tuple(unknown)) if faults or unknown else row


def _reader(
    path: Path,
    records: Sequence[Record],
    columns: Mapping[str, str | Sequence[str]] | None,
    named: str | None,
) -> _Reader:
    if named is not None and named not in FORMATS:
        message = f'"{named}" is not known{suggest(named, FORMATS)}; formats: '
        raise DataError(str(path), [Problem("format", message + ", ".join(FORMATS))])
    if columns and named not in (None, "table"):
        message = f"the {named} format names its own columns; leave the map or the format out"
        raise DataError(str(path), [Problem("columns", message)])
    available = list(dict.fromkeys(name for record in records for name in record.fields))
    asked: list[Format] = [known for known in FORMATS if known == named]
    fitting: list[Format] = [
        known for known in _SIGNATURES if not _format_fault(known, records, available)
    ]
    format: Format = (asked or fitting or ["table"])[0]
    # The text of a chat is no column, so a map can only be about a table.
    if format == "table" or (columns and format == "chat"):
        return _Reader("table", find_columns(path, available, given=columns))
    fault = _format_fault(format, records, available)
    if fault:
        raise file_error(path, f"is not in the {format} format: {fault}")
    preset = PRESETS[format]
    if columns:
        return _Reader(format, find_columns(path, available, given=columns, preset=preset))
    return _Reader(format, preset)


def _format_fault(
    format: Format, records: Sequence[Record], available: Sequence[str]
) -> str | None:
    missing = [name for name in _SIGNATURES[format] if name not in available]
    if missing:
        return f"no column {', '.join(missing)}"
    # A table of the user's own may have the same header, with several groups in one string.
    if format == "rows" and not any(isinstance(r.fields.get("groups"), list) for r in records):
        return "groups is not a list"
    return None


def _unique_ids(
    pairs: Sequence[tuple[Record, Row]], *, suffix: bool
) -> tuple[list[Row], list[tuple[Record, _Bad]]]:
    rows: list[Row] = []
    repeated: list[tuple[Record, _Bad]] = []
    places: dict[str, str] = {}
    for record, row in pairs:
        if row.id in places and not suffix:
            fault = f'id "{row.id}" was already used in {places[row.id]}'
            repeated.append((record, _Bad((fault,))))
            continue
        count, unique = 1, row
        while unique.id in places:
            count += 1
            unique = replace(row, id=f"{row.id}#{count}")
        places[unique.id] = record.place
        rows.append(unique)
    return rows, repeated


def _bad_rows_error(path: Path, bad: Sequence[tuple[Record, _Bad]]) -> DataError:
    """Return every fault of the rows; what is wrong with many in one way is one problem."""
    shared: dict[tuple[str, str], list[str]] = {}
    problems = []
    for record, one in bad:
        own = [fault for fault in one.faults if fault != NOT_UNICODE]
        if own:
            problems.append(Problem(record.place, "; ".join(own)))
        for found in [*one.words, *([("the file", NOT_UNICODE)] if own != [*one.faults] else [])]:
            shared.setdefault(found, []).append(record.place)
    problems = [
        *(
            Problem(column, f"{message} ({places_of(places)})")
            for (column, message), places in shared.items()
        ),
        *problems,
    ]
    error = DataError(
        str(path),
        problems,
        hint='mend the rows, or leave them out: "on_bad_row": "skip" in an experiment, '
        "or --skip-bad-rows",
    )
    # The heading counts them all; the list stays readable.
    if len(problems) > BAD_ROWS_SHOWN:
        rest = Problem("...", f"and {len(problems) - BAD_ROWS_SHOWN:,} more")
        error.problems = (*problems[:BAD_ROWS_SHOWN], rest)
    return error


def _label(value: Any, words: Mapping[str, str], required: bool) -> str | None:
    word = single_value(value)
    if word is None:
        if required:
            raise ValueError("is missing")
        return None
    label = words.get(label_word(word))
    if label is None:
        raise _UnknownWordError(unknown_word(word))
    return label


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and value != value)


def single_value(value: Any) -> str | None:
    """Return a cell as text, None where it is missing or blank.

    Raises:
        ValueError: it is a list, a mapping or bytes.
    """
    if _missing(value):
        return None
    if isinstance(value, (Mapping, list, tuple, bytes)):
        raise ValueError("is not a single value")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes integers beside missing values as floats
    return str(value).strip() or None


def _groups(value: Any, separator: str | None) -> list[str]:
    if isinstance(value, (list, tuple)):
        parts: Iterable[Any] = value
    elif isinstance(value, str) and separator is not None:
        parts = value.split(separator)
    else:
        parts = [value]
    return [name for name in map(single_value, parts) if name is not None]


def _messages(value: Any) -> tuple[tuple[str, str], ...] | None:
    if value is None:
        return None
    try:
        return tuple((str(turn["role"]), str(turn["content"])) for turn in value)
    except (TypeError, KeyError, IndexError):
        raise ValueError("is not a list of turns with role and content") from None


def _object(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError("is not a JSON object")
    return dict(value or {})


def _others(fields: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    if columns.extra is None:
        used = columns.mapped() | {""}
        return {name: value for name, value in fields.items() if name not in used}
    return {name: fields[name] for name in columns.extra if not _missing(fields.get(name))}

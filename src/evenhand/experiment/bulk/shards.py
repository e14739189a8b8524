"""Shards on disk: written whole, checked before they are trusted, joined into one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from evenhand.core.errors import StorageError
from evenhand.core.paths import atomic_path
from evenhand.core.records import HATE, NORMAL, Row
from evenhand.data.streams import Post
from evenhand.experiment.bulk.job import Job, OutputFormat
from evenhand.finetune.classifier import Classifier
from evenhand.finetune.processes import World

_COLUMNS = [
    ("id", pa.string()),
    ("row", pa.int64()),
    ("score", pa.float64()),
    ("decision", pa.string()),
    ("status", pa.string()),
    ("reason", pa.string()),
]
SCORE_COLUMNS = tuple(name for name, _ in _COLUMNS)
_JOB_KEY, _DEVICE_KEY = b"evenhand.job", b"evenhand.device"


@dataclass(frozen=True, slots=True)
class Totals:
    """What the rows of a whole job came to."""

    rows: int
    errors: int
    hate: int

    @property
    def scored(self) -> int:
        """The rows that have a score."""
        return self.rows - self.errors


def score_shard(job: Job, classifier: Classifier, shard: int, posts: Sequence[Post]) -> None:
    """Score one shard as a unit and write it; its rows have the same batches in every start."""
    rows = [Row(id=post.id, text=post.text) for post in posts if post.fault is None]
    scores = np.empty(0)
    if rows:
        scores = classifier.score(rows, world=World(), advance=_say_nothing)
    device = f"{classifier.device.name} {classifier.device.dtype_name}"
    write_shard(job, shard, posts, scores, device=device)


def _say_nothing(n: int = 1, /, **fields: float | str) -> None:
    """Leave the progress to the job, which counts whole shards."""


def write_shard(
    job: Job, shard: int, posts: Sequence[Post], scores: np.ndarray, *, device: str
) -> None:
    """Write one shard: ``scores`` are those of the posts without a fault, in order.

    Raises:
        StorageError: it cannot be written.
    """
    given = iter(scores.tolist())
    score = [None if post.fault is not None else next(given) for post in posts]
    columns = {
        "id": [post.id for post in posts],
        "row": [post.row for post in posts],
        "score": score,
        "decision": [None if p is None else HATE if p >= job.threshold else NORMAL for p in score],
        "status": ["ok" if post.fault is None else "error" for post in posts],
        "reason": [post.fault for post in posts],
        "text": [post.text if post.fault is None else None for post in posts],
    }
    names = {_JOB_KEY: job.sha256.encode(), _DEVICE_KEY: device.encode()}
    schema = _schema(job).with_metadata(names)
    with atomic_path(job.shard_path(shard)) as temporary:
        pq.write_table(pa.table({n: columns[n] for n in schema.names}, schema=schema), temporary)


def find_shards(job: Job) -> tuple[dict[int, str], dict[Path, str]]:
    """Return the finished shards with their devices, and what is wrong with which others.

    A shard counts if its columns and number of rows are right and it was written for this job.
    """
    found: dict[int, str] = {}
    doubts: dict[Path, str] = {}
    for path in sorted((job.out / "shards").glob("part-*.parquet")):
        try:
            shard = int(path.stem.removeprefix("part-"))
            meta = pq.read_metadata(path)
            names = meta.schema.to_arrow_schema()
        except (ValueError, OSError, pa.ArrowException):
            doubts[path] = f"{path} cannot be read and is scored again"
            continue
        marks = names.metadata or {}
        is_ours = (
            0 <= shard < job.posts.shards
            and meta.num_rows == job.posts.rows_in(shard)
            and names.equals(_schema(job))
            and marks.get(_JOB_KEY) == job.sha256.encode()
        )
        if is_ours:
            found[shard] = marks.get(_DEVICE_KEY, b"").decode()
        else:
            doubts[path] = f"{path} is not a shard of this job and is scored again"
    return found, doubts


def remove_leftovers(job: Job) -> None:
    """Remove the half-written files of a start that was killed."""
    for folder in (job.out, job.out / "shards"):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def merge_shards(
    job: Job, *, output_format: OutputFormat, advance: Callable[[int], None]
) -> Totals:
    """Join the shards into ``scores.parquet`` (.csv, .jsonl), one in memory at a time.

    The file holds no times: the same job always gives the same bytes.

    Raises:
        StorageError: a shard is gone or damaged, or the file cannot be written.
    """
    rows = errors = hate = 0
    with _writer(merged_path(job, output_format), _schema(job), output_format) as write:
        for table in _tables(job):
            write(table)
            rows += len(table)
            errors += pc.sum(pc.equal(table["status"], "error")).as_py() or 0
            hate += pc.sum(pc.equal(table["decision"], HATE)).as_py() or 0
            advance(len(table))
    return Totals(rows, errors, hate)


def merged_path(job: Job, output_format: OutputFormat) -> Path:
    """Return where the scores of the whole job are written."""
    return job.out / f"scores.{output_format}"


def _schema(job: Job) -> pa.Schema:
    return pa.schema([*_COLUMNS, *([("text", pa.string())] if job.include_text else [])])


def _tables(job: Job) -> Iterator[pa.Table]:
    for shard in range(job.posts.shards):
        path = job.shard_path(shard)
        try:
            with pq.ParquetFile(path) as file:
                table = file.read().replace_schema_metadata(None)
        except (OSError, pa.ArrowException) as error:
            hint = "remove it if it is there, and run the same command again"
            raise StorageError(f"{path} cannot be read: {error}", hint=hint) from error
        yield table


@contextmanager
def _writer(
    path: Path, schema: pa.Schema, output_format: OutputFormat
) -> Iterator[Callable[[pa.Table], None]]:
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        if output_format == "parquet":
            yield stack.enter_context(pq.ParquetWriter(temporary, schema)).write_table
        elif output_format == "csv":
            yield stack.enter_context(pacsv.CSVWriter(temporary, schema)).write_table
        else:
            stream = stack.enter_context(temporary.open("w", encoding="utf-8"))

            def write_lines(table: pa.Table) -> None:
                stream.writelines(_lines(table.to_pylist()))

            yield write_lines


def _lines(rows: Iterable[dict[str, object]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"

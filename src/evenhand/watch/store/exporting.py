"""Decisions with their weights and labels as a table, for analysis elsewhere.

Reviewers stand in it by pseudonym. Callers' ids and metadata are never in it; posts, rationales and
reasons only where they are asked for, since a rationale may quote its post. What was exported is
out of this database's reach: a later deletion cannot follow it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.paths import atomic_path
from evenhand.watch.store.tables import ItemRow, PostRow, ReviewRow, UserRow

Format = Literal["csv", "jsonl", "parquet"]
_FORMATS: Mapping[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
_ROWS_AT_ONCE = 5000

_SCHEMA = pa.schema(
    [
        ("post", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("release", pa.string()),
        ("status", pa.string()),
        ("score", pa.float64()),
        ("probability", pa.float64()),
        ("decision", pa.string()),
        ("proposed", pa.list_(pa.string())),
        ("stratum", pa.string()),
        ("inclusion", pa.float64()),
        ("sampled", pa.bool_()),
        ("weight", pa.float64()),  # of a sampled post: 1 / inclusion
        ("state", pa.string()),
        ("label", pa.string()),
        ("groups", pa.list_(pa.string())),
        ("reviews", pa.string()),  # JSON: a list of acts in their order
    ]
)
_WITH_POSTS = _SCHEMA.append(pa.field("text", pa.string()))


def export_decisions(
    session: Session, path: Path, *, release_id: str | None = None, include_posts: bool = False
) -> int:
    """Write the decisions to a CSV, JSON Lines or Parquet file, by its name; return their number.

    Args:
        session: an open session.
        path: ends in .csv, .jsonl or .parquet; replaced in one step.
        release_id: of one release; None for all.
        include_posts: with texts that are kept, rationales and reasons.

    Raises:
        ConfigError: the name ends in something else.
        StorageError: the file cannot be written.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        message = f'ends in "{path.suffix}"; name a file that ends in .csv, .jsonl or .parquet'
        raise ConfigError("the command", [Problem("--out", message)])
    batches = _batches(session, release_id, include_posts=include_posts)
    schema = _WITH_POSTS if include_posts else _SCHEMA
    write = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}[kind]
    with atomic_path(path) as temporary:
        return write(temporary, batches, schema)


def _batches(
    session: Session, release_id: str | None, *, include_posts: bool
) -> Iterator[list[dict[str, Any]]]:
    query = (
        select(PostRow, ItemRow)
        .outerjoin(ItemRow, ItemRow.post_id == PostRow.id)
        .order_by(PostRow.id)
        .limit(_ROWS_AT_ONCE)
    )
    if release_id is not None:
        query = query.where(PostRow.release_id == release_id)
    last = ""
    while rows_found := session.execute(query.where(PostRow.id > last)).all():
        found: list[tuple[PostRow, ItemRow | None]] = [(row[0], row[1]) for row in rows_found]
        last = found[-1][0].id
        reviews = _reviews(
            session, [item.id for _, item in found if item], include_posts=include_posts
        )
        rows = [_row(post, item, reviews) for post, item in found]
        if include_posts:
            for row, (post, _) in zip(rows, found, strict=True):
                row["text"] = post.text
        yield rows
        session.expunge_all()  # a large table must not stay in memory


def _row(
    post: PostRow, item: ItemRow | None, reviews: Mapping[int, list[dict[str, Any]]]
) -> dict[str, Any]:
    return {
        "post": post.id,
        "time": post.time,
        "release": post.release_id,
        "status": post.status,
        "score": post.score,
        "probability": post.probability,
        "decision": post.decision,
        "proposed": list(post.proposed or ()),
        "stratum": post.stratum,
        "inclusion": post.inclusion,
        "sampled": post.sampled,
        "weight": 1 / post.inclusion if post.sampled and post.inclusion else None,
        "state": None if item is None else item.state,
        "label": None if item is None else item.label,
        "groups": None if item is None or item.groups is None else list(item.groups),
        "reviews": [] if item is None else reviews.get(item.id, []),
    }


def _reviews(
    session: Session, items: Sequence[int], *, include_posts: bool
) -> dict[int, list[dict[str, Any]]]:
    """The acts on items, by item, undone ones marked; reviewers by pseudonym."""
    undo = aliased(ReviewRow)
    query = (
        select(ReviewRow, UserRow.pseudonym, exists().where(undo.undoes == ReviewRow.id))
        .join(UserRow, UserRow.id == ReviewRow.user_id)
        .where(ReviewRow.action.in_(("label", "import", "adjudicate")))
        .where(ReviewRow.item_id.in_(items))
        .order_by(ReviewRow.id)
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for act, pseudonym, undone in session.execute(query):
        words = {"rationale": act.rationale, "reason": act.reason} if include_posts else {}
        found.setdefault(act.item_id, []).append(
            {
                "reviewer": pseudonym,
                "time": act.time.isoformat(timespec="seconds"),
                "action": act.action,
                "label": act.label,
                "groups": act.groups,
                "undone": undone,
                **words,
            }
        )
    return found


def _write_csv(path: Path, batches: Iterator[list[dict[str, Any]]], schema: pa.Schema) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=schema.names)
        writer.writeheader()
        for rows in batches:
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
            count += len(rows)
    return count


def _write_jsonl(path: Path, batches: Iterator[list[dict[str, Any]]], _: pa.Schema) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for rows in batches:
            for row in rows:
                line = {**row, "time": row["time"].isoformat()}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += len(rows)
    return count


def _write_parquet(path: Path, batches: Iterator[list[dict[str, Any]]], schema: pa.Schema) -> int:
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for rows in batches:
            texts = [{**row, "reviews": json.dumps(row["reviews"])} for row in rows]
            writer.write_table(pa.Table.from_pylist(texts, schema=schema))
            count += len(rows)
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat() if hasattr(value, "isoformat") else value

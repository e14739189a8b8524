"""Streaming readers: every row once, in order, whatever is in it, from any shard on."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenhand.core.errors import DataError
from evenhand.data import record_files
from evenhand.data.sources import read_dataset
from evenhand.data.streams import Post, PostFile, survey_posts

BOM = "\ufeff"
anything = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts = st.text(
    st.one_of(st.sampled_from('",;\t\n\r\u2028\x85{}[] a'), st.characters(codec="utf-8")),
    max_size=12,
)


def all_posts(posts: PostFile) -> list[Post]:
    return [post for _, shard in posts.read(range(posts.shards)) for post in shard]


def one_by_one(posts: PostFile) -> list[Post]:
    """The same posts, each shard from its own beginning and the last shard first."""
    found = {shard: dict(posts.read([shard]))[shard] for shard in reversed(range(posts.shards))}
    return [post for shard in range(posts.shards) for post in found[shard]]


def survey(path: Path, content: str | bytes, **options: Any) -> PostFile:
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.write_bytes(data)
    return survey_posts(path, **{"shard_rows": 2, **options})


def problem_of(path: Path, content: str | bytes, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        survey(path, content, **options)
    return caught.value.render()


@anything
@given(
    rows=st.lists(texts, min_size=1, max_size=12),
    shard_rows=st.integers(1, 5),
    ending=st.sampled_from(["\n", "\r\n"]),
    begin=st.sampled_from(["", BOM]),
)
def test_csv_gives_every_text_back(
    tmp_path: Path, rows: list[str], shard_rows: int, ending: str, begin: str
) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator=ending)
    writer.writerows([["id", "text"], *([f"x{n}", text] for n, text in enumerate(rows))])
    posts = survey(tmp_path / "p.csv", begin + stream.getvalue(), shard_rows=shard_rows)
    found = all_posts(posts)
    assert found == one_by_one(posts)
    assert [post.row for post in found] == list(range(1, len(rows) + 1))
    assert [post.id for post in found] == [f"x{n}" for n in range(len(rows))]
    for post, text in zip(found, rows, strict=True):
        assert (post.text, post.fault is None) == ((text, True) if text.strip() else ("", False))


@anything
@given(
    rows=st.lists(st.one_of(texts, st.none(), st.integers()), min_size=1, max_size=12),
    shard_rows=st.integers(1, 5),
    blank=st.sampled_from(["", "\n", "  \n\n"]),
    escaped=st.booleans(),
)
def test_json_lines_give_every_row(
    tmp_path: Path, rows: list[Any], shard_rows: int, blank: str, escaped: bool
) -> None:
    lines = [json.dumps({"text": "first"})]
    lines += [json.dumps({"text": text}, ensure_ascii=escaped) for text in rows]
    posts = survey(
        tmp_path / "p.jsonl", blank.join(f"{one}\n" for one in lines), shard_rows=shard_rows
    )
    found = all_posts(posts)
    assert found == one_by_one(posts)
    assert posts.rows == len(rows) + 1
    for post, text in zip(found[1:], rows, strict=True):
        usable = isinstance(text, str) and bool(text.strip())
        assert (post.text, post.fault is None) == ((text, True) if usable else ("", False))


@anything
@given(
    rows=st.lists(st.one_of(texts, st.none()), min_size=1, max_size=20),
    shard_rows=st.integers(1, 7),
    group_rows=st.integers(1, 6),
)
def test_parquet_gives_every_row(
    tmp_path: Path, rows: list[str | None], shard_rows: int, group_rows: int
) -> None:
    table = pa.table({"other": list(range(len(rows))), "text": pa.array(rows, pa.string())})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=group_rows)
    posts = survey_posts(tmp_path / "p.parquet", shard_rows=shard_rows)
    found = all_posts(posts)
    assert found == one_by_one(posts)
    assert [post.text for post in found] == [t if t and t.strip() else "" for t in rows]


@anything
@given(content=st.text(st.sampled_from('ab",\n\r'), max_size=40))
def test_odd_csv_is_read_as_data_sets_are(tmp_path: Path, content: str) -> None:
    """The same rows and the same faults as the reader that takes a file as a whole."""
    path = tmp_path / "p.csv"
    path.write_bytes(f"text,n\n{content}\nlast,1\n".encode())
    try:
        posts = survey_posts(path, shard_rows=3)
    except DataError as error:
        assert "never closed" in error.render()
        return
    found = all_posts(posts)
    assert found == one_by_one(posts)
    whole = read_dataset(path, on_bad_row="skip", require_labels=False)
    assert [(post.id, post.text) for post in found if post.fault is None] == [
        (row.id, row.text) for row in whole.rows
    ]
    assert [post.fault for post in found if post.fault] == [
        f"line {bad.line}: {bad.reason}" for bad in whole.skipped
    ]


def test_bad_rows_keep_their_place(tmp_path: Path) -> None:
    lines = [
        b'{"id": 7, "text": "fine"}',
        b'{"id": "b", "text": ',
        b"",
        b"[1]",
        b'{"id": ["c"], "text": "fine"}',
        b'{"id": "d", "text": "caf\xe9"}',
        b'{"id": "e", "text": "\\ud800"}',
        b'{"id": null, "text": ["a"]}',
    ]
    found = all_posts(survey(tmp_path / "p.jsonl", b"\n".join(lines)))
    assert [(post.row, post.id, post.text) for post in found] == [
        (1, "7", "fine"),
        *((2, "row-000002", ""), (3, "row-000004", ""), (4, "row-000005", "")),
        *((5, "d", ""), (6, "e", ""), (7, "row-000008", "")),
    ]
    faults = [post.fault or "" for post in found]
    assert faults[0] == ""
    assert faults[1].startswith("line 2: malformed JSON")
    assert faults[2] == "line 4: is not a JSON object"
    assert faults[3] == "line 5: id is not a single value"
    assert faults[4].startswith("line 6: invalid UTF-8")
    assert faults[5].startswith("line 7: invalid UTF-8")
    assert faults[6] == "line 8: text is not a string"


def test_csv_with_quoted_newlines_and_wrong_rows(tmp_path: Path) -> None:
    content = 'text,id\n"a\nb",1\n\nonly\n"x"y,2\n"",3\nlast,4\n'
    found = all_posts(survey(tmp_path / "p.csv", content))
    assert [(post.text, post.fault) for post in found] == [
        ("a\nb", None),
        ("", "line 5: has 1 fields, the header has 2"),
        ("", "line 6: malformed CSV: ',' expected after '\"'"),
        ("", "line 7: text is empty"),
        ("last", None),
    ]


@pytest.mark.parametrize(
    ("name", "content", "text", "identity"),
    [
        ("p.tsv", "Post\tCase ID\nhello, you\t3\n", "hello, you", "3"),
        ("p.txt", "n;comment\n1;hello\n", "hello", "row-000002"),
        ("p.csv", "functionality,case_id,test_case,label_gold\nf,4,hello,hateful\n", "hello", "4"),
        ("p.json", '{"original_id": 5.0, "text": "hello", "label_binary": "?"}', "hello", "5"),
    ],
)
def test_columns_are_recognised(
    tmp_path: Path, name: str, content: str, text: str, identity: str
) -> None:
    [post] = all_posts(survey(tmp_path / name, content))
    assert (post.text, post.id, post.fault) == (text, identity, None)


def test_named_columns(tmp_path: Path) -> None:
    content = "text,b,key\nx,hello,1\n"
    named = survey(tmp_path / "p.csv", content, columns={"text": "b", "id": "key"})
    assert [(post.text, post.id) for post in all_posts(named)] == [("hello", "1")]
    assert named.columns == {"text": "b", "id": "key"}
    assert 'no column "c"' in problem_of(tmp_path / "p.csv", content, columns={"text": "c"})
    told = problem_of(tmp_path / "p.csv", content, columns={"label": "b", "txet": "b"})
    assert "only text and id are" in told
    assert "is not a role" in problem_of(tmp_path / "p.csv", content, columns={"txet": "b"})


def test_chats_give_their_post_whatever_the_answer(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": 'Look:\nText: "hello"'},
        {"role": "assistant", "content": '{"classification": '},
    ]
    lines = [json.dumps({"messages": messages}) for messages in (turns, "none")]
    first, second = all_posts(survey(tmp_path / "p.jsonl", "\n".join(lines)))
    assert (first.text, first.fault) == ("hello", None)
    assert second.fault == "line 2: messages is not a list"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.json", '[{"text": "a"}]', "JSON array, which cannot be read in parts"),
        ("p.csv", "", "is empty"),
        ("p.csv", "text\n\n", "holds no rows"),
        ("p.csv", "text,text\na,b\n", "more than once"),
        ("p.csv", "colour,size\na,b\n", "columns.text"),
        ("p.csv", 'text,id\na,1\n"b,2\nc,3\n', "line 3 opens a quote that is never closed"),
        ("p.jsonl", "{\n}\n", "none of the first 2 rows can be read"),
        ("p.jsonl", '{"n": 1}\n', "columns.text"),
        ("p.csv", b"\xff\xfet", "UTF-16"),
        ("p.csv", b"\x1f\x8b\x00", "compressed"),
        ("p.parquet", b"PAR1 and no more", "not readable as Parquet"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    assert told in problem_of(tmp_path / name, content)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "no.csv", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match="1 problem") as caught:
            survey_posts(path, shard_rows=2)
        assert told in caught.value.render()


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "LONGEST_RECORD_BYTES", 1000)
    assert "line 2 is longer" in problem_of(tmp_path / "p.csv", "text\n" + "a" * 2000)
    quoted = 'text\n"' + "a\n" * 1000
    assert "line 2 opens a quote" in problem_of(tmp_path / "q.csv", quoted)
    assert csv.field_size_limit() == 131_072


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    posts = survey(tmp_path / "p.csv", "text\na\nb\nc\nd\n")
    (tmp_path / "p.csv").write_text("text\na\nb\nc\ne\nf\n")
    with pytest.raises(DataError) as caught:
        all_posts(posts)
    assert "has changed" in caught.value.render()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    peaks = []
    for rows in (2_000, 20_000):
        path = tmp_path / f"{rows}.{kind}"
        values = [f"post number {n} " * 5 for n in range(rows)]
        if kind == "parquet":
            pq.write_table(pa.table({"text": values}), path, row_group_size=5_000)
        elif kind == "csv":
            path.write_text("text\n" + "\n".join(values))
        else:
            path.write_text("\n".join(json.dumps({"text": value}) for value in values))
        del values
        tracemalloc.start()
        posts = survey_posts(path, shard_rows=500)
        assert sum(len(shard) for _, shard in posts.read(range(posts.shards))) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]

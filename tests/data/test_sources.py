from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenhand.core.errors import ConfigError, DataError
from evenhand.core.records import Row
from evenhand.data.sources import read_dataset, write_rows

UNIFIED = {
    "text": "I like [group]",
    "label_binary": "normal",
    "label_multiclass": "benign_implicit",
    "target_group_norm": "a",
    "persona_tag": "aa",
    "source_dataset": "toxigen",
    "rationale_text": None,
    "original_id": "x1",
    "split": "train",
}


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8", newline="")
    return path


def write_lines(path, *values):
    return write(path, "\n".join(json.dumps(value) for value in values))


def chat(user, assistant, **more):
    turns = [("system", "Decide."), ("user", user), ("assistant", assistant)]
    return {"messages": [{"role": r, "content": c} for r, c in turns if c is not None], **more}


def problems_of(path, **options):
    with pytest.raises(DataError) as caught:
        read_dataset(path, **options)
    return [(problem.place, problem.message) for problem in caught.value.problems]


def test_unified_json_is_recognised_and_repeated_ids_are_numbered(tmp_path):
    items = [UNIFIED, UNIFIED, {**UNIFIED, "target_group_norm": ["a", "b", "a"]}]
    dataset = read_dataset(write(tmp_path / "u.json", json.dumps(items, indent=1)))
    assert [row.id for row in dataset.rows] == ["x1", "x1#2", "x1#3"]
    assert dataset.rows[2].groups == ("a", "b")
    row = dataset.rows[0]
    assert (row.label, row.fine_label, row.source) == ("normal", "benign_implicit", "toxigen")
    assert row.extra == {"persona_tag": "aa", "split": "train"}
    assert dataset.name == "u"
    assert len(dataset.sha256) == 64


def test_chat_reads_text_label_and_persona_and_keeps_the_messages(tmp_path):
    artefact = '{{"classification": "not_hate", "confidence": "high"}}'
    plain = '{"classification": "hate_speech"}'
    path = write_lines(
        tmp_path / "c.jsonl",
        chat('Look:\n\nPersona: MIDDLE_EAST\nText: "she said "hi"\nand left"', artefact),
        chat('Text: "Persona: X\nText: "I hate [group]""', plain),
        chat('Text: "fine"', "normal"),
    )
    rows = read_dataset(path).rows
    assert [row.text for row in rows] == [
        'she said "hi"\nand left',
        'Persona: X\nText: "I hate [group]"',
        "fine",
    ]
    assert [row.label for row in rows] == ["normal", "hate", "normal"]
    assert [row.groups for row in rows] == [("middle_east",), (), ()]
    assert rows[0].messages[2] == ("assistant", artefact)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"messages": "hello"}, "messages is not a list"),
        ({"messages": [{"role": "user"}]}, "role and content"),
        (chat("no text line", "hate"), 'no line Text: "..."'),
        (chat('Text: "x"', '{"classification": '), "malformed JSON"),
        (chat('Text: "x"', '{{"classification": "hate"}'), "malformed JSON"),
        (chat('Text: "x"', '{"other": 1}'), "no classification or label"),
        (chat('Text: "x"', None), "label is missing"),
        (chat('Text: "x"', "I refuse"), "is not known"),
        (chat('Text: "  "', "hate"), "text is empty"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no user turn"),
    ],
)
def test_chats_of_another_form_are_bad_rows(tmp_path, record, fault):
    [(place, message)] = problems_of(write_lines(tmp_path / "c.jsonl", record))
    assert place == ("label" if fault == "is not known" else "line 1")
    assert fault in message and "line 1" in place + message


def test_an_unknown_word_is_one_problem_however_many_rows_have_it(tmp_path):
    lines = [f"{at},{('offensive', 'toxic', '1')[at % 3]}" for at in range(9)]
    [(first, offensive), (_, toxic)] = problems_of(
        write(tmp_path / "t.csv", "text,label\n" + "\n".join(lines) + "\n")
    )
    assert first == "label" and offensive.startswith('"offensive" is not known')
    assert offensive.endswith("(3 rows, first line 2)") and toxic.endswith("first line 3)")
    dataset = read_dataset(tmp_path / "t.csv", on_bad_row="skip")
    assert (len(dataset), len(dataset.skipped)) == (3, 6)


def test_a_field_may_be_long(tmp_path):
    post = "ab " * 100_000
    path = write(tmp_path / "t.csv", f"text,label\n{post},1\n")
    assert read_dataset(path).rows[0].text == post
    assert csv.field_size_limit() == 131_072


@pytest.mark.parametrize("body", ["sch\u00f6n,1\nb\u00f6se,0\n", "sch\u00f6n,1\nfine,0\n"])
def test_another_encoding_is_the_only_problem(tmp_path, body):
    path = write(tmp_path / "t.csv", f"text,label\n{body}".encode("latin-1"))
    [(place, message)] = problems_of(path)
    assert place == "the file" and "save the file as UTF-8" in message
    path = write(tmp_path / "h.csv", "t\u00e4xt,label\na,1\n".encode("latin-1"))
    [(place, message)] = problems_of(path)
    assert place == "the file" and "UTF-8" in message
    path = write(tmp_path / "b.csv", b"\x89PNG\x00\x01,\xff\n\x00")
    assert "is not a text file" in problems_of(path)[0][1]


def test_hatecheck(tmp_path):
    path = write(
        tmp_path / "h.csv",
        ",functionality,case_id,test_case,label_gold,target_ident,templ_id\n"
        "0,derog_h,7,I hate [group] ,hateful,women,3\n1,ident_nh,8,Hello,non-hateful,,4\n",
    )
    first, second = read_dataset(path).rows
    assert first == Row(
        id="7",
        text="I hate [group] ",
        label="hate",
        groups=("women",),
        source="hatecheck",
        fine_label="derog_h",
        cluster="3",
    )
    assert (second.label, second.groups) == ("normal", ())


def test_csv_survives_bom_crlf_blank_lines_and_quoted_newlines(tmp_path):
    path = write(
        tmp_path / "t.csv",
        b'\xef\xbb\xbftext,label\r\n"one\r\ntwo",hate\r\n\r\nthree,normal\r\nfour,perhaps\r\n',
    )
    [(place, message)] = problems_of(path)
    assert place == "label" and message.endswith("(line 6)")
    dataset = read_dataset(path, on_bad_row="skip")
    assert [row.text for row in dataset.rows] == ["one\r\ntwo", "three"]
    assert [row.id for row in dataset.rows] == ["row-000002", "row-000005"]
    assert [(bad.line, bad.path) for bad in dataset.skipped] == [(6, str(path))]


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path):
    path = write(tmp_path / "t.csv", 'text,label\nfine,0\n"open,1\nlost,0\n')
    [(place, message)] = problems_of(path)
    assert place == "line 3"
    assert "malformed CSV" in message


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_delimiters_and_common_names(tmp_path, separator):
    lines = [["Tweet", "Is Hate", "Target Group"], ["I hate [group]", "True", "b"]]
    path = write(tmp_path / "t.csv", "\n".join(separator.join(line) for line in lines))
    [row] = read_dataset(path).rows
    assert (row.text, row.label, row.groups) == ("I hate [group]", "hate", ("b",))


def test_column_map_with_several_group_columns_and_a_separator(tmp_path):
    path = write(tmp_path / "t.csv", "body,kind,g1,g2,note\nhello,abuse,a|b,c,n1\n")
    [row] = read_dataset(
        path,
        columns={"text": "body", "label": "kind", "group": ["g1", "g2"], "group_separator": "|"},
        labels={"Abuse": "hate"},
    ).rows
    assert (row.label, row.groups, row.extra) == ("hate", ("a", "b", "c"), {"note": "n1"})


def test_column_map_problems_are_all_named(tmp_path):
    path = write(tmp_path / "t.csv", "body,kind\nhello,hate\n")
    found = dict(
        problems_of(path, columns={"texts": "body", "label": "knd", "source": ["body", "kind"]})
    )
    assert 'did you mean "text"' in found["columns.texts"]
    assert 'did you mean "kind"' in found["columns.label"]
    assert "takes one column" in found["columns.source"]
    assert "no column name was recognised" in found["columns.text"]


def test_roles_that_the_map_leaves_out_are_recognised(tmp_path):
    path = write(
        tmp_path / "t.csv", "ID,text,label,target,corpus,subtype,thread_id\n7,a,1,x;y,c,f,t\n"
    )
    expected = Row("7", "a", "hate", ("x;y",), "c", "f", "t")
    maps = [{"text": "text", "label": "label"}, {"group": "target"}, {"id": "ID"}, {}]
    assert [read_dataset(path, columns=given).rows for given in maps] == [(expected,)] * 4
    [row] = read_dataset(path, columns={"group_separator": ";"}).rows
    assert row.groups == ("x", "y")
    [row] = read_dataset(path, columns={"id": "", "group": [], "cluster": "target"}).rows
    assert (row.id, row.groups, row.cluster) == ("row-000002", (), "x;y")


def test_an_ambiguity_in_a_role_left_out_is_reported(tmp_path):
    path = write(tmp_path / "t.csv", "text,label,target,identity\na,1,x,y\n")
    [(place, message)] = problems_of(path, columns={"text": "text", "label": "label"})
    assert place == "columns.group"
    assert "--column group=NAME" in message
    # A column that has a role is no candidate for another.
    assert read_dataset(path, columns={"source": "identity"}).rows[0].groups == ("x",)


def test_a_map_on_a_known_format_changes_only_what_it_names(tmp_path):
    items = [UNIFIED, UNIFIED]
    path = write(tmp_path / "u.json", json.dumps(items))
    rows = read_dataset(path, columns={"group": "persona_tag"}).rows
    assert [(row.id, row.groups) for row in rows] == [("x1", ("aa",)), ("x1#2", ("aa",))]
    path = write(
        tmp_path / "h.csv",
        "functionality,case_id,test_case,label_gold,target_ident\nf,7,Hello,hateful,women;men\n",
    )
    [row] = read_dataset(path, columns={"group_separator": ";"}).rows
    assert (row.text, row.groups) == ("Hello", ("women", "men"))


def test_a_table_with_the_header_of_rows_stays_a_table(tmp_path):
    path = write(tmp_path / "t.csv", "id,text,label,groups,note\n1,a,hate,x;y,n\n")
    assert read_dataset(path).rows[0].extra == {"note": "n"}
    assert read_dataset(path, columns={"group_separator": ";"}).rows[0].groups == ("x", "y")
    assert "groups is not a list" in problems_of(path, format="rows")[0][1]
    record = {"id": 1, "text": "a", "label": "hate", "extra": {"note": "n"}}
    listed = write_lines(tmp_path / "l.jsonl", {**record, "groups": ["x", "y"]})
    [row] = read_dataset(listed).rows
    assert (row.groups, row.extra) == (("x", "y"), {"note": "n"})
    quoted = write_lines(tmp_path / "q.jsonl", {**record, "groups": "x;y"})
    assert read_dataset(quoted, columns={"group_separator": ";"}).rows[0].groups == ("x", "y")


def test_ambiguous_and_absent_columns_name_the_option(tmp_path):
    path = write(tmp_path / "t.csv", "text,comment,label,class\na,b,1,0\n")
    found = dict(problems_of(path))
    assert "--column text=NAME" in found["columns.text"]
    assert "--column label=NAME" in found["columns.label"]
    assert '"columns": {"label": NAME} in the experiment' in found["columns.label"]
    path = write(tmp_path / "u.csv", "alpha,beta\na,b\n")
    assert "--column text=NAME" in problems_of(path)[0][1]


def test_parquet_with_lists_integers_and_nulls(tmp_path):
    table = pa.table(
        {
            "text": ["one", "two"],
            "label": [1.0, 0.0],
            "groups": [["a", "b"], None],
            "id": [10, 11],
            "cluster": [None, 3.0],
        }
    )
    path = tmp_path / "key=value" / "t.parquet"
    path.parent.mkdir()
    pq.write_table(table, path)
    rows = read_dataset(path).rows
    assert [(r.id, r.label, r.groups, r.cluster) for r in rows] == [
        ("10", "hate", ("a", "b"), None),
        ("11", "normal", (), "3"),
    ]
    path.write_bytes(path.read_bytes()[:-20])
    assert "Parquet" in problems_of(path)[0][1]


def test_every_bad_row_is_reported_with_its_place(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        b'{"id": 1, "text": "", "label": "hate"}\n'
        b'{"id": 2, "text": "x"}\n\n'
        b'{"id": 2, "text": 5, "label": ["a"]}\n'
        b'{"id": 3, "text": "\xff", "label": "hate"}\n'
        b'{"id": 4, "text": "\\ud800", "label": "hate"}\n'
        b"{oops\n[1]\n"
        b'{"id": 5, "text": "good", "label": "not hate"}\n'
        b'{"id": 5, "text": "again", "label": 0}\n',
    )
    found = dict(problems_of(path))
    assert found["line 1"] == "text is empty"
    assert found["line 2"] == "label is missing"
    assert found["line 4"] == "text is not a string; label is not a single value"
    assert "UTF-8" in found["the file"] and "(2 rows, first line 5)" in found["the file"]
    assert "malformed JSON" in found["line 7"]
    assert found["line 8"] == "is not a JSON object"
    assert found["line 10"] == 'id "5" was already used in line 9'
    dataset = read_dataset(path, on_bad_row="skip")
    assert len(dataset) == 1
    assert len(dataset.skipped) == 8


def test_bad_rows_are_counted_and_a_thousand_are_shown(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", *({"text": "", "label": 1} for _ in range(1035)))
    with pytest.raises(DataError, match="1035 problems") as caught:
        read_dataset(path)
    assert len(caught.value.problems) == 1001
    shown = caught.value.render()
    assert "line 1000 " in shown
    assert "and 35 more" in shown
    assert "--skip-bad-rows" in shown
    assert '"on_bad_row": "skip"' in shown
    with pytest.raises(DataError):  # nothing is left, so skipping does not help
        read_dataset(path, on_bad_row="skip")


def test_json_array_names_item_and_line(tmp_path):
    path = write(tmp_path / "a.json", '[\n {"text": "a", "label": 1},\n {"text": ""}\n, 3]')
    assert [place for place, _ in problems_of(path)] == ["item 2 (line 3)", "item 3 (line 4)"]
    path = write(tmp_path / "b.json", '[{"text": "a", "label": 1}, {"text": ]')
    assert "item 2" in problems_of(path)[0][1]
    path = write(tmp_path / "c.json", '[{"text": "a", "label": 1}')
    assert "expected ','" in problems_of(path)[0][1]


def test_labels_may_be_absent_but_not_unknown(tmp_path):
    path = write(tmp_path / "t.csv", "text,label\na,\nb,1\n")
    rows = read_dataset(path, require_labels=False).rows
    assert [row.label for row in rows] == [None, "hate"]
    path = write(tmp_path / "u.csv", "text,label\na,offensive\n")
    [(_, message)] = problems_of(path, require_labels=False)
    assert '"offensive" is not known' in message
    assert '--label "offensive=hate"' in message and '"labels": {"offensive": "hate"}' in message
    with pytest.raises(ConfigError):
        read_dataset(path, labels={"offensive": "bad"})


def test_a_table_without_labels(tmp_path):
    path = write(tmp_path / "t.csv", "text\na\n")
    [(place, message)] = problems_of(path)
    assert place == "columns.label"
    assert '"columns": {"label": NAME} in the experiment, or --column label=NAME' in message
    assert read_dataset(path, require_labels=False).rows[0].label is None


def test_max_rows_and_name(tmp_path):
    path = write(tmp_path / "t.csv", "text,label\na,1\nb,1\nc,\n")
    dataset = read_dataset(path, max_rows=2, name="mine")
    assert (len(dataset), dataset.name) == (2, "mine")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        (b"text,label\n", "no rows"),
        (b"[]", "no rows"),
        (b"\xff\xfea\x00", "UTF-16"),
        (b"PK\x03\x04zip", "compressed"),
        (b'{\n"a": {"annotators": []}\n}', "one JSON object"),
        (b'text,text\n"a","b"\n', "more than once"),
        (b'"text\n', "header is malformed"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, fault):
    [(place, message)] = problems_of(write(tmp_path / "f", content))
    assert place == "the file"
    assert fault in message


def test_missing_files_folders_and_formats(tmp_path):
    assert "does not exist" in problems_of(tmp_path / "absent.csv")[0][1]
    assert "folder" in problems_of(tmp_path)[0][1]
    path = write(tmp_path / "t.csv", "text,label\na,1\n")
    assert 'did you mean "unified"' in problems_of(path, format="unifed")[0][1]
    assert "no column" in problems_of(path, format="hatecheck")[0][1]
    assert problems_of(path, format="chat", columns={"text": "text"})[0][0] == "columns"


texts = st.text(min_size=1, max_size=30).filter(str.strip)
names = st.text(min_size=1, max_size=8).map(str.strip).filter(bool)
rows = st.builds(
    Row,
    id=names,
    text=texts,
    label=st.sampled_from(["hate", "normal", None]),
    groups=st.lists(names, max_size=3, unique=True).map(tuple),
    source=st.none() | names,
    fine_label=st.none() | names,
    cluster=st.none() | names,
    messages=st.none() | st.lists(st.tuples(names, st.text(max_size=9)), max_size=2).map(tuple),
    extra=st.dictionaries(names, st.none() | st.integers() | st.text(max_size=5), max_size=2),
)


@settings(max_examples=60)
@given(written=st.lists(rows, min_size=1, max_size=6, unique_by=lambda row: row.id))
def test_rows_written_are_read_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_rows(written, path)
    assert read_dataset(path, require_labels=False).rows == tuple(written)


prefixes = st.sampled_from(
    [b"", b"text,label\n", b"[", b"{", b'[{"text": "a", "label": 1}', b"PAR1", b'{"messages": ',
     b'{"text": "a", "label": 1}\n', b'id,text,label,groups\n"']
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(prefix=prefixes, tail=st.binary(max_size=60), suffix=st.sampled_from(["csv", "jsonl", "x"]))
def test_no_bytes_crash_the_reader(tmp_path_factory, prefix, tail, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"file.{suffix}"
    path.write_bytes(prefix + tail)
    try:
        dataset = read_dataset(path)
    except DataError as error:
        assert error.problems
    else:
        assert len(dataset) > 0


def test_depth_and_huge_numbers_are_data_errors(tmp_path):
    for content in ("[" * 100_000, '{"text": ' + "9" * 5000 + "}", '{"a":' * 100_000):
        assert problems_of(write(tmp_path / "deep.json", content))

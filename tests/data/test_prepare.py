from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evenhand.core.errors import ConfigError, DataError
from evenhand.core.records import Row
from evenhand.data.balance import balance_rows, draw_evenly, length_tertile
from evenhand.data.corpus import Corpus
from evenhand.data.fingerprint import fingerprint
from evenhand.data.groups import map_groups, read_group_map
from evenhand.data.hatexplain import read_hatexplain
from evenhand.data.prepare import HELDOUT, PrepareOptions, prepare, write_prepared
from evenhand.data.sources import read_dataset
from evenhand.data.toxigen import read_toxigen

OPTIONS = PrepareOptions(offensive="drop", canned_rows=6)


@pytest.fixture
def corpora(tmp_path, write_hatexplain, write_toxigen):
    return [
        read_hatexplain(write_hatexplain(tmp_path / "hx")),
        read_toxigen([write_toxigen(tmp_path / "tg" / "train.csv")], toxicity_threshold=3.0),
    ]


def rows_of(prepared):
    return [
        row for name in ("train", "validation", "test", HELDOUT) for row in prepared.parts[name]
    ]


def run(corpora, **options):
    group_map = options.pop("group_map", None) or read_group_map()
    return prepare(corpora, group_map=group_map, options=replace(OPTIONS, **options))


def test_hatexplain_majority_agreement_targets_and_rationale(corpora):
    corpus = corpora[0]
    assert len(corpus.rows) == 120
    assert corpus.dropped["no label has a majority of the annotators"] == 1
    first, second = corpus.rows[:2]
    assert first.fine_label == "hatespeech"
    assert first.extra == {"agreement": 2 / 3, "rationale_text": "slow n0", "split": "train"}
    assert first.groups == ("Homosexual",)
    assert second.extra["agreement"] == 1.0
    assert corpus.rows[2].extra["rationale_text"] is None
    assert corpus.rows[5].extra["split"] is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"annotators": []}, "no annotators"),
        ({"annotators": [{"label": "bad", "target": []}]}, "not one of"),
        ({"annotators": [{"label": "normal"}]}, "list of targets"),
        ({"post_tokens": "text"}, "no post_tokens"),
        ({"post_tokens": ["\ud800"]}, "Unicode"),
        ({"rationales": [[2]]}, "0 and 1"),
    ],
)
def test_hatexplain_of_another_form(tmp_path, write_hatexplain, change, fault):
    folder = write_hatexplain(tmp_path / "hx", posts=2)
    data = json.loads((folder / "dataset.json").read_text())
    data["1_x"] |= change
    (folder / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(DataError) as caught:
        read_hatexplain(folder)
    [problem] = caught.value.problems
    assert problem.place == "1_x"
    assert fault in problem.message


@pytest.mark.parametrize("content", ["", "[]", "{}", "{oops", '{"a": 1}'])
def test_hatexplain_that_is_no_object_of_posts(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError):
        read_hatexplain(tmp_path)


def test_toxigen_threshold_and_generated_table(tmp_path, write_toxigen):
    path = write_toxigen(tmp_path / "train.csv", posts=4)
    labels = [r.fine_label for r in read_toxigen([path], toxicity_threshold=3.0).rows]
    assert labels == ["benign_implicit", "toxic_implicit"] * 2
    lower = read_toxigen([path], toxicity_threshold=2.9)
    assert {row.fine_label for row in lower.rows} == {"toxic_implicit"}
    table = {
        "prompt": ["p", "p", "q"],
        "generation": ["b'I like [group]'", "I hate [group]", " "],
        "group": ["trans", "trans", "mexican"],
        "prompt_label": [0, 1, 1],
        "roberta_prediction": [0.1, 0.9, 0.5],
    }
    pq.write_table(pa.table(table), tmp_path / "generated.parquet")
    corpus = read_toxigen([tmp_path / "generated.parquet"], toxicity_threshold=3.0)
    first, second = corpus.rows
    assert (first.text, first.fine_label, first.groups) == (
        "I like [group]",
        "benign_implicit",
        ("trans",),
    )
    assert first.cluster == second.cluster
    assert corpus.dropped == {"the text is empty": 1}
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="1 problem"):
        read_toxigen([tmp_path / "other.csv"], toxicity_threshold=3.0)
    with pytest.raises(DataError):
        (tmp_path / "none").mkdir()
        read_toxigen([tmp_path / "none"], toxicity_threshold=3.0)


def test_the_shipped_map_knows_both_corpora():
    group_map = read_group_map()
    known = ["Homosexual", "Hispanic", "Arab", "lgbtq+ folks", "middle_east", "mexican folks"]
    assert map_groups(known, group_map) == ("lgbtq", "mexican", "middle_east")
    assert map_groups(["None", "Other"], group_map) == ()


def test_a_wrong_group_map_is_refused(tmp_path):
    for content in ("[]", "{", '{"a": 3}'):
        (tmp_path / "map.json").write_text(content)
        with pytest.raises(ConfigError):
            read_group_map(tmp_path / "map.json")


def test_offensive_is_an_explicit_choice(corpora):
    with pytest.raises(ConfigError) as caught:
        run(corpora, offensive=None)
    assert "hate, normal or drop" in caught.value.render()
    counts = {
        choice: Counter(row.label for row in rows_of(run(corpora[:1], offensive=choice)))
        for choice in ("hate", "normal", "drop")
    }
    assert counts["hate"]["normal"] == counts["drop"]["normal"] == 40
    assert counts["hate"]["hate"] == counts["drop"]["hate"] + 40
    assert counts["normal"]["normal"] == 80
    assert run(corpora[1:], offensive=None).parts["train"]  # ToxiGen has no such posts


def test_groups_are_mapped_chosen_and_unknown_names_kept(corpora):
    everything = run(corpora)
    assert everything.unmapped == {"martians": 20}
    assert {g for row in rows_of(everything) for g in row.groups} == {
        "lgbtq", "mexican", "middle_east", "martians"
    }  # fmt: skip
    chosen = run(corpora, groups=("lgbtq", "mexican"))
    assert {g for row in rows_of(chosen) for g in row.groups} == {"lgbtq", "mexican"}
    assert chosen.dropped["none of the chosen groups"] == 80
    with pytest.raises(DataError):
        run(corpora, groups=("venusians",))


def test_duplicates_are_merged_and_contradictions_dropped():
    def row(number, text, label, *groups):
        extra = {"agreement": None, "rationale_text": None, "split": None}
        return Row(
            id=str(number), text=text, fine_label=label, groups=groups, source="s", extra=extra
        )

    rows = [row(n, f"post {n}", "normal", "a") for n in range(40)]
    rows += [
        row(90, "POST  1", "normal", "b"),
        row(91, "same", "hatespeech", "a"),
        row(92, "Same", "normal", "a"),
    ]
    prepared = run([Corpus(name="s", rows=tuple(rows), dropped={}, files=())], group_map={"x": "y"})
    kept = {row.id: row for row in rows_of(prepared)}
    assert len(kept) == 40
    assert kept["1"].groups == ("a", "b")
    assert prepared.dropped == {
        "the same text again": 1,
        "the same text with another label (all copies)": 2,
    }


def test_balance_splits_and_canned_samples(corpora):
    prepared = run(corpora, balance=("source", "label"))
    rows = rows_of(prepared)
    assert len(set(Counter((row.source, row.label) for row in rows).values())) == 1
    assert len({fingerprint(row.text) for row in rows}) == len(rows)
    heldout = {row.id for row in prepared.parts[HELDOUT]}
    for name in ("canned_stratified", "canned_size_varied"):
        assert 0 < len(prepared.parts[name]) <= 6
        assert {row.id for row in prepared.parts[name]} <= heldout
    assert run(corpora, balance=("source", "label")) == prepared
    assert run(corpora, balance=("source", "label"), seed=1) != prepared


def test_choices_that_cannot_be_carried_out(corpora):
    for wrong in (
        {"balance": ("sauce",)},
        {"fractions": {"train": 1.0}},
        {"canned_rows": 0},
        {"offensive": "maybe"},
    ):
        with pytest.raises(ConfigError):
            run(corpora, **wrong)
    only = replace(corpora[0], rows=tuple(r for r in corpora[0].rows if r.fine_label == "normal"))
    with pytest.raises(ConfigError, match="balance"):
        run([only, corpora[1]], balance=("source", "label"))


def test_the_folder_is_complete_readable_and_swapped_whole(corpora, tmp_path):
    prepared = run(corpora)
    out = tmp_path / "out"
    for _ in range(2):  # the second time replaces the first
        record = write_prepared(prepared, out, corpora=corpora, options=OPTIONS)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*record["files"], "prepare.json", "README.md"]
    )
    train = read_dataset(out / "unified_train.json")
    assert [(r.id, r.text, r.label, r.groups) for r in train.rows] == [
        (r.id, r.text, r.label, r.groups) for r in prepared.parts["train"]
    ]
    assert any(row.extra.get("agreement") == 1.0 for row in train.rows)
    fields = json.loads((out / "unified_train.json").read_text())[0]
    names = (
        "text label_binary label_multiclass target_group_norm persona_tag source_dataset "
        "rationale_text original_id agreement split"
    )
    assert set(names.split()) <= set(fields)
    card = (out / "README.md").read_text()
    assert "| HateXplain's offensive posts become | drop |" in card
    assert "martians" in card
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError):
        write_prepared(prepared, tmp_path / "mine", corpora=corpora, options=OPTIONS)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_draws_take_from_each_cell_in_turn():
    rows = [Row(id=str(i), text="x" * (i + 1), label="hate") for i in range(30)]
    tertile = length_tertile(rows)
    drawn = draw_evenly(rows, n=7, cell=tertile, rng=np.random.default_rng(0))
    assert sorted(Counter(map(tertile, drawn)).values()) == [2, 2, 3]
    everything = draw_evenly(rows, n=99, cell=tertile, rng=np.random.default_rng(0))
    assert everything == tuple(rows)
    assert balance_rows([], by=("label",), rng=np.random.default_rng(0)) == []

"""Rows chosen by the texts of other files, and the built-in corpus as a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_experiments import make_posts, write_csv, write_unified

from evenhand.config.resolve import STARTER_PARTS
from evenhand.core.errors import DataError
from evenhand.core.records import Dataset, Row
from evenhand.data.fingerprint import normalise
from evenhand.data.selecting import read_starter, select_rows
from evenhand.data.starter import SPLITS, generate
from evenhand.experiment.inputs import DataSource, absolute

TEXTS = st.lists(st.sampled_from(["One.", " one. ", "ONE.", "Two", "two!", "@a x", "@b x"]))


def made(texts: list[str], name: str = "data") -> Dataset:
    return Dataset(name, tuple(Row(f"{name}-{at}", text) for at, text in enumerate(texts)))


@given(TEXTS, TEXTS)
def test_within_and_without_part_the_rows(texts: list[str], others: list[str]) -> None:
    data, other = made(texts), made(others, "other")
    wanted = {normalise(text) for text in others}
    kept = [row for row in data.rows if normalise(row.text) in wanted]
    left = [row for row in data.rows if normalise(row.text) not in wanted]
    if kept:
        assert list(select_rows(data, within=other).rows) == kept
        assert list(select_rows(data, within=other, max_rows=1).rows) == kept[:1]
    if left:
        assert list(select_rows(data, without=[other]).rows) == left
    if texts and not kept:
        with pytest.raises(DataError, match="has 1 problem"):
            select_rows(data, within=other)
    if texts and not left:
        with pytest.raises(DataError, match="has 1 problem"):
            select_rows(data, without=[other])


def test_within_then_without_then_the_first_rows() -> None:
    data = made(["a", "b", "c", "d", "e"])
    chosen = select_rows(
        data, within=made(["E", "D", "C", "B"]), without=[made(["b"]), made(["d"])], max_rows=1
    )
    assert [row.text for row in chosen.rows] == ["c"]


def test_an_empty_set_says_which_and_why() -> None:
    with pytest.raises(DataError) as caught:
        select_rows(made(["a"], "test"), without=[made(["A"], "other.csv")])
    (problem,) = caught.value.problems
    assert problem.place == "without"
    assert problem.message == (
        'leaves no row of set "test": all texts that were kept are in other.csv'
    )


def test_rows_about_groups_are_left_out() -> None:
    rows = [
        Row("a", "One.", groups=("lgbtq",)),
        Row("b", "Two.", groups=("mexican", "lgbtq")),
        Row("c", "Three.", groups=("mexican",)),
        Row("d", "Four."),
    ]
    data = Dataset("all", tuple(rows))
    assert [row.id for row in select_rows(data, without_groups=["lgbtq"]).rows] == ["c", "d"]
    other = Dataset("other", (Row("x", "three."),))
    left = select_rows(data, without=[other], without_groups=["lgbtq"], max_rows=5).rows
    assert [row.id for row in left] == ["d"]
    with pytest.raises(DataError) as caught:
        select_rows(data, without_groups=["lgbt", "lgbtq"])
    (problem,) = caught.value.problems
    assert problem.place == "without_groups"
    assert problem.message.startswith('no row is about "lgbt"') and "lgbtq" in problem.message
    with pytest.raises(DataError) as caught:
        select_rows(Dataset("few", tuple(rows[:2])), without_groups=["lgbtq"])
    assert [one.place for one in caught.value.problems] == ["without_groups"]


def test_the_parts_of_the_built_in_corpus() -> None:
    assert SPLITS == STARTER_PARTS
    source = DataSource(Path("starter:functional"), max_rows=7)
    data = source.read("cases")
    assert data.rows == generate(0)["functional"][:7]
    assert data.name == "cases"
    assert str(data.path) == "starter:functional"
    assert data.sha256 == read_starter("functional").sha256 != read_starter("test").sha256
    assert DataSource.from_json(json.loads(json.dumps(source.to_json()))) == source
    assert absolute(source.path) == "starter:functional"


class TestSources:
    @pytest.fixture
    def source(self, tmp_path: Path) -> DataSource:
        posts = make_posts(12, seed=1)
        write_unified(tmp_path / "some.json", posts[:6])
        write_csv(tmp_path / "others.csv", posts[4:8])
        data = write_csv(tmp_path / "all.csv", posts)
        return DataSource(
            data,
            within=tmp_path / "some.json",
            without=(tmp_path / "others.csv",),
            without_groups=("middle_east",),
            max_rows=3,
        )

    def test_other_formats_and_the_first_rows_of_those_left(self, source: DataSource) -> None:
        assert [row.id for row in source.read().rows] == ["1-0", "1-1", "1-2"]

    def test_written_down_and_read_back(self, source: DataSource) -> None:
        document = json.loads(json.dumps(source.to_json()))
        assert DataSource.from_json(document) == source
        for key in ("within", "without", "without_groups"):
            del document[key]  # as folders of earlier versions
        assert DataSource.from_json(document) == DataSource(source.path, max_rows=3)

    def test_without_them_nothing_new_is_written(self, source: DataSource) -> None:
        assert "within" not in DataSource(source.path).to_json()
        assert "without" not in DataSource(source.path).to_json()

    def test_the_other_files_need_no_labels(self, source: DataSource, tmp_path: Path) -> None:
        posts = [{"text": post["text"]} for post in make_posts(12, seed=1)[:6]]
        write_csv(tmp_path / "bare.csv", posts)
        bare = DataSource(source.path, within=tmp_path / "bare.csv")
        assert len(bare.read()) == 6

    def test_their_faults_are_told_with_their_names(
        self, source: DataSource, tmp_path: Path
    ) -> None:
        posts = make_posts(3, seed=1)
        posts[1]["text"] = ""
        write_csv(tmp_path / "others.csv", posts)
        with pytest.raises(DataError) as caught:
            source.read()
        (problem,) = caught.value.problems
        assert problem.place.startswith("without ")
        assert problem.place.endswith("others.csv, line 3")

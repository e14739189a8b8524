from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.imported import bring, posts, problems, table

from evenhand.core.errors import DataError
from evenhand.core.records import Row
from evenhand.data.matching import content_ids, match_rows
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import open_results


def test_the_same_rows_in_another_order_are_the_same_evaluation(tmp_path: Path) -> None:
    rows = [*posts(), {**posts()[3]}, {**posts()[4], "label": "normal"}]
    bring(table(tmp_path / "p.csv", rows), tmp_path / "one")
    bring(table(tmp_path / "q.csv", rows[::-1]), tmp_path / "two")
    one, two = open_results(tmp_path / "one"), open_results(tmp_path / "two")
    assert one.inputs("test")["inputs"]["rows"] == two.inputs("test")["inputs"]["rows"]
    pd.testing.assert_frame_equal(one.predictions("test").frame, two.predictions("test").frame)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "A ", "b"]), st.sampled_from(["hate", "normal"]))),
    st.randoms(use_true_random=False),
)
def test_content_ids_do_not_depend_on_the_order(rows: list[tuple[str, str]], rng: Any) -> None:
    made = [Row("", text, label) for text, label in rows]
    ids = content_ids(made)
    assert len(set(ids)) == len(ids)
    shuffled = rng.sample(made, len(made))
    pairs = sorted(zip(ids, ((one.text, one.label) for one in made), strict=True))
    again = zip(content_ids(shuffled), ((one.text, one.label) for one in shuffled), strict=True)
    assert pairs == sorted(again)


@given(st.lists(st.sampled_from("abc"), min_size=1), st.randoms(use_true_random=False))
def test_matching_is_a_permutation_whatever_the_order(texts: list[str], rng: Any) -> None:
    rows = [Row(str(at), text, "hate", ("g",)) for at, text in enumerate(texts)]
    asked = [Row("", row.text, row.label, row.groups) for row in rng.sample(rows, len(rows))]
    found = match_rows(asked, rows, by_group=True)
    assert sorted(at for at in found.partner if at is not None) == list(range(len(rows)))
    assert [rows[at].text for at in found.partner if at is not None] == [one.text for one in asked]
    assert not found.reasons and not found.left_over


def test_rows_of_the_data_set_give_ids_and_fine_labels(tmp_path: Path) -> None:
    data = table(
        tmp_path / "data.csv",
        [
            {"id": f"p{at}", "text": row["text"].upper() + " ", "label": row["label"],
             "group": row["group"], "source": "corpus", "fine_label": "mild"}
            for at, row in enumerate(posts())
        ],
    )  # fmt: skip
    path = table(tmp_path / "p.csv", posts()[::-1])
    made = bring(path, tmp_path / "run", data=DataSource(data))
    frame = open_results(tmp_path / "run").predictions("test").frame
    assert frame["id"].tolist() == [f"p{at}" for at in range(12)]
    assert set(frame["fine_label"]) == {"mild"}
    assert made.evaluation.confusion.model_dump() == {"tp": 5, "tn": 5, "fp": 1, "fn": 1}
    assert made.evaluation.dataset_sha256 is not None


def test_labels_may_come_from_the_data_set_alone(tmp_path: Path) -> None:
    data = table(tmp_path / "data.csv", [{"id": f"p{at}", **row} for at, row in enumerate(posts())])
    answers = [{"id": f"p{at}", "prediction": row["prediction"]} for at, row in enumerate(posts())]
    source = DataSource(data, columns={"label": "label", "group": "group"})
    made = bring(table(tmp_path / "a.csv", answers[::-1]), tmp_path / "run", data=source)
    assert made.evaluation.confusion.model_dump() == {"tp": 5, "tn": 5, "fp": 1, "fn": 1}


def test_rows_that_do_not_match_are_listed_or_counted(tmp_path: Path) -> None:
    data = [{"id": f"p{at}", **row} for at, row in enumerate(posts())]
    data[2]["label"] = "normal"
    rows = [*posts()[1:], {"text": "another", "label": "hate", "prediction": "hate", "group": "a"}]
    source = DataSource(table(tmp_path / "data.csv", data))
    path = table(tmp_path / "p.csv", rows)
    with pytest.raises(DataError) as caught:
        bring(path, tmp_path / "run", data=source)
    found = list(problems(caught.value).values())
    assert found[0] == "is hate here and normal in the data set"
    assert found[1] == "is not in the data set"
    assert found[2] == "2 rows have no prediction: p0, p2"
    assert "another" not in caught.value.render()
    made = bring(path, tmp_path / "run", data=source, allow_unmatched=True)
    assert (made.evaluation.n, made.evaluation.n_error) == (12, 2)
    assert made.facts["matching"]["predictions_left_out"] == 2
    assert len(made.warnings) == 2


def test_predictions_of_another_data_set_are_refused(tmp_path: Path) -> None:
    other = [{**row, "text": f"else {at}"} for at, row in enumerate(posts())]
    source = DataSource(table(tmp_path / "data.csv", other))
    path = table(tmp_path / "p.csv", posts())
    with pytest.raises(DataError, match="nothing was imported"):
        bring(path, tmp_path / "run", data=source, allow_unmatched=True)


def test_training_rows_give_the_baselines(tmp_path: Path) -> None:
    train = table(
        tmp_path / "train.csv", [{"text": r["text"], "label": r["label"]} for r in posts()]
    )
    path = table(tmp_path / "p.csv", posts())
    made = bring(path, tmp_path / "run", train=DataSource(train))
    assert set(made.evaluation.baselines) == {"always_hate", "always_normal", "tfidf_logreg"}
    results = open_results(tmp_path / "run")
    assert set(results.baselines("test")) == set(made.evaluation.baselines)
    document = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert document["train_source"]["path"] == str(train)
    assert results.manifest["data"]["train"]["rows"] == 12

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.errors import DataError, StorageError
from evenhand.core.predictions import (
    Predictions,
    decided_at,
    predictions_from_rows,
    read_predictions,
    write_predictions,
)
from evenhand.core.records import Row

ROWS = [
    Row(id="a", text="x", label="hate", groups=("alpha", "beta"), source="s", cluster="t1"),
    Row(id="b", text="y", label="normal", fine_label="offensive"),
    Row(id="c", text="z"),
]


def test_a_score_at_the_threshold_is_decided_hate() -> None:
    predictions = predictions_from_rows(
        ROWS, scores=np.array([0.3, 0.29999, np.nan]), threshold=0.3
    )
    assert predictions.frame["decision"].tolist() == ["hate", "normal", None]
    assert predictions.frame["status"].tolist() == ["ok", "ok", "error"]


def test_missing_decisions_are_unparseable() -> None:
    predictions = predictions_from_rows(ROWS, decisions=["hate", None, "normal"])
    assert predictions.frame["status"].tolist() == ["ok", "unparseable", "ok"]
    assert predictions.frame["score"].isna().all()


def test_parquet_round_trip_keeps_every_value(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "predictions.parquet"
    written = predictions_from_rows(
        ROWS, scores=np.array([0.9, np.nan, 0.1]), raw_responses=["{}", None, "é"]
    )
    write_predictions(written, path)
    read = read_predictions(path)
    pd.testing.assert_frame_equal(read.frame, written.frame)
    assert read.frame["group"].tolist() == [["alpha", "beta"], [], []]
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_all_problems_are_named_at_once() -> None:
    good = predictions_from_rows(ROWS, scores=np.array([0.9, 0.2, 0.1])).frame
    bad = good.copy()
    bad["id"] = ["a", "a", ""]
    bad["label"] = ["hateful", "hate", None]
    bad["score"] = [1.5, 0.2, np.nan]
    bad["status"] = ["ok", "unparseable", "fine"]
    bad["group"] = pd.Series(["alpha", ["beta"], None], dtype=object)
    with pytest.raises(DataError) as caught:
        Predictions(bad)
    text = caught.value.render()
    for place in ("id", "label", "score", "status", "group"):
        assert place in {problem.place for problem in caught.value.problems}, text
    assert "'hateful'" in text


def test_missing_and_mistyped_columns_are_named() -> None:
    frame = predictions_from_rows(ROWS, scores=np.array([0.9, 0.2, 0.1])).frame
    with pytest.raises(DataError) as caught:
        Predictions(frame.rename(columns={"decision": "decison"}))
    assert 'did you mean "decision"?' in caught.value.render()
    assert "this column is missing" in caught.value.render()


@pytest.mark.parametrize("answers", [{}, {"scores": np.array([0.1])}, {"decisions": ["hate"]}])
def test_answers_must_fit_the_rows(answers: dict) -> None:
    with pytest.raises(DataError):
        predictions_from_rows(ROWS, **answers)


def test_the_record_does_not_share_the_callers_frame() -> None:
    frame = predictions_from_rows(ROWS, scores=np.array([0.9, 0.2, 0.1])).frame.copy()
    predictions = Predictions(frame)
    frame.loc[0, "score"] = 0.0
    assert predictions.frame.loc[0, "score"] == 0.9


def test_a_damaged_file_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(StorageError, match="cannot read"):
        read_predictions(path)
    with pytest.raises(StorageError):
        read_predictions(tmp_path / "absent.parquet")


def test_further_columns_are_kept_as_text_but_no_posts(tmp_path: Path) -> None:
    extra = {
        "split": "dev",
        "agreement": 2 / 3,
        "copies": 3,
        "synthetic": True,
        "nothing": None,
        "blank": "",
        "not_a_number": float("nan"),
        "tokens": ["a", "b"],
        "rationale_text": "the words",
        "embedded": "[P] the whole post [Q]",
        "essay": "long " * 60,
    }
    rows = [Row(id="a", text="the whole post", extra=extra), Row(id="b", text="y")]
    predictions = predictions_from_rows(rows, decisions=["hate", "normal"])
    kept = {"split": "dev", "agreement": str(2 / 3), "copies": "3", "synthetic": "True"}
    assert predictions.frame["extra"].tolist() == [kept, {}]
    path = tmp_path / "predictions.parquet"
    write_predictions(predictions, path)
    assert read_predictions(path).frame["extra"].tolist() == [kept, {}]


def test_a_table_without_further_columns_is_a_table_of_predictions(tmp_path: Path) -> None:
    written = predictions_from_rows(ROWS, scores=np.array([0.9, 0.2, 0.1]))
    path = tmp_path / "predictions.parquet"
    written.frame.drop(columns="extra").to_parquet(path)
    pd.testing.assert_frame_equal(read_predictions(path).frame, written.frame)
    for bad in ({"a": 1}, {1: "a"}, "a"):
        with pytest.raises(DataError, match="predictions"):
            Predictions(written.frame.assign(extra=pd.Series([{}, bad, None], dtype=object)))


def test_decided_at_another_threshold() -> None:
    predictions = predictions_from_rows(ROWS, scores=np.array([0.9, np.nan, 0.1]))
    assert decided_at(predictions, 0.1).frame["decision"].tolist() == ["hate", None, "hate"]
    assert decided_at(predictions, 0.95).frame["decision"].tolist() == ["normal", None, "normal"]
    assert predictions.frame["decision"].tolist() == ["hate", None, "normal"]
    unscored = predictions_from_rows(ROWS, decisions=["hate", None, "normal"])
    with pytest.raises(DataError) as caught:
        decided_at(unscored, 0.5)
    assert "2 of 2 ok rows have no score" in caught.value.render()


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.just(3),
            st.text(max_size=2),
            st.lists(st.one_of(st.sampled_from(["a", "b", ""]), st.just(4)), max_size=3),
        ),
        max_size=6,
    )
)
def test_group_faults_are_counted_row_by_row(groups: list[object]) -> None:
    rows = [Row(id=str(i), text="t", label="hate") for i in range(len(groups))]
    frame = predictions_from_rows(rows, decisions=["hate"] * len(rows)).frame
    frame = frame.assign(group=pd.Series(groups, dtype=object))
    good = [
        value is None or (isinstance(value, list) and all(isinstance(x, str) and x for x in value))
        for value in groups
    ]
    if all(good):
        assert Predictions(frame).frame["group"].tolist() == [
            list(dict.fromkeys(value or [])) for value in groups
        ]
        return
    with pytest.raises(DataError) as caught:
        Predictions(frame)
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"{good.count(False)} of {len(rows)} rows")
    assert f"(row {good.index(False)}:" in problem.message

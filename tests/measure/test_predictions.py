from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evenhand.core.errors import DataError, StorageError
from evenhand.core.predictions import (
    Predictions,
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

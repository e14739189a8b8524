from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.imported import bring, posts, problems, table

from evenhand.core.errors import ConfigError, DataError
from evenhand.core.predictions import predictions_from_rows, write_predictions
from evenhand.core.records import Row
from evenhand.data.answers import read_answers
from evenhand.experiment.inputs import DataSource
from evenhand.experiment.results import open_results


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_evaluation(tmp_path: Path, suffix: str) -> None:
    made = bring(table(tmp_path / f"p.{suffix}", posts()), tmp_path / "run")
    assert made.evaluation.confusion.model_dump() == {"tp": 5, "tn": 5, "fp": 1, "fn": 1}
    assert set(made.evaluation.groups) == {"a", "b", "c"}
    results = open_results(tmp_path / "run")
    assert results.is_imported
    assert results.config is None and results.training is None
    assert results.evaluation("test") == made.evaluation
    assert results.binding.adapter is None


def test_words_without_an_answer_are_counted(tmp_path: Path) -> None:
    rows = posts(14)
    for row, word in zip(rows, ["", "unknown", "ERROR", "NaN", "None", "N/A"], strict=False):
        row["prediction"] = word
    made = bring(table(tmp_path / "p.csv", rows), tmp_path / "run")
    assert (made.evaluation.n, made.evaluation.n_unparseable, made.evaluation.n_error) == (14, 6, 0)
    frame = open_results(tmp_path / "run").predictions("test").frame
    assert frame["status"].value_counts().to_dict() == {"ok": 8, "unparseable": 6}


def test_missing_values_of_parquet_are_unparseable(tmp_path: Path) -> None:
    rows = posts()
    rows[0]["prediction"] = None
    made = bring(table(tmp_path / "p.parquet", rows), tmp_path / "run")
    assert made.evaluation.n_unparseable == 1


def test_status_tells_errors_from_unparseable_rows(tmp_path: Path) -> None:
    rows = [{**row, "status": "success"} for row in posts()]
    rows[0] |= {"status": "error", "prediction": ""}
    rows[1] |= {"status": "Failed", "prediction": "hate"}
    rows[2] |= {"status": "parse error"}
    rows[3] |= {"prediction": ""}
    made = bring(table(tmp_path / "p.csv", rows), tmp_path / "run").evaluation
    assert (made.n_scored, made.n_error, made.n_unparseable) == (8, 2, 2)


def test_texts_are_texts(tmp_path: Path) -> None:
    rows = posts()
    words = ["null", "NA", "a line\nand another", '"quoted", with a comma', "123", "nan"]
    for row, word in zip(rows, words, strict=False):
        row["text"] = word
    answers = read_answers(table(tmp_path / "p.csv", rows)).answers
    assert [answer.row.text for answer in answers[:6]] == words
    bring(tmp_path / "p.csv", tmp_path / "run")
    assert open_results(tmp_path / "run").predictions("test").frame["id"].is_unique


def test_scores_decide_where_there_are_no_labels(tmp_path: Path) -> None:
    rows = [{**row, "score": 0.5 if row["prediction"] == "hate" else 0.4} for row in posts()]
    scored = [{key: row[key] for key in row if key != "prediction"} for row in rows]
    scored[3]["score"] = ""
    made = bring(table(tmp_path / "p.csv", scored), tmp_path / "run").evaluation
    assert (made.n_scored, made.n_error) == (11, 1)
    assert made.metrics.roc_auc.value is not None
    assert made.threshold is None
    # With both, the predicted label decides and the score is kept.
    rows[0]["score"] = 0.9
    made = bring(table(tmp_path / "q.csv", rows), tmp_path / "other").evaluation
    assert made.confusion.model_dump() == {"tp": 5, "tn": 5, "fp": 1, "fn": 1}
    frame = open_results(tmp_path / "other").predictions("test").frame
    assert frame["score"].max() == 0.9


def test_label_words_and_columns_can_be_named(tmp_path: Path) -> None:
    rows = [
        {"post": row["text"], "gold": {"hate": "toxic", "normal": "fine"}[row["label"]],
         "said": "I refuse" if at == 5 else row["prediction"], "about": "a;b"}
        for at, row in enumerate(posts())
    ]  # fmt: skip
    made = bring(
        table(tmp_path / "p.csv", rows),
        tmp_path / "run",
        columns={"label": "gold", "prediction": "said", "group": "about", "group_separator": ";"},
        labels={"toxic": "hate", "fine": "normal", "I refuse": "unparseable"},
    ).evaluation
    assert (made.n_unparseable, sorted(made.groups)) == (1, ["a", "b"])


def test_our_own_predictions_come_back_as_they_are(tmp_path: Path) -> None:
    rows = [
        Row(f"r{at}", "x", label, (group,), source="s", fine_label=f"f{at % 2}", cluster=f"c{at}")
        for at, (label, group) in enumerate([("hate", "a"), ("normal", "b")] * 6)
    ]
    scores = np.linspace(0, 1, 12)
    scores[4] = np.nan
    predictions = predictions_from_rows(rows, scores=scores)
    write_predictions(predictions, tmp_path / "predictions.parquet")
    columns = {"score": "score", "label": "label"}
    bring(tmp_path / "predictions.parquet", tmp_path / "run", columns=columns)
    back = open_results(tmp_path / "run").predictions("test").frame
    given = predictions.frame.sort_values("id", ignore_index=True)
    # A row in error has neither decision nor score; the status column says so.
    pd.testing.assert_frame_equal(back, given)


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    rows = [{**row, "status": "success", "score": 0.5} for row in posts()]
    rows[1]["label"] = "offensive"
    rows[2] |= {"prediction": "maybe", "score": "high"}
    rows[3] |= {"score": 7, "status": "odd"}
    rows[5]["label"] = "offensive"
    with pytest.raises(DataError) as caught:
        bring(table(tmp_path / "p.csv", rows), tmp_path / "run")
    text = caught.value.render()
    for part in (
        '"offensive" is not known; say what it is: --label "offensive=hate" or =normal '
        "(2 rows, first line 3)",
        '"maybe" is not known',
        "'high' is not a number (line 4)",
        "is not a probability of hate",
        '"odd" is not a status',
    ):
        assert part in text
    assert not (tmp_path / "run").exists()


def test_missing_columns_name_what_there_is(tmp_path: Path) -> None:
    rows = [{"txt": row["text"], "gold": row["label"]} for row in posts()]
    with pytest.raises(DataError) as caught:
        bring(table(tmp_path / "p.csv", rows), tmp_path / "run")
    found = problems(caught.value)
    assert set(found) == {"columns.text", "columns.label", "columns.prediction"}
    assert 'columns: "txt", "gold"' in found["columns.text"]
    with pytest.raises(DataError) as caught:
        bring(tmp_path / "p.csv", tmp_path / "run", columns={"text": "tx", "lable": "gold"})
    found = problems(caught.value)
    assert 'did you mean "txt"?' in found["columns.text"]
    assert 'did you mean "label"?' in found["columns.lable"]


def test_problems_of_several_files_are_told_at_once(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", [{"a": "b"}])
    with pytest.raises(ConfigError) as caught:
        bring(
            path,
            tmp_path / "run",
            name="a name",
            config=tmp_path / "no.json",
            history=tmp_path / "nowhere",
            train=DataSource(tmp_path / "no.csv"),
            stated_files=(tmp_path / "none.json",),
        )
    text = caught.value.render()
    for part in ("p.csv: columns.text", "no.json", "nowhere", "no.csv", "none.json", "--name"):
        assert part in text
    assert not (tmp_path / "run").exists()


def test_one_strategy_of_several(tmp_path: Path) -> None:
    rows = [{**row, "strategy": name} for name in ("short", "long") for row in posts()]
    path = table(tmp_path / "p.csv", rows)
    with pytest.raises(DataError, match="1 problem") as caught:
        bring(path, tmp_path / "run")
    assert 'several: "short", "long"' in problems(caught.value)["--strategy"]
    with pytest.raises(DataError) as caught:
        bring(path, tmp_path / "run", strategy="shrt")
    assert 'did you mean "short"?' in problems(caught.value)["--strategy"]
    made = bring(path, tmp_path / "run", strategy="long")
    assert (made.evaluation.n, made.facts["other_strategies"]) == (12, {"short": 12})
    assert any("12 rows of strategy short" in line for line in made.warnings)

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import make_posts, write_csv


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    posts = make_posts(24, seed=3)
    said = [{**post, "prediction": post["label"]} for post in posts]
    said[0]["prediction"] = "unknown"
    said[1]["prediction"] = "hate"
    return write_csv(tmp_path / "predictions.csv", said)


def test_import_prints_the_evaluation_and_what_was_read(
    cli: RunCli, predictions: Path, tmp_path: Path
) -> None:
    done = cli(
        *("import", "--predictions", predictions, "--name", "test", "--out", tmp_path / "run"),
        *("--stated", "f1=0.9565", "--stated", "tn=12", "--stated", "validation.f1=0.7"),
    )
    assert done.exit_code == 0, done.stderr
    assert "24 rows, 23 scored, 1 unparseable" in done.stdout
    assert "imported: 24 rows of" in done.stdout
    lines = [[word.strip() for word in line.split("|")] for line in done.stdout.splitlines()]
    assert ["", "test.f1", "0.9565", "verified", "0.956522", ""] in lines
    assert ["", "test.tn", "12", "contradicted", "11", ""] in lines
    assert ["", "validation.f1", "0.7", "stated, not verified", "-", ""] in lines


def test_import_prints_one_json_document(cli: RunCli, predictions: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = cli("import", "--predictions", predictions, "--name", "test", "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["evaluation"]["n_unparseable"] == 1
    assert document["imported"]["rows"] == 24
    stored = json.loads((out / "evaluations" / "test" / "evaluation.json").read_text("utf-8"))
    assert stored == document["evaluation"]


def test_all_problems_of_the_command_at_once(
    cli: RunCli, predictions: Path, tmp_path: Path
) -> None:
    done = cli(
        *("import", "--predictions", predictions, "--name", "a name", "--out", tmp_path / "run"),
        *("--column", "prediction=answer", "--config", tmp_path / "none.json"),
    )
    assert done.exit_code == 2
    for part in ("--name", 'no column "answer"', "none.json", "nothing was imported"):
        assert part in done.stderr
    assert not (tmp_path / "run").exists()


def test_training_rows_and_data_set(cli: RunCli, predictions: Path, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", make_posts(40, seed=4))
    data = write_csv(tmp_path / "data.csv", make_posts(24, seed=3)[::-1])
    done = cli(
        *("import", "--predictions", predictions, "--name", "test", "--out", tmp_path / "run"),
        *("--train", train, "--data", data, "--label", "unknown=unparseable"),
    )
    assert done.exit_code == 0, done.stderr
    assert "tfidf_logreg" in done.stdout
    made_from = tmp_path / "run" / "evaluations" / "test" / "inputs.json"
    assert json.loads(made_from.read_text("utf-8"))["data"]["file"] == str(data)


def test_slices_and_their_mistakes(cli: RunCli, predictions: Path, tmp_path: Path) -> None:
    base = ("import", "--predictions", predictions, "--name", "test", "--out", tmp_path / "run")
    wrong = cli(*base, "--slice", "label,")
    assert wrong.exit_code == 2 and "has a column without a name" in wrong.stderr
    assert not (tmp_path / "run").exists()
    done = cli(*base, "--slice", "label,group", "--json")
    slices = json.loads(done.stdout)["evaluation"]["slices"]
    assert {"label", "group"} in [set(one["keys"]) for one in slices]


def test_the_forms_of_the_help(cli: RunCli) -> None:
    done = cli("import", "--help")
    assert done.exit_code == 0
    assert "Example: evenhand import" in done.stdout

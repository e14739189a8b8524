from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evenhand.config.load import load_experiment

if TYPE_CHECKING:
    from tests.conftest import RunCli

WORDS = ("toxic", "fine")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_table(tmp_path / "my posts.csv")


def write_table(path: Path, *, rows: int = 200) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "comment", "verdict", "target"])
        for n in range(rows):
            # every tenth text stands twice
            text = f"a few words about number {n - n % 10 if n % 10 == 1 else n}"
            verdict = WORDS[(n - n % 10 if n % 10 == 1 else n) % 2]
            writer.writerow([f"p{n}", text, verdict, "north" if n % 4 < 2 else "south"])
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_init_writes_an_experiment_that_loads(cli: RunCli, table: Path) -> None:
    result = cli("init", table, "--positive", "toxic", "--out", "mine/experiment.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "next: evenhand run mine/experiment.json" in result.stdout
    experiment = load_experiment("mine/experiment.json")
    assert experiment.config.name == "my-posts"
    rows = {one.name: rows_of(one.path) for one in experiment.sets if one.path is not None}
    assert {name: len(found) for name, found in rows.items()} == {
        "train": 140,
        "validation": 30,
        "test": 30,
    }
    texts = [{row["text"] for row in found} for found in rows.values()]
    assert sum(map(len, texts)) == len(set.union(*texts))
    for found in rows.values():
        labels = Counter(row["label"] for row in found)
        assert labels["hate"] / labels.total() == pytest.approx(0.6, abs=0.05)
        assert {group for row in found for group in row["groups"]} == {"north", "south"}


def test_init_is_reproducible(cli: RunCli, table: Path) -> None:
    for name in ("a", "b"):
        cli("init", table, "--positive", "toxic", "--out", f"{name}/experiment.json")
    first, second = (Path(name, "experiment_data/train.jsonl").read_bytes() for name in ("a", "b"))
    assert first == second


def test_two_experiments_share_a_folder(cli: RunCli, table: Path) -> None:
    for out in ("first", "second.json"):
        assert cli("init", table, "--positive", "toxic", "--out", out).exit_code == 0
    assert {path.name for path in Path().iterdir()} == {
        table.name,
        "first.json",
        "first_data",
        "second.json",
        "second_data",
    }
    paths = [one.path for one in load_experiment("first.json").sets]
    assert {path.parent.name for path in paths if path is not None} == {"first_data"}


def test_init_leaves_out_an_id_that_repeats(cli: RunCli, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv")
    table.write_text(table.read_text().replace("p1,", "p0,"))
    done = cli("init", table, "--positive", "toxic", "--out", tmp_path / "x.json", "--json")
    assert done.exit_code == 0
    assert "id" not in json.loads(done.stdout)["columns"]


def test_init_prints_json(cli: RunCli, table: Path) -> None:
    document = json.loads(cli("init", table, "--positive", "Toxic", "--json").stdout)
    assert document["columns"] == {
        "text": "comment",
        "label": "verdict",
        "group": ["target"],
        "id": "id",
    }
    assert document["labels"] == {"toxic": "hate", "fine": "normal"}


def test_init_asks_for_the_word_that_means_hate(cli: RunCli, table: Path) -> None:
    result = cli("init", table)
    assert result.exit_code == 2
    assert "--positive" in result.stderr
    assert not Path("experiment.json").exists()
    assert not Path("experiment_data").exists()


def test_init_refuses_to_overwrite(cli: RunCli, table: Path) -> None:
    Path("experiment_data").mkdir()
    Path("experiment_data/test.jsonl").write_text("mine")
    Path("experiment.json").write_text("mine")
    result = cli("init", table, "--positive", "toxic")
    assert result.exit_code == 2
    assert "experiment.json" in result.stderr
    assert "test.jsonl" in result.stderr
    assert Path("experiment_data/test.jsonl").read_text() == "mine"
    assert not Path("experiment_data/train.jsonl").exists()
    assert cli("init", table, "--positive", "toxic", "--force").exit_code == 0
    assert Path("experiment.json").read_text() != "mine"


def test_init_skips_bad_rows_when_told(cli: RunCli, table: Path) -> None:
    with table.open("a", encoding="utf-8") as stream:
        stream.write("q1,,toxic,north\n")
    stopped = cli("init", table, "--positive", "toxic")
    assert stopped.exit_code == 2
    assert "line 202" in stopped.stderr
    skipped = cli("init", table, "--positive", "toxic", "--skip-bad-rows")
    assert skipped.exit_code == 0
    assert "skipped   1 rows" in skipped.stdout


def test_init_needs_rows_of_both_labels_everywhere(cli: RunCli, tmp_path: Path) -> None:
    small = write_table(tmp_path / "small.csv", rows=2)
    result = cli("init", small, "--positive", "toxic", "--out", tmp_path / "x.json")
    assert result.exit_code == 2
    assert not (tmp_path / "x.json").exists()


def test_init_names_wrong_columns(cli: RunCli, table: Path) -> None:
    result = cli("init", table, "--text", "coment", "--group", "targt")
    assert result.exit_code == 2
    assert 'did you mean "comment"?' in result.stderr
    assert 'did you mean "target"?' in result.stderr


def test_explain_a_field(cli: RunCli) -> None:
    result = cli("explain", "phases.lora_r")
    assert result.exit_code == 0
    assert result.stdout == (
        "lora_r   whole number (at least 1); default 8\n    Rank of the adapter.\n"
    )
    (document,) = json.loads(cli("explain", "phases.lora_r", "--json").stdout)
    assert document["default"] == "8"


def test_explain_everything(cli: RunCli) -> None:
    assert "continue_from" in cli("explain").stdout
    assert len(json.loads(cli("explain", "--json").stdout)) > 70


@pytest.mark.parametrize("document", ["phase", "experiment"])
def test_explain_writes_the_schema(cli: RunCli, document: str) -> None:
    schema = json.loads(cli("explain", "--schema", document).stdout)
    assert schema["type"] == "object"
    assert schema["properties"]


def test_explain_an_unknown_field(cli: RunCli) -> None:
    result = cli("explain", "lora_rr")
    assert result.exit_code == 2
    assert 'did you mean "lora_r"?' in result.stderr

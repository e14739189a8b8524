from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import (
    edit_json,
    make_posts,
    write_chat,
    write_csv,
    write_experiment,
    write_phase,
)


@pytest.fixture
def leak(tmp_path: Path) -> tuple[Path, Path]:
    posts = make_posts(20, seed=1)
    train = write_csv(tmp_path / "train.csv", posts)
    test = write_csv(tmp_path / "test.csv", [*make_posts(5, seed=2, groups=()), *posts[:2]])
    return train, test


def clean(folder: Path) -> tuple[Path, Path]:
    """Two files that share nothing."""
    pair = []
    for name, word in (("train", "apples"), ("test", "bridges")):
        posts = [
            {
                "id": f"{name}{at}",
                "text": f"{word} {at * 7919} {word}",
                "label": label,
                "group": "a",
            }
            for at, label in enumerate(["hate", "normal"] * 10)
        ]
        pair.append(write_csv(folder / f"{name}_clean.csv", posts))
    return pair[0], pair[1]


def test_files_with_a_leak_exit_5_and_name_the_rows(
    cli: RunCli, leak: tuple[Path, Path], tmp_path: Path
):
    train, test = leak
    out = tmp_path / "rows.csv"
    result = cli("audit", "--train", train, "--evaluation", test, "--json", "--rows", out)
    assert result.exit_code == 5
    document = json.loads(result.stdout)
    [finding] = [one for one in document["findings"] if one["check"] == "exact_overlap"]
    assert (finding["subject"], finding["severity"]) == ("train / test", "error")
    assert finding["evidence"]["rows"] == 2 and finding["accepted"] is None
    assert document["n_errors"] == 1 and "warmup_share" in document["skipped"]
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    exact = [row for row in rows if row["check"] == "exact_overlap"]
    assert [(row["row"], row["other_row"]) for row in exact] == [("1-0", "1-0"), ("1-1", "1-1")]
    assert all(post["text"] not in result.stdout for post in make_posts(20, seed=1))


def test_the_text_says_what_where_and_what_to_do(cli: RunCli, leak: tuple[Path, Path]):
    result = cli("audit", "--train", leak[0], "--evaluation", leak[1])
    assert result.exit_code == 5
    assert "error: exact_overlap (train / test)" in result.stdout
    assert "rows: train 1-0 = test 1-0" in result.stdout
    assert "remedy: " in result.stdout and "not checked: prompt_drift: " in result.stdout


def test_clean_files_exit_0(cli: RunCli, tmp_path: Path):
    train, test = clean(tmp_path)
    result = cli("audit", "--train", train, "--evaluation", test, "--evaluation", test)
    assert result.exit_code == 0
    assert "0 errors" in result.stdout


def test_a_target_that_a_constant_reaches(cli: RunCli, tmp_path: Path):
    train, test = clean(tmp_path)
    files = ("--train", train, "--evaluation", test)
    assert cli("audit", *files, "--target", "f1=0.6").exit_code == 5
    assert cli("audit", *files, "--target", "f1=0.7").exit_code == 0


def test_chat_files_against_a_prompt(cli: RunCli, tmp_path: Path):
    posts = make_posts(20, seed=4)
    train = write_chat(tmp_path / "chat.jsonl", posts)
    _, test = clean(tmp_path)
    prompt = tmp_path / "prompt.json"
    entry = {"system_prompt": "You moderate.", "user_template": 'Text: "{text}"'}
    prompt.write_text(json.dumps({"strategies": {"mine": entry}}), encoding="utf-8")
    result = cli("audit", "--train", train, "--evaluation", test, "--prompt-file", prompt, "--json")
    assert result.exit_code == 5
    found = {one["check"]: one for one in json.loads(result.stdout)["findings"]}
    assert found["prompt_drift"]["evidence"]["rows"] == {"another system prompt": 20}
    assert found["label_word_drift"]["evidence"]["training"]["normal"] == {"not_hate": 10}


def test_an_experiment_and_what_it_accepts(cli: RunCli, tmp_path: Path):
    # No weights there: the audit of a plan needs none.
    path = write_experiment(tmp_path, tmp_path / "llama", gate=None)
    write_csv(tmp_path / "test.csv", make_posts(16, seed=10)[:3] + make_posts(9, seed=12))
    result = cli("audit", path, "--json")
    assert result.exit_code == 5
    subjects = [
        one["subject"]
        for one in json.loads(result.stdout)["findings"]
        if one["check"] == "exact_overlap"
    ]
    assert "train / test" in subjects
    edit_json(path, accept={"exact_overlap": "known and reported"})
    result = cli("audit", path)
    assert result.exit_code == 0
    assert "accepted error: exact_overlap" in result.stdout
    assert "accepted: known and reported" in result.stdout
    edit_json(path, accept={"exact_overlaps": "misspelt"})
    result = cli("audit", path)
    assert result.exit_code == 5
    assert 'did you mean "exact_overlap"' in result.stdout


def test_a_data_file_is_neither_an_experiment_nor_a_run(cli: RunCli, leak: tuple[Path, Path]):
    result = cli("audit", leak[0])
    assert result.exit_code == 2
    assert "is neither an experiment nor a run; for data files use --train and" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "--train and --evaluation"),
        (("--train", "train.csv"), "--train and --evaluation"),
        (("--target", "f2=0.5"), "f2"),
        (("--target", "f1=60"), "fraction"),
        (("--role", "test=train"), "role"),
    ],
)
def test_mistakes_are_told(cli: RunCli, leak: tuple[Path, Path], args: tuple[str, ...], said: str):
    files = ("--train", leak[0], "--evaluation", leak[1]) if args and "--train" not in args else ()
    result = cli("audit", *files, *args)
    assert result.exit_code == 2
    assert said in result.stderr


def test_problems_of_all_files_are_told_at_once(cli: RunCli, tmp_path: Path):
    bad = [write_csv(tmp_path / f"{n}.csv", [{"text": "a", "label": "maybe"}]) for n in "ab"]
    result = cli("audit", "--train", bad[0], "--evaluation", bad[1])
    assert result.exit_code == 2
    assert "a.csv" in result.stderr and "b.csv" in result.stderr


def test_an_experiment_takes_no_files(cli: RunCli, tmp_path: Path, leak: tuple[Path, Path]):
    path = write_experiment(tmp_path, tmp_path / "llama")
    result = cli("audit", path, "--train", leak[0], "--target", "f1=0.5")
    assert result.exit_code == 2
    assert "--train" in result.stderr and "--target" in result.stderr


def test_a_run_is_audited_with_the_files_that_it_names(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
):
    phase = write_phase(tmp_path, tiny_llama)
    run = tmp_path / "run"
    assert cli("train", phase, "--out", run).exit_code == 0
    test = write_csv(tmp_path / "test.csv", make_posts(16, seed=1)[:4])  # training rows
    assert cli("evaluate", run, "--data", test, "--name", "production").exit_code == 0
    result = cli("audit", run, "--json")
    assert result.exit_code == 5
    document = json.loads(result.stdout)
    [finding] = [one for one in document["findings"] if one["check"] == "exact_overlap"]
    assert finding["subject"] == "train / production"
    assert "warmup_share" in document["checks"]
    assert "contradicted_responses" in document["skipped"]
    # A file that has changed since is not taken for the one that was used.
    write_csv(test, make_posts(4, seed=99))
    assert "exact_overlap" in json.loads(cli("audit", run, "--json").stdout)["skipped"]
    files = ("--evaluation", write_csv(tmp_path / "more.csv", make_posts(16, seed=1)[5:7]))
    assert "train / more" in cli("audit", run, *files).stdout

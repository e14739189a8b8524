from __future__ import annotations

import json

import pytest

POST = {
    "annotators": [{"label": "normal", "annotator_id": 1, "target": ["Arab"]}] * 3,
    "rationales": [],
}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "posts.csv"
    path.write_text("body,kind,who\nI hate [group],offensive,a\nhello,normal,b\n,normal,b\n")
    return path


def raw_hatexplain(folder):
    folder.mkdir()
    posts = {
        str(i): {**POST, "post_id": str(i), "post_tokens": ["post", str(i)]} for i in range(60)
    }
    (folder / "dataset.json").write_text(json.dumps(posts))
    return folder


def test_describe(cli, table):
    options = ["--column", "text=body", "--column", "label=kind", "--column", "group=who"]
    result = cli("data", "describe", table, *options)
    assert result.exit_code == 2
    assert "line 2" in result.stderr
    assert "line 4" in result.stderr
    options += ["--label", "offensive=hate", "--skip-bad-rows"]
    result = cli("data", "describe", table, *options, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["labels"] == {"hate": 1, "normal": 1}
    assert found["label_by_group"] == {"a": {"hate": 1}, "b": {"normal": 1}}
    assert found["skipped_rows"][0]["line"] == 4
    result = cli("data", "describe", table, *options)
    assert "2 rows, 1 skipped" in result.stdout
    assert ":4: body is empty" in result.stderr


def test_several_group_columns(cli, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label,g1,g2\nhi,1,a,b\n")
    options = ["--column", "text=text", "--column", "group=g1", "--column", "group=g2"]
    result = cli("data", "describe", path, *options, "--json")
    assert json.loads(result.stdout)["groups"] == {"a": 1, "b": 1}


@pytest.mark.parametrize("option", ["--column", "--label"])
def test_pairs_must_be_pairs(cli, table, option):
    result = cli("data", "describe", table, option, "text")
    assert result.exit_code == 2
    assert "KEY=VALUE" in result.stderr


def test_prepare(cli, tmp_path):
    source = raw_hatexplain(tmp_path / "raw")
    out = tmp_path / "corpus"
    result = cli("data", "prepare", "--hatexplain", source, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert sum(entry["rows"] for name, entry in record["files"].items() if "unified" in name) == 60
    described = cli("data", "describe", out / "unified_test.json", "--json")
    assert json.loads(described.stdout)["groups"].keys() == {"middle_east"}
    result = cli("data", "prepare", "--hatexplain", source, "--out", out)
    assert "the data card" in result.stdout


def test_prepare_asks_for_the_choice_about_offensive(cli, tmp_path):
    source = raw_hatexplain(tmp_path / "raw")
    path = source / "dataset.json"
    path.write_text(path.read_text().replace('"normal"', '"offensive"'))
    result = cli("data", "prepare", "--hatexplain", source, "--out", tmp_path / "corpus")
    assert result.exit_code == 2
    assert "hate, normal or drop" in result.stderr
    assert not (tmp_path / "corpus").exists()


def test_prepare_needs_a_corpus_and_numbers(cli, tmp_path):
    result = cli("data", "prepare", "--out", tmp_path / "corpus")
    assert result.exit_code == 2
    assert "--hatexplain or --toxigen" in result.stderr
    result = cli(
        "data", "prepare", "--hatexplain", raw_hatexplain(tmp_path / "raw"),
        "--out", tmp_path / "corpus", "--fractions", "train=most",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "not a number" in result.stderr


def test_fetch_shows_terms_then_reads_the_mirror(cli, tmp_path):
    source = raw_hatexplain(tmp_path / "raw")
    (source / "post_id_divisions.json").write_text('{"train": ["1"]}')
    options = ["--from", source, "--out", tmp_path / "hx"]
    result = cli("data", "fetch", "hatexplain", *options)
    assert result.exit_code == 2
    assert "MIT" in result.stderr
    result = cli("data", "fetch", "hatexplain", *options, "--accept-terms", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["files"]["dataset.json"]["sha256"]) == 64
    result = cli("data", "fetch", "hatexplain", *options, "--accept-terms")
    assert "sha256" in result.stdout


def test_starter(cli, tmp_path):
    result = cli("data", "starter", "--out", tmp_path / "starter", "--json")
    assert result.exit_code == 0, result.stderr
    files = json.loads(result.stdout)["files"]
    assert set(files) == {"train.jsonl", "validation.jsonl", "test.jsonl", "functional.jsonl"}
    described = cli("data", "describe", tmp_path / "starter" / "test.jsonl", "--json")
    assert json.loads(described.stdout)["n"] == files["test.jsonl"]["rows"]


@pytest.mark.parametrize("command", ["describe", "prepare", "fetch", "starter"])
def test_help_has_an_example(cli, command):
    result = cli("data", command, "--help")
    assert result.exit_code == 0
    assert f"Example: evenhand data {command}" in result.stdout


def test_the_defaults_are_those_of_the_library():
    import inspect

    from evenhand.cli.data import _fractions, prepare_command
    from evenhand.data.prepare import PrepareOptions

    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(prepare_command).parameters.items()
    }
    library = PrepareOptions()
    assert _fractions(defaults["fractions"]) == library.fractions
    for name in ("offensive", "toxicity_threshold", "groups", "canned_rows", "seed"):
        assert defaults[name] == getattr(library, name)

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


HOBBIES = (
    "chess", "rain", "jazz", "cats", "trains", "soup", "tennis", "maths", "paint", "hiking",
    "poetry", "sailing", "kites", "bread", "violins", "puzzles", "gardens", "candles", "owls",
    "skating",
)  # fmt: skip


@pytest.fixture
def training(tmp_path):
    """A training file of two groups, and a test file that has one of its texts."""
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    lines = [f"gay people like {hobby},normal,lgbtq" for hobby in HOBBIES]
    lines += [f"I hate Mexicans {at},hate,mexican" for at in range(20)]
    train.write_text("\n".join(["text,label,group", *lines]) + "\n")
    test.write_text("text,label,group\nMexicans like jazz,normal,mexican\n")
    return train, test


def augment(cli, training, out, *options):
    train, test = training
    return cli("data", "augment", train, "--evaluation", test, "--out", out, *options)


def test_augment(cli, training, tmp_path):
    out = tmp_path / "more.jsonl"
    options = ["--method", "templates", "--method", "swaps", "--group", "mexican", "--ratio", "1"]
    result = augment(cli, training, out, *options, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["wanted"] == 40
    assert found["added"] == {"templates": 20, "swaps": 19}
    assert found["short_of"] == {"templates": 0, "swaps": 1}
    assert found["left_out"] == {str(training[1]): 1}
    assert found["by_method"]["swaps"] == {"mexican": {"normal": 19}}
    assert (found["rows"], found["config"]["ratio"], found["config"]["seed"]) == (79, 1.0, 0)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    origins = [row["extra"]["provenance"] for row in rows]
    assert origins[:40] == [""] * 40
    assert all(origin.startswith(("templates: ", "swaps: row row-")) for origin in origins[40:])
    assert not any(row["text"].casefold() == "mexicans like jazz" for row in rows)
    described = json.loads(cli("data", "describe", out, "--json").stdout)
    assert described["label_by_group"]["mexican"] == {"hate": 20, "normal": 39}

    text = augment(cli, training, out, *options).stdout
    assert "79 rows, 39 of them added" in text
    assert "swaps: 19 rows; 1 more could not be made" in text
    assert f"left out for {training[1]}: 1 that equal or nearly equal" in text
    same = out.read_bytes()
    augment(cli, training, out, *options, "--seed", "1")
    assert out.read_bytes() != same


def test_augment_writes_the_added_rows_alone(cli, training, tmp_path):
    out = tmp_path / "added.jsonl"
    result = augment(cli, training, out, "--added-only", "--label-of-rows", "hate")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 8
    assert {row["label"] for row in rows} == {"hate"}
    assert all(row["extra"]["provenance"] for row in rows)


def test_augment_from_a_corpus(cli, training, tmp_path):
    corpus, out = tmp_path / "corpus.csv", tmp_path / "more.jsonl"
    lines = [f"post {at * 7919} on {at * 104729} of them,normal,mexican" for at in range(9)]
    corpus.write_text("\n".join(["text,label,group", *lines]) + "\n")
    result = augment(cli, training, out, "--method", "corpus", "--corpus", corpus, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["by_method"] == {"corpus": {"mexican": {"normal": 8}}}


def test_augment_names_every_mistake_by_its_option(cli, training, tmp_path):
    train, _ = training
    options = ["--method", "swap", "--ratio", "-1", "--label-of-rows", "nice", "--seed", "-2"]
    result = cli("data", "augment", train, "--out", train, *options)
    assert result.exit_code == 2
    assert "the command has 6 problems" in result.stderr
    places = [line.split()[0] for line in result.stderr.splitlines() if line.startswith("  --")]
    assert sorted(places) == sorted(
        ["--method", "--ratio", "--label-of-rows", "--seed", "--evaluation", "--out"]
    )
    assert 'did you mean "swaps"?' in result.stderr
    result = augment(cli, training, tmp_path / "x", "--corpus", train, "--no-evaluation")
    assert "--corpus" in result.stderr
    assert "contradicts --evaluation" in result.stderr
    result = augment(cli, training, tmp_path / "x", "--group", "mexicn")
    assert result.exit_code == 2
    assert 'did you mean "mexican"?' in result.stderr
    assert not (tmp_path / "x").exists()


def test_augment_without_evaluation_must_be_said(cli, training, tmp_path):
    out = tmp_path / "more.jsonl"
    result = cli("data", "augment", training[0], "--out", out, "--no-evaluation")
    assert result.exit_code == 0, result.stderr
    assert "8 of them added" in result.stdout


def test_the_help_tells_the_configuration_s_defaults(cli):
    from evenhand.config.schema import AugmentConfig

    text = " ".join(cli("data", "augment", "--help").stdout.split())
    defaults = AugmentConfig(methods=("templates",))
    assert f"{defaults.ratio:g} by default" in text
    assert f"{defaults.seed} by default" in text
    assert f"{defaults.labels[0]} by default" in text

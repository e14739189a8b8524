from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import make_posts, write_chat, write_csv, write_phase, write_unified

from evenhand.core.evaluation import read_evaluation
from evenhand.core.predictions import read_predictions
from evenhand.experiment.runs import open_run
from evenhand.finetune.classifier import Classifier, load_classifier


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder with a phase, its data and its finished run; copied for each test."""
    from evenhand.cli.main import run

    folder = tmp_path_factory.mktemp("trained")
    phase = write_phase(folder, tiny_llama)
    assert run(["train", str(phase), "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "test.csv", make_posts(12, seed=3))


def test_files_and_metrics(run: Path, data: Path, cli: RunCli) -> None:
    done = cli("evaluate", run, "--data", data, "--name", "test", "--json")
    assert done.exit_code == 0, done.stderr
    folder = run / "evaluations" / "test"
    found = read_evaluation(folder / "evaluation.json")
    assert json.loads(done.stdout) == found.model_dump(mode="json")
    assert (found.n, found.n_scored, found.method, found.bounds) == (12, 12, "score", None)
    assert set(found.groups) == {"lgbtq", "mexican", "middle_east"}
    assert set(found.baselines) == {"always_hate", "always_normal", "tfidf_logreg"}
    frame = read_predictions(folder / "predictions.parquet").frame
    assert frame["id"].tolist() == [f"3-{number}" for number in range(12)]
    assert frame["score"].between(0, 1).all()
    made = json.loads((folder / "inputs.json").read_text())
    assert made["data"]["rows"] == 12
    assert {one.name for one in folder.iterdir()} == {
        *("evaluation.json", "inputs.json", "predictions.parquet", "baselines")
    }


def test_scores_are_those_of_the_stored_adapter(run: Path, data: Path, cli: RunCli) -> None:
    assert cli("evaluate", run, "--data", data, "--name", "test").exit_code == 0
    found = open_run(run)
    from evenhand.data.sources import read_dataset

    classifier = load_classifier(run, found.config, found.prompt)
    scores = classifier.score(read_dataset(data).rows)
    frame = read_predictions(run / "evaluations" / "test" / "predictions.parquet").frame
    assert frame["score"].tolist() == pytest.approx(scores.tolist(), abs=1e-9)


def test_without_json_it_is_readable(run: Path, data: Path, cli: RunCli) -> None:
    done = cli("evaluate", run, "--data", data, "--name", "test")
    assert done.stdout.startswith("test: 12 rows")
    assert "tfidf_logreg" in done.stdout


@pytest.mark.parametrize("write", [write_unified, write_chat])
def test_other_formats(write: Any, run: Path, tmp_path: Path, cli: RunCli) -> None:
    data = write(tmp_path / "data.json", make_posts(8, seed=3))
    assert cli("evaluate", run, "--data", data, "--name", "test").exit_code == 0
    groups = read_evaluation(run / "evaluations" / "test" / "evaluation.json").groups
    assert bool(groups) == (write is write_unified)


def test_odd_groups_and_several_to_a_row(run: Path, tmp_path: Path, cli: RunCli) -> None:
    names = ["two words", "ünïcode|pipe", "<b>*", ""]
    posts = make_posts(16, seed=3, groups=names)
    posts[0]["group"] = "two words;ünïcode|pipe"
    data = write_csv(tmp_path / "data.csv", posts)
    columns = [f"--column={role}={role}" for role in ("id", "text", "label", "group")]
    columns.append("--column=group_separator=;")
    done = cli("evaluate", run, "--data", data, "--name", "odd", *columns)
    assert done.exit_code == 0, done.stderr
    groups = read_evaluation(run / "evaluations" / "odd" / "evaluation.json").groups
    assert {name: group.n for name, group in groups.items()} == {
        "two words": 4,
        "ünïcode|pipe": 5,
        "<b>*": 4,
    }


def test_unchanged_is_not_done_again(
    run: Path, data: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("evaluate", run, "--data", data, "--name", "test", "--json")
    first = cli(*command)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing was to be scored")

    monkeypatch.setattr("evenhand.experiment.stages.load_classifier", fail)
    again = cli(*command)
    assert "not evaluated again" in again.stderr
    assert again.stdout == first.stdout


def test_nothing_else_takes_its_name(run: Path, data: Path, tmp_path: Path, cli: RunCli) -> None:
    command = ("evaluate", run, "--name", "test", "--data")
    assert cli(*command, data).exit_code == 0
    before = (run / "evaluations/test/evaluation.json").read_bytes()
    other = write_csv(tmp_path / "other.csv", make_posts(8, seed=4))
    for changed in ((*command, other), (*command, data, "--method", "generate")):
        done = cli(*changed)
        assert done.exit_code == 2
        assert "choose another --name" in done.stderr
    assert (run / "evaluations/test/evaluation.json").read_bytes() == before


def test_slices_by_further_columns_and_their_crossings(
    run: Path, tmp_path: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = [{**post, "year": f"202{i % 2}"} for i, post in enumerate(make_posts(8, seed=3))]
    data = write_csv(tmp_path / "test.csv", posts)
    command = ("evaluate", run, "--data", data, "--name", "test", "--json", "--slice")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "score", None)  # a mistake is found before anything is scored
        for wrong, message in (("yeer", 'did you mean "year"?'), ("year,", "without a name")):
            refused = cli(*command, wrong)
            assert refused.exit_code == 2
            assert message in refused.stderr
    assert not (run / "evaluations").exists()
    done = cli(*command, "year", "--slice", "group, year")
    assert done.exit_code == 0, done.stderr
    keys = [part["keys"] for part in json.loads(done.stdout)["slices"]]
    assert [one for one in keys if set(one) == {"year"}] == [{"year": "2020"}, {"year": "2021"}]
    assert any(set(one) == {"group", "year"} for one in keys)


def test_generate_counts_what_it_cannot_read(
    run: Path, data: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_: Classifier, rows: Any, **__: Any) -> tuple[list[str | None], list[str]]:
        raw = [row.label if number > 2 else "well, hate" for number, row in enumerate(rows)]
        return [None if text == "well, hate" else text for text in raw], raw

    monkeypatch.setattr(Classifier, "answer", answer)
    command = ("evaluate", run, "--data", data, "--name", "free", "--method", "generate")
    done = cli(*command, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["n"], found["n_scored"], found["n_unparseable"]) == (12, 9, 3)
    assert found["threshold"] is None
    assert found["metrics"]["accuracy"]["value"] == 1
    assert found["bounds"]["accuracy"] == {"worst": 0.75, "best": 1}
    assert sum(group["n_unparseable"] for group in found["groups"].values()) == 3
    frame = read_predictions(run / "evaluations" / "free" / "predictions.parquet").frame
    assert frame["status"].tolist()[:3] == ["unparseable"] * 3
    assert frame["raw_response"].tolist()[0] == "well, hate"


def test_generate_on_the_tiny_model_itself(run: Path, data: Path, cli: RunCli) -> None:
    prompt = json.loads((run / "prompt.json").read_text())
    for strategy in prompt["strategies"].values():
        strategy["parameters"] = {"max_tokens": 2}
    (run / "prompt.json").write_text(json.dumps(prompt))
    done = cli("evaluate", run, "--data", data, "--name", "free", "--method", "generate", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n"] == found["n_scored"] + found["n_unparseable"] == 12


def test_a_classifier_head_scores_but_does_not_write(
    tmp_path: Path, tiny_bert: Path, data: Path, cli: RunCli
) -> None:
    phase = write_phase(tmp_path / "p", tiny_bert, max_seq_length=32)
    assert cli("train", phase, "--out", tmp_path / "run").exit_code == 0
    command = ("evaluate", tmp_path / "run", "--data", data, "--name", "test")
    assert cli(*command).exit_code == 0
    done = cli(*command[:-1], "free", "--method", "generate")
    assert done.exit_code == 2
    assert "a classifier head cannot write" in done.stderr
    kept = read_evaluation(tmp_path / "run" / "evaluations" / "test" / "evaluation.json")
    assert kept.method == "score"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_row_without_a_label_is_named(
    suffix: str, run: Path, tmp_path: Path, cli: RunCli
) -> None:
    posts = make_posts(4, seed=3)
    posts[2]["label"] = ""
    data = write_csv(tmp_path / "data.csv", posts)
    place = "line 4"
    if suffix == "jsonl":
        data = tmp_path / "data.jsonl"
        data.write_text("".join(json.dumps(post) + "\n" for post in posts))
        place = "line 3"
    command = ("evaluate", run, "--data", data, "--name", "test")
    done = cli(*command)
    assert done.exit_code == 2
    assert f"{place}   label is missing" in done.stderr
    assert not (run / "evaluations").exists()
    done = cli(*command, "--skip-bad-rows", "--json")
    assert done.exit_code == 0
    assert "1 row skipped" in done.stderr
    assert json.loads(done.stdout)["n"] == 3
    made = json.loads((run / "evaluations" / "test" / "inputs.json").read_text())
    assert made["data"]["skipped"] == 1


class TestBaselines:
    @pytest.mark.parametrize("fate", ["gone", "changed"])
    def test_without_the_training_rows_there_are_none(
        self, fate: str, run: Path, trained: Path, data: Path, cli: RunCli
    ) -> None:
        copied = data.parent / "train.csv"
        shutil.copy(trained / "train.csv", copied)
        config = json.loads((run / "config.json").read_text())
        config["train_source"]["path"] = str(copied)
        (run / "config.json").write_text(json.dumps(config))
        if fate == "gone":
            copied.unlink()
        else:
            write_csv(copied, make_posts(16, seed=9))
        done = cli("evaluate", run, "--data", data, "--name", "test", "--json")
        assert done.exit_code == 0
        told = "cannot be read" if fate == "gone" else "has changed"
        assert "warning: no baselines, since" in done.stderr
        assert told in done.stderr
        assert json.loads(done.stdout)["baselines"] == {}


class TestThePrompt:
    @pytest.fixture
    def prompts(self, tmp_path: Path) -> Path:
        entry = {"system_prompt": "Other.", "user_template": "{text}"}
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps({"strategies": {"other": entry}}))
        return path

    def test_another_one_is_refused(
        self, run: Path, data: Path, prompts: Path, cli: RunCli
    ) -> None:
        command = ("evaluate", run, "--data", data, "--name", "test")
        done = cli(*command, "--prompt-file", prompts)
        assert done.exit_code == 2
        assert "is not the prompt that the run was trained with" in done.stderr
        assert cli(*command, "--strategy", "nonesuch").exit_code == 2

    def test_its_own_is_accepted(self, run: Path, data: Path, cli: RunCli) -> None:
        command = ("evaluate", run, "--data", data, "--name", "test")
        assert cli(*command, "--prompt-file", run / "prompt.json").exit_code == 0


class TestTheCommandLine:
    def test_a_mistyped_run_is_suggested(self, run: Path, data: Path, cli: RunCli) -> None:
        done = cli("evaluate", run.with_name("runn"), "--data", data, "--name", "test")
        assert done.exit_code == 2
        assert 'is not a run folder; did you mean "run"?' in done.stderr

    def test_an_experiment_is_not_a_run(
        self, run: Path, data: Path, tmp_path: Path, cli: RunCli
    ) -> None:
        (tmp_path / "experiment" / "runs").mkdir(parents=True)
        run.rename(tmp_path / "experiment" / "runs" / "small")
        done = cli("evaluate", tmp_path / "experiment", "--data", data, "--name", "test")
        assert f"one of its runs: {tmp_path / 'experiment' / 'runs' / 'small'}" in done.stderr

    @pytest.mark.parametrize("name", ["../x", "a/b", "", "."])
    def test_a_name_stays_in_the_run_folder(
        self, name: str, run: Path, data: Path, cli: RunCli
    ) -> None:
        done = cli("evaluate", run, "--data", data, "--name", name)
        assert done.exit_code == 2
        assert "--name" in done.stderr

    def test_a_missing_file(self, run: Path, tmp_path: Path, cli: RunCli) -> None:
        done = cli("evaluate", run, "--data", tmp_path / "no.csv", "--name", "test")
        assert done.exit_code == 2
        assert "no.csv" in done.stderr

    def test_a_damaged_run(self, run: Path, data: Path, cli: RunCli) -> None:
        (run / "config.json").write_text("{}")
        done = cli("evaluate", run, "--data", data, "--name", "test")
        assert done.exit_code == 1
        assert "is not a run's configuration" in done.stderr


def _files(folder: Path) -> dict[Path, bytes]:
    return {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_a_failed_write_leaves_the_earlier_evaluation(
    run: Path, data: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("evaluate", run, "--data", data, "--name", "test").exit_code == 0
    inputs = run / "evaluations" / "test" / "inputs.json"
    made = json.loads(inputs.read_text())
    made["inputs"]["run"] = "trained before"  # so that it has to be done again
    inputs.write_text(json.dumps(made))
    before = _files(run / "evaluations" / "test")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evenhand.experiment.results.write_evaluation", full)
    done = cli("evaluate", run, "--data", data, "--name", "test")
    assert done.exit_code == 1
    assert "No space left on device; earlier results are intact" in done.stderr
    after = _files(run / "evaluations" / "test")
    assert after == before

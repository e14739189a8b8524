"""What counts as a change, and what does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.tiny_experiments import make_posts, write_csv, write_experiment, write_phase

from evenhand.config.load import load_experiment, load_phase
from evenhand.core.errors import ConfigError, StorageError
from evenhand.experiment.inputs import DataSource, TrainingInputs
from evenhand.experiment.plan import plan_experiment, plan_phase
from evenhand.experiment.runs import find_run, hold, open_run, set_aside, start_run
from evenhand.finetune.processes import World


def plan(path: Path, *overrides: str) -> TrainingInputs:
    phase = load_phase(path, overrides=overrides)
    keys = ("train_file", "validation_file")
    return plan_phase(phase, {key: DataSource(phase.files[key]) for key in keys})


def changed(before: TrainingInputs, after: TrainingInputs) -> list[str]:
    return [key for key, value in before.hashes.items() if after.hashes[key] != value]


@pytest.fixture
def path(tmp_path: Path, tiny_llama: Path) -> Path:
    model = tmp_path / "llama"
    shutil.copytree(tiny_llama, model)
    return write_phase(tmp_path, model)


@pytest.mark.parametrize(
    ("override", "differ"),
    [
        ("learning_rate=0.5", ["config"]),
        ("max_train_rows=4", ["config"]),
        ("seed=5", ["config"]),
        ("per_device_eval_batch_size=1", []),
        ("gradient_checkpointing=true", []),
        ("output_dir=elsewhere", []),
        ("logging_steps=3", []),
    ],
)
def test_keys(override: str, differ: list[str], path: Path) -> None:
    assert changed(plan(path), plan(path, override)) == differ


def test_the_lists_that_pairs_are_made_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, paired = plan(path), plan(path, "counterfactual_pairing=1")
    assert changed(plain, paired) == ["config"]
    monkeypatch.setattr("evenhand.experiment.inputs.terms_sha256", lambda: "other")
    assert changed(plain, plan(path)) == []
    assert changed(paired, plan(path, "counterfactual_pairing=1")) == ["config"]


def test_rows(path: Path) -> None:
    before = plan(path)
    assert before.hashes == plan(path).hashes
    write_csv(path.with_name("train.csv"), make_posts(6, seed=1))
    assert changed(before, plan(path)) == ["train"]
    write_csv(path.with_name("validation.csv"), make_posts(6, seed=1))
    assert changed(before, plan(path)) == ["train", "validation"]


def test_the_same_rows_in_another_file(path: Path) -> None:
    before = plan(path)
    rows = path.with_name("train.csv").read_text()
    moved = path.with_name("moved.csv")
    moved.write_text(rows.replace("id,", "id,note,", 1).replace("\n1-", "\n1-"))
    posts = [{**post, "note": "more"} for post in make_posts(16, seed=1)]
    write_csv(moved, posts)
    assert changed(before, plan(path, f"train_file={moved}")) == []


def test_the_base_model(path: Path) -> None:
    before = plan(path)
    copied = path.with_name("copied")
    shutil.copytree(path.with_name("llama"), copied)
    assert changed(before, plan(path, f"model_name_or_path={copied}")) == []
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**settings, "rope_theta": 5.0}))
    assert changed(before, plan(path, f"model_name_or_path={copied}")) == ["model"]


def test_the_prompt(path: Path, tmp_path: Path) -> None:
    entry = {"system_prompt": "Other.", "user_template": "{text}"}
    prompt = tmp_path / "prompt.json"
    prompt.write_text(json.dumps({"strategies": {"other": entry}}))
    assert changed(plan(path), plan(path, f"prompt_file={prompt}")) == ["prompt"]


def test_a_source_comes_back_as_it_was(tmp_path: Path) -> None:
    source = DataSource(
        tmp_path / "x.csv",
        "table",
        {"text": "post", "group": ["a", "b"]},
        {"bad": "hate"},
        "skip",
        9,
    )
    assert DataSource.from_json(json.loads(json.dumps(source.to_json()))) == source


class TestRunFolders:
    def test_a_started_run_is_empty(self, path: Path, tmp_path: Path) -> None:
        start_run(tmp_path / "run", plan(path))
        found = find_run(tmp_path / "run")
        assert found is not None
        assert found.config == plan(path).config
        assert found.prompt.sha256 == plan(path).prompt.sha256
        assert found.is_empty
        assert not found.is_finished
        assert found.differences(plan(path)) == []
        with pytest.raises(ConfigError, match="run has 1 problem") as caught:
            open_run(tmp_path / "run")
        assert "training has not ended" in caught.value.render()

    def test_nothing_is_lost_when_set_aside(self, tmp_path: Path) -> None:
        for number in (1, 2):
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "mark").write_text(str(number))
            assert set_aside(tmp_path / "run") == tmp_path / f"run.old-{number}"
        assert (tmp_path / "run.old-1" / "mark").read_text() == "1"

    def test_one_command_at_a_time(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "folder"
        with hold(folder, world=World()):
            second = hold(folder, world=World())
            with pytest.raises(StorageError, match="another command is writing to"), second:
                pass
            with hold(folder, world=World(rank=1, size=2)):
                pass  # the other processes of the same command
        with hold(folder, world=World()):
            pass

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        held = hold(tmp_path / "file" / "run", world=World())
        with pytest.raises(StorageError, match="cannot write"), held:
            pass


class TestPlans:
    def test_shared_faults_are_told_once(self, tmp_path: Path, tiny_llama: Path) -> None:
        (tmp_path / "prompt.json").write_text('{"strategies": {"a": {"user_template": "x"}}}')
        posts = make_posts(6, seed=3)
        posts[0]["label"] = "perhaps"
        write_csv(tmp_path / "own.csv", posts)
        own = {"validation_file": "own.csv"}
        phases = [{"name": name, "config": own} for name in ("one", "two")]
        prompt = {"file": "prompt.json"}
        path = write_experiment(tmp_path, tiny_llama, phases=phases, prompt=prompt)
        with pytest.raises(ConfigError) as caught:
            plan_experiment(load_experiment(path))
        places = [problem.place.rpartition("/")[2] for problem in caught.value.problems]
        assert places == ["own.csv, label", "prompt.json, strategies.a.user_template"]

    def test_a_device_that_is_not_there(self, tmp_path: Path, tiny_llama: Path) -> None:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        phases = [{"name": "one"}, {"name": "two", "config": {"device": "cuda"}}]
        path = write_experiment(tmp_path, tiny_llama, phases=phases)
        with pytest.raises(ConfigError) as caught:
            plan_experiment(load_experiment(path))
        assert [problem.place for problem in caught.value.problems] == ["phases[1].device"]

    def test_an_optimiser_that_needs_cuda(self, tmp_path: Path, tiny_llama: Path) -> None:
        phases = [{"name": "one", "config": {"optim": "paged_adamw_8bit", "device": "auto"}}]
        path = write_experiment(tmp_path, tiny_llama, phases=phases)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigError) as caught:
            patch.setattr("torch.cuda.is_available", lambda: False)
            plan_experiment(load_experiment(path))
        assert [problem.place for problem in caught.value.problems] == ["phases[0].optim"]

    def test_one_label_where_a_metric_needs_two(self, tmp_path: Path, tiny_llama: Path) -> None:
        only_hate = [post for post in make_posts(12, seed=3) if post["label"] == "hate"]
        phases = [{"name": "one", "config": {"metric_for_best_model": "roc_auc"}}]
        path = write_experiment(tmp_path, tiny_llama, phases=phases)
        for name in ("train", "validation"):
            write_csv(tmp_path / f"{name}.csv", only_hate)
        with pytest.raises(ConfigError) as caught:
            plan_experiment(load_experiment(path))
        told = [problem.message for problem in caught.value.problems]
        assert told == [
            "gives only hate rows, but training needs both",
            "gives only hate rows, but metric_for_best_model roc_auc needs both",
        ]

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from tests.conftest import RunCli
from tests.tiny_experiments import (
    edit_json,
    make_posts,
    write_chat,
    write_csv,
    write_phase,
    write_unified,
)

from evenhand.core.paths import sha256_file
from evenhand.prompts.template import load_prompt


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def phase(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_phase(tmp_path, tiny_llama)


class TestRunFolder:
    @pytest.fixture
    def run(
        self, tmp_path: Path, tiny_llama: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        phase = write_phase(
            tmp_path, tiny_llama, load_in_4bit=True, report_to=None, num_train_epochs=2
        )
        command = ["evenhand", "train", str(phase), "--out", "a run"]
        monkeypatch.setattr(sys, "argv", command)
        out = tmp_path / "run"
        done = cli("train", phase, "--out", out, "--set", "max_train_rows=12")
        assert done.exit_code == 0, done.stderr
        assert "trainable parameters" in done.stdout
        assert "warning: load_in_4bit has no effect" in done.stderr
        return out

    def test_every_file_of_the_contract(self, run: Path, tmp_path: Path) -> None:
        config = read(run / "config.json")
        assert config["config"]["max_train_rows"] == 12
        assert config["provenance"]["max_train_rows"] == "--set"
        assert config["provenance"]["lora_r"].endswith("phase.json")
        assert config["provenance"]["seed"] == "default"
        assert config["train_source"]["path"] == str((tmp_path / "train.csv").resolve())
        assert load_prompt(run / "prompt.json").sha256 == load_prompt().sha256

        manifest = read(run / "manifest.json")
        assert manifest["inputs"] == config["inputs"]
        assert set(manifest["inputs"]) == {
            *("config", "prompt", "model", "train", "validation", "init_adapter")
        }
        train = manifest["data"]["train"]
        assert (train["rows"], train["rows_used"], train["skipped"]) == (16, 12, 0)
        assert train["sha256"] == sha256_file(tmp_path / "train.csv")
        assert manifest["data"]["validation"]["rows"] == 8
        assert manifest["prompt"]["sha256"] == load_prompt().sha256
        assert set(manifest["base"]) == {"model", "tokenizer"}
        adapter = run / "adapter" / "adapter_model.safetensors"
        assert manifest["adapter_sha256"] == sha256_file(adapter)
        assert manifest["seeds"] == {"seed": 42}
        assert (manifest["device"]["name"], manifest["device"]["processes"]) == ("cpu", 1)
        assert {"platform", "processor", "cpus", "python", "torch"} <= set(manifest["machine"])
        assert manifest["command"].startswith("evenhand train")
        assert "'a run'" in manifest["command"]
        assert [one.split()[0] for one in manifest["warnings"]] == ["load_in_4bit"]

    def test_weights_are_safetensors_only(self, run: Path) -> None:
        names = {one.name for one in (run / "adapter").iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors"} <= names
        assert {one.suffix for one in (run / "adapter").iterdir()} <= {
            *(".safetensors", ".json", ".md")
        }

    def test_training_statistics(self, run: Path) -> None:
        found = read(run / "training.json")
        assert (found["rows"], found["validation_rows"]) == (12, 8)
        assert found["effective_batch_size"] == 4
        assert (found["steps_per_epoch"], found["total_steps"], found["steps_run"]) == (3, 6, 6)
        stored = load_file(run / "adapter" / "adapter_model.safetensors")
        assert found["trainable_parameters"] == sum(one.size for one in stored.values())
        share = 100 * found["trainable_parameters"] / found["total_parameters"]
        assert found["trainable_percent"] == pytest.approx(share)
        assert found["runtime_seconds"] > 0
        assert found["rows_per_second"] > 0
        first, second = found["checkpoints"]
        assert [first["epoch"], second["epoch"]] == [1, 2]
        assert first["relative_improvement"] is None
        change = (first["eval_loss"] - second["eval_loss"]) / first["eval_loss"]
        assert second["relative_improvement"] == pytest.approx(change)
        assert sum(one["best"] for one in found["checkpoints"]) == 1

    def test_history_and_tensorboard(self, run: Path) -> None:
        lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
        assert [line["step"] for line in lines if "eval_loss" in line] == [3, 6]
        assert list((run / "tensorboard").glob("events.*"))
        assert (run / "checkpoints").is_dir()


def test_json_is_one_document_on_stdout(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    done = cli("train", phase, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == read(tmp_path / "run" / "training.json")


def test_nothing_trained(tmp_path: Path, tiny_llama: Path, cli: RunCli) -> None:
    phase = write_phase(tmp_path, tiny_llama, tuning="none", learning_rate=0.5)
    done = cli("train", phase, "--out", tmp_path / "run")
    assert done.exit_code == 0
    assert "nothing was trained" in done.stdout
    assert "warning: learning_rate has no effect" in done.stderr
    assert not (tmp_path / "run" / "adapter").exists()
    assert json.loads(cli("train", phase, "--out", tmp_path / "b", "--json").stdout) is None


@pytest.mark.parametrize("write", [write_unified, write_chat])
def test_other_formats(write: Any, phase: Path, cli: RunCli, tmp_path: Path) -> None:
    file = write(tmp_path / "train.json", make_posts(8, seed=5))
    done = cli("train", phase, "--out", tmp_path / "run", "--set", f"train_file={file}", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 8


def test_a_table_of_one_s_own(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    for name in ("train", "validation"):
        posts = [
            {"said": post["text"], "verdict": {"hate": "bad", "normal": "fine"}[post["label"]]}
            for post in make_posts(8, seed=5)
        ]
        write_csv(tmp_path / f"{name}.csv", posts)
    words = ["--label", "bad=hate", "--label", "fine=normal"]
    columns = ["--column", "text=said", "--column", "label=verdict"]
    done = cli("train", phase, "--out", tmp_path / "run", *columns, *words)
    assert done.exit_code == 0, done.stderr


def test_out_is_needed_unless_the_file_names_it(
    phase: Path, cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("train", phase)
    assert done.exit_code == 2
    assert "--out   is missing, and the file has no output_dir" in done.stderr
    assert cli("train", edit_json(phase, output_dir="named")).exit_code == 0
    assert (tmp_path / "named" / "manifest.json").is_file()


def test_every_problem_is_told_at_once_and_nothing_is_written(
    phase: Path, cli: RunCli, tmp_path: Path
) -> None:
    edit_json(phase, lora_target_modules=["qproj"], prompt_file="prompt.json")
    (tmp_path / "prompt.json").write_text('{"strategies": {"one": {"user_template": "no"}}}')
    (tmp_path / "train.csv").write_text("text,label\nfine,normal\n,hate\nodd,maybe\n")
    write_csv(tmp_path / "validation.csv", [{"text": "fine", "label": ""}])
    done = cli("train", phase, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "5 problems; nothing was run" in done.stderr
    for told in (
        "train.csv, line 3",
        "train.csv, label",
        "(line 4)",
        "validation.csv, line 2",
        'did you mean "q_proj"?',
        "prompt.json, strategies.one.user_template",
    ):
        assert told in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_model_is_told(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    done = cli("train", edit_json(phase, model_name_or_path="smolm2-135m"), "--out", tmp_path / "r")
    assert done.exit_code == 2
    assert 'did you mean "smollm2-135m"?' in done.stderr
    assert not (tmp_path / "r").exists()


def test_rows_of_one_label(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    done = cli("train", phase, "--out", tmp_path / "run", "--set", "max_train_rows=1")
    assert done.exit_code == 2
    assert "rows, but training needs both" in done.stderr


def test_skipped_rows_are_counted(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    posts = [*make_posts(8, seed=5), {"id": "x", "text": " ", "label": "hate", "group": ""}]
    write_csv(tmp_path / "train.csv", posts)
    done = cli("train", phase, "--out", tmp_path / "run", "--skip-bad-rows")
    assert done.exit_code == 0
    assert "1 row skipped: 10 (text is empty)" in done.stderr
    manifest = read(tmp_path / "run" / "manifest.json")
    assert manifest["data"]["train"]["skipped"] == 1
    assert manifest["data"]["train"]["skipped_rows"] == [{"line": 10, "reason": "text is empty"}]
    assert "1 row skipped" in manifest["warnings"][0]


@pytest.mark.parametrize(
    ("changes", "situation", "warned"),
    [
        ({"bf16": True, "dtype": None}, False, {"bf16"}),
        ({"bf16": True, "dtype": None}, True, set()),
        ({"bnb_4bit_quant_type": "nf4", "remove_unused_columns": False}, True, None),
        ({"save_steps": 5, "cache_dir": "c", "early_stopping_threshold": 0.1}, True, None),
    ],
)
def test_keys_without_effect(
    changes: dict[str, Any],
    situation: bool,
    warned: set[str] | None,
    phase: Path,
    cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evenhand.finetune.devices.probe_bf16", lambda _: (situation, "set so"))
    document = {**read(phase), **changes}
    phase.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    done = cli("train", phase, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    expected = set(changes) if warned is None else warned
    warnings = read(tmp_path / "run" / "manifest.json")["warnings"]
    assert {one.split()[0] for one in warnings} == expected
    assert all(f"warning: {one}" in done.stderr for one in warnings)


class TestAnExistingRun:
    @pytest.fixture
    def run(self, phase: Path, cli: RunCli, tmp_path: Path) -> Path:
        assert cli("train", phase, "--out", tmp_path / "run").exit_code == 0
        return tmp_path / "run"

    @pytest.fixture
    def finished(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        def fail(*_: Any, **__: Any) -> None:
            raise AssertionError("nothing was to be trained")

        monkeypatch.setattr("evenhand.experiment.stages.train_phase", fail)
        return run

    def test_is_refused_without_resume(self, run: Path, phase: Path, cli: RunCli) -> None:
        before = (run / "manifest.json").read_bytes()
        done = cli("train", phase, "--out", run)
        assert done.exit_code == 2
        assert "holds a run already; add --resume" in done.stderr
        assert (run / "manifest.json").read_bytes() == before

    def test_finished_is_not_done_again(self, finished: Path, phase: Path, cli: RunCli) -> None:
        before = (finished / "manifest.json").read_bytes()
        done = cli("train", phase, "--out", finished, "--resume", "--json")
        assert done.exit_code == 0
        assert "not trained again" in done.stderr
        assert json.loads(done.stdout) == read(finished / "training.json")
        assert (finished / "manifest.json").read_bytes() == before

    def test_changed_inputs_are_named(
        self, finished: Path, phase: Path, cli: RunCli, tmp_path: Path
    ) -> None:
        write_csv(tmp_path / "train.csv", make_posts(8, seed=9))
        done = cli("train", phase, "--out", finished, "--resume", "--set", "lora_r=2")
        assert done.exit_code == 2
        assert "config   differs" in done.stderr
        assert "train    differs" in done.stderr
        assert "validation" not in done.stderr

    def test_what_changes_no_result_may_change(
        self, finished: Path, phase: Path, cli: RunCli
    ) -> None:
        changes = ("per_device_eval_batch_size=2", "logging_steps=9", "gradient_checkpointing=true")
        overrides = [word for change in changes for word in ("--set", change)]
        assert cli("train", phase, "--out", finished, "--resume", *overrides).exit_code == 0


def test_a_run_that_never_reached_a_checkpoint_does_not_stand_in_the_way(
    phase: Path, cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("evenhand.experiment.stages.train_phase", fail)
        assert cli("train", phase, "--out", tmp_path / "run").exit_code == 1
    assert cli("evaluate", tmp_path / "run", "--data", "x", "--name", "x").exit_code == 2
    done = cli("train", phase, "--out", tmp_path / "run", "--set", "lora_r=2")
    assert done.exit_code == 0, done.stderr


def test_init_adapter_may_be_a_run_folder(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    assert cli("train", phase, "--out", tmp_path / "parent").exit_code == 0
    child = tmp_path / "child"
    done = cli("train", phase, "--out", child, "--set", f"init_adapter={tmp_path / 'parent'}")
    assert done.exit_code == 0, done.stderr
    parent = tmp_path / "parent" / "adapter" / "adapter_model.safetensors"
    assert read(child / "manifest.json")["inputs"]["init_adapter"] == sha256_file(parent)


def test_an_adapter_that_is_none(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    done = cli("train", phase, "--out", tmp_path / "run", "--set", f"init_adapter={tmp_path}")
    assert done.exit_code == 2
    assert "init_adapter   no adapter in" in done.stderr


def test_a_folder_that_cannot_be_written(phase: Path, cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = cli("train", phase, "--out", tmp_path / "file" / "run")
    assert done.exit_code == 1
    assert "cannot write" in done.stderr

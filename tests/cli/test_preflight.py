"""``evenhand preflight`` as a user meets it, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunCli
from tests.tiny_experiments import edit_json, write_experiment, write_phase

QUICK = ("--steps", "1")


def by_name(document: dict[str, Any], phase: int = 0) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in document["phases"][phase]["checks"]}


def test_a_phase_that_can_run(cli: RunCli, tmp_path: Path, tiny_llama: Path) -> None:
    phase = write_phase(tmp_path, tiny_llama)
    done = cli("preflight", phase, "--steps", "2", "--hourly-price", "3", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    found = by_name(document)
    assert document["status"] == "ok"
    assert set(found) == {
        "files",
        "parameters",
        "prompt",
        "truncation",
        "attention",
        "memory",
        "time",
        "disk",
        "processes",
        "warm-up",
    }
    assert {check["status"] for check in found.values()} == {"ok"}
    time = found["time"]["facts"]
    assert len(time["seconds"]) == 2
    assert time["rows_per_step"] == 4
    assert time["seconds_per_epoch"] == pytest.approx(16 / time["rows_per_second"])
    assert time["cost_per_epoch"] == pytest.approx(3 * time["seconds_per_epoch"] / 3600)
    assert found["warm-up"]["facts"]["total_steps"] == 4
    assert found["parameters"]["facts"]["trainable"] > 0
    assert not (tmp_path / "run").exists()


def test_the_table_names_each_check_and_counts(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
) -> None:
    phase = write_phase(tmp_path, tiny_llama, warmup_steps=3)
    done = cli("preflight", phase, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "3 of 4 updates warm up (75%)" in done.stdout
    assert "Give warmup_steps as a share" in done.stdout
    assert done.stdout.rstrip().endswith("0 problem, 1 warning, 0 unknown, 9 ok")


def test_the_references_first_phase_warms_up_for_79_percent(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
) -> None:
    phase = write_phase(tmp_path, tiny_llama, num_train_epochs=3)
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f"kind {n},normal\nthrown {n},hate\n" for n in range(1343))
    )
    given = ("--set", "gradient_accumulation_steps=4", "--set", "warmup_steps=100")
    done = cli("preflight", phase, *given, "--processes", "4", "--steps", "0", "--json")
    found = by_name(json.loads(done.stdout))
    assert found["warm-up"]["status"] == "warning"
    assert found["warm-up"]["facts"] == {
        "warmup_steps": 100,
        "total_steps": 126,
        "share": pytest.approx(100 / 126),
    }
    assert found["processes"]["facts"]["effective_batch_size"] == 64
    assert found["time"]["status"] == "unknown"
    assert "no steps were asked for" in found["time"]["message"]


def test_files_that_are_not_there(cli: RunCli, tmp_path: Path, tiny_llama: Path) -> None:
    phase = write_phase(tmp_path, tiny_llama, train_file="gone.csv")
    done = cli("preflight", phase, *QUICK, "--json")
    assert done.exit_code == 2
    found = by_name(json.loads(done.stdout))
    assert found["files"]["status"] == "problem"
    assert "gone.csv" in found["files"]["message"]
    assert "starter texts" in found["truncation"]["message"]
    assert found["time"]["status"] == "unknown"  # the rate is known, an epoch is not
    assert found["time"]["facts"]["rows_per_second"] > 0
    assert found["warm-up"]["status"] == "unknown"


def test_a_model_that_is_not_on_this_machine(
    cli: RunCli, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.experiment import preflight
    from evenhand.finetune.preflight.memory import Room

    room = Room(2e11, 2e11)
    monkeypatch.setattr(preflight, "memory_room", lambda _: room)
    phase = write_phase(
        tmp_path,
        tiny_llama,
        model_name_or_path="openai/gpt-oss-20b",
        cache_dir=str(tmp_path / "cache"),
    )
    done = cli("preflight", phase, "--json")
    found = by_name(json.loads(done.stdout))
    assert found["parameters"]["facts"]["total"] == 20_914_757_184
    assert found["attention"]["status"] == found["experts"]["status"] == "ok"
    assert found["prompt"]["status"] == found["memory"]["status"] == "unknown"
    assert "not measured" in found["time"]["message"].lower()
    assert done.exit_code == 0  # nothing is known to be wrong
    room = Room(2e10, 2e10)  # the weights alone do not fit
    done = cli("preflight", phase, "--json")
    assert by_name(json.loads(done.stdout))["memory"]["status"] == "problem"


def test_rows_that_are_cut_and_a_prompt_that_does_not_fit(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
) -> None:
    phase = write_phase(tmp_path, tiny_llama)
    found = by_name(json.loads(cli("preflight", phase, *QUICK, "--json").stdout))
    facts = found["prompt"]["facts"]
    tight = f"max_seq_length={facts['tokens'] + 10}"
    done = cli("preflight", phase, *QUICK, "--json", "--set", tight)
    found = by_name(json.loads(done.stdout))
    assert found["truncation"]["status"] == "warning"
    assert found["truncation"]["facts"]["share"] > 0.01
    assert len(facts["sha256"]) == 64
    done = cli("preflight", phase, *QUICK, "--json", "--set", "max_seq_length=20")
    assert done.exit_code == 2
    found = by_name(json.loads(done.stdout))
    assert found["prompt"]["status"] == "problem"
    assert found["time"]["status"] == "problem"


def test_an_experiment_has_every_phase_and_compares_their_prompts(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
) -> None:
    experiment = write_experiment(tmp_path, tiny_llama)
    done = cli("preflight", experiment, *QUICK, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert [phase["name"] for phase in document["phases"]] == ["small", "large"]
    trained = [by_name(document, n)["parameters"]["facts"]["trainable"] for n in (0, 1)]
    assert trained[1] == 2 * trained[0]
    assert document["together"][0]["status"] == "ok"
    other = {"strategies": {"other": {"system_prompt": "Say it.", "user_template": "{text}"}}}
    (tmp_path / "prompt.json").write_text(json.dumps(other))
    phases = [{"name": "small"}, {"name": "other", "config": {"prompt_file": "prompt.json"}}]
    edit_json(experiment, phases=phases)
    done = cli("preflight", experiment, "--steps", "0", "--json")
    assert json.loads(done.stdout)["together"][0]["status"] == "warning"


def test_an_encoder_and_a_base_model(
    cli: RunCli, tmp_path: Path, tiny_bert: Path, tiny_llama: Path
) -> None:
    phase = write_phase(tmp_path, tiny_bert, max_seq_length=32)
    done = cli("preflight", phase, *QUICK, "--json")
    assert done.exit_code == 0, done.stdout
    found = by_name(json.loads(done.stdout))
    assert found["attention"]["status"] == "ok"
    assert found["time"]["facts"]["layout"] == "classifier"
    untrained = write_phase(tmp_path, tiny_llama, tuning="none")
    done = cli("preflight", untrained, "--json")
    assert done.exit_code == 0, done.stderr
    assert "time" not in by_name(json.loads(done.stdout))


def test_more_processes_on_a_cpu_are_not_guessed(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
) -> None:
    phase = write_phase(tmp_path, tiny_llama)
    found = by_name(
        json.loads(cli("preflight", phase, *QUICK, "--processes", "2", "--json").stdout)
    )
    assert found["time"]["status"] == "unknown"
    assert "torchrun --nproc_per_node 2" in found["time"]["remedy"]


def test_a_full_disk_is_a_problem(
    cli: RunCli, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    phase = write_phase(tmp_path, tiny_llama)
    done = cli("preflight", phase, *QUICK, "--out", tmp_path / "run", "--json")
    assert done.exit_code == 2
    assert by_name(json.loads(done.stdout))["disk"]["status"] == "problem"


def test_a_model_that_does_not_fit_is_not_loaded(
    cli: RunCli, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.experiment import preflight
    from evenhand.finetune.preflight.memory import Room

    monkeypatch.setattr(preflight, "memory_room", lambda _: Room(1e5, 1e6))
    done = cli("preflight", write_phase(tmp_path, tiny_llama), "--json")
    assert done.exit_code == 2
    found = by_name(json.loads(done.stdout))
    assert found["memory"]["status"] == "problem"
    assert "would not fit" in found["time"]["message"]


def test_ddp_settings_that_changed_are_a_problem(
    cli: RunCli, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.finetune.preflight import launch

    right = launch.training_arguments

    def searching(*args: Any, **options: Any) -> Any:
        arguments = right(*args, **options)
        arguments.ddp_find_unused_parameters = None
        return arguments

    monkeypatch.setattr(launch, "training_arguments", searching)
    done = cli("preflight", write_phase(tmp_path, tiny_llama), "--steps", "0", "--json")
    assert done.exit_code == 2
    found = by_name(json.loads(done.stdout))
    assert "find_unused_parameters" in found["processes"]["message"]


def test_a_mistake_in_the_file_is_told_as_in_training(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
) -> None:
    phase = write_phase(tmp_path, tiny_llama, lora_target_modules=["qproj"])
    done = cli("preflight", phase)
    assert done.exit_code == 2
    assert "q_proj" in done.stderr

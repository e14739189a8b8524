from __future__ import annotations

import json
from pathlib import Path

import pytest

from evenhand.config.explain import json_schema
from evenhand.config.load import load_experiment, load_phase

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = PROJECT / "configs"
PHASES = sorted([*CONFIGS.glob("*.json"), *(CONFIGS / "cpu").glob("*.json")])
EXPERIMENTS = sorted((CONFIGS / "experiments").glob("*.json"))
REFERENCE = ("default", "high_capacity", "k_proj_full_capacity")


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


@pytest.mark.parametrize("path", PHASES, ids=name_of)
def test_phases_load(path: Path) -> None:
    loaded = load_phase(path, check_files=False)
    assert set(json.loads(path.read_text())) == loaded.explicit


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiments_load(path: Path) -> None:
    experiment = load_experiment(path, check_files=False)
    assert experiment.config.name == path.stem
    assert experiment.config.description
    assert all(phase.hypothesis for phase in experiment.phases)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiments_find_their_data(path: Path, shared_data: Path) -> None:
    experiment = load_experiment(path)
    assert all(
        one.path is not None and one.path.is_relative_to(shared_data.resolve())
        for one in experiment.sets
    )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiments_have_the_schemas_keys(path: Path) -> None:
    schema = json_schema("experiment")
    models = schema["$defs"]
    document = json.loads(path.read_text())
    assert set(schema["required"]) <= set(document) <= set(schema["properties"])
    for entry in document["phases"]:
        assert set(entry) <= set(models["PhaseEntry"]["properties"])
    for entry in document["sets"]:
        assert entry["role"] in models["SetEntry"]["properties"]["role"]["enum"]


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_files_load_unchanged(name: str, shared_data: Path) -> None:
    path = shared_data / "reference_configs" / f"{name}.json"
    loaded = load_phase(path, check_files=False)
    written = json.loads(path.read_text())
    values = loaded.config.model_dump(mode="json")
    assert {key: values[key] for key in written if key != "report_to"} == {
        key: value for key, value in written.items() if key != "report_to"
    }
    assert values["report_to"] == ["tensorboard"]
    assert loaded.config == load_phase(CONFIGS / f"{name}.json", check_files=False).config


@pytest.mark.parametrize("name", [*REFERENCE, "o_proj", "gate_proj", "continue_low_lr"])
def test_cpu_versions_keep_rank_and_targets(name: str) -> None:
    full = load_phase(CONFIGS / f"{name}.json", check_files=False).config
    small = load_phase(CONFIGS / "cpu" / f"{name}.json", check_files=False).config
    for key in ("lora_r", "lora_alpha", "lora_target_modules", "lora_dropout"):
        assert getattr(small, key) == getattr(full, key), key
    assert small.model_name_or_path == "smollm2-135m"
    assert not small.load_in_4bit


@pytest.mark.parametrize("folder", ["", "cpu"])
def test_option_d_halves_the_learning_rate_without_warm_up(folder: str) -> None:
    parent = load_phase(CONFIGS / folder / "high_capacity.json", check_files=False).config
    child = load_phase(CONFIGS / folder / "continue_low_lr.json", check_files=False).config
    assert child.learning_rate == parent.learning_rate / 2
    assert (child.warmup_steps, child.num_train_epochs) == (0, 2)


def test_launch_files_are_accelerate_configurations() -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    for name, kind in (("fsdp2", "FSDP"), ("multi_gpu", "MULTI_GPU")):
        path = CONFIGS / "accelerate" / f"{name}.yaml"
        config = config_args.load_config_from_file(str(path))  # refuses unknown keys
        assert config.distributed_type.value == kind
    loaded = config_args.load_config_from_file(str(CONFIGS / "accelerate" / "fsdp2.yaml"))
    assert loaded.fsdp_config["fsdp_version"] == 2

"""The launch recipes: accelerate reads the shipped files, and torchrun trains as one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from tests.conftest import PROJECT, RunCli
from tests.finetune.test_two_processes import launch
from tests.tiny_experiments import edit_json, tiny_llama, write_phase

from evenhand.core.paths import read_json

__all__ = ["tiny_llama"]  # a fixture

RECIPES = sorted((PROJECT / "configs" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_accelerates_own_loader_takes_each_file(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    kinds = {"multi_gpu": DistributedType.MULTI_GPU, "fsdp2": DistributedType.FSDP}
    assert config.distributed_type == kinds[path.stem.removesuffix("_hosts")]
    if config.distributed_type == DistributedType.FSDP:
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert config.num_processes % config.num_machines == 0


def test_the_page_on_launching_names_files_that_exist() -> None:
    text = (PROJECT / "docs" / "launching.md").read_text(encoding="utf-8")
    named = {word.strip("`\\") for word in text.split() if word.strip("`\\").startswith("configs/")}
    assert named
    assert [one for one in sorted(named) if not (PROJECT / one).exists()] == []
    for recipe in RECIPES:
        assert f"configs/accelerate/{recipe.name}" in named


@pytest.mark.slow
def test_the_command_under_torchrun_equals_one_process_with_doubled_accumulation(
    cli: RunCli, tmp_path: Path, tiny_llama: Path
) -> None:
    phase = write_phase(tmp_path, tiny_llama, num_train_epochs=2, per_device_train_batch_size=2)
    done = launch("-m", "evenhand", "train", phase, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr[:4000]
    edit_json(phase, gradient_accumulation_steps=2)
    assert cli("train", phase, "--out", tmp_path / "one").exit_code == 0
    two, one = (read_json(tmp_path / name / "training.json") for name in ("two", "one"))
    assert (two["processes"], one["processes"]) == (2, 1)
    assert two["effective_batch_size"] == one["effective_batch_size"] == 4
    assert two["total_steps"] == one["total_steps"]
    ours, theirs = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("two", "one")
    )
    assert max((ours[name] - theirs[name]).abs().max().item() for name in theirs) < 1e-5


@pytest.mark.slow
def test_preflight_under_torchrun_measures_both_processes(tmp_path: Path, tiny_llama: Path) -> None:
    phase = write_phase(tmp_path, tiny_llama)
    done = launch("-m", "evenhand", "preflight", phase, "--steps", "1", "--json")
    assert done.returncode == 0, done.stderr[:4000]
    checks = {one["name"]: one for one in json.loads(done.stdout)["phases"][0]["checks"]}
    assert checks["time"]["facts"]["processes"] == 2
    assert checks["processes"]["facts"]["effective_batch_size"] == 8

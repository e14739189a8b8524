"""Counting parameters, and what a loaded model is told about itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evenhand.config.load import load_phase
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, ModelError
from evenhand.finetune.adapters import attach
from evenhand.finetune.devices import choose_device
from evenhand.finetune.embedded import EMBEDDED, find_source
from evenhand.finetune.models import hash_model, inspect_model, load_base
from evenhand.finetune.params import count, count_parameters

MakeConfig = Callable[..., PhaseConfig]
CPU = choose_device("cpu", dtype="float32", bf16=False)
BASE = 20_914_757_184


def shipped(project_root: Path, name: str, *overrides: str) -> PhaseConfig:
    path = project_root / "configs" / f"{name}.json"
    return load_phase(path, overrides=overrides, check_files=False).config


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        ("default", 7_962_624, BASE),
        ("high_capacity", 15_925_248, BASE),
        ("k_proj_full_capacity", 21_135_360, BASE),
        ("continue_low_lr", 15_925_248, BASE),
        ("full_7b_fsdp2", 7_615_616_512, 7_615_616_512),
    ],
)
def test_shipped_configurations_are_counted_without_weights(
    project_root: Path, name: str, trainable: int, total: int
) -> None:
    found = count_parameters(shipped(project_root, name))
    assert (found.trainable, found.total) == (trainable, total)
    assert found.percent == pytest.approx(100 * trainable / total)


def test_experts_are_counted(project_root: Path) -> None:
    config = shipped(
        project_root,
        "default",
        "lora_r=1",
        "lora_dropout=0",
        'lora_target_parameters=["mlp.experts.down_proj"]',
    )
    attention = 24 * (2880 + 4096 + 2880 + 512)
    experts = 24 * 32 * (2880 + 2880)
    assert count_parameters(config).trainable == attention + experts


def test_gpt_oss_has_no_gate_proj(project_root: Path) -> None:
    config = shipped(project_root, "default", 'lora_target_modules=["gate_proj"]')
    with pytest.raises(ConfigError) as caught:
        count_parameters(config)
    assert '"gate_proj" is not a linear layer of openai/gpt-oss-20b' in caught.value.render()
    assert "q_proj" in caught.value.render()


@pytest.mark.parametrize("model", ["llama", "qwen2", "qwen3", "gpt_oss", "bert"])
@pytest.mark.parametrize("tuning", ["lora", "full", "none"])
def test_counting_agrees_with_the_loaded_model(
    make_config: MakeConfig, model: str, tuning: str
) -> None:
    config = make_config(model, tuning=tuning)
    counted = count_parameters(config)
    base = load_base(config, CPU)
    assert counted.total == base.parameters
    tuned = attach(base.model, config)
    assert counted.trainable == count(tuned, trainable_only=True)


@pytest.mark.parametrize("name", list(EMBEDDED))
def test_embedded_models_are_counted_as_they_are(make_config: MakeConfig, name: str) -> None:
    if find_source(EMBEDDED[name]) is None:
        pytest.skip(f"the package of {name} is not installed")
    task = "causal_lm" if name.startswith("smol") else "sequence_classification"
    config = make_config(model_name_or_path=name, tuning="none", task=task)
    assert count_parameters(config).total == load_base(config, CPU).parameters


def test_unknown_architecture(make_config: MakeConfig) -> None:
    with pytest.raises(ModelError, match="is not known"):
        count_parameters(make_config(model_name_or_path="nothing"))
    with pytest.raises(ModelError, match="cannot read the architecture"):
        count_parameters(make_config(model_name_or_path="nobody/nothing"))


def test_model_facts_and_hashes(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("qwen3")
    facts = inspect_model(config)
    assert (facts.model_type, facts.is_prequantized) == ("qwen3", False)
    base = load_base(config, CPU)
    first = hash_model(base)
    assert first == hash_model(load_base(config, CPU))
    other = hash_model(load_base(make_config("llama"), CPU))
    assert first["model"] != other["model"]
    assert first["tokenizer"] == other["tokenizer"]
    with pytest.raises(ModelError):
        inspect_model(make_config(model_name_or_path=str(tmp_path)))

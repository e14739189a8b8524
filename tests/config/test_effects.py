from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evenhand.config.effects import Situation, ineffective_keys
from evenhand.config.load import load_phase
from evenhand.config.schema import PhaseConfig

CUDA = Situation("cuda", "llama")
CPU = Situation("cpu", "llama")
SLOW_CPU = Situation("cpu", "llama", bf16_is_fast=False)
GPT_OSS = Situation("cuda", "gpt_oss", is_prequantized=True)
IN_EXPERIMENT = Situation("cuda", "llama", inside_experiment=True, has_train_set=True)
FOUR_BIT: dict[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
}
LORA: dict[str, Any] = {"lora_r": 4, "lora_target_modules": ["q_proj"], "lora_bias": "none"}


@pytest.mark.parametrize(
    ("values", "situation", "expected"),
    [
        (FOUR_BIT, CUDA, set()),
        (FOUR_BIT, CPU, set(FOUR_BIT)),
        (FOUR_BIT, Situation("mps"), set(FOUR_BIT)),
        (FOUR_BIT, GPT_OSS, set(FOUR_BIT)),
        ({"bnb_4bit_quant_type": "nf4"}, CUDA, {"bnb_4bit_quant_type"}),
        ({"bf16": True}, CUDA, set()),
        ({"bf16": True}, CPU, set()),
        ({"bf16": True}, SLOW_CPU, {"bf16"}),
        ({"bf16": True, "dtype": "bfloat16"}, SLOW_CPU, set()),
        ({"bf16": False}, SLOW_CPU, set()),
        ({"bf16": False}, CPU, {"bf16"}),
        ({"bf16": False, "dtype": "float32"}, CPU, set()),
        ({"bf16": False, "dtype": "bfloat16"}, CPU, {"bf16"}),
        (LORA, CUDA, set()),
        ({**LORA, "tuning": "full"}, CUDA, set(LORA)),
        ({**LORA, "init_adapter": "a"}, CUDA, set(LORA)),
        ({**LORA, "init_adapter": "a"}, IN_EXPERIMENT, set()),
        ({"learning_rate": 1e-3, "optim": "sgd"}, CUDA, set()),
        (
            {"tuning": "none", "learning_rate": 1e-3, "optim": "sgd", "max_seq_length": 64},
            CUDA,
            {"learning_rate", "optim"},
        ),
        ({"early_stopping_threshold": 0.1}, CUDA, {"early_stopping_threshold"}),
        ({"early_stopping_threshold": 0.1, "early_stopping_patience": 1}, CUDA, set()),
        ({"early_stopping_patience": None}, CUDA, set()),
        ({"metric_for_best_model": "f1"}, CUDA, set()),
        (
            {"metric_for_best_model": "f1", "load_best_model_at_end": False},
            CUDA,
            {"metric_for_best_model"},
        ),
        ({"eval_steps": 5, "save_steps": 5}, CUDA, {"eval_steps", "save_steps"}),
        (
            {
                "eval_steps": 5,
                "save_steps": 5,
                "eval_strategy": "steps",
                "save_strategy": "steps",
            },
            CUDA,
            set(),
        ),
        (
            {"save_total_limit": 2, "save_strategy": "no", "load_best_model_at_end": False},
            CUDA,
            {"save_total_limit"},
        ),
        (
            {
                "validation_file": "v",
                "eval_strategy": "no",
                "load_best_model_at_end": False,
            },
            CUDA,
            {"validation_file"},
        ),
        ({"warmup_steps": 3, "lr_scheduler_type": "constant"}, CUDA, {"warmup_steps"}),
        ({"warmup_steps": 3}, CUDA, set()),
        ({"cache_dir": "c", "model_name_or_path": "smollm2-135m"}, CUDA, {"cache_dir"}),
        ({"cache_dir": "c", "model_name_or_path": "."}, CUDA, {"cache_dir"}),
        ({"cache_dir": "c", "model_name_or_path": "openai/gpt-oss-20b"}, CUDA, set()),
        ({"strategy": "s", "task": "sequence_classification"}, CUDA, {"strategy"}),
        ({"output_dir": "o", "train_file": "t"}, CUDA, set()),
        ({"output_dir": "o", "train_file": "t"}, IN_EXPERIMENT, {"output_dir", "train_file"}),
        ({"remove_unused_columns": False}, CUDA, {"remove_unused_columns"}),
    ],
)
def test_keys_without_effect(
    values: dict[str, Any], situation: Situation, expected: set[str]
) -> None:
    found = ineffective_keys(PhaseConfig(**values), situation, explicit=values)
    assert {one.key for one in found} == expected
    assert all(one.reason for one in found)


def test_only_what_the_user_set_is_named() -> None:
    assert ineffective_keys(PhaseConfig(tuning="none"), CPU, explicit={"tuning"}) == ()


def test_the_reference_on_a_cpu(shared_data: Path) -> None:
    path = shared_data / "reference_configs/default.json"
    loaded = load_phase(path, check_files=False)
    found = ineffective_keys(loaded.config, SLOW_CPU, explicit=loaded.explicit)
    assert [one.key for one in found] == [
        "load_in_4bit",
        "bnb_4bit_quant_type",
        "bnb_4bit_compute_dtype",
        "bf16",
        "remove_unused_columns",
    ]

"""Adapters on gpt-oss's attention and experts: trained, stored, continued and merged."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tests.finetune import mxfp4

from evenhand.config.load import load_phase
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError, ModelError
from evenhand.core.records import Row
from evenhand.finetune.adapters import attach
from evenhand.finetune.classifier import Classifier, load_classifier
from evenhand.finetune.devices import Device
from evenhand.finetune.models import load_base
from evenhand.finetune.params import count, count_parameters
from evenhand.finetune.train import train_phase
from evenhand.prompts.template import PromptTemplate

MakeConfig = Callable[..., PhaseConfig]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
TARGETS: dict[str, dict[str, Any]] = {
    "attention": {"lora_target_modules": list(ATTENTION)},
    "experts": {"lora_target_modules": list(ATTENTION), "lora_target_parameters": list(EXPERTS)},
}
CPU = Device("cpu", torch.float32, "the test says so", is_bf16_fast=True)


@dataclass(frozen=True)
class Trained:
    """A finished run, and what its model said of the rows before it was stored."""

    run: Path
    config: PhaseConfig
    scores: np.ndarray


@pytest.fixture(scope="module")
def rows(make_rows: Callable[..., tuple[Row, ...]]) -> tuple[Row, ...]:
    return make_rows(8)


@pytest.fixture(scope="module")
def bases(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny gpt-oss as it is, and in MXFP4."""
    folder = tmp_path_factory.mktemp("published") / "gpt_oss"
    mxfp4.save_as_mxfp4(tiny("gpt_oss"), folder)
    return {"plain": tiny("gpt_oss"), "mxfp4": folder}


@pytest.fixture(scope="module")
def trained(
    bases: dict[str, Path],
    rows: tuple[Row, ...],
    make_config: MakeConfig,
    prompt: PromptTemplate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], Trained]:
    """``trained("experts", "mxfp4")``: a run of two updates."""
    done: dict[tuple[str, str], Trained] = {}

    def train(target: str, base: str) -> Trained:
        if (target, base) not in done:
            run = tmp_path_factory.mktemp(f"{target}_{base}")
            config = make_config(
                "gpt_oss",
                model_name_or_path=str(bases[base]),
                max_seq_length=512,
                **TARGETS[target],
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EVENHAND_QUIET", "1")
                phase = train_phase(config, rows, rows[:4], prompt, run=run)
            done[target, base] = Trained(run, config, phase.classifier.score(rows))
        return done[target, base]

    return train


def stored_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def names_of(path: str) -> str:
    return f"base_model.model.model.layers.{path}.weight"


@pytest.mark.parametrize("base", ["plain", "mxfp4"])
@pytest.mark.parametrize("target", TARGETS)
def test_scores_are_the_same_before_saving_after_loading_and_after_merging(
    trained: Callable[[str, str], Trained],
    rows: tuple[Row, ...],
    prompt: PromptTemplate,
    tmp_path: Path,
    target: str,
    base: str,
) -> None:
    found = trained(target, base)
    bare = found.config.model_copy(update={"tuning": "none"})
    untrained = load_classifier(tmp_path, bare, prompt).score(rows)
    assert np.abs(found.scores - untrained).max() > 0.01

    loaded = load_classifier(found.run, found.config, prompt)
    assert loaded.score(rows) == pytest.approx(found.scores, abs=1e-5)

    merged = dataclasses.replace(loaded, model=loaded.model.merge_and_unload())
    assert merged.score(rows) == pytest.approx(found.scores, abs=1e-5)

    # A merged model is an ordinary checkpoint, whatever its base was stored as.
    merged.model.save_pretrained(tmp_path / "merged")
    loaded.base.tokenizer.save_pretrained(tmp_path / "merged")
    alone = bare.model_copy(update={"model_name_or_path": str(tmp_path / "merged")})
    again = load_classifier(tmp_path, alone, prompt)
    assert again.score(rows) == pytest.approx(merged.score(rows), abs=1e-5)


def test_the_stored_adapter_holds_the_experts(trained: Callable[[str, str], Trained]) -> None:
    found = trained("experts", "mxfp4")
    weights = stored_weights(found.run)
    shapes = {
        names_of(name): shape
        for layer in (0, 1)
        # PEFT nests the wrappers of one module's parameters; rank 4 for each of 4 experts.
        for name, shape in {
            f"{layer}.mlp.experts.base_layer.lora_A": (16, 32),
            f"{layer}.mlp.experts.base_layer.lora_B": (128, 16),
            f"{layer}.mlp.experts.lora_A": (16, 64),
            f"{layer}.mlp.experts.lora_B": (32, 16),
        }.items()
    }
    experts = {name: one for name, one in weights.items() if ".mlp." in name}
    assert {name: tuple(one.shape) for name, one in experts.items()} == shapes
    assert all(one.dtype == torch.float32 for one in weights.values())
    assert all(one.abs().max() > 0 for one in weights.values())
    settings = json.loads((found.run / "adapter" / "adapter_config.json").read_text())
    assert set(settings["target_parameters"]) == set(EXPERTS)
    assert set(settings["target_modules"]) == set(ATTENTION)


def test_merged_experts_are_the_base_plus_the_low_rank_products(
    trained: Callable[[str, str], Trained], prompt: PromptTemplate
) -> None:
    found = trained("experts", "mxfp4")
    weights = {name: one.numpy() for name, one in stored_weights(found.run).items()}
    base = load_base(found.config, CPU).model.state_dict()
    merged = load_classifier(found.run, found.config, prompt).model.merge_and_unload().state_dict()
    scale = found.config.lora_alpha / found.config.lora_r
    for layer in (0, 1):
        for parameter, place in (("gate_up_proj", ".base_layer"), ("down_proj", "")):
            left, right = (
                weights[names_of(f"{layer}.mlp.experts{place}.lora_{one}")] for one in "AB"
            )
            factors = left.reshape(4, 4, -1), right.reshape(right.shape[0], 4, 4)
            change = scale * np.einsum("eri,ore->eio", *factors)
            name = f"model.layers.{layer}.mlp.experts.{parameter}"
            expected = base[name].numpy() + change
            assert merged[name].numpy() == pytest.approx(expected, abs=1e-6)


def test_recomputed_activations_train_the_same_experts(
    trained: Callable[[str, str], Trained],
    rows: tuple[Row, ...],
    prompt: PromptTemplate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVENHAND_QUIET", "1")
    found = trained("experts", "plain")
    config = found.config.model_copy(update={"gradient_checkpointing": True})
    train_phase(config, rows, rows[:4], prompt, run=tmp_path / "run")
    again = stored_weights(tmp_path / "run")
    for name, one in stored_weights(found.run).items():
        assert torch.allclose(again[name], one, atol=1e-6), name


def test_an_adapter_on_experts_is_continued(
    trained: Callable[[str, str], Trained],
    rows: tuple[Row, ...],
    prompt: PromptTemplate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVENHAND_QUIET", "1")
    parent = trained("experts", "mxfp4")
    changes: dict[str, Any] = {
        "init_adapter": str(parent.run),
        # The order of the names means nothing.
        "lora_target_parameters": tuple(reversed(parent.config.lora_target_parameters)),
    }
    config = parent.config.model_copy(update=changes)
    tuned = attach(load_base(config, CPU).model, config)
    before = stored_weights(parent.run)
    started = {name.replace(".default", ""): one for name, one in tuned.named_parameters()}
    for name, one in before.items():
        assert torch.equal(started[name], one), name
        assert started[name].requires_grad
    assert count(tuned, trainable_only=True) == sum(one.numel() for one in before.values())

    train_phase(config, rows, rows[:4], prompt, run=tmp_path / "run")
    after = stored_weights(tmp_path / "run")
    assert after.keys() == before.keys()
    assert all(not torch.equal(after[name], before[name]) for name in before)

    other = config.model_copy(update={"lora_target_parameters": EXPERTS[:1]})
    with pytest.raises(ModelError, match="was trained with target_parameters"):
        attach(load_base(other, CPU).model, other)


@pytest.mark.parametrize("missing", [".mlp.experts.lora_A", ".mlp.experts.base_layer.lora_B"])
def test_an_adapter_without_some_of_its_experts_is_refused(
    trained: Callable[[str, str], Trained], prompt: PromptTemplate, tmp_path: Path, missing: str
) -> None:
    found = trained("experts", "plain")
    run = tmp_path / "run"
    shutil.copytree(found.run, run)
    weights = {name: one for name, one in stored_weights(run).items() if missing not in name}
    save_file(weights, run / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="was not made for this base model"):
        load_classifier(run, found.config, prompt)


def test_an_adapter_on_experts_does_not_load_on_a_model_without_them(
    trained: Callable[[str, str], Trained], make_config: MakeConfig, prompt: PromptTemplate
) -> None:
    with pytest.raises(ModelError):
        load_classifier(trained("experts", "plain").run, make_config("llama"), prompt)


# Configurations


def test_dropout_on_experts_is_refused_before_anything_is_loaded(make_config: MakeConfig) -> None:
    with pytest.raises(ValidationError, match="must be 0 with lora_target_parameters"):
        make_config("gpt_oss", lora_dropout=0.1, **TARGETS["experts"])


@pytest.mark.parametrize("name", ["experts.gate_up", "p.experts.gate_up_proj", "gate_up_projs"])
def test_a_parameter_that_the_model_does_not_have(make_config: MakeConfig, name: str) -> None:
    config = make_config("gpt_oss", lora_target_parameters=[name])
    with pytest.raises(ConfigError) as caught:
        count_parameters(config)
    assert f'"{name}" is not a parameter of' in caught.value.render()


def test_experts_of_single_layers_can_be_named(make_config: MakeConfig) -> None:
    both = make_config("gpt_oss", lora_target_parameters=["mlp.experts.down_proj"])
    one = make_config("gpt_oss", lora_target_parameters=["1.mlp.experts.down_proj"])
    none = make_config("gpt_oss")
    counts = [count_parameters(config).trainable for config in (none, one, both)]
    assert counts[1] - counts[0] == counts[2] - counts[1] == 4 * 4 * (64 + 32)


def low_rank(rank: int, *, heads: int = 64, shared: int = 8, width: int = 64) -> int:
    """Parameters of adapters on q, k, v and o of one gpt-oss-20b layer: rank x (in + out) each."""
    hidden = 2880
    outputs = (heads * width, shared * width, shared * width)
    return rank * (sum(hidden + one for one in outputs) + heads * width + hidden)


@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        ("gpt_oss_attention", 24 * low_rank(16)),
        # 32 experts: 2880 in, two times 2880 out and 2880 back.
        ("gpt_oss_experts", 24 * (low_rank(4) + 32 * 4 * ((2880 + 5760) + (2880 + 2880)))),
    ],
)
def test_shipped_configurations(project_root: Path, name: str, trainable: int) -> None:
    config = load_phase(project_root / "configs" / f"{name}.json", check_files=False).config
    found = count_parameters(config)
    assert (found.trainable, found.total) == (trainable, 20_914_757_184)
    assert config.lora_target_modules == ATTENTION
    assert config.lora_target_parameters == (EXPERTS if name.endswith("experts") else ())
    assert config.objective == "label"
    assert config.bf16
    assert not config.load_in_4bit
    assert config.lora_dropout == 0
    assert not config.gradient_checkpointing
    steps = config.per_device_train_batch_size * config.gradient_accumulation_steps
    assert steps == 64  # rows an update, as the reference's four GPUs had


def test_attention_has_the_budget_of_the_references_first_phase(project_root: Path) -> None:
    counts = {
        name: count_parameters(
            load_phase(project_root / "configs" / f"{name}.json", check_files=False).config
        ).trainable
        for name in ("gpt_oss_attention", "default")
    }
    assert counts["gpt_oss_attention"] == counts["default"] == 7_962_624


def test_bfloat16_is_merged_into_bfloat16(
    trained: Callable[[str, str], Trained], rows: tuple[Row, ...], prompt: PromptTemplate
) -> None:
    found = trained("experts", "mxfp4")
    config = found.config.model_copy(update={"dtype": "bfloat16"})
    loaded: Classifier = load_classifier(found.run, config, prompt)
    scores = loaded.score(rows)
    merged = loaded.model.merge_and_unload()
    assert all(one.dtype == torch.bfloat16 for one in merged.parameters())
    rounded = dataclasses.replace(loaded, model=merged).score(rows)
    assert rounded == pytest.approx(scores, abs=0.05)


def test_training_on_experts_resumes_where_it_stopped(
    trained: Callable[[str, str], Trained],
    rows: tuple[Row, ...],
    prompt: PromptTemplate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVENHAND_QUIET", "1")
    config = trained("experts", "mxfp4").config.model_copy(update={"num_train_epochs": 2.0})
    train_phase(config, rows, rows[:4], prompt, run=tmp_path)
    whole = stored_weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-4")
    shutil.rmtree(tmp_path / "adapter")
    train_phase(config, rows, rows[:4], prompt, run=tmp_path, resume=True)
    for name, one in stored_weights(tmp_path).items():
        assert torch.allclose(one, whole[name], atol=1e-6), name

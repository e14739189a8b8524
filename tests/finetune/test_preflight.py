"""Preflight's facts: memory against what autograd keeps, wrong kernels, lengths, real steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.finetune.conftest import save_model
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError
from evenhand.core.records import Row
from evenhand.finetune import experts
from evenhand.finetune.attention import tree_attention
from evenhand.finetune.classifier import prepare
from evenhand.finetune.devices import Device
from evenhand.finetune.encoding import EncodedRow, PromptEncoder
from evenhand.finetune.layouts import PaddedLayout, TreeLayout
from evenhand.finetune.objective import build_objective
from evenhand.finetune.preflight import kernels as kernels_module
from evenhand.finetune.preflight.architecture import missing_weights, read_architecture
from evenhand.finetune.preflight.kernels import KernelFacts, check_kernels, chosen_kernels
from evenhand.finetune.preflight.launch import launch_facts, take_one_gpu
from evenhand.finetune.preflight.lengths import (
    SequenceFacts,
    largest_step,
    measure_lengths,
    step_shape,
)
from evenhand.finetune.preflight.memory import estimate_memory, memory_room, peak_bytes
from evenhand.finetune.preflight.small import Kernels, shrink
from evenhand.finetune.preflight.step import measure_steps
from evenhand.finetune.processes import is_sharded
from evenhand.prompts.template import PromptTemplate

FLOAT32 = Device("cpu", torch.float32, "test", False)
BFLOAT16 = Device("cpu", torch.bfloat16, "test", True)
WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            sizes = {key: value for key, value in WIDE.items() if name != "bert"}
            made[name] = save_model(name, tmp_path_factory.mktemp("wide") / name, **sizes)
        return made[name]

    return folder


def kept_by_autograd(config: PhaseConfig, prompt: PromptTemplate, rows: tuple[Row, ...]) -> int:
    """The bytes of every storage that a forward pass keeps, parameters aside."""
    classifier = prepare(config, prompt)
    objective = build_objective(
        config.objective,
        layout=classifier.layout,
        prompt=prompt,
        encoder=classifier.encoder,
        model_type=classifier.base.model_type,
    )
    batch = objective.collate([objective.encode(row) for row in rows])
    own = {one.untyped_storage().data_ptr() for one in classifier.model.parameters()}
    sizes: dict[int, int] = {}
    held = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held.append(tensor)  # or another could get its place
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    classifier.model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        objective.loss_sum(classifier.model, batch)
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("llama", {}),
        ("llama", {"lora_dropout": 0.1}),
        ("llama", {"dtype": "bfloat16"}),
        ("llama", {"objective": "full_sequence"}),
        ("llama", {"tuning": "full"}),
        ("qwen3", {}),
        ("gpt_oss", {}),
        ("gpt_oss", {"dtype": "bfloat16"}),
    ],
)
def test_activations_are_what_autograd_keeps(
    model: str,
    changes: dict[str, Any],
    wide: Callable[[str], Path],
    make_config: Callable[..., PhaseConfig],
    make_rows: Callable[..., tuple[Row, ...]],
    prompt: PromptTemplate,
) -> None:
    config = make_config(model_name_or_path=str(wide(model)), max_seq_length=400, **changes)
    rows = make_rows(16)
    lengths = measure_lengths(config, prompt, rows, model_type=model)
    device = BFLOAT16 if config.dtype == "bfloat16" else FLOAT32
    architecture = read_architecture(config)
    estimate = estimate_memory(config, architecture, step_shape(lengths, lengths.rows), device)
    kept = kept_by_autograd(config, prompt, rows)
    assert 0.7 < (estimate.activations + estimate.logits) / kept < 1.5


def test_memory_terms_follow_the_number_format_and_the_processes(
    make_config: Callable[..., PhaseConfig],
) -> None:
    config = make_config(gradient_checkpointing=False)
    model = read_architecture(config)
    lengths = SequenceFacts("tree", 40, 5, (2, 1), (20,) * 8, 0, 128)
    shape = step_shape(lengths, (20,) * 8)
    single = estimate_memory(config, model, shape, FLOAT32)
    assert single.weights == 4 * model.total + 4 * model.trainable
    assert single.gradients == 4 * model.trainable
    assert single.optimiser == 8 * model.trainable
    half = estimate_memory(config, model, shape, BFLOAT16)
    assert half.weights == 2 * model.total + 4 * model.trainable
    assert half.activations < single.activations
    two = estimate_memory(config, model, shape, FLOAT32, processes=2)
    assert two.gradients == 2 * single.gradients  # DDP's buckets
    sharded = estimate_memory(config, model, shape, FLOAT32, processes=2, is_sharded=True)
    assert sharded.weights == single.weights / 2
    spared = config.model_copy(update={"gradient_checkpointing": True})
    assert estimate_memory(spared, model, shape, FLOAT32).activations < single.activations
    plain = config.model_copy(update={"optim": "sgd"})
    assert estimate_memory(plain, model, shape, FLOAT32).optimiser == 0


def test_memory_of_gpt_oss_is_dominated_by_its_weights() -> None:
    config = PhaseConfig(
        model_name_or_path="openai/gpt-oss-20b", lora_r=64, lora_target_modules=["q_proj", "v_proj"]
    )
    model = read_architecture(config)
    assert (model.total, model.trainable) == (20_914_757_184, 15_925_248)
    lengths = SequenceFacts("tree", 180, 40, (2, 2), (64,) * 4, 0, 512)
    estimate = estimate_memory(config, model, step_shape(lengths, (64,) * 4), BFLOAT16)
    assert estimate.weights == pytest.approx(41.9e9, rel=0.01)
    assert estimate.activations < 0.2 * estimate.weights


def test_this_machine_tells_its_memory() -> None:
    room = memory_room(FLOAT32)
    assert room is not None
    assert 0 < room.free <= room.total
    assert (peak_bytes() or 1) > 0


def facts_of(
    config: PhaseConfig, *, device: Device = FLOAT32, kernels: Kernels | None = None
) -> dict[tuple[str, str], KernelFacts]:
    real = read_architecture(config).settings
    chosen = kernels or chosen_kernels(config, real, device)
    found = check_kernels(config, real, device, kernels=chosen, rng=np.random.default_rng(0))
    return {(one.part, one.dtype): one for one in found}


@pytest.mark.parametrize("model", ["llama", "qwen2", "qwen3", "gpt_oss", "bert"])
def test_chosen_kernels_give_eagers_output_and_gradient(
    model: str, make_config: Callable[..., PhaseConfig]
) -> None:
    found = facts_of(make_config(model))
    assert all(one.is_same for one in found.values()), found
    assert ("experts", "float32") in found or model != "gpt_oss"
    assert found["attention", "float32"].found.worst > 0  # it was computed in another way


def test_bfloat16_is_judged_by_eagers_own_distance_and_in_float32_too(
    make_config: Callable[..., PhaseConfig],
) -> None:
    found = facts_of(make_config(), device=BFLOAT16)
    assert all(one.is_same for one in found.values())
    assert found["attention", "bfloat16"].bound > found["attention", "float32"].bound


def test_full_tuning_compares_the_gradient_of_every_weight(
    make_config: Callable[..., PhaseConfig],
) -> None:
    found = facts_of(make_config(tuning="full"))
    assert found["attention", "float32"].is_same
    assert found["attention", "float32"].found.trained > 0


@pytest.fixture
def register() -> Iterator[Callable[[str, Any], str]]:
    names = []

    def add(name: str, function: Any) -> str:
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, sdpa_mask)
        names.append(name)
        return name

    yield add
    for name in names:
        del AttentionInterface._global_mapping[name]
        del AttentionMaskInterface._global_mapping[name]


def without_sinks(*args: Any, s_aux: Any = None, sliding_window: Any = None, **rest: Any) -> Any:
    del s_aux, sliding_window
    return sdpa_attention_forward(*args, **rest)


def without_sinks_in_backward(*args: Any, **rest: Any) -> Any:
    """The right output; in the gradient the sink takes nothing of a query's attention."""
    right, _ = tree_attention(*args, **rest)
    wrong, _ = without_sinks(*args, **rest)
    return wrong + (right - wrong).detach(), None


def with_a_shorter_window(module: Any, *args: Any, **rest: Any) -> Any:
    query, key, value, mask = args
    if rest.get("sliding_window") is not None and mask is not None:
        reach = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device)
        reach = reach.triu(1 - rest["sliding_window"] // 2)
        mask = mask & reach
    return tree_attention(module, query, key, value, mask, **rest)


@pytest.mark.parametrize("wrong", [without_sinks, without_sinks_in_backward, with_a_shorter_window])
@pytest.mark.parametrize("device", [FLOAT32, BFLOAT16])
def test_a_wrong_attention_kernel_is_caught(
    wrong: Any,
    device: Device,
    make_config: Callable[..., PhaseConfig],
    register: Callable[[str, Any], str],
) -> None:
    config = make_config("gpt_oss")
    right = facts_of(config, kernels=Kernels(register("right", tree_attention), "grouped_mm"))
    assert right["attention", "float32"].is_same
    found = facts_of(config, device=device, kernels=Kernels(register("w", wrong), "grouped_mm"))
    assert not found["attention", "float32"].is_same
    if wrong is without_sinks:
        assert not found["attention", device.dtype_name].is_same
    if wrong is without_sinks_in_backward:
        assert found["attention", "float32"].found.output < 1e-4  # the output would not tell
    assert found["experts", "float32"].is_same


def test_a_wrong_adapter_on_experts_is_caught(
    make_config: Callable[..., PhaseConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(
        "gpt_oss", lora_target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    )
    right = facts_of(config)["experts", "float32"]
    assert right.is_same
    assert right.found.worst > 0  # eager is PEFT's own way, ours is another
    factors = experts._factors
    monkeypatch.setattr(
        experts, "_factors", lambda *given: replace(one := factors(*given), up=2 * one.up)
    )
    assert not facts_of(config)["experts", "float32"].is_same


def test_a_wrong_tree_is_caught(
    make_config: Callable[..., PhaseConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = kernels_module.make_layout

    def with_another_prefix(config: PhaseConfig, settings: Any, name: str) -> Any:
        layout: Any = right(config, settings, name)
        if name == "tree":
            encoder = replace(layout.encoder, prefix=layout.encoder.prefix[::-1])
            return replace(layout, encoder=encoder)
        return layout

    monkeypatch.setattr(kernels_module, "make_layout", with_another_prefix)
    assert not facts_of(make_config())["attention", "float32"].is_same


def test_the_small_model_keeps_what_a_kernel_depends_on() -> None:
    config = PhaseConfig(model_name_or_path="openai/gpt-oss-20b", lora_target_modules=["q_proj"])
    real = read_architecture(config).settings
    small = shrink(real)
    assert small.head_dim == real.head_dim
    assert small.layer_types == ["sliding_attention", "full_attention"]
    ratio = real.num_attention_heads // real.num_key_value_heads
    assert small.num_attention_heads // small.num_key_value_heads == ratio
    assert small.rope_parameters == real.rope_parameters


def test_lengths_count_what_training_sees(
    make_config: Callable[..., PhaseConfig], prompt: PromptTemplate
) -> None:
    rows = [Row(id="a", text="kind", label="normal"), Row(id="b", text="out " * 200, label="hate")]
    lengths = measure_lengths(make_config(), prompt, rows, model_type="llama")
    assert lengths.truncated == 1
    assert lengths.truncated_share == 0.5
    assert lengths.prefix + max(lengths.rows) + max(lengths.labels) == lengths.max_length == 128
    with pytest.raises(ConfigError) as caught:
        measure_lengths(make_config(max_seq_length=16), prompt, rows, model_type="llama")
    assert caught.value.problems[0].place == "max_seq_length"


@settings(max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.sampled_from(["tree", "padded"]))
def test_sizes_of_a_step_are_those_of_its_batch(sizes: list[int], name: str) -> None:
    encoder = PromptEncoder(
        prefix=tuple(range(30)), tail=(), labels=((1, 2, 3), (1,)), tokenizer=None, max_length=200
    )
    layout = TreeLayout(encoder) if name == "tree" else PaddedLayout(encoder, pad=0)
    batch = layout.collate([EncodedRow((5,) * size, 0, False) for size in sizes])
    facts = SequenceFacts(name, 30, 0, (3, 1), tuple(sizes), 0, 200)
    shape = step_shape(facts, sizes)
    assert shape.rows == batch["rows"]
    assert shape.tokens == batch["input_ids"].numel()
    assert shape.predicted == len(batch["predictors"])
    kept = len(batch["keep"]) if name == "tree" else batch["keep"] * len(batch["input_ids"])
    assert shape.logits == kept


def test_the_largest_batch_is_not_smaller_than_a_usual_one() -> None:
    rng = np.random.default_rng(0)
    sizes = tuple(int(size) for size in rng.integers(5, 200, 300))
    lengths = SequenceFacts("tree", 40, 5, (2, 1), sizes, 0, 512)
    largest = largest_step(lengths, batch_rows=8, rng=rng)
    assert largest.rows == 8
    assert largest.tokens > 40 + 8 * np.mean(sizes)
    assert largest.tokens <= 40 + 8 * (200 + 1)


def test_steps_are_real_training_and_leave_nothing(
    make_config: Callable[..., PhaseConfig],
    make_rows: Callable[..., tuple[Row, ...]],
    prompt: PromptTemplate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVENHAND_QUIET", "1")
    monkeypatch.chdir(tmp_path)
    config = make_config(gradient_accumulation_steps=2, lora_dropout=0.1)
    found = measure_steps(config, prompt, make_rows(6), steps=3, rng=np.random.default_rng(0))
    assert len(found.seconds) == 3
    assert found.rows_per_step == 8
    assert found.rows_per_second == pytest.approx(24 / sum(found.seconds))
    assert (found.layout, found.device, found.dtype) == ("tree", "cpu", "float32")
    assert list(tmp_path.iterdir()) == []


def test_ddp_settings_are_those_of_the_trainer(make_config: Callable[..., PhaseConfig]) -> None:
    config = make_config(gradient_checkpointing=True)
    facts = launch_facts(config, FLOAT32)
    assert not facts.finds_unused
    assert not facts.is_reentrant
    assert facts.uses_checkpointing


def test_one_gpu_is_taken_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,4,5")
    assert take_one_gpu() == 4
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_sharding_is_read_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_sharded()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert is_sharded()


def test_weights_that_are_not_here_are_named(
    make_config: Callable[..., PhaseConfig], tmp_path: Path
) -> None:
    assert missing_weights(make_config()) is None
    hub = make_config().model_copy(
        update={"model_name_or_path": "openai/gpt-oss-20b", "cache_dir": str(tmp_path)}
    )
    assert "openai/gpt-oss-20b" in str(missing_weights(hub))
    assert "nowhere" in str(
        missing_weights(hub.model_copy(update={"model_name_or_path": "nowhere"}))
    )

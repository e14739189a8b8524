"""Adapters on experts multiply activations: PEFT's numbers, but small updates outlive bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.finetune import mxfp4
from torch import Tensor
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP

from evenhand.config.schema import PhaseConfig
from evenhand.finetune.adapters import attach
from evenhand.finetune.devices import Device
from evenhand.finetune.experts import adapt_activations
from evenhand.finetune.models import load_base

MakeConfig = Callable[..., PhaseConfig]
BOTH = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
CPU = Device("cpu", torch.float32, "the test says so", is_bf16_fast=True)


def expert_wrappers(model: Any) -> list[Any]:
    return [layer.mlp.experts for layer in model.base_model.model.model.layers]


def as_peft_has_it(model: Any) -> Any:
    """A copy whose experts are computed by PEFT's own forward."""
    other = copy.deepcopy(model)
    for wrapper in expert_wrappers(other):
        del wrapper.forward
    return other


def fill(model: Any, *, scale: float = 0.3) -> None:
    """Give an adapter's zero half numbers, as if it had been trained."""
    torch.manual_seed(1)
    for name, one in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=scale)


def tuned(make_config: MakeConfig, *, targets: Sequence[str] = BOTH, **changes: Any) -> Any:
    config = make_config("gpt_oss", lora_target_parameters=list(targets), **changes)
    model = attach(load_base(config, CPU).model, config)
    fill(model)
    return model.eval()


def logits_and_gradients(model: Any, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logits = model(input_ids=ids).logits
    logits.square().mean().backward()
    gradients = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
    return logits.detach(), gradients


@pytest.mark.parametrize("rank", [1, 4, 8, 11])
@pytest.mark.parametrize("targets", [BOTH, BOTH[:1], BOTH[1:]], ids=["both", "gate_up", "down"])
def test_output_and_gradient_are_pefts(
    make_config: MakeConfig, targets: Sequence[str], rank: int
) -> None:
    model = tuned(make_config, targets=targets, lora_r=rank)
    other = as_peft_has_it(model)
    # Three tokens and eight places for them among four experts: some get none.
    for count in (3, 40):
        ids = torch.randint(20, 300, (1, count), generator=torch.Generator().manual_seed(count))
        found, gradients = logits_and_gradients(model, ids)
        expected, wanted = logits_and_gradients(other, ids)
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
        assert gradients.keys() == wanted.keys()
        for name, one in wanted.items():
            difference = torch.linalg.vector_norm(gradients[name] - one)
            assert difference <= 1e-4 * torch.linalg.vector_norm(one) + 1e-9, name
        model.zero_grad()
        other.zero_grad()


def test_the_adapter_as_stored_is_pefts(make_config: MakeConfig) -> None:
    model = tuned(make_config)
    assert model.state_dict().keys() == as_peft_has_it(model).state_dict().keys()


def test_an_adapter_that_is_off_or_merged_leaves_the_base_its_own(make_config: MakeConfig) -> None:
    model = tuned(make_config)
    bare = load_base(make_config("gpt_oss"), CPU).model.eval()
    ids = torch.arange(20, 50)[None]
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        with model.disable_adapter():
            assert torch.allclose(model(input_ids=ids).logits, bare(input_ids=ids).logits)
        model.merge_adapter()
        assert torch.allclose(model(input_ids=ids).logits, wanted, atol=1e-4)
        model.unmerge_adapter()
        assert torch.allclose(model(input_ids=ids).logits, wanted, atol=1e-4)


@pytest.mark.parametrize("target", ["mlp.experts.gate_up_proj_bias", "mlp.router.weight"])
def test_other_parameters_stay_pefts(make_config: MakeConfig, target: str) -> None:
    model = tuned(make_config, targets=(target,))
    assert not any("forward" in vars(one) for one in expert_wrappers(model))
    assert model(input_ids=torch.arange(20, 30)[None]).logits.isfinite().all()


def test_other_mixtures_stay_pefts() -> None:
    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=64,
    )
    adapter = LoraConfig(r=2, target_modules=[], target_parameters=["mlp.experts.gate_up_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_config(config), adapter)
    adapt_activations(model)
    assert not any("forward" in vars(one) for one in model.modules())


def test_a_small_update_is_not_lost_in_bfloat16() -> None:
    # One layer's experts with MXFP4 weights, and an adapter that changes them by a thousandth.
    settings = GptOssConfig(
        hidden_size=64, intermediate_size=64, num_local_experts=4, num_experts_per_tok=2
    )
    settings._experts_implementation = "grouped_mm"
    torch.manual_seed(0)
    exact = GptOssMLP(settings)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for one in exact.parameters():
            drawn = rng.normal(scale=0.1, size=one.shape).astype(np.float32)
            is_matrix = one.ndim == 3
            one.copy_(torch.from_numpy(mxfp4.decode(*mxfp4.encode(drawn)) if is_matrix else drawn))
    x = torch.randn(2048, 64).bfloat16().float()[None]

    def change(dtype: torch.dtype, *, ours: bool) -> Tensor:
        """What an adapter adds to the output, whatever it is computed in."""
        mlp: Any = torch.nn.ModuleDict({"mlp": copy.deepcopy(exact).to(dtype)})
        torch.manual_seed(1)
        adapter = LoraConfig(
            r=4,
            lora_alpha=4,
            target_modules=[],
            target_parameters=["experts.gate_up_proj", "experts.down_proj"],
        )
        model: Any = get_peft_model(mlp, adapter)
        if ours:
            adapt_activations(model)
        for name, one in model.named_parameters():
            if "lora_B" in name:
                # A's numbers are about 0.07, and there are four products in a sum.
                torch.nn.init.normal_(one, std=0.001 * 0.1 / (2 * 0.07))
        inside = model.base_model.model["mlp"]
        with torch.no_grad():
            chosen = exact.router(x[0])[1:]
            routing = chosen[1], chosen[0].to(dtype)
            adapted = inside.experts(x[0].to(dtype), *routing).float()
            with model.disable_adapter():
                return adapted - inside.experts(x[0].to(dtype), *routing).float()

    true = change(torch.float32, ours=False)

    def kept(found: Tensor) -> float:
        """The share of the true change that is in it; rounding of outputs averages out."""
        return float((found * true).sum() / true.square().sum())

    assert kept(change(torch.float32, ours=True)) == pytest.approx(1, abs=1e-3)
    assert kept(change(torch.bfloat16, ours=True)) == pytest.approx(1, abs=0.1)
    assert kept(change(torch.bfloat16, ours=False)) < 0.75

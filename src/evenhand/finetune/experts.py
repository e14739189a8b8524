"""Adapters on a mixture's experts, computed on the activations.

PEFT adds the low-rank product to the matrices of all experts before it multiplies. That makes a
second copy of every adapted matrix and keeps it until the backward pass (38 GB for gpt-oss-20b in
bfloat16), and rounds the sum to the base's format: in bfloat16 most of a change by a thousandth is
lost. Here the two thin factors multiply the activations, as in any adapted linear layer, and the
parts are summed in float32. In exact arithmetic it is the same; what is stored stays PEFT's.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor
from torch.nn.functional import grouped_mm, pad

_MATRICES = frozenset({"gate_up_proj", "down_proj"})
# Grouped products want rows of a multiple of 16 bytes; a rank is filled up with zeros to this one.
_RANKS = 8


@dataclass(frozen=True, slots=True)
class _Factors:
    """Low-rank factors of one matrix: (experts, in, rank) and (experts, rank, out)."""

    down: Tensor
    up: Tensor


def adapt_activations(model: Any) -> None:
    """Make PEFT's wrappers of gpt-oss's experts multiply activations instead of adding to weights.

    Other mixtures, and adapters on anything but the experts' two matrices, stay PEFT's.
    """
    for module in model.modules():
        outermost: Any = getattr(module, "experts", None)
        wrappers = _wrappers(outermost)
        if not wrappers or type(wrappers[0].get_base_layer()).__name__ != "GptOssExperts":
            continue
        if {one.parameter_name for one in wrappers} <= _MATRICES:
            outermost.forward = MethodType(_forward, outermost)


def _wrappers(module: Any) -> list[ParamWrapper]:
    found: list[ParamWrapper] = []
    while isinstance(module, ParamWrapper):
        found.append(module)
        module = module.base_layer
    return found


def _forward(
    self: ParamWrapper, hidden_states: Tensor, router_indices: Tensor, routing_weights: Tensor
) -> Tensor:
    """Return what the routed experts make of (tokens, width), summed by their routing weights."""
    if self.disable_adapters or self.merged:
        return ParamWrapper.forward(self, hidden_states, router_indices, routing_weights)
    experts: Any = self.get_base_layer()
    tokens, chosen = router_indices.shape
    # Pairs of token and expert, by expert: each expert then has one run of rows.
    expert, order = router_indices.flatten().sort(stable=True)
    numbers = torch.arange(experts.num_experts, device=expert.device)
    ends = torch.searchsorted(expert, numbers, right=True, out_int32=True)
    factors = {one.parameter_name: _factors(one, hidden_states.dtype) for one in _wrappers(self)}

    def multiply(x: Tensor, name: str) -> Tensor:
        sums = getattr(experts, f"{name}_bias")[expert].float()
        if name in factors:
            thin = grouped_mm(x, factors[name].down, offs=ends)
            sums = sums + grouped_mm(thin, factors[name].up, offs=ends)
        return (sums + grouped_mm(x, getattr(experts, name), offs=ends)).to(x.dtype)

    gate_up = multiply(hidden_states[order // chosen], "gate_up_proj")
    out = multiply(experts._apply_gate(gate_up), "down_proj")
    weighted = out * routing_weights.flatten()[order, None]
    # Put back and summed: adding at indices would differ from run to run on a GPU.
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return weighted[back].view(tokens, chosen, -1).sum(1).to(hidden_states.dtype)


def _factors(wrapper: Any, dtype: torch.dtype) -> _Factors:
    (name,) = wrapper.active_adapters
    left, right = wrapper.lora_A[name].weight, wrapper.lora_B[name].weight
    # PEFT's order: (experts x rank, in) and (out, rank x experts).
    left = left.unflatten(0, (wrapper.num_experts, -1)).transpose(1, 2) * wrapper.scaling[name]
    right = right.unflatten(1, (-1, wrapper.num_experts)).permute(2, 1, 0)
    lacking = -left.shape[-1] % _RANKS
    # Copies are as thin as the factors: contiguous, and in the number format of the activations.
    return _Factors(
        pad(left, (0, lacking)).to(dtype).contiguous(),
        pad(right, (0, 0, 0, lacking)).to(dtype).contiguous(),
    )

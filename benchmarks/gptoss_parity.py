"""Does the tree give eager attention's loss and gradient on this device?

A small gpt-oss with the full model's head width, both kinds of layer, sinks and the real prompt's
lengths (the prefix is longer than the sliding window) is trained one step in both layouts. In
float32 they must agree. In bfloat16 two correct ways differ by rounding, and a token can go to
another expert for it; there the tree may stand no further from the float32 result than eager
attention in bfloat16 does, within a factor.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from gptoss_arithmetic import Lengths
from gptoss_arms import Place, adapted, build_model, make_encoder, make_rows

from evenhand.config.schema import PhaseConfig
from evenhand.finetune import attention
from evenhand.finetune.layouts import Layout, PaddedLayout, TreeLayout
from evenhand.finetune.objective import LabelObjective
from evenhand.finetune.packing import to_device

FLOAT32_BOUNDS = (1e-5, 1e-4)  # of the loss and of the gradient
BF16_FACTOR, BF16_FLOOR = 2.0, 0.01

SMALL = {
    "vocab_size": 2048,
    "hidden_size": 512,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_local_experts": 8,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "initializer_range": 0.05,
}

Differences = tuple[float, float]
"""Of the loss and of the gradient, relative."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Relative differences from eager attention on padded rows, in float32.

    Attributes:
        dtype: number format of the computation that is compared.
        kernel: its attention.
        experts: how its experts are computed.
        loss: difference of the loss.
        gradient: norm of the gradients' difference over the norm of the gradient.
        bounds: what ``loss`` and ``gradient`` may be; None where they are only the yardstick.
        passed: whether both bounds hold.
    """

    dtype: str
    kernel: str
    experts: str
    loss: float
    gradient: float
    bounds: tuple[float, float] | None
    passed: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_parity(
    place: Place, lengths: Lengths, *, changes: dict[str, Any], rows: int
) -> Iterator[Parity]:
    """Compare the tree with padded rows under eager attention, looped and grouped experts."""
    rng = np.random.default_rng(0)
    settings = {**SMALL, **changes}
    # Weights that bfloat16 can hold, so that both formats compute with the same ones.
    model = build_model(settings, Place(place.device, torch.bfloat16)).float()
    vocabulary = settings["vocab_size"]
    encoder = make_encoder(lengths, vocabulary=vocabulary, rng=rng)
    some = make_rows(lengths.draw(rows, rng), encoder, vocabulary=vocabulary, rng=rng)
    phase = PhaseConfig(
        lora_r=8, lora_alpha=16, lora_target_modules=("q_proj", "k_proj", "v_proj", "o_proj")
    )
    padded = PaddedLayout(encoder, pad=0)
    tree = TreeLayout(encoder, window=model.config.sliding_window)
    with adapted(model, phase) as tuned:
        _wake(tuned)
        truth = _run(model, tuned, padded, some, kernel="eager", experts="eager")

        def compare(used: Any, layout: Layout, *, kernel: str, experts: str) -> Differences:
            values = _run(used.get_base_model(), used, layout, some, kernel=kernel, experts=experts)
            return _differ(values, truth)

        # On a GPU the grouped product is a bfloat16 kernel.
        for experts in ("eager",) if place.is_gpu else ("eager", "grouped_mm"):
            differences = compare(tuned, tree, kernel=attention.NAME, experts=experts)
            yield _record("float32", attention.NAME, experts, differences, FLOAT32_BOUNDS)
        if not place.is_gpu:
            return
        tuned = _cast_base(tuned, torch.bfloat16)
        yardstick = compare(tuned, padded, kernel="eager", experts="eager")
        yield _record("bfloat16", "eager", "eager", yardstick, None)
        loss, gradient = (BF16_FACTOR * one + BF16_FLOOR for one in yardstick)
        for experts in ("eager", "grouped_mm"):
            differences = compare(tuned, tree, kernel=attention.NAME, experts=experts)
            yield _record("bfloat16", attention.NAME, experts, differences, (loss, gradient))


def _record(
    dtype: str,
    kernel: str,
    experts: str,
    differences: Differences,
    bounds: Differences | None,
) -> Parity:
    loss, gradient = differences
    return Parity(
        dtype=dtype,
        kernel=kernel,
        experts=experts,
        loss=loss,
        gradient=gradient,
        bounds=bounds,
        passed=bounds is None or (loss <= bounds[0] and gradient <= bounds[1]),
    )


def _wake(tuned: Any) -> None:
    """Fill the adapter's zero half, so that both halves have a gradient; let the sinks matter."""
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
        elif name.endswith("sinks"):
            torch.nn.init.normal_(weight)
            weight.data.copy_(weight.data.bfloat16().float())


def _cast_base(tuned: Any, dtype: torch.dtype) -> Any:
    """Return a copy with the frozen weights in another format, the adapter as it is."""
    other = copy.deepcopy(tuned)
    for name, weight in other.named_parameters():
        if "lora_" not in name:
            weight.data = weight.data.to(dtype)
    return other


def _run(
    model: Any, tuned: Any, layout: Layout, rows: Sequence[Any], *, kernel: str, experts: str
) -> tuple[float, torch.Tensor]:
    """Return the loss and all gradients in one vector, float32."""
    model.set_attn_implementation(kernel)
    model.set_experts_implementation(experts)
    objective = LabelObjective(layout)
    device = next(model.parameters()).device
    tuned.zero_grad(set_to_none=True)
    # Padded rows are few at a time: each is as long as prompt and post together.
    size = len(rows) if layout.name == "tree" else 8
    total = 0.0
    for start in range(0, len(rows), size):
        batch = to_device(objective.collate(rows[start : start + size]), device)
        loss = objective.loss_sum(tuned, batch) / len(rows)
        loss.backward()
        total += loss.item()
    gradients = [one.grad.float().flatten() for one in tuned.parameters() if one.requires_grad]
    return total, torch.cat(gradients)


def _differ(values: tuple[float, torch.Tensor], truth: tuple[float, torch.Tensor]) -> Differences:
    loss = abs(values[0] - truth[0]) / abs(truth[0])
    gradient = (values[1] - truth[1]).norm() / truth[1].norm()
    return loss, gradient.item()

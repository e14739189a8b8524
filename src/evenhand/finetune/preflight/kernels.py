"""Whether the attention and experts kernels in use compute what the plain ones compute.

A kernel may be fast and subtly wrong: without attention sinks, without their share in the backward
pass, with a window that is off by one. The outputs and the gradients of a small random model are
compared with those of transformers' eager implementations in the padded layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evenhand.config.schema import PhaseConfig
from evenhand.finetune import attention
from evenhand.finetune.devices import Device
from evenhand.finetune.encoding import EncodedRow
from evenhand.finetune.layouts import Layout
from evenhand.finetune.models import load_options
from evenhand.finetune.preflight.small import (
    EAGER,
    Kernels,
    build_model,
    fill,
    make_layout,
    make_rows,
    shrink,
)
from evenhand.finetune.score import to_device

FLOAT32_BOUND = 1e-4
"""Largest relative difference in float32; the sums of the two ways are taken in another order."""
BF16_FACTOR = 3.0
"""In bfloat16 a kernel may be this many times as far from float32 as eager itself is."""
BF16_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """Relative differences (norm of the difference over norm) from the eager computation.

    Attributes:
        output: of the label log-probabilities.
        trained: of the gradients of what the phase trains.
        inputs: of the gradients of the input embeddings.
    """

    output: float
    trained: float
    inputs: float

    @property
    def worst(self) -> float:
        """The largest of the three; infinite where one is not a number."""
        values = (self.output, self.trained, self.inputs)
        return max(value if np.isfinite(value) else float("inf") for value in values)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """One kernel compared with eager.

    Attributes:
        part: ``attention`` or ``experts``.
        name: the implementation.
        layout: the layout that it was run in.
        dtype: the number format.
        found: how far it is from eager in float32.
        bound: how far it may be.
    """

    part: str
    name: str
    layout: str
    dtype: str
    found: Difference
    bound: float

    @property
    def is_same(self) -> bool:
        """Whether output and gradients are eager's."""
        return self.found.worst <= self.bound


def chosen_kernels(config: PhaseConfig, settings: Any, device: Device) -> Kernels:
    """Return the implementations that loading the model for this phase would choose."""
    options = load_options(config, device, settings)
    asked = Kernels(options.get("attn_implementation"), options.get("experts_implementation"))
    built = build_model(shrink(settings), config, asked, dtype=torch.float32, device="meta").config
    experts = getattr(built, "_experts_implementation", None)
    return Kernels(built._attn_implementation, experts)


def check_kernels(
    config: PhaseConfig,
    settings: Any,
    device: Device,
    *,
    kernels: Kernels,
    rng: np.random.Generator,
) -> list[KernelFacts]:
    """Compare a phase's kernels with eager on a small model, on the device.

    ``settings`` is the real model's configuration. Experts are compared where the model has some.
    Where the device's format is bfloat16, float32 is compared too, if the kernel takes it: its
    bound is far narrower.

    Raises:
        RuntimeError, ValueError, TypeError, AttributeError: a kernel, or the small model, fails.
    """
    small = shrink(settings)
    has_experts = bool(getattr(small, "num_experts_per_tok", None))
    layout = "tree" if kernels.attention == attention.NAME else "padded"
    eager = "eager" if has_experts else None
    parts = [("attention", Kernels(kernels.attention, eager), layout)]
    if has_experts:
        parts.append(("experts", Kernels("eager", kernels.experts), "padded"))
    bench = _Bench(config, small, device, make_rows(rng), seed=int(rng.integers(2**31)))
    found = []
    for part, tried, name in parts:
        told = str(tried.attention if part == "attention" else tried.experts)
        shown = make_layout(config, small, name).name
        for dtype in dict.fromkeys((torch.float32, device.dtype)):
            try:
                difference, bound = bench.compare(tried, layout=name, dtype=dtype)
            except (RuntimeError, ValueError):
                if dtype == device.dtype:
                    raise
                continue  # a kernel for half precision alone
            number_format = str(dtype).removeprefix("torch.")
            found.append(KernelFacts(part, told, shown, number_format, difference, bound))
    return found


@dataclass(frozen=True, slots=True)
class _Bench:
    """One small model and batch, computed in several ways."""

    config: PhaseConfig
    settings: Any
    device: Device
    rows: Sequence[EncodedRow]
    seed: int

    def compare(
        self, kernels: Kernels, *, layout: str, dtype: torch.dtype
    ) -> tuple[Difference, float]:
        """Return how far the kernels are from eager in float32, and how far they may be."""
        eager = EAGER if kernels.experts is not None else Kernels("eager")
        run = partial(self._run, weights=dtype)
        tried = run(kernels, layout, dtype)
        wanted = run(eager, "padded", torch.float32)
        found = _difference(tried, wanted)
        if dtype == torch.float32:
            return found, FLOAT32_BOUND
        own = _difference(run(eager, "padded", dtype), wanted)
        return found, max(BF16_FACTOR * own.worst, BF16_FLOOR)

    def _run(
        self, kernels: Kernels, layout: str, dtype: torch.dtype, *, weights: torch.dtype
    ) -> dict[str, list[Tensor]]:
        # The weights are rounded to the tried format in every run, so that only the computation
        # differs.
        model = build_model(self.settings, self.config, kernels, dtype=weights, device="cpu")
        fill(model, np.random.default_rng(self.seed))
        model = (model if dtype == weights else model.to(dtype)).to(self.device.name)
        return _outcome(model, make_layout(self.config, self.settings, layout), self.rows)


def _outcome(model: Any, layout: Layout, rows: Sequence[EncodedRow]) -> dict[str, list[Tensor]]:
    batch = to_device(layout.collate(rows), next(model.parameters()).device)
    log_probs = layout.log_probs(model, batch)
    cross_entropy(log_probs, batch["gold"], reduction="sum").backward()
    embedding = model.get_input_embeddings().weight
    trained = [
        one.grad if one.grad is not None else torch.zeros_like(one)
        for one in model.parameters()
        if one.requires_grad and one is not embedding
    ]
    return {"output": [log_probs.detach()], "trained": trained, "inputs": [embedding.grad]}


def _difference(found: dict[str, list[Tensor]], wanted: dict[str, list[Tensor]]) -> Difference:
    return Difference(
        *(_relative(found[key], wanted[key]) for key in ("output", "trained", "inputs"))
    )


def _relative(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    if not wanted:
        return 0.0
    one, other = (
        torch.cat([each.double().flatten().cpu() for each in side]) for side in (found, wanted)
    )
    return float((one - other).norm() / other.norm())

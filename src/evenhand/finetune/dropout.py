"""Dropout in adapters on a CPU, from a faster source of random bits.

PyTorch draws dropout on a CPU one number at a time, in one thread: 4 to 6 percent of a training
step. Here sixteen bits decide about each element, so that the share of zeros is exact to 1/65,536,
and they come from NumPy's SFC64, seeded from PyTorch's generator: seeds, checkpoints and
recomputation under activation checkpointing behave as they do with PyTorch's own dropout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_STEPS = 2**16


class FastDropout(nn.Module):
    """Zero a share ``p`` of the elements in training and scale the others by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with elements dropped, unchanged in evaluation."""
        if not self.training:
            return x
        seed = int(torch.randint(2**62, ()))
        words = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))
        kept = words.view(np.uint16)[: x.numel()] >= round(self.p * _STEPS)
        return x * torch.from_numpy(kept).view(x.shape).to(x.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        """Show the share in the printed model."""
        return f"p={self.p}"


def use_fast_dropout(model: Any) -> None:
    """Replace the dropout of a model's adapters, in place."""
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", {})
        for name, one in dropouts.items():
            if isinstance(one, nn.Dropout):
                dropouts[name] = FastDropout(one.p)

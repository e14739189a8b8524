"""How much arithmetic a computation needs, and how much this machine can do.

Counted are multiplications and additions of matrix products: every linear layer, the adapter, the
vocabulary head where its logits are needed, and attention. A training step also sends gradients
back through the frozen layers, which costs what the forward pass costs; weights that are frozen
need no gradient of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evenhand.core.records import Row
from evenhand.finetune.encoding import PromptEncoder

_SHAPES = ((1024, 576, 1536), (2048, 2048, 2048))
_TIMES = 5
_ENOUGH_SECONDS = 0.5


@dataclass(frozen=True)
class Span:
    """Tokens in a row, of which each attends to ``before`` tokens and to the span up to itself."""

    before: int
    tokens: int

    @property
    def attended(self) -> int:
        """Pairs of a token and one that it attends to."""
        return self.tokens * self.before + self.tokens * (self.tokens + 1) // 2


@dataclass(frozen=True)
class Shape:
    """What a token costs in a model: parameters of its linear layers, adapter, head, attention."""

    linear: int
    adapter: int
    head: int
    attention: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        """Read the shape off a causal LM, with or without a LoRA adapter."""
        adapter = sum(one.numel() for name, one in model.named_parameters() if "lora_" in name)
        linear = sum(
            module.weight.numel()
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and "lora_" not in name
            and not name.endswith("lm_head")
        )
        settings = model.config
        heads = settings.num_attention_heads
        width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
        return cls(
            linear=linear,
            adapter=adapter,
            head=settings.hidden_size * settings.vocab_size,
            attention=settings.num_hidden_layers * heads * width,
        )

    def forward(self, spans: Iterable[Span], *, logits: int) -> int:
        """Return the operations of a forward pass with that many positions of logits."""
        spans = list(spans)
        tokens = sum(span.tokens for span in spans)
        pairs = sum(span.attended for span in spans)
        per_token = self.linear + self.adapter
        return 2 * (per_token * tokens + self.head * logits + 2 * self.attention * pairs)

    def training(self, spans: Iterable[Span], *, logits: int) -> int:
        """Return the operations of a forward and a backward pass with a frozen base."""
        spans = list(spans)
        tokens = sum(span.tokens for span in spans)
        pairs = sum(span.attended for span in spans)
        forward = self.forward(spans, logits=logits)
        # Backward: the gradient of the inputs costs the forward pass again, that of the adapter's
        # weights once more, and that of attention twice its forward pass (queries and keys).
        return 2 * forward + 2 * self.adapter * tokens + 4 * self.attention * pairs


def tree_spans(encoder: PromptEncoder, batches: Iterable[Sequence[Row]]) -> list[Span]:
    """Return what a shared prefix leaves to compute: it once a batch, rows, label branches."""
    prefix = len(encoder.prefix)
    spans = []
    for rows in batches:
        spans.append(Span(0, prefix))
        for row in rows:
            size = len(encoder.encode(row).ids)
            spans.append(Span(prefix, size))
            spans += [Span(prefix + size, len(label) - 1) for label in encoder.labels]
    return spans


def label_logits(encoder: PromptEncoder) -> int:
    """Return the positions whose logits a row needs: the labels share the first."""
    return 1 + sum(len(label) - 1 for label in encoder.labels)


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the most operations a second that a matrix product reached, best of several."""
    best = 0.0
    for rows, inner, columns in _SHAPES:
        left = torch.rand(rows, inner).to(dtype)
        right = torch.rand(columns, inner).to(dtype)
        spent = 0.0
        for _ in range(_TIMES):
            started = time.perf_counter()
            torch.nn.functional.linear(left, right)
            seconds = time.perf_counter() - started
            best = max(best, 2 * rows * inner * columns / seconds)
            spent += seconds
            if spent > _ENOUGH_SECONDS:
                break
    return best

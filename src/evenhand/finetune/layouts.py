"""The three ways to compute label log-probabilities: tree pack, padded, classifier head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evenhand.core.records import LABELS, Row
from evenhand.finetune import attention
from evenhand.finetune.encoding import EncodedRow, PromptEncoder, encode_plain
from evenhand.finetune.packing import (
    Batch,
    build_pack,
    build_padded,
    cut_by_length,
    gold_labels,
    pad_sequences,
    prefix_pack,
    to_device,
)

# Checked against the padded path under eager attention in the tests.
TREE_MODELS = frozenset({"llama", "qwen2", "qwen3", "gpt_oss"})


_LOGIT_ROWS = 1024


class Layout(Protocol):
    """Encodes rows, makes a batch of them, and computes each row's label log-probabilities."""

    @property
    def name(self) -> str:
        """``tree``, ``padded`` or ``classifier``."""
        ...

    def encode(self, row: Row) -> EncodedRow:
        """Return the row's tokens."""
        ...

    def size(self, row: EncodedRow) -> int:
        """Return the tokens that the row adds to a forward pass."""
        ...

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return the tensors of one forward pass."""
        ...

    def freeze(self, model: torch.nn.Module) -> Layout:
        """Return the layout for a model that no longer changes: what rows share is computed."""
        ...

    def log_probs(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return (rows, labels): summed log-probability of each complete label."""
        ...


@dataclass(frozen=True)
class TreeLayout:
    """One copy of the prefix, all rows behind it, in one unpadded sequence.

    Attributes:
        window: reach of the model's sliding attention in tokens, if it has any.
        states: the prefix's keys and values, where they are known; packs then leave it out.
    """

    encoder: PromptEncoder
    window: int | None = None
    states: attention.States | None = None
    name: str = "tree"

    def encode(self, row: Row) -> EncodedRow:
        """Return the row's tokens after the prefix."""
        return self.encoder.encode(row)

    def size(self, row: EncodedRow) -> int:
        """Return the tokens of the row and of its label branches."""
        return len(row.ids) + sum(len(label) - 1 for label in self.encoder.labels)

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return a pack."""
        return build_pack(rows, self.encoder, with_prefix=self.states is None, window=self.window)

    def freeze(self, model: torch.nn.Module) -> TreeLayout:
        """Return the layout with the prefix computed once and for all."""
        if self.states is not None or not self.encoder.prefix:
            return self
        pack = to_device(
            prefix_pack(self.encoder, window=self.window), next(model.parameters()).device
        )
        states: attention.States = {}
        with torch.inference_mode():
            self._forward(model, pack, logits_to_keep=1, kept=states)
        return replace(self, states=states)

    def log_probs(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return (rows, labels) log-probabilities from one pass over the pack."""
        return _sum_by_label(self._forward(model, batch, logits_to_keep=batch["keep"]), batch)

    def _forward(
        self,
        model: Any,
        batch: Batch,
        *,
        logits_to_keep: Tensor | int,
        kept: attention.States | None = None,
    ) -> Tensor:
        ids = batch["input_ids"]
        return model(
            input_ids=ids,
            position_ids=batch["position_ids"],
            # A 4-D mask is taken as prepared; the tree, not this, says who attends to whom.
            attention_mask=ids.new_zeros(1, 1, 1, 1),
            logits_to_keep=logits_to_keep,
            tree={**batch["tree"], "pass": attention.Pass(states=self.states, kept=kept)},
            use_cache=False,
        ).logits[0]


@dataclass(frozen=True)
class PaddedLayout:
    """Every row and label as a padded sequence of its own."""

    encoder: PromptEncoder
    pad: int
    name: str = "padded"

    def encode(self, row: Row) -> EncodedRow:
        """Return the row's tokens after the prefix."""
        return self.encoder.encode(row)

    def size(self, row: EncodedRow) -> int:
        """Return the tokens of the row's sequences, one for each label."""
        fixed = len(self.encoder.prefix) + max(len(label) for label in self.encoder.labels)
        return len(self.encoder.labels) * (fixed + len(row.ids))

    def freeze(self, model: torch.nn.Module) -> PaddedLayout:  # noqa: ARG002
        """Return the layout itself: its sequences share nothing."""
        return self

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return rows x labels padded sequences."""
        return build_padded(rows, self.encoder, pad=self.pad)

    def log_probs(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return (rows, labels) log-probabilities from one padded pass."""
        logits = model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=batch["keep"],
            use_cache=False,
        ).logits
        return _sum_by_label(logits.flatten(0, 1), batch)


def _sum_by_label(logits: Tensor, batch: Batch) -> Tensor:
    # In parts: float32 logits of a 200,000-token vocabulary are large.
    norms = torch.cat([part.float().logsumexp(1) for part in logits.split(_LOGIT_ROWS)])
    at = batch["predictors"]
    each = logits[at, batch["tokens"]].float() - norms.index_select(0, at)
    sums = each.new_zeros(batch["rows"] * len(LABELS)).index_add(0, batch["segments"], each)
    return sums.view(batch["rows"], len(LABELS))


@dataclass(frozen=True)
class ClassifierLayout:
    """A model with a classification head: the text alone, no prompt.

    Attributes:
        begin: the tokenizer's own tokens before a text.
        end: its tokens after a text.
        pad: what short texts are filled up with.
        pass_cost: what a further forward pass costs, in padding tokens; None: a batch is one pass.
    """

    tokenizer: Any
    max_length: int
    begin: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    pass_cost: int | None = None
    name: str = "classifier"

    def encode(self, row: Row) -> EncodedRow:
        """Return the text between the tokenizer's own begin and end tokens."""
        ids = encode_plain(self.tokenizer, row.text)
        room = self.max_length - len(self.begin) - len(self.end)
        label = None if row.label is None else LABELS.index(row.label)
        return EncodedRow((*self.begin, *ids[:room], *self.end), label, len(ids) > room)

    def size(self, row: EncodedRow) -> int:
        """Return the tokens of the text."""
        return len(row.ids)

    def freeze(self, model: torch.nn.Module) -> ClassifierLayout:  # noqa: ARG002
        """Return the layout itself: its texts share nothing."""
        return self

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return right-padded texts, in parts of similar length, and where each row went."""
        texts = [row.ids for row in rows]
        parts = cut_by_length([len(ids) for ids in texts], pass_cost=self.pass_cost)
        padded = []
        for part in parts:
            ids, mask = pad_sequences([texts[row] for row in part], pad=self.pad, side="right")
            padded.append({"input_ids": ids, "attention_mask": mask})
        back = torch.from_numpy(np.argsort(np.concatenate(parts), kind="stable"))
        return {"parts": padded, "back": back, "gold": gold_labels(rows), "rows": len(rows)}

    def log_probs(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return (rows, labels) log-probabilities of the head."""
        logits = torch.cat([model(**part).logits for part in batch["parts"]])
        return logits[batch["back"]].float().log_softmax(1)


def classifier_layout(
    tokenizer: Any, *, max_length: int, pad: int, pass_cost: int | None = None
) -> ClassifierLayout:
    """Return the layout with the begin and end tokens that the tokenizer puts around a text."""
    text = encode_plain(tokenizer, "a")
    framed = tokenizer("a")["input_ids"]
    first = framed.index(text[0])
    begin, end = framed[:first], framed[first + len(text) :]
    return ClassifierLayout(tokenizer, max_length, tuple(begin), tuple(end), pad, pass_cost)

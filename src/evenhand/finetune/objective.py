"""What training minimises: the choice among labels, the answer, or every token of a chat.

Each objective returns a summed loss and the number of items that it sums over, so that gradient
accumulation and several processes weigh every item alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evenhand.core.errors import DataError, Problem
from evenhand.core.records import HATE, LABELS, NORMAL, Row
from evenhand.finetune.encoding import (
    EncodedRow,
    PromptEncoder,
    chat_template,
    encode_plain,
    prompt_messages,
    render_chat,
)
from evenhand.finetune.layouts import Layout
from evenhand.finetune.packing import Batch, pad_sequences
from evenhand.prompts.template import PromptTemplate

_HATE, _NORMAL = LABELS.index(HATE), LABELS.index(NORMAL)


class Objective(Protocol):
    """Encodes rows, makes batches with their item ``count``, and sums the loss over them."""

    @property
    def name(self) -> str:
        """``label``, ``completion`` or ``full_sequence``."""
        ...

    def encode(self, row: Row) -> EncodedRow:
        """Return the tokens that are trained on."""
        ...

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return a batch; ``count`` is its number of items."""
        ...

    def loss_sum(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return the loss summed over the batch's items."""
        ...


@dataclass(frozen=True)
class LabelObjective:
    """Cross-entropy over the label set: what scoring computes is what is trained. Item: a row.

    A row's weight multiplies its cross-entropy. Where a row has a counterfactual, ``pairing`` times
    the difference of the two logits, without its sign, is added; a logit is log p(hate) - log
    p(normal). Source: Garg et al., *Counterfactual fairness in text classification through
    robustness*, 2019 (counterfactual logit pairing).
    """

    layout: Layout
    pairing: float = 0.0
    name: str = "label"

    def encode(self, row: Row) -> EncodedRow:
        """Return the layout's tokens."""
        return self.layout.encode(row)

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return the layout's batch, counterfactuals behind the rows; each row is an item."""
        pairs = [row.pair for row in rows if row.pair is not None]
        batch = {**self.layout.collate([*rows, *pairs]), "count": len(rows)}
        if any(row.weight != 1.0 for row in rows):
            batch["weights"] = torch.tensor([row.weight for row in rows])
        if pairs:
            batch["paired"] = torch.tensor(
                [place for place, row in enumerate(rows) if row.pair is not None]
            )
        return batch

    def loss_sum(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return the weighted cross-entropy and the differences of pairs, summed over rows."""
        scores, count = self.layout.log_probs(model, batch), batch["count"]
        own, gold = scores[:count], batch["gold"][:count]
        if "weights" in batch:
            loss = (batch["weights"] * cross_entropy(own, gold, reduction="none")).sum()
        else:
            loss = cross_entropy(own, gold, reduction="sum")
        if "paired" in batch:
            logits = scores[:, _HATE] - scores[:, _NORMAL]
            differences = logits[:count].index_select(0, batch["paired"]) - logits[count:]
            loss = loss + self.pairing * differences.abs().sum()
        return loss


@dataclass(frozen=True)
class CompletionObjective:
    """Negative log-likelihood of the gold answer's tokens, the usual way. Item: a token."""

    layout: Layout
    label_lengths: tuple[int, ...]
    name: str = "completion"

    def encode(self, row: Row) -> EncodedRow:
        """Return the layout's tokens."""
        return self.layout.encode(row)

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return the layout's batch; each token of a gold answer is an item."""
        count = sum(self.label_lengths[row.label] for row in rows if row.label is not None)
        return {**self.layout.collate(rows), "count": count}

    def loss_sum(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return the negative log-probability of the gold answers, summed."""
        scores = self.layout.log_probs(model, batch)
        return -scores.gather(1, batch["gold"][:, None]).sum()


@dataclass(frozen=True)
class FullSequenceObjective:
    """Next-token loss over every token of the chat, the reference's way. Item: a token.

    Rows read from chat files are trained on verbatim, with the prompt and the answer format of the
    file; other rows are rendered with the run's prompt. The scoring prompt does not follow.
    """

    tokenizer: Any
    prompt: PromptTemplate
    template: str
    max_length: int
    pad: int
    name: str = "full_sequence"

    def encode(self, row: Row) -> EncodedRow:
        """Return the whole conversation's tokens, cut to ``max_length``."""
        if row.messages is not None:
            turns = [{"role": role, "content": content} for role, content in row.messages]
        else:
            answer = self.prompt.labels[row.label or ""]
            turns = [
                *prompt_messages(self.prompt, row.text),
                {"role": "assistant", "content": answer},
            ]
        ids = self._encode_turns(turns)
        return EncodedRow(tuple(ids[: self.max_length]), 0, len(ids) > self.max_length)

    def _encode_turns(self, turns: Sequence[dict[str, str]]) -> list[int]:
        # Contents are put in by marks, so that special-token strings in them stay plain text.
        marks = [f"\ue000{number}\ue001" for number in range(len(turns))]
        marked = [{**turn, "content": mark} for turn, mark in zip(turns, marks, strict=True)]
        rest = render_chat(self.tokenizer, marked, self.template, ask=False)
        ids: list[int] = []
        for turn, mark in zip(turns, marks, strict=True):
            head, found, rest = rest.partition(mark)
            ids += self.tokenizer.encode(head, add_special_tokens=False)
            if not found:
                raise DataError(
                    "the chat template",
                    [Problem(turn["role"], "this turn is left out by the model's chat template")],
                )
            ids += encode_plain(self.tokenizer, turn["content"])
        return ids + self.tokenizer.encode(rest, add_special_tokens=False)

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Return right-padded conversations; each token but a row's first is an item."""
        ids, mask = pad_sequences([row.ids for row in rows], pad=self.pad, side="right")
        count = sum(len(row.ids) - 1 for row in rows)
        return {"input_ids": ids, "attention_mask": mask, "count": count, "rows": len(rows)}

    def loss_sum(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Return the next-token loss, summed over tokens."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        return cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )


def build_objective(
    name: str,
    *,
    layout: Layout,
    prompt: PromptTemplate,
    encoder: PromptEncoder | None,
    model_type: str,
    pairing: float | None = None,
) -> Objective:
    """Return the objective of that name (``label``, ``completion`` or ``full_sequence``).

    ``encoder`` is the causal LM's; a classifier has none, and only the ``label`` objective.
    ``pairing`` weighs the counterfactuals of the ``label`` objective.
    """
    if name == "label" or encoder is None:
        return LabelObjective(layout, pairing or 0.0)
    if name == "completion":
        return CompletionObjective(layout, tuple(len(ids) for ids in encoder.labels))
    return FullSequenceObjective(
        tokenizer=encoder.tokenizer,
        prompt=prompt,
        template=chat_template(encoder.tokenizer, model_type),
        max_length=encoder.max_length,
        pad=0,  # never seen: masked
    )

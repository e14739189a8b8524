"""Packs and padded batches: the tensors of one forward pass over several rows.

Both carry the same targets, so that the two layouts compute the same label log-probabilities:
``predictors`` (where a label token is predicted), ``tokens`` (which one) and ``segments`` (row x
label that it belongs to).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from evenhand.finetune.encoding import EncodedRow, PromptEncoder

Batch = dict[str, Any]


def build_pack(rows: Sequence[EncodedRow], encoder: PromptEncoder) -> Batch:
    """Lay out prefix > row > label branch as one sequence.

    Each row's tokens follow the prefix, each label's tokens but the last follow their row (the last
    is only predicted). Positions restart after the prefix. Returns ``input_ids`` and
    ``position_ids`` (1, T); ``tree`` with ``places`` (rows, longest) into the sequence, ``back``
    (T - prefix,) from the side-by-side rows to the sequence, ``allowed`` (rows, 1, longest, prefix
    + longest); ``keep``, the K places whose logits are needed; and the targets.
    """
    prefix = len(encoder.prefix)
    ids, positions = list(encoder.prefix), list(range(prefix))
    keep: list[int] = []
    predictors: list[int] = []
    tokens: list[int] = []
    branches: list[list[int]] = []
    for row in rows:
        size = len(row.ids)
        last = len(ids) + size - 1
        ids += row.ids
        positions += range(prefix, prefix + size)
        branch = [0] * size
        keep.append(last)
        row_last = len(keep) - 1
        for number, label in enumerate(encoder.labels, start=1):
            start = len(ids)
            inside = len(label) - 1
            predictors += [row_last, *range(len(keep), len(keep) + inside)]
            tokens += label
            keep += range(start, start + inside)
            ids += label[:-1]
            positions += range(prefix + size, prefix + size + inside)
            branch += [number] * inside
        branches.append(branch)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "tree": _tree(branches, prefix),
        "keep": torch.tensor(keep),
        "predictors": torch.tensor(predictors),
        "tokens": torch.tensor(tokens),
        **_common(rows, encoder),
    }


def _tree(branches: Sequence[Sequence[int]], prefix: int) -> dict[str, Tensor]:
    longest = max(len(branch) for branch in branches)
    count = len(branches)
    places = torch.full((count, longest), prefix)
    allowed = torch.zeros(count, 1, longest, prefix + longest, dtype=torch.bool)
    allowed[..., :prefix] = True
    earlier = torch.ones(longest, longest, dtype=torch.bool).tril()
    back, start = [], prefix
    for number, branch in enumerate(branches):
        size = len(branch)
        node = torch.tensor(branch)
        related = (node[None, :] == 0) | (node[None, :] == node[:, None])
        allowed[number, 0, :size, prefix : prefix + size] = related & earlier[:size, :size]
        places[number, :size] = torch.arange(start, start + size)
        back.append(torch.arange(number * longest, number * longest + size))
        start += size
    return {"places": places, "back": torch.cat(back), "allowed": allowed}


def pad_sequences(
    sequences: Sequence[Sequence[int]], *, pad: int, side: Literal["left", "right"]
) -> tuple[Tensor, Tensor]:
    """Fill sequences up to the longest; return ids and attention mask, both (n, longest)."""
    longest = max(len(one) for one in sequences)
    ids = torch.full((len(sequences), longest), pad)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for number, one in enumerate(sequences):
        start = longest - len(one) if side == "left" else 0
        ids[number, start : start + len(one)] = torch.tensor(one)
        mask[number, start : start + len(one)] = 1
    return ids, mask


def build_padded(rows: Sequence[EncodedRow], encoder: PromptEncoder, *, pad: int) -> Batch:
    """Lay out every row and label as a sequence of its own, padded on the left.

    The plain way: the reference of the tests, and the way for models without a tree layout. Labels
    end at the right edge, so only the last ``keep`` logits are computed. Positions are explicit,
    since padding on the left would shift them.
    """
    sequences = [(*encoder.prefix, *row.ids, *label) for row in rows for label in encoder.labels]
    ids, mask = pad_sequences(sequences, pad=pad, side="left")
    keep = max(len(label) for label in encoder.labels) + 1
    predictors, tokens = [], []
    for number in range(len(sequences)):
        label = encoder.labels[number % len(encoder.labels)]
        first = number * keep + keep - len(label) - 1
        predictors += range(first, first + len(label))
        tokens += label
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "keep": keep,
        "predictors": torch.tensor(predictors),
        "tokens": torch.tensor(tokens),
        **_common(rows, encoder),
    }


def _common(rows: Sequence[EncodedRow], encoder: PromptEncoder) -> Batch:
    lengths = torch.tensor([len(label) for label in encoder.labels])
    count = len(rows) * len(encoder.labels)
    segments = torch.arange(count).repeat_interleave(lengths.repeat(len(rows)))
    return {"segments": segments, "gold": gold_labels(rows), "rows": len(rows)}


def gold_labels(rows: Sequence[EncodedRow]) -> Tensor:
    """Return the gold label index of each row, -100 where it has none."""
    return torch.tensor([-100 if row.label is None else row.label for row in rows])

"""Packs and padded batches: the tensors of one forward pass over several rows.

Both carry the same targets, so that the two layouts compute the same label log-probabilities:
``predictors`` (where a label token is predicted), ``tokens`` (which one) and ``segments`` (row x
label that it belongs to).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from evenhand.finetune.encoding import EncodedRow, PromptEncoder

Batch = dict[str, Any]

_SLOT_LENGTHS = (1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# Copying one prefix token's key and value into a slot, in comparisons of one query with one key.
_COPY_COST = 8


def build_pack(
    rows: Sequence[EncodedRow],
    encoder: PromptEncoder,
    *,
    with_prefix: bool = True,
    window: int | None = None,
) -> Batch:
    """Lay out prefix > row > label branch as one sequence.

    Each row's tokens follow the prefix, each label's tokens but the last follow their row (the last
    is only predicted). Positions restart after the prefix. ``with_prefix=False`` leaves out the
    prefix's own tokens, whose keys and values are then known; ``window`` is the reach of sliding
    attention in tokens. Returns ``input_ids`` and ``position_ids`` (1, T); ``tree`` (see
    :func:`arrange`); ``keep``, the K places whose logits are needed; and the targets.
    """
    prefix = len(encoder.prefix)
    ids, positions = list(encoder.prefix), list(range(prefix))
    if not with_prefix:
        ids, positions = [], []
    begin = len(ids)
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
        "tree": arrange(branches, positions[begin:], prefix=prefix, begin=begin, window=window),
        "keep": torch.tensor(keep),
        "predictors": torch.tensor(predictors),
        "tokens": torch.tensor(tokens),
        **_common(rows, encoder),
    }


def prefix_pack(encoder: PromptEncoder, *, window: int | None = None) -> Batch:
    """Lay out the prefix alone, to learn its keys and values."""
    prefix = len(encoder.prefix)
    return {
        "input_ids": torch.tensor([encoder.prefix]),
        "position_ids": torch.arange(prefix)[None],
        "tree": arrange([], [], prefix=prefix, begin=prefix, window=window),
    }


def arrange(
    branches: Sequence[Sequence[int]],
    positions: Sequence[int],
    *,
    prefix: int,
    begin: int,
    window: int | None,
) -> dict[str, Tensor]:
    """Lay rows side by side in slots, and say what may be attended to.

    ``branches`` has each row's tokens: 0 for the row's own, else the number of their label;
    ``positions`` those of all rows' tokens, which start at ``begin`` in the sequence. Returns
    ``places`` (slots, length) into the sequence; ``back`` (T - begin,) from the slots to the
    sequence; ``prefix_allowed`` (1, prefix, prefix) and ``rows_allowed`` (slots, length, prefix +
    length); with a ``window`` also ``prefix_near`` and ``rows_near``, the same within its reach.
    """
    sizes = [len(branch) for branch in branches]
    starts = np.cumsum([0, *sizes])
    slots = fill_slots(sizes, prefix=prefix)
    length = max((sum(sizes[row] for row in slot) for slot in slots), default=0)
    shape = (len(slots), length)
    places = np.full(shape, begin)
    row_of, branch_of, at = np.full(shape, -1), np.zeros(shape, int), np.zeros(shape, int)
    back = np.zeros(int(starts[-1]), int)
    for number, slot in enumerate(slots):
        free = 0
        for row in slot:
            first, end, size = starts[row], starts[row + 1], sizes[row]
            here = slice(free, free + size)
            places[number, here] = np.arange(begin + first, begin + end)
            row_of[number, here] = row
            branch_of[number, here] = branches[row]
            at[number, here] = positions[first:end]
            back[first:end] = number * length + np.arange(free, free + size)
            free += size
    before = np.arange(prefix)
    key_row, key_branch = row_of[:, None, :], branch_of[:, None, :]
    own = row_of[:, :, None] == key_row
    own &= (key_branch == 0) | (key_branch == branch_of[:, :, None])
    own &= np.tri(length, dtype=bool)
    whole = np.concatenate([np.ones((*shape, prefix), bool), own], axis=2)
    allowed = {"prefix_allowed": np.tri(prefix, dtype=bool)[None], "rows_allowed": whole}
    if window is not None:
        keys = np.concatenate([np.broadcast_to(before, (len(slots), prefix)), at], axis=1)
        near = at[:, :, None] - keys[:, None, :] < window
        allowed["rows_near"] = whole & near
        allowed["prefix_near"] = allowed["prefix_allowed"] & (before[:, None] - before < window)
    found = {"places": places, "back": back, **allowed}
    return {name: torch.from_numpy(array) for name, array in found.items()}


def fill_slots(sizes: Sequence[int], *, prefix: int) -> list[list[int]]:
    """Share rows out among slots of one length, so that attention costs least.

    Every slot of length L repeats the prefix's keys and values, and compares L queries with prefix
    + L keys: one slot is the whole sequence under a dense mask, a slot for each row pads all rows
    to the longest. Lengths in between are tried, filled by best-fit decreasing. Returns the rows of
    each slot.
    """
    if not sizes:
        return []
    longest, total = max(sizes), sum(sizes)
    lengths = sorted({min(total, int(longest * factor)) for factor in _SLOT_LENGTHS})
    order = sorted(range(len(sizes)), key=lambda row: -sizes[row])
    return min((_fill(order, sizes, length) for length in lengths), key=_cost(sizes, prefix))


def _fill(order: Sequence[int], sizes: Sequence[int], length: int) -> list[list[int]]:
    slots: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is free in each slot, in ascending order
    for row in order:
        place = bisect.bisect_left(room, (sizes[row], -1))
        if place == len(room):
            slots.append([row])
            bisect.insort(room, (length - sizes[row], len(slots) - 1))
        else:
            free, slot = room.pop(place)
            slots[slot].append(row)
            bisect.insort(room, (free - sizes[row], slot))
    return slots


def _cost(sizes: Sequence[int], prefix: int) -> Callable[[list[list[int]]], float]:
    def cost(slots: list[list[int]]) -> float:
        length = max(sum(sizes[row] for row in slot) for slot in slots)
        return len(slots) * (length * (prefix + length) + _COPY_COST * prefix)

    return cost


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


def cut_by_length(lengths: Sequence[int], *, pass_cost: int | None) -> list[list[int]]:
    """Cut a batch into parts of similar length, each padded to its own longest row.

    A further part costs as much as ``pass_cost`` tokens of padding: the parts are those that cost
    least in all. Returns the rows of each part, the longest first; with None, one part in the order
    given.

    >>> cut_by_length([4, 60, 5, 64], pass_cost=20)
    [[3, 1], [2, 0]]
    """
    if pass_cost is None or not lengths:
        return [list(range(len(lengths)))]
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    least = [0.0]  # cost of the first so many rows of the order, and where their last part begins
    begin = [0]
    for end in range(1, len(order) + 1):
        costs = [
            least[start] + lengths[order[start]] * (end - start) + pass_cost for start in range(end)
        ]
        least.append(min(costs))
        begin.append(costs.index(least[-1]))
    parts: list[list[int]] = []
    end = len(order)
    while end:
        parts.insert(0, order[begin[end] : end])
        end = begin[end]
    return parts


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


def to_device(value: Any, device: torch.device) -> Any:
    """Move every tensor of a batch to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [to_device(item, device) for item in value]
    return value

"""Attention over a shared-prefix pack: prefix > row > label branch.

A pack is one sequence ``[prefix | row 1 | row 2 | ...]``. Every linear layer sees its tokens once
and unpadded; only attention needs the tree, and computes it in exact pieces: the prefix attends to
itself, and the rows, laid side by side in slots, attend to the prefix and to themselves. Sliding
windows are a second mask; an attention sink is one more key of weight ``exp(sink)`` whose value is
zero. The pieces are PyTorch's scaled dot-product attention, so that every device's own kernels and
gradients serve.

Registered with transformers as the attention implementation ``evenhand_tree``; a call without a
tree (generation, the padded layout) is ordinary attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "evenhand_tree"

States = dict[int, tuple[Tensor, Tensor]]
"""Of each layer, a prefix's keys and values, both (1, key-value heads, prefix, width)."""


class Pass:
    """What the layers share in one pass over a pack.

    Attributes:
        masks: the additive masks that were made so far, by name.
        states: keys and values of a prefix that the pack leaves out; else None.
        kept: keys and values of the pack's own prefix, where they are wanted; else None.
    """

    # Neither a dict nor a dataclass: FSDP2 copies those on their way into the model.
    def __init__(self, *, states: States | None = None, kept: States | None = None) -> None:
        self.masks: dict[str, Tensor] = {}
        self.states = states
        self.kept = kept


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree: dict[str, Any] | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend within a tree pack.

    ``query`` is (1, heads, tokens, width), ``key`` and ``value`` (1, key-value heads, tokens,
    width); ``tree`` is made by :func:`evenhand.finetune.packing.arrange`, with a new :class:`Pass`
    under ``pass``; ``s_aux`` are the sinks (heads,). Returns (1, tokens, heads, width) and None, as
    transformers expects.
    """
    if tree is None:
        if s_aux is None:
            return sdpa_attention_forward(
                module,
                query,
                key,
                value,
                attention_mask,
                dropout=dropout,
                scaling=scaling,
                **others,
            )
        mask = _ordinary_mask(attention_mask, query, key)
        found = _attend(query, key, value, mask, sinks=s_aux, scaling=scaling, dropout=dropout)
        return found.transpose(1, 2), None
    reach = "allowed" if sliding_window is None else "near"
    places, back = tree["places"], tree["back"]
    prefix = query.shape[2] - back.shape[0]
    settings: dict[str, Any] = {"sinks": s_aux, "scaling": scaling, "dropout": dropout}
    parts = []
    one: Pass = tree["pass"]
    if one.states is None:
        shared = (key[:, :, :prefix], value[:, :, :prefix])
    else:
        shared = one.states[module.layer_idx]
    if prefix:
        mask = _mask(tree, f"prefix_{reach}", query, key)
        first = _attend(query[:, :, :prefix], *shared, mask, **settings)
        parts.append(first[0].transpose(0, 1))
        if one.kept is not None:
            one.kept[module.layer_idx] = shared
    if len(places):
        slots, longest = places.shape
        flat = places.reshape(-1)

        def side_by_side(x: Tensor) -> Tensor:
            """(1, heads, tokens, width) -> (slots, heads, longest, width)."""
            return x[0].index_select(1, flat).unflatten(1, (slots, longest)).transpose(0, 1)

        keys, values = (
            torch.cat([before.expand(slots, -1, -1, -1), side_by_side(own)], dim=2)
            for before, own in zip(shared, (key, value), strict=True)
        )
        mask = _mask(tree, f"rows_{reach}", query, key)
        inside = _attend(side_by_side(query), keys, values, mask, **settings)
        parts.append(inside.transpose(1, 2).flatten(0, 1).index_select(0, back))
    return torch.cat(parts)[None], None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    sinks: Tensor | None,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Return attention of (n, heads, q, width) queries to (n, key-value heads, k, width) keys.

    ``mask`` is additive, (n, 1, groups x q, k). The heads that share a key are folded into its
    queries, so that keys and values are never repeated.
    """
    count, heads, length, width = query.shape
    shared = key.shape[1]
    if sinks is not None:
        key, value = pad(key, (0, 0, 0, 1)), pad(value, (0, 0, 0, 1))
        column = sinks.to(mask.dtype).view(1, shared, -1, 1, 1)
        column = column.expand(len(mask), -1, -1, length, -1).flatten(2, 3)
        mask = torch.cat([mask.expand(-1, shared, -1, -1), column], dim=3)
    found = scaled_dot_product_attention(
        query.reshape(count, shared, -1, width),
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scaling,
    )
    return found.reshape(count, heads, length, width)


def _mask(tree: dict[str, Any], name: str, query: Tensor, key: Tensor) -> Tensor:
    """What a pack allows as a mask in the number format of the computation, made once a pass."""
    made: dict[str, Tensor] = tree["pass"].masks
    if name not in made:
        made[name] = additive(tree[name], groups=query.shape[1] // key.shape[1], dtype=query.dtype)
    return made[name]


def additive(allowed: Tensor, *, groups: int, dtype: torch.dtype) -> Tensor:
    """Turn what may be attended to, (n, q, k) bool, into a mask (n, 1, groups x q, k) to add."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    mask = mask.masked_fill_(~allowed, torch.finfo(dtype).min)
    return mask[:, None].repeat(1, 1, groups, 1)


def _ordinary_mask(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """What transformers says about an ordinary call, as an additive mask; None means causal."""
    length, seen = query.shape[2], key.shape[2]
    if mask is None:
        allowed = torch.ones(1, length, seen, dtype=torch.bool, device=query.device)
        allowed = allowed.tril(seen - length)
    else:
        allowed = mask[:, 0]
    return additive(allowed, groups=query.shape[1] // key.shape[1], dtype=query.dtype)


def register() -> None:
    """Make the implementation known to transformers under :data:`NAME`."""
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)

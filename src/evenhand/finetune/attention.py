"""Attention over a shared-prefix pack: prefix > row > label branch, without a dense mask.

A pack is one sequence ``[prefix | row 1 | row 2 | ...]``. Every linear layer sees its tokens once
and unpadded; only attention needs the tree, and computes it in two exact pieces: the prefix attends
causally to itself, and the rows, gathered side by side, attend to the prefix and to themselves. The
cost grows with rows x (prefix + row), not with the square of the pack's length.

Registered with transformers as the attention implementation ``evenhand_tree``; a call without a
tree (generation, the padded path) is ordinary scaled dot-product attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "evenhand_tree"


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree: dict[str, Any] | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend within a tree pack.

    ``query`` is (1, heads, tokens, width), ``key`` and ``value`` (1, key-value heads, tokens,
    width); ``tree`` is made by :func:`evenhand.finetune.packing.build_pack`. Returns
    (1, tokens, heads, width) and None, as transformers expects.
    """
    if tree is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    places, back, allowed = tree["places"], tree["back"], tree["allowed"]
    rows, longest = places.shape
    prefix = query.shape[2] - back.shape[0]
    flat = places.reshape(-1)

    def side_by_side(x: Tensor) -> Tensor:
        """(1, heads, tokens, width) -> (rows, heads, longest, width)."""
        return x[0].index_select(1, flat).unflatten(1, (rows, longest)).transpose(0, 1)

    def with_prefix(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :prefix].expand(rows, -1, -1, -1), side_by_side(x)], dim=2)

    in_prefix = scaled_dot_product_attention(
        query[:, :, :prefix],
        key[:, :, :prefix],
        value[:, :, :prefix],
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=True,
    )
    in_rows = scaled_dot_product_attention(
        side_by_side(query),
        with_prefix(key),
        with_prefix(value),
        attn_mask=allowed,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=True,
    )
    in_rows = in_rows.transpose(1, 2).flatten(0, 1).index_select(0, back)
    return torch.cat([in_prefix[0].transpose(0, 1), in_rows])[None], None


def register() -> None:
    """Make the implementation known to transformers under :data:`NAME`."""
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)

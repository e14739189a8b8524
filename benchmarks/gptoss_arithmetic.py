"""How long the rows are, and how much arithmetic a step of gpt-oss asks for.

Lengths are in tokens of o200k, the tokenizer family of gpt-oss, and were counted on the
reference's 2,686 fine-tuning rows and on our rendering of its prompt ``baseline_standard`` with the
harmony template. Only these counts are kept here, no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Lengths:
    """Token counts of a data set and of the prompts around it.

    Attributes:
        prefix: tokens before the post, the same for every row.
        tail: tokens between the post and the answer.
        labels: tokens of each label string, end of turn included.
        text: (fraction, tokens) points of the posts' distribution.
        chat: tokens that the reference's training conversation has beside the post.
        padded: what the reference fills every row up to.
    """

    prefix: int
    tail: int
    labels: tuple[int, ...]
    text: tuple[tuple[float, float], ...]
    chat: int
    padded: int

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Return post lengths; each fraction of the distribution is drawn from equally often."""
        fractions, tokens = zip(*self.text, strict=True)
        places = (rng.permutation(count) + 0.5) / count
        return [max(1, round(one)) for one in np.interp(places, fractions, tokens)]

    def mean_text(self) -> float:
        """Mean tokens of a post."""
        fractions, tokens = (np.array(one) for one in zip(*self.text, strict=True))
        return float(np.sum(np.diff(fractions) * (tokens[1:] + tokens[:-1]) / 2))


_DECILES = (1, 6, 8, 9, 11, 12, 14, 15, 17, 19, 21, 24, 26, 27, 28, 30, 30, 34, 42, 51)
REAL = Lengths(
    prefix=231,
    tail=29,
    labels=(2, 2),
    text=(
        *((number / 20, tokens) for number, tokens in enumerate(_DECILES)),
        (0.97, 55),
        (0.99, 60),
        (0.995, 65),
        (1.0, 287),
    ),
    chat=161,
    padded=512,
)
TOY = Lengths(
    prefix=24, tail=4, labels=(2, 3), text=((0.0, 1), (0.5, 5), (1.0, 16)), chat=20, padded=64
)


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of a step, two for a multiply and add.

    Attributes:
        linear: the frozen layers and experts that the tokens pass through.
        adapter: the adapter's two matrices.
        attention: comparing with keys and adding up values.
        logits: the output layer, at the places where it is computed.
    """

    linear: float
    adapter: float
    attention: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.linear + self.adapter + self.attention + self.logits


def active_parameters(settings: Any) -> int:
    """Weights that one token passes through: every layer with its chosen experts, one output."""
    return _linear(settings) // 2 * settings.num_hidden_layers + (
        settings.hidden_size * settings.vocab_size
    )


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: its rank, and the projections of the attention that carry it."""

    rank: int
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Passes:
    """How often a step goes through the layers, forward and backward."""

    forward: int
    backward: int


def tree_work(
    settings: Any, lengths: Lengths, texts: Sequence[int], adapter: Adapter, *, again: bool = False
) -> Work:
    """What training on one pack needs: the prefix once, each row once, the labels' logits.

    ``again``: activations are not kept, so that each layer's forward pass runs twice.
    """
    seen = np.concatenate([np.arange(lengths.prefix) + 1, *_rows_seen(lengths, texts)])
    kept = len(texts) * _kept(lengths)
    return _work(settings, seen, kept, adapter, Passes(2 if again else 1, 1))


def scoring_work(settings: Any, lengths: Lengths, texts: Sequence[int], adapter: Adapter) -> Work:
    """What scoring rows needs: the prefix once, each row once, forward alone."""
    seen = np.concatenate([np.arange(lengths.prefix) + 1, *_rows_seen(lengths, texts)])
    return _work(settings, seen, len(texts) * _kept(lengths), adapter, Passes(1, 0))


def padded_work(settings: Any, *, rows: int, length: int, adapter: Adapter) -> Work:
    """What the reference's recipe spends: every token, all logits, each layer's forward twice.

    Eager attention compares every token with every other and hides half of it afterwards.
    """
    seen = np.full(rows * length, length)
    return _work(settings, seen, rows * length, adapter, Passes(2, 1), is_windowed=False)


def _rows_seen(lengths: Lengths, texts: Sequence[int]) -> list[np.ndarray]:
    """How many tokens each token of the rows sees, itself included, in full attention."""
    found = []
    for text in texts:
        own = text + lengths.tail
        found.append(lengths.prefix + np.arange(own) + 1)
        found += [lengths.prefix + own + np.arange(label - 1) + 1 for label in lengths.labels]
    return found


def _kept(lengths: Lengths) -> int:
    """Places of a row where logits are computed: its end, and inside the labels."""
    return 1 + sum(label - 1 for label in lengths.labels)


def _work(
    settings: Any,
    seen: np.ndarray,
    kept: int,
    adapter: Adapter,
    passes: Passes,
    *,
    is_windowed: bool = True,
) -> Work:
    tokens, layers = len(seen), settings.num_hidden_layers
    shapes = _shapes(settings)
    forward = layers * _linear(settings)
    # The first layer's queries, keys and values come from embeddings, which take no gradient;
    # where activations are computed again, transformers asks for it all the same.
    spared = passes.backward if passes.forward == 1 else 0
    unneeded = sum(2 * one * other for name, (one, other) in shapes.items() if name != "o_proj")
    into = {name: 2 * adapter.rank * shapes[name][0] for name in adapter.modules}
    out = {name: 2 * adapter.rank * shapes[name][1] for name in adapter.modules}
    free = sum(cost for name, cost in into.items() if name != "o_proj")
    both = layers * (sum(into.values()) + sum(out.values()))
    pair = 4 * settings.num_attention_heads * settings.head_dim
    output = 2 * settings.hidden_size * settings.vocab_size
    there, back = passes.forward, passes.backward
    return Work(
        linear=tokens * ((there + back) * forward - spared * unneeded),
        adapter=tokens * ((there + 2 * back) * both - spared * free),
        attention=_pairs(settings, seen, is_windowed=is_windowed) * pair * (there + 2 * back),
        logits=kept * output * (1 + back),
    )


def _shapes(settings: Any) -> dict[str, tuple[int, int]]:
    queries = settings.num_attention_heads * settings.head_dim
    keys = settings.num_key_value_heads * settings.head_dim
    hidden = settings.hidden_size
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
    }


def _linear(settings: Any) -> int:
    """One token through one layer's matrices, forward."""
    hidden = settings.hidden_size
    attention = sum(one * other for one, other in _shapes(settings).values())
    experts = settings.num_experts_per_tok * 3 * hidden * settings.intermediate_size
    return 2 * (attention + experts + hidden * settings.num_local_experts)


def _pairs(settings: Any, seen: np.ndarray, *, is_windowed: bool) -> float:
    """Query and key pairs over all layers, where a query sees so many keys, or its window."""
    far = int(seen.sum())
    near = int(np.minimum(seen, settings.sliding_window).sum()) if is_windowed else far
    return sum(near if kind == "sliding_attention" else far for kind in settings.layer_types)

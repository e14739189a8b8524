"""How long the sequences of a training are, in tokens of its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import AutoTokenizer

from evenhand.config.schema import PhaseConfig
from evenhand.core.paths import sha256_json
from evenhand.core.records import Row
from evenhand.finetune.encoding import PromptEncoder, build_encoder, chat_template
from evenhand.finetune.folders import locate
from evenhand.finetune.layouts import TREE_MODELS, PaddedLayout, TreeLayout, classifier_layout
from evenhand.finetune.objective import build_objective
from evenhand.finetune.treatment import encode_treated, treat_rows
from evenhand.prompts.template import PromptTemplate

_EPOCHS_TRIED = 3


@dataclass(frozen=True, slots=True)
class SequenceFacts:
    """The tokens of a phase's rows and of what is put around them.

    Attributes:
        layout: ``tree``, ``padded``, ``classifier``, or ``chat`` for whole conversations.
        prefix: tokens before the post, which all rows share; 0 where nothing is shared.
        tail: tokens between the post and the answer.
        labels: tokens of each label string.
        rows: tokens of each row's own sequence: the post and the tail, or the conversation.
        pairs: those of each row's counterfactual, 0 where it has none; empty without pairing.
        truncated: rows that were cut to ``max_length``.
        max_length: longest sequence that the configuration allows.
        template_sha256: hash of the chat template around the prompt; None without one.
    """

    layout: str
    prefix: int
    tail: int
    labels: tuple[int, ...]
    rows: tuple[int, ...]
    truncated: int
    max_length: int
    template_sha256: str | None = None
    pairs: tuple[int, ...] = ()

    @property
    def truncated_share(self) -> float:
        """Cut rows over all rows."""
        return self.truncated / len(self.rows)


def measure_lengths(
    config: PhaseConfig, prompt: PromptTemplate, rows: Sequence[Row], *, model_type: str
) -> SequenceFacts:
    """Tokenise rows as training will.

    Raises:
        ConfigError: the prompt leaves no room for a post.
        ModelError: the tokenizer cannot carry the prompt.
        OSError, ValueError: there is no tokenizer; it is looked for on this machine only.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        locate(config.model_name_or_path),
        cache_dir=config.cache_dir,
        trust_remote_code=False,
        local_files_only=True,
    )
    encoder: PromptEncoder | None = None
    length = config.max_seq_length
    if config.task == "sequence_classification":
        length = min(length, tokenizer.model_max_length)
        layout = classifier_layout(tokenizer, max_length=length, pad=0)
    else:
        encoder = build_encoder(tokenizer, prompt, max_length=length, model_type=model_type)
        layout = TreeLayout(encoder) if model_type in TREE_MODELS else PaddedLayout(encoder, pad=0)
    objective = build_objective(
        config.objective, layout=layout, prompt=prompt, encoder=encoder, model_type=model_type
    )
    encoded = encode_treated(treat_rows(rows, config), objective)
    is_chat = objective.name == "full_sequence"
    return SequenceFacts(
        layout="chat" if is_chat else layout.name,
        prefix=0 if encoder is None else len(encoder.prefix),
        tail=0 if encoder is None else len(encoder.tail),
        labels=() if encoder is None else tuple(len(ids) for ids in encoder.labels),
        rows=tuple(len(row.ids) for row in encoded),
        truncated=sum(row.is_truncated for row in encoded),
        max_length=length,
        template_sha256=None
        if encoder is None
        else sha256_json(chat_template(tokenizer, model_type)),
        pairs=()
        if config.counterfactual_pairing is None
        else tuple(0 if row.pair is None else len(row.pair.ids) for row in encoded),
    )


@dataclass(frozen=True, slots=True)
class StepShape:
    """The sizes of one forward pass.

    Attributes:
        rows: rows of the batch, their counterfactuals included.
        tokens: tokens that the linear layers see.
        queries: places that attention computes, padding included.
        keys: places of the keys and values that attention reads, repeated prefixes included.
        cells: query-key pairs of one head.
        logits: places at which the vocabulary's logits are computed.
        predicted: label tokens, or next tokens, whose log-probability is taken.
    """

    rows: int
    tokens: int
    queries: int
    keys: int
    cells: int
    logits: int
    predicted: int


NO_STEP = StepShape(0, 0, 0, 0, 0, 0, 0)
"""Nothing is computed: what is held between two steps."""


def step_shape(facts: SequenceFacts, lengths: Sequence[int]) -> StepShape:
    """Return the sizes of a batch of rows of these lengths in the phase's layout."""
    count, longest = len(lengths), max(lengths)
    if facts.layout in ("chat", "classifier"):
        tokens = count * longest
        cells = tokens * longest
        logits = tokens if facts.layout == "chat" else 0
        return StepShape(count, tokens, tokens, tokens, cells, logits, logits)
    inside = sum(size - 1 for size in facts.labels)
    predicted = count * sum(facts.labels)
    if facts.layout == "tree":
        slot = longest + inside
        tokens = facts.prefix + sum(lengths) + count * inside
        queries = facts.prefix + count * slot
        keys = facts.prefix + count * (facts.prefix + slot)
        cells = facts.prefix**2 + count * slot * (facts.prefix + slot)
        return StepShape(count, tokens, queries, keys, cells, count * (1 + inside), predicted)
    sequences = count * len(facts.labels)
    length = facts.prefix + longest + max(facts.labels)
    tokens = sequences * length
    logits = sequences * (max(facts.labels) + 1)
    return StepShape(count, tokens, tokens, tokens, tokens * length, logits, predicted)


def largest_step(facts: SequenceFacts, *, batch_rows: int, rng: np.random.Generator) -> StepShape:
    """Return the largest batch, by its tokens, of a few epochs in random order."""
    lengths, pairs = np.array(facts.rows), np.array(facts.pairs, dtype=int)
    shapes = []
    for _ in range(_EPOCHS_TRIED):
        order = rng.permutation(len(lengths))
        for start in range(0, len(order), batch_rows):
            batch = order[start : start + batch_rows]
            paired = pairs[batch] if len(pairs) else pairs
            sizes = [*lengths[batch].tolist(), *paired[paired > 0].tolist()]
            shapes.append(step_shape(facts, sizes))
    return max(shapes, key=lambda shape: (shape.tokens, shape.cells))

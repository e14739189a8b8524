"""The alternative to scoring: let the model write an answer and read it strictly."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from evenhand.core.progress import progress
from evenhand.finetune.encoding import EncodedRow, PromptEncoder
from evenhand.finetune.packing import pad_sequences
from evenhand.finetune.processes import World
from evenhand.prompts.template import PromptTemplate

_DEFAULT_MAX_TOKENS = 64


def generate_answers(
    model: Any,
    encoder: PromptEncoder,
    rows: Sequence[EncodedRow],
    prompt: PromptTemplate,
    *,
    batch_rows: int,
    seed: int,
    world: World,
) -> list[str]:
    """Return each row's answer as text up to its end of turn, special tokens included.

    The prompt's parameters are used: ``max_tokens``, and ``temperature`` and ``top_p`` where the
    temperature is above 0; at 0 the answer is greedy.
    """
    settings = prompt.parameters
    temperature = float(settings.get("temperature", 0.0))
    options = {"max_new_tokens": int(settings.get("max_tokens", _DEFAULT_MAX_TOKENS))}
    options |= (
        {
            "do_sample": True,
            "temperature": temperature,
            "top_p": float(settings.get("top_p", 1.0)),
            "top_k": 0,
        }
        if temperature > 0
        else {"do_sample": False}
    )
    tokenizer = encoder.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ends = sorted({ids[-1] for ids in encoder.labels} | ({tokenizer.eos_token_id} - {None}))
    device = next(model.parameters()).device
    starts = range(0, len(rows), batch_rows)
    own: dict[int, str] = {}
    torch.manual_seed(seed + world.rank)
    model.eval()
    with torch.inference_mode(), progress(len(rows), label="generate") as advance:
        for number, start in enumerate(starts):
            batch = rows[start : start + batch_rows]
            if number % world.size == world.rank:
                sequences = [(*encoder.prefix, *row.ids) for row in batch]
                ids, mask = pad_sequences(sequences, pad=pad, side="left")
                written = model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    eos_token_id=ends,
                    pad_token_id=pad,
                    **options,
                )
                for place, tokens in enumerate(written[:, ids.shape[1] :].tolist()):
                    own[start + place] = tokenizer.decode(_before_end(tokens, ends))
            advance(len(batch))
    merged = {place: text for share in world.gather(own) for place, text in share.items()}
    return [merged[place] for place in range(len(rows))]


def _before_end(tokens: Sequence[int], ends: Collection[int]) -> list[int]:
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])

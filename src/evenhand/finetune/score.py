"""Scoring: p(hate) from the log-probabilities of the complete label strings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from evenhand.core.errors import TrainingError
from evenhand.core.progress import Advance, progress
from evenhand.core.records import HATE, LABELS
from evenhand.finetune.encoding import EncodedRow
from evenhand.finetune.layouts import Layout
from evenhand.finetune.packing import to_device
from evenhand.finetune.processes import World


def label_log_probs(
    model: torch.nn.Module,
    layout: Layout,
    rows: Sequence[EncodedRow],
    *,
    batch_tokens: int,
    world: World,
    label: str = "score",
    advance: Advance | None = None,
) -> np.ndarray:
    """Return (n, labels) log-probabilities in the order of ``rows``.

    What rows share is computed once. Rows are sorted by length and cut into batches of about
    ``batch_tokens`` tokens, so that the batches depend on the rows alone. Batches are shared out
    among processes; each row is computed once, and every process gets all results. A process that
    runs out of batches repeats one and drops the result, because a sharded model needs all
    processes in every pass. ``advance`` is told of finished rows; None shows a progress bar.
    """
    result = np.full((len(rows), len(LABELS)), np.nan)
    if not rows:
        return result
    batches = _cut([layout.size(row) for row in rows], batch_tokens)
    rounds = -(-len(batches) // world.size)
    own: list[tuple[list[int], np.ndarray]] = []
    device = next(model.parameters()).device
    was_training = model.training
    try:
        model.eval()
        layout = layout.freeze(model)
        told = progress(len(rows), label=label) if advance is None else nullcontext(advance)
        with torch.inference_mode(), told as advance:
            for turn in range(rounds):
                number = turn * world.size + world.rank
                batch = batches[min(number, len(batches) - 1)]
                tensors = to_device(layout.collate([rows[place] for place in batch]), device)
                values = layout.log_probs(model, tensors).double().cpu().numpy()
                if number < len(batches):
                    own.append((batch, values))
                advance(
                    sum(len(one) for one in batches[turn * world.size : (turn + 1) * world.size])
                )
    finally:
        model.train(was_training)
    for shares in world.gather(own):
        for batch, values in shares:
            result[batch] = values
    if not np.isfinite(result).all():
        bad = int((~np.isfinite(result)).any(axis=1).sum())
        raise TrainingError(
            f"the model gives {bad} of {len(rows)} rows a score that is not a number",
            hint='the weights may be damaged; or try "dtype": "float32"',
        )
    return result


def _cut(sizes: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Cut rows, shortest first, where a batch padded to its longest row would be too large."""
    batches: list[list[int]] = []
    for row in sorted(range(len(sizes)), key=lambda row: (sizes[row], row)):
        if not batches or (len(batches[-1]) + 1) * sizes[row] > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def hate_probability(log_probs: np.ndarray) -> np.ndarray:
    """Return p(hate), normalised over the label set; (n, labels) -> (n,)."""
    shifted = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    return shifted[:, LABELS.index(HATE)] / shifted.sum(axis=1)

"""Scoring: p(hate) from the log-probabilities of the complete label strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evenhand.core.errors import TrainingError
from evenhand.core.progress import progress
from evenhand.core.records import HATE, LABELS
from evenhand.finetune.encoding import EncodedRow
from evenhand.finetune.layouts import Layout
from evenhand.finetune.processes import World


def label_log_probs(
    model: torch.nn.Module,
    layout: Layout,
    rows: Sequence[EncodedRow],
    *,
    batch_rows: int,
    world: World,
    label: str = "score",
) -> np.ndarray:
    """Return (n, labels) log-probabilities in the order of ``rows``.

    Rows are sorted by length and cut into batches, so that a batch holds rows of like length.
    Batches are shared out among processes; each row is computed once, and every process gets all
    results. A process that runs out of batches repeats one and drops the result, because a sharded
    model needs all processes in every pass.
    """
    result = np.full((len(rows), len(LABELS)), np.nan)
    if not rows:
        return result
    order = sorted(range(len(rows)), key=lambda place: (len(rows[place].ids), place))
    batches = [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]
    rounds = -(-len(batches) // world.size)
    own: list[tuple[list[int], np.ndarray]] = []
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.inference_mode(), progress(len(rows), label=label) as advance:
        for turn in range(rounds):
            number = turn * world.size + world.rank
            batch = batches[min(number, len(batches) - 1)]
            tensors = to_device(layout.collate([rows[place] for place in batch]), device)
            values = layout.log_probs(model, tensors).double().cpu().numpy()
            if number < len(batches):
                own.append((batch, values))
            advance(sum(len(one) for one in batches[turn * world.size : (turn + 1) * world.size]))
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


def hate_probability(log_probs: np.ndarray) -> np.ndarray:
    """Return p(hate), normalised over the label set; (n, labels) -> (n,)."""
    shifted = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    return shifted[:, LABELS.index(HATE)] / shifted.sum(axis=1)


def to_device(value: Any, device: torch.device) -> Any:
    """Move every tensor of a batch to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value

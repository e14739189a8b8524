"""How many updates a training makes: transformers' arithmetic, without transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """The updates of a training.

    Attributes:
        total: all updates, early stopping aside.
        warmup: updates in which the learning rate rises.
        effective_batch: rows behind each update, over all processes; None where not known.
        processes: training processes; None where not known.
    """

    total: int
    warmup: int
    effective_batch: int | None = None
    processes: int | None = None

    @property
    def warmup_share(self) -> float:
        """Warm-up over all updates."""
        return self.warmup / self.total


def plan_schedule(
    *,
    rows: int,
    epochs: float,
    batch: int,
    accumulation: int,
    warmup: float,
    processes: int,
) -> Schedule:
    """Return the schedule of a training as transformers' Trainer (5.x) computes it.

    Args:
        rows: training rows.
        epochs: passes over them.
        batch: rows a step on each device.
        accumulation: batches whose gradients are added before each update.
        warmup: updates; below 1, a share of all updates.
        processes: training processes.

    >>> plan_schedule(rows=2686, epochs=3, batch=4, accumulation=4, warmup=100, processes=4)
    Schedule(total=126, warmup=100, effective_batch=64, processes=4)
    """
    batches = math.ceil(math.ceil(rows / batch) / processes)
    total = max(math.ceil(epochs * math.ceil(batches / accumulation)), 1)
    steps = int(warmup) if warmup >= 1 else math.ceil(total * warmup)
    return Schedule(total, steps, batch * accumulation * processes, processes)

"""The reviewed sample of a release, as the estimates take it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenhand.watch.statistics.sampling import Plan

LABELLED = "labelled"
PENDING = "pending"


@dataclass(frozen=True)
class ReviewedSample:
    """The sampled posts in queue order, up to the last one with a label (the frontier).

    All arrays have the shape (n,). What lies before the frontier without a label (unlabelled,
    disputed, erased) is pending: it was sampled, and its label is not known yet or never will be. A
    post that waits for its second reviewer has the first one's label, as one has that needs no
    second; a dispute makes it pending.

    Attributes:
        item: the queue's item ids, increasing.
        post: the posts' ids.
        plan: indices into ``plans``.
        inclusion: the probabilities with which the posts were sampled.
        score: p(hate); of a post that was deleted by id, to two decimals.
        flagged: whether the release decided hate.
        stratum: the strata that they were sampled in.
        time: when they were answered, UTC without a zone; of a deleted post, the day.
        state: ``labelled`` or ``pending``.
        hate: whether the settled label is hate; False where pending.
        groups: the settled groups; () where pending.
        plans: the sampling plans that were in force, in order of time.
    """

    item: np.ndarray
    post: np.ndarray
    plan: np.ndarray
    inclusion: np.ndarray
    score: np.ndarray
    flagged: np.ndarray
    stratum: np.ndarray
    time: np.ndarray
    state: np.ndarray
    hate: np.ndarray
    groups: tuple[tuple[str, ...], ...]
    plans: tuple[Plan, ...]

    def __len__(self) -> int:
        return len(self.inclusion)

    @property
    def labelled(self) -> np.ndarray:
        """Where the label is settled, shape (n,)."""
        return self.state == LABELLED

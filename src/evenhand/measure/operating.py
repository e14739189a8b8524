"""Operating points: the false-positive rates that one threshold can reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from evenhand.core.evaluation import MetricValue, Reachable
from evenhand.measure.intervals import proportion
from evenhand.measure.metrics import false_positive_rate
from evenhand.measure.sample import Sample

RECALL_FLOOR = 0.75


def reachable(
    sample: Sample, members: Mapping[str, np.ndarray], *, floor: float = RECALL_FLOOR
) -> Reachable | None:
    """Return the lowest false-positive rates that one threshold reaches at a floor of recall.

    Over all thresholds, the highest with the floor is the best for every group at once, since a
    lower one only adds false positives. It is the score of a hate row. It was chosen on the rows
    that it is measured on, so the rates are optimistic.

    Where scored rows have no score, the decisions are the one operating point; if their recall is
    below the floor, the rates are undefined (``recall_below_floor``).

    Args:
        sample: the rows; only those that are scored count.
        members: per group, which rows belong to it, shape (n,).
        floor: the least recall, a fraction above 0.

    Returns:
        None where no scored row is hate.

    Raises:
        ValueError: ``floor`` is out of range.
    """
    if not 0.0 < floor <= 1.0:
        raise ValueError(f"floor is {floor}; it is a recall, above 0 and at most 1")
    hate = sample.ok & sample.hate
    if not hate.any():
        return None
    threshold = None
    decided = sample
    if not np.isnan(sample.score[sample.ok]).any():
        threshold = highest_threshold(sample.score[hate], floor)
        decided = replace(sample, flagged=sample.ok & (sample.score >= threshold))
    recall = proportion(decided.flagged, hate, clusters=sample.clusters, undefined="no_positives")
    if recall.value is None or recall.value < floor:
        below = MetricValue(reason="recall_below_floor")
        return Reachable(
            floor=floor,
            threshold=None,
            recall=below,
            fpr=below,
            groups=dict.fromkeys(members, below),
        )
    return Reachable(
        floor=floor,
        threshold=threshold,
        recall=recall,
        fpr=false_positive_rate(decided),
        groups={group: false_positive_rate(decided.where(mask)) for group, mask in members.items()},
    )


def highest_threshold(scores: np.ndarray, floor: float) -> float:
    """Return the highest threshold that at least a share ``floor`` of the scores reaches.

    >>> highest_threshold(np.array([0.2, 0.9, 0.4, 0.8]), 0.75)
    0.4
    """
    n = len(scores)
    about = math.ceil(floor * n)
    # The product is rounded, so it may miss the whole number by one either way.
    needed = next(k for k in (about - 1, about, about + 1) if k / n >= floor)
    return float(np.partition(scores, n - needed)[n - needed])

"""One-sided bounds of false-positive rates at many thresholds, and the labels that they need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from evenhand.measure.intervals import design_effect, effective_size, kish_size

_MOST_LABELS = 10_000_000


@dataclass(frozen=True, eq=False)
class Counts:
    """Rows at or above each of several thresholds.

    Attributes:
        hits: rows whose score is at least the threshold, int, shape (thresholds,).
        total: all rows.
        design_effects: how many rows are worth one independent row, shape (thresholds,); 1 where
            rows are independent.
        equal_clusters: the equal clusters that are as precise (Kish); None where rows are
            independent.
    """

    hits: np.ndarray
    total: int
    design_effects: np.ndarray
    equal_clusters: float | None

    @property
    def rate(self) -> np.ndarray:
        """The share of hits, shape (thresholds,); 0 where there are no rows."""
        return self.hits / max(self.total, 1)


def counts_at(score: np.ndarray, clusters: np.ndarray | None, *, thresholds: np.ndarray) -> Counts:
    """Count the rows that each threshold flags.

    Args:
        score: p(hate), shape (n,).
        clusters: cluster number per row, shape (n,); None where rows are independent.
        thresholds: shape (thresholds,).

    >>> counts_at(np.array([0.2, 0.6, 0.9]), None, thresholds=np.array([0.6, 0.95])).hits
    array([2, 0])
    """
    total = len(score)
    hits = total - np.searchsorted(np.sort(score), thresholds, side="left")
    if clusters is None or total == 0:
        return Counts(hits, total, np.ones(len(thresholds)), None)
    _, code = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(code)
    falling = np.argsort(score)[::-1]
    effects = np.empty(len(thresholds))
    in_cluster, flagged = np.zeros(len(sizes)), 0
    # From the highest threshold down, each adds the rows between it and the one before.
    for place in np.argsort(hits, kind="stable"):
        more = code[falling[flagged : hits[place]]]
        in_cluster += np.bincount(more, minlength=len(sizes))
        flagged = int(hits[place])
        effects[place] = design_effect(in_cluster, sizes)
    return Counts(hits, total, effects, kish_size(sizes))


def upper_bound(counts: Counts, *, tail: float) -> np.ndarray:
    """Return the one-sided upper bounds of the rate, shape (thresholds,); 1 without rows.

    Clopper and Pearson's (1934), exact for independent rows; with clusters at the effective sample
    size with the correction for the degrees of freedom (after Korn and Graubard 1998, Survey
    Methodology 24), see :func:`evenhand.measure.intervals.effective_size`.

    Args:
        counts: from :func:`counts_at`.
        tail: the chance that a bound is below the true rate, at most.

    >>> counts = counts_at(np.zeros(59), None, thresholds=np.array([0.5]))
    >>> round(float(upper_bound(counts, tail=0.05)[0]), 4)
    0.0495
    """
    size = _effective(counts, tail)
    hits = counts.rate * size
    with np.errstate(invalid="ignore"):
        bound = beta.ppf(1 - tail, hits + 1, size - hits)
    return np.where((size > 0) & (hits < size), bound, 1.0)


def lower_bound(counts: Counts, *, tail: float) -> np.ndarray:
    """Return the one-sided lower bounds of the rate, as :func:`upper_bound`; 0 without rows."""
    size = _effective(counts, tail)
    hits = counts.rate * size
    with np.errstate(invalid="ignore"):
        bound = beta.ppf(tail, hits, size - hits + 1)
    return np.where((size > 0) & (hits > 0), bound, 0.0)


def negatives_needed(rate: float, *, limit: float, tail: float) -> int | None:
    """Return the rows with which an observed rate has its upper bound at the limit or below.

    None where no number of rows would do, since the rate is not below the limit.

    >>> negatives_needed(0.0, limit=0.05, tail=0.05), negatives_needed(0.3, limit=0.3, tail=0.05)
    (59, None)
    """
    if rate == 0:
        return math.ceil(math.log(tail) / math.log1p(-limit))

    def too_few(n: int) -> bool:
        return bool(beta.ppf(1 - tail, rate * n + 1, n - rate * n) > limit)

    if rate >= limit or too_few(_MOST_LABELS):
        return None
    low, high = 1, _MOST_LABELS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if too_few(middle) else (low, middle)
    return high


def _effective(counts: Counts, tail: float) -> np.ndarray:
    """Return the independent rows that the rows are worth, shape (thresholds,)."""
    if counts.equal_clusters is None:
        return np.full(len(counts.hits), float(counts.total))
    if counts.equal_clusters == 1.0:
        return np.zeros(len(counts.hits))  # one independent unit bounds nothing
    return effective_size(
        counts.hits,
        counts.total,
        effect=counts.design_effects,
        equal_clusters=counts.equal_clusters,
        tail=tail,
    )

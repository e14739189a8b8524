"""One-sided bounds of false-positive rates at many thresholds, and the labels that they need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, t

_MOST_LABELS = 10_000_000


@dataclass(frozen=True, eq=False)
class Counts:
    """Rows at or above each of several thresholds.

    Attributes:
        hits: rows whose score is at least the threshold, int, shape (thresholds,).
        total: all rows.
        effective: rows over the design effect, shape (thresholds,); ``total`` where rows are
            independent.
        n_clusters: independent clusters; None where rows are independent.
    """

    hits: np.ndarray
    total: int
    effective: np.ndarray
    n_clusters: int | None

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
        return Counts(hits, total, np.full(len(thresholds), float(total)), None)
    _, code = np.unique(clusters, return_inverse=True)
    size = np.bincount(code)
    effective = np.array([_effective(score >= one, code, size) for one in thresholds])
    return Counts(hits, total, effective, len(size))


def upper_bound(counts: Counts, *, tail: float) -> np.ndarray:
    """Return the one-sided upper bounds of the rate, shape (thresholds,); 1 without rows.

    Clopper and Pearson's (1934), exact for independent rows; with clusters at the effective sample
    size with the correction for the degrees of freedom (Korn and Graubard 1998, Survey
    Methodology 24).

    Args:
        counts: from :func:`counts_at`.
        tail: the chance that a bound is below the true rate, at most.

    >>> counts = counts_at(np.zeros(59), None, thresholds=np.array([0.5]))
    >>> round(float(upper_bound(counts, tail=0.05)[0]), 4)
    0.0495
    """
    size = _size(counts, tail)
    hits = counts.rate * size
    with np.errstate(invalid="ignore"):
        bound = beta.ppf(1 - tail, hits + 1, size - hits)
    return np.where((size > 0) & (hits < size), bound, 1.0)


def lower_bound(counts: Counts, *, tail: float) -> np.ndarray:
    """Return the one-sided lower bounds of the rate, as :func:`upper_bound`; 0 without rows."""
    size = _size(counts, tail)
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


def _size(counts: Counts, tail: float) -> np.ndarray:
    if counts.n_clusters is None:
        return counts.effective
    if counts.n_clusters == 1:
        return np.zeros_like(counts.effective)  # one independent unit bounds nothing
    known, estimated = (float(t.ppf(1 - tail, n - 1)) for n in (counts.total, counts.n_clusters))
    return counts.effective * (known / estimated) ** 2


def _effective(hits: np.ndarray, code: np.ndarray, size: np.ndarray) -> float:
    """Rows over the design effect of the linearised ratio estimator; never more than the rows."""
    total, n_clusters, rate = len(hits), len(size), float(hits.mean())
    if n_clusters == 1 or rate in (0.0, 1.0):
        return float(n_clusters)  # no spread to estimate the dependence from
    residual = np.bincount(code, weights=hits) - rate * size
    variance = n_clusters / (n_clusters - 1) * float((residual**2).sum()) / total**2
    return total / max(1.0, variance / (rate * (1 - rate) / total))

"""Intervals: Wilson for proportions, bootstrap for F1, AUC and ECE, Newcombe for differences.

All are two-sided at 95%. Where rows come in clusters (templates, threads) each takes the cluster,
not the row, as the independent unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from evenhand.core.evaluation import MetricValue

CONFIDENCE = 0.95
MIN_LABELS = 30
"""Fewer labels than this are too few for a claim about a rate."""

_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))
_CHUNK_ELEMENTS = 2_000_000

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps resampling weights (b, units) to one value per replicate (b,); NaN where undefined."""


def wilson(count: float, total: float) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927).

    >>> low, high = wilson(3, 10)
    >>> round(low, 3), round(high, 3)
    (0.108, 0.603)
    """
    low, high = proportion_confint(count, total, alpha=1 - CONFIDENCE, method="wilson")
    # At 0 and 1 rounding error would leave the estimate itself outside.
    return 0.0 if count <= 0 else float(low), 1.0 if count >= total else float(high)


def proportion(
    hits: np.ndarray, eligible: np.ndarray, *, clusters: np.ndarray | None, undefined: str
) -> MetricValue:
    """Return the share of eligible rows that are hits, with its Wilson interval.

    With clusters the interval is Wilson's at the effective sample size, that is the number of
    eligible rows over the design effect (Franco et al. 2019, J. Surv. Stat. Methodol. 7).

    Args:
        hits: boolean, shape (n,).
        eligible: boolean, shape (n,): the rows of the denominator.
        clusters: cluster number per row, shape (n,); None where rows are independent.
        undefined: the reason that is given when no row is eligible.
    """
    total = int(eligible.sum())
    if total == 0:
        return MetricValue(reason=undefined, numerator=0, denominator=0)
    count = int((hits & eligible).sum())
    value = count / total
    if clusters is None:
        effective, method = float(total), "wilson"
    else:
        effective = _effective_size(hits[eligible], clusters[eligible])
        method = "wilson_clustered"
    low, high = wilson(value * effective, effective)
    return MetricValue(
        value=value, low=low, high=high, method=method, numerator=count, denominator=total
    )


def newcombe(first: MetricValue, second: MetricValue) -> MetricValue:
    """Return ``first - second`` with Newcombe's hybrid score interval (1998, method 10).

    It is built from the two intervals, so clustered proportions keep their wider ones.
    """
    for part, reason in ((first, first.reason), (second, f"{second.reason}_outside_the_group")):
        if part.value is None:
            return MetricValue(reason=reason)
    p1, l1, u1 = _triple(first)
    p2, l2, u2 = _triple(second)
    return MetricValue(
        value=p1 - p2,
        low=max(-1.0, p1 - p2 - math.hypot(p1 - l1, u2 - p2)),
        high=min(1.0, p1 - p2 + math.hypot(u1 - p1, p2 - l2)),
        method="newcombe",
    )


def labels_needed(rate: float | None, *, half_width: float = 0.10) -> int:
    """Return how many labels give a Wilson interval of about +-``half_width`` at ``rate``.

    An unknown rate counts as 0.5, the hardest; the answer is never below 30.

    >>> labels_needed(0.4), labels_needed(None), labels_needed(0.0)
    (89, 93, 30)
    """
    p = 0.5 if rate is None else rate
    # Half-width of Wilson's interval, squared and solved for n: a quadratic in m = n + z^2.
    z2, w2, spread = _Z**2, half_width**2, p * (1 - p)
    b, c = z2 * spread, z2**2 * (0.25 - spread)
    m = (b + math.sqrt(b * b + 4 * w2 * c)) / (2 * w2)
    return max(MIN_LABELS, math.ceil(m - z2 - 1e-9))


def bootstrap(
    statistics: Sequence[Statistic],
    *,
    n_units: int,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return each statistic's bootstrap replicates, shape (n_bootstrap,), from shared resamples.

    Units (rows, or clusters of rows) are drawn with replacement; a statistic sees how often each
    was drawn. Memory is bounded: replicates are made in chunks.
    """
    if not statistics:
        return []
    chunk = max(1, min(n_bootstrap, _CHUNK_ELEMENTS // n_units))
    replicates = [np.empty(n_bootstrap) for _ in statistics]
    for start in range(0, n_bootstrap, chunk):
        stop = min(start + chunk, n_bootstrap)
        drawn = rng.integers(n_units, size=(stop - start, n_units))
        drawn += np.arange(stop - start)[:, None] * n_units
        weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        weights = weights.astype(float)
        for values, statistic in zip(replicates, statistics, strict=True):
            values[start:stop] = statistic(weights)
    return replicates


def bootstrap_value(value: float, replicates: np.ndarray, *, method: str) -> MetricValue:
    """Return a value with the percentile interval of its defined replicates.

    The interval is widened to contain the value, which a biased statistic (ECE) can miss.
    """
    defined = replicates[np.isfinite(replicates)]
    if defined.size == 0:
        return MetricValue(value=value, reason="no_defined_replicate")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return MetricValue(
        value=value, low=min(float(low), value), high=max(float(high), value), method=method
    )


def auc_score_interval(auc: float, *, positives: float, negatives: float) -> tuple[float, float]:
    """Return Newcombe's score interval of an AUC (2006, Stat. Med. 25, method 5).

    Used where the AUC is exactly 0 or 1 and a bootstrap has no spread to show.
    """
    mean_size = (positives + negatives) / 2

    def excess(theta: float) -> float:
        ties = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + (mean_size - 1) * ties) / (positives * negatives)
        return (auc - theta) ** 2 - _Z**2 * variance

    low = 0.0 if auc <= 0.0 else float(brentq(excess, 1e-12, auc - 1e-12))
    high = 1.0 if auc >= 1.0 else float(brentq(excess, auc + 1e-12, 1 - 1e-12))
    return low, high


def _triple(part: MetricValue) -> tuple[float, float, float]:
    assert part.value is not None and part.low is not None and part.high is not None
    return part.value, part.low, part.high


def _effective_size(hits: np.ndarray, clusters: np.ndarray) -> float:
    """Rows over the design effect of the linearised ratio estimator; never more than the rows."""
    _, code = np.unique(clusters, return_inverse=True)
    n_clusters, total = int(code.max()) + 1, len(hits)
    rate = hits.mean()
    if n_clusters == 1 or rate in (0.0, 1.0):
        # No spread to estimate the dependence from: count each cluster once.
        return float(n_clusters)
    size = np.bincount(code)
    residual = np.bincount(code, weights=hits) - rate * size
    variance = n_clusters / (n_clusters - 1) * float((residual**2).sum()) / total**2
    design_effect = variance / (rate * (1 - rate) / total)
    return total / max(1.0, design_effect)

"""Intervals: Wilson for proportions, bootstrap for F1 and AUC, Newcombe for differences.

All are two-sided at 95%. Where rows come in clusters (templates, threads) each takes the cluster,
not the row, as the independent unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

from evenhand.core.evaluation import MetricValue

CONFIDENCE = 0.95
MIN_LABELS = 30
"""Fewer labels than this are too few for a claim about a rate."""

_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))
_CHUNK_ELEMENTS = 2_000_000
_ALIKE_WEIGHT = 4

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
        _, code = np.unique(clusters[eligible], return_inverse=True)
        sizes = np.bincount(code)
        effect = design_effect(np.bincount(code, weights=hits[eligible]), sizes)
        size = effective_size(count, total, effect=effect, equal_clusters=kish_size(sizes))
        effective = float(size)
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


def resamples(
    sizes: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator, n_rows: int = 0
) -> Iterator[np.ndarray]:
    """Yield bootstrap resamples in chunks: how often each type of unit was drawn, shape (b, types).

    As many units are drawn, with replacement, as there are. Memory is bounded, also where what is
    made of a replicate has ``n_rows`` elements.

    Args:
        sizes: how many units (rows, or clusters of rows) are of each type, shape (types,).
        n_bootstrap: replicates; the chunks' b add up to it.
        rng: draws the units.
        n_rows: the rows behind the units.
    """
    n_types, n_units = len(sizes), int(sizes.sum())
    if n_units == 0:
        return
    # A binomial draw for each type costs about as much as drawing and counting ten units.
    by_unit = 10 * n_types > n_units
    unit_type = np.repeat(np.arange(n_types), sizes) if n_types < n_units else None
    chunk = max(1, _CHUNK_ELEMENTS // max(n_units if by_unit else n_types, n_rows))
    for start in range(0, n_bootstrap, chunk):
        b = min(chunk, n_bootstrap - start)
        if by_unit:
            drawn = rng.integers(n_units, size=(b, n_units))
            if unit_type is not None:
                drawn = unit_type[drawn]
            drawn += np.arange(b)[:, None] * n_types
            weights = np.bincount(drawn.ravel(), minlength=b * n_types).reshape(b, n_types)
        else:
            weights = rng.multinomial(n_units, sizes / n_units, size=b)
        yield weights.astype(float)


def bootstrap(
    statistics: Sequence[Statistic],
    *,
    n_units: int,
    n_rows: int,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return each statistic's bootstrap replicates, shape (n_bootstrap,), from shared resamples.

    Units (rows, or clusters of rows) are drawn with replacement; a statistic sees how often each
    was drawn.
    """
    replicates: list[list[np.ndarray]] = [[] for _ in statistics]
    units = np.ones(n_units, dtype=np.int64)
    for weights in resamples(units, n_bootstrap=n_bootstrap, rng=rng, n_rows=n_rows):
        for values, statistic in zip(replicates, statistics, strict=True):
            values.append(statistic(weights))
    return [np.concatenate(values) for values in replicates]


def bootstrap_value(
    value: float, replicates: np.ndarray, *, method: str, n_units: int | None = None
) -> MetricValue:
    """Return a value with the percentile interval of its defined replicates.

    A percentile interval of few units is too narrow; with ``n_units`` it takes quantiles further
    out, as Student's t is to the normal (Hesterberg 2015, the expanded percentile interval). The
    interval is widened to contain the value, which a biased statistic can miss.

    Args:
        value: the statistic of the sample.
        replicates: shape (b,); NaN where undefined.
        method: the interval's name in the record.
        n_units: the independent units that bear on the value; None for many.
    """
    defined = replicates[np.isfinite(replicates)]
    if defined.size == 0:
        return MetricValue(value=value, reason="no_defined_replicate")
    tail = (1 - CONFIDENCE) / 2
    if n_units is not None:
        freedom = max(1, n_units - 1)
        tail = float(norm.sf(math.sqrt(1 + 1 / freedom) * t.ppf(1 - tail, freedom)))
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


def kish_size(sizes: np.ndarray) -> float:
    """Return how many equal clusters are as precise as these, by their sizes (Kish 1965).

    >>> kish_size(np.array([5, 5, 5])), round(kish_size(np.array([13, 1, 1])), 2)
    (3.0, 1.32)
    """
    squares = float((sizes.astype(float) ** 2).sum())
    return float(sizes.sum()) ** 2 / squares if squares else 0.0


def design_effect(hits: np.ndarray, sizes: np.ndarray) -> float:
    """Return how many clustered rows are worth one independent row, for a share of hits.

    It is the jackknife's variance of the share over the binomial one, at least 1. Few clusters with
    hits (or with anything else) say little about the dependence, so the estimate counts as much as
    there are such clusters, and the case that a cluster's rows are all alike counts as four; with
    no hit at all only that case is left.

    Args:
        hits: hits in each cluster, shape (clusters,).
        sizes: rows of each cluster, shape (clusters,), at least 1.

    >>> fives = np.full(40, 5)
    >>> round(design_effect(np.where(np.arange(40) % 2, 5, 0), fives), 2)  # all alike
    5.13
    >>> design_effect(np.zeros(40), fives)
    5.0
    """
    n_clusters, total = len(sizes), float(sizes.sum())
    rate, alike = float(hits.sum()) / total, total / kish_size(sizes)
    if n_clusters == 1 or rate in (0.0, 1.0):
        return alike
    left_out = (hits - rate * sizes) / (1 - sizes / total)
    variance = (n_clusters - 1) / n_clusters * float((left_out**2).sum()) / total**2
    estimate = max(1.0, variance / (rate * (1 - rate) / total))
    telling = min(int((hits > 0).sum()), int((hits < sizes).sum()))
    cautious = max(estimate, alike)
    return (telling * estimate + _ALIKE_WEIGHT * cautious) / (telling + _ALIKE_WEIGHT)


def effective_size(
    hits: int | np.ndarray,
    total: int,
    *,
    effect: float | np.ndarray,
    equal_clusters: float,
    tail: float = (1 - CONFIDENCE) / 2,
) -> np.ndarray:
    """Return the number of independent rows whose normal interval is that of clustered rows.

    Rows over the design effect, and the size at which z gives the interval of Student's t with as
    many degrees of freedom as there are equal clusters of the same precision, less one.

    Args:
        hits: rows that are hits, one number or several.
        total: all rows.
        effect: from :func:`design_effect`, for each number of hits.
        equal_clusters: from :func:`kish_size`.
        tail: the error on one side.
    """
    independent = total / np.asarray(effect)
    quantile = float(t.ppf(1 - tail, max(1.0, equal_clusters - 1)))
    estimated = (np.asarray(hits) > 0) & (np.asarray(hits) < total)
    return np.where(estimated, (float(norm.ppf(1 - tail)) / quantile) ** 2, 1.0) * independent

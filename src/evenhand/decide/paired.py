"""The statistics of a paired comparison: exact tests, the paired bootstrap, what it could detect.

The independent unit is the row, or the cluster where rows come in clusters. What a test needs of a
unit is a few counts, and units with equal counts are alike, so that resampling draws how often each
kind of unit comes up and never touches a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binom, gamma, norm

from evenhand.decide.alignment import Answers

Metric = Literal["f1", "accuracy", "fpr", "fnr"]
METRICS: tuple[Metric, ...] = ("f1", "accuracy", "fpr", "fnr")

POWER = 0.80
_Z_POWER = float(norm.ppf(POWER))
_CHUNK_ELEMENTS = 2_000_000
_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Units:
    """The kinds of independent units and how often each occurs.

    Attributes:
        counts: units of each kind, shape (kinds,).
        cells: counts within one unit of each kind, shape (kinds, scopes, 2 + 2 x models): hate
            rows, normal rows, then true positives and false positives of each model. The first
            scope is all rows, then come the groups.
    """

    counts: np.ndarray
    cells: np.ndarray

    @property
    def n(self) -> int:
        """All units."""
        return int(self.counts.sum())

    @property
    def totals(self) -> np.ndarray:
        """The counts over all units, shape (1, scopes, 2 + 2 x models)."""
        return np.tensordot(self.counts[None], self.cells, axes=1)

    def holding(self, metric: Metric, scope: int) -> int:
        """Return the number of units with a row that the metric is over."""
        hate, normal = self.cells[:, scope, 0], self.cells[:, scope, 1]
        over = {"fpr": normal, "fnr": hate}.get(metric, hate + normal)
        return int(self.counts[over > 0].sum())

    def disagreeing(self, metric: Metric, scope: int) -> int:
        """Return the units on which two models differ in what the metric counts."""
        found, alarms = (self.cells[:, scope, i] - self.cells[:, scope, i + 2] for i in (2, 3))
        differs = {
            "f1": (found != 0) | (alarms != 0),
            "accuracy": found != alarms,
            "fpr": alarms != 0,
            "fnr": found != 0,
        }[metric]
        return int(self.counts[differs].sum())

    def resample(self, n: int, *, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the totals of ``n`` bootstrap resamples, a chunk at a time."""
        shares = self.counts / self.n
        for size in self._chunks(n):
            drawn = rng.multinomial(self.n, shares, size=size)
            yield np.tensordot(drawn, self.cells, axes=1)

    def swap(self, n: int, *, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the totals of ``n`` random exchanges of two models' answers, whole units at once.

        Each unit is exchanged with probability one half.
        """
        exchanged = self.cells[:, :, [0, 1, 4, 5, 2, 3]]
        differs = (exchanged != self.cells).any(axis=(1, 2))
        counts, change = self.counts[differs], (exchanged - self.cells)[differs]
        for size in self._chunks(n):
            drawn = rng.binomial(counts, 0.5, size=(size, len(counts)))
            yield self.totals + np.tensordot(drawn, change, axes=1)

    def _chunks(self, n: int) -> Iterator[int]:
        chunk = max(1, _CHUNK_ELEMENTS // max(len(self.counts), 1))
        for start in range(0, n, chunk):
            yield min(chunk, n - start)


def count_units(answers: Answers, models: Sequence[int]) -> Units:
    """Return the units of some models, by their numbers; a model may be named only once."""
    n = len(answers)
    flagged = answers.flagged[list(models)]
    members = [np.ones(n, dtype=bool), *answers.groups.values()]
    bits = np.stack([answers.hate, *flagged, *members], axis=1)
    kinds, kind = np.unique(np.packbits(bits, axis=1), axis=0, return_inverse=True)
    width = bits.shape[1]
    columns = np.unpackbits(kinds, axis=1, count=width).astype(np.int64)
    hate, decided = columns[:, :1], columns[:, 1 : 1 + len(flagged)]
    found, alarms = hate * decided, (1 - hate) * decided
    each = np.stack([found, alarms], axis=2).reshape(len(kinds), -1)
    rows = np.concatenate([hate, 1 - hate, each], axis=1)
    cells = columns[:, 1 + len(flagged) :, None] * rows[:, None, :]
    if answers.clusters is None:
        return Units(np.bincount(kind, minlength=len(kinds)), cells)
    _, cluster = np.unique(answers.clusters, return_inverse=True)
    flat = cells.reshape(len(kinds), -1)
    sums = np.zeros((int(cluster.max(initial=-1)) + 1, flat.shape[1]), dtype=np.int64)
    np.add.at(sums, cluster, flat[kind])
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    return Units(counts, distinct.reshape(-1, *cells.shape[1:]))


def metric_values(totals: np.ndarray, metric: Metric, scope: int) -> np.ndarray:
    """Return the metric of every model from counts (..., scopes, 2 + 2 x models); NaN undefined."""
    part = totals[..., scope, :].astype(float)
    hate, normal = part[..., 0:1], part[..., 1:2]
    tp, fp = part[..., 2::2], part[..., 3::2]
    if metric == "f1":
        return _divide(2 * tp, np.where(hate > 0, hate + tp + fp, 0.0))
    if metric == "accuracy":
        return _divide(tp + normal - fp, hate + normal)
    if metric == "fpr":
        return _divide(fp, normal)
    return _divide(hate - tp, hate)


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Dietterich 1998).

    Args:
        first_only: rows on which only the first model is right.
        second_only: rows on which only the second is.

    >>> mcnemar_exact(1, 6)
    0.125
    """
    fewer = min(first_only, second_only)
    return min(1.0, 2.0 * float(binom.cdf(fewer, first_only + second_only, 0.5)))


def f1_randomisation(hate: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p-value of the paired randomisation test of two F1 scores.

    Under the hypothesis that the two models are interchangeable, each row on which they differ
    could as well have had their answers exchanged (Yeh 2000, COLING). Only two numbers matter: how
    many of the differing hate rows, and of the differing normal rows, the first model then flags.
    Both are binomial and the difference in F1 rises with the second, so its distribution is summed
    exactly rather than sampled.

    Args:
        hate: the label is hate, shape (n,).
        first: the first model's decision is hate, shape (n,).
        second: the second model's, shape (n,).
    """
    differ, both = first != second, first & second
    positives, tp, fp = int(hate.sum()), int((both & hate).sum()), int((both & ~hate).sum())
    hate_differ, normal_differ = int((differ & hate).sum()), int((differ & ~hate).sum())
    if positives == 0 or not differ.any():
        return 1.0

    def gain(found: np.ndarray, flagged: np.ndarray) -> np.ndarray:
        """F1 of the second less that of the first, had the first flagged so many."""
        found_second, flagged_second = hate_differ - found, normal_differ - flagged
        first_f1 = 2 * (tp + found) / (positives + tp + found + fp + flagged)
        second_f1 = 2 * (tp + found_second) / (positives + tp + found_second + fp + flagged_second)
        return second_f1 - first_f1

    ours = differ & first
    observed = abs(float(gain((ours & hate).sum(), (ours & ~hate).sum())))
    found = np.arange(hate_differ + 1)
    above = _least(lambda k: gain(found, k) >= observed - _TOLERANCE, found, normal_differ)
    beyond = _least(lambda k: gain(found, k) > _TOLERANCE - observed, found, normal_differ)
    tails = binom.sf(above - 1, normal_differ, 0.5) + binom.cdf(beyond - 1, normal_differ, 0.5)
    p_value = binom.pmf(found, hate_differ, 0.5) @ np.minimum(tails, 1.0)
    return min(1.0, float(p_value))


def swap_p_values(
    units: Units, tests: Sequence[tuple[Metric, int]], *, n: int, rng: np.random.Generator
) -> list[float]:
    """Return the p-values of the randomisation test that exchanges two models' answers by cluster.

    The observed assignment counts as one of the ``n + 1`` (Phipson and Smyth 2010), so that the
    test keeps its level however many exchanges are drawn.

    Args:
        units: the units of two models, whose answers are exchanged within whole units.
        tests: metric and scope of each test.
        n: exchanges that are drawn.
        rng: draws them.
    """
    observed = [abs(_gain(units.totals, metric, scope, 1)[0]) for metric, scope in tests]
    as_large = np.ones(len(tests))
    for totals in units.swap(n, rng=rng):
        for number, (metric, scope) in enumerate(tests):
            drawn = np.abs(_gain(totals, metric, scope, 1))
            as_large[number] += (drawn >= observed[number] - _TOLERANCE).sum()
    return [float(count) / (n + 1) for count in as_large]


def bootstrap_gains(
    units: Units,
    tests: Sequence[tuple[Metric, int]],
    *,
    split: int,
    n: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return, for each test, the paired bootstrap's differences; NaN where one is undefined.

    Each resample has, on average, one more unit on which only the first side is right and one on
    which only the second is, after Bonett and Price (2012, J. Educ. Behav. Stat. 37): with few
    disagreements the bare bootstrap is too narrow, and with none it claims to know the difference
    exactly.

    Args:
        units: the units of all models of the two sides.
        tests: metric and scope of each test.
        split: models of the first side, which come first; a side's value is their mean.
        n: resamples; each list item has this length.
        rng: draws them.
    """
    chunks = [
        [_gain(totals, metric, scope, split) for metric, scope in tests]
        for totals in units.resample(n, rng=rng)
    ]
    drawn = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    for gains, (metric, scope) in zip(drawn, tests, strict=True):
        for step in _steps(units, metric, scope):
            gains += step * (rng.poisson(1.0, size=n) - rng.poisson(1.0, size=n))
    return drawn


@dataclass(frozen=True)
class RowVariance:
    """What the choice of rows adds to the variance of a difference of two means over runs.

    Attributes:
        shared: by rows that are hard or easy for every run of a side.
        own: by what each run answers in its own way, which the variance between runs holds too.
        added: by one additional disagreement each way.
    """

    shared: float
    own: float
    added: float

    @property
    def beside_seeds(self) -> float:
        """What comes on top of the variance between runs."""
        return self.shared + self.added


def split_variance(covariance: np.ndarray, *, split: int, added: float) -> RowVariance:
    """Return the variance of the difference of two sides' means in its parts.

    Runs of one side share their rows and differ in their seed, so the covariance between two of
    them is of the rows alone. What a run's variance has beyond it (rows by seed) is in the variance
    between runs already, which must not count it twice (Obuchowski and Rockette 1995, Commun. Stat.
    Simul. 24; Hillis 2007, Stat. Med. 26). A side of one run is given the other side's.

    Args:
        covariance: of the runs' metrics over resamples of rows, shape (runs, runs); the first
            ``split`` are the first side's.
        split: runs of the first side; at least one side has two.
        added: the variance of the additional disagreements.
    """
    n = len(covariance)
    first = np.arange(n) < split
    mean = np.where(first, -1 / split, 1 / (n - split))
    own = [_beyond_shared(covariance[np.ix_(side, side)]) for side in (first, ~first)]
    known = [value for value in own if value is not None]
    each = [float(np.mean(known)) if value is None else value for value in own]
    of_runs = each[0] / split + each[1] / (n - split)
    return RowVariance(max(0.0, float(mean @ covariance @ mean) - of_runs), of_runs, added)


def row_variances(
    units: Units,
    tests: Sequence[tuple[Metric, int]],
    *,
    split: int,
    n: int,
    rng: np.random.Generator,
) -> list[RowVariance]:
    """Return, for each test, what rows add to the variance of the difference of means over runs.

    Args:
        units: the units of all runs of the two sides.
        tests: metric and scope of each test.
        split: runs of the first side, which come first.
        n: resamples.
        rng: draws them.
    """
    chunks = [
        [metric_values(totals, metric, scope) for metric, scope in tests]
        for totals in units.resample(n, rng=rng)
    ]
    found = []
    for parts, (metric, scope) in zip(zip(*chunks, strict=True), tests, strict=True):
        drawn = np.concatenate(parts)
        drawn = drawn[np.isfinite(drawn).all(axis=1)]
        n_runs = drawn.shape[1]
        covariance = np.cov(drawn.T) if len(drawn) > 1 else np.zeros((n_runs, n_runs))
        added = sum(2 * step**2 for step in _steps(units, metric, scope))
        found.append(split_variance(covariance, split=split, added=added))
    return found


def _beyond_shared(covariance: np.ndarray) -> float | None:
    """Return a run's variance less the covariance between two runs; None of a single run."""
    runs = len(covariance)
    if runs < 2:
        return None
    variances = float(np.trace(covariance))
    return variances / runs - (float(covariance.sum()) - variances) / (runs * (runs - 1))


def standard_error(gains: np.ndarray) -> float:
    """Return the standard deviation of the defined replicates; 0 where there are fewer than two."""
    defined = gains[np.isfinite(gains)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else 0.0


def least_p_value(disagreements: int) -> float:
    """Return the least p-value that an exact test can give: all disagreements in one direction.

    >>> least_p_value(5), least_p_value(6)
    (0.0625, 0.03125)
    """
    return min(1.0, 2.0 * 0.5**disagreements)


def detectable(
    units: Units, metric: Metric, scope: int, *, error: float, level: float = 0.05
) -> float:
    """Return the true difference that is found at a level with 80% power.

    It is never less than the difference of which an exact test is capable: at 5%, fewer than six
    disagreements, all in one direction, are not enough.

    Args:
        units: the units of both sides.
        metric: the metric.
        scope: all rows, or a group.
        error: the standard error of the difference.
        level: the level of the test, two-sided.
    """
    disagreements = float(gamma.ppf(POWER, math.ceil(1 - math.log2(level))))
    by_error = (float(norm.ppf(1 - level / 2)) + _Z_POWER) * error
    return max(by_error, disagreements * max(_steps(units, metric, scope)))


def _steps(units: Units, metric: Metric, scope: int) -> tuple[float, ...]:
    """Return how far a metric moves when one unit of each class that it is over turns wrong."""
    n_units = units.holding(metric, scope)
    if n_units == 0:
        return (0.0,)
    if metric != "f1":
        return (1.0 / n_units,)
    hate, normal, *_ = (float(cell) for cell in units.totals[0, scope])
    f1 = float(metric_values(units.totals, "f1", scope).mean())
    rows_per_unit = (hate + normal) / n_units
    # 2 tp + fp + fn, from F1 = 2 tp / (2 tp + fp + fn), is hate rows plus flagged rows.
    size = hate + float(units.totals[0, scope, 2:].reshape(-1, 2).sum(axis=1).mean())
    return ((2.0 - f1) / size * rows_per_unit, f1 / size * rows_per_unit)


def _gain(totals: np.ndarray, metric: Metric, scope: int, split: int) -> np.ndarray:
    values = metric_values(totals, metric, scope)
    return values[..., split:].mean(axis=-1) - values[..., :split].mean(axis=-1)


def _least(holds: Callable[[np.ndarray], np.ndarray], like: np.ndarray, n: int) -> np.ndarray:
    """Return for each item the least k in 0..n at which a rising condition holds, else n + 1."""
    low, high = np.zeros_like(like), np.full_like(like, n + 1)
    while (low < high).any():
        middle = (low + high) // 2
        # An item that is settled at n + 1 is asked at n: k beyond n would be out of range.
        met = holds(np.minimum(middle, n)) & (middle <= n)
        low, high = np.where(met, low, np.minimum(middle + 1, high)), np.where(met, middle, high)
    return low


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator > 0)

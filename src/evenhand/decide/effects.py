"""Paired differences as estimates: value, bounds at any level, what more labels would narrow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from evenhand.core.evaluation import MetricValue
from evenhand.decide.alignment import Answers
from evenhand.decide.paired import (
    POWER,
    Metric,
    RowVariance,
    Units,
    bootstrap_gains,
    count_units,
    least_p_value,
    mcnemar_exact,
    metric_values,
    row_variances,
    split_variance,
    standard_error,
    swap_p_values,
)
from evenhand.decide.replicates import seed_test
from evenhand.measure.intervals import kish_size

_MOST_TIMES = 20
"""More than so many times the labels at hand are as good as out of reach."""

_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Effect:
    """A paired difference, second side minus first, or the reason why there is none.

    Attributes:
        first: the first side's value, ``second`` the other's; None where undefined.
        n: labels that it rests on; ``n_clusters`` are the clusters that they come from.
        error: its standard error.
        fixed_error: the part of it that comes from the seeds, which labels do not narrow.
        added: the part of its square that comes from one additional disagreement each way; it
            shrinks with the square of the labels.
        degrees: Student's degrees of freedom, for bounds that ``gains`` does not give.
        gains: the bootstrap's differences, shape (resamples,).
        method: the interval's name.
        p_value: of the two-sided test of a rate, None of F1; ``least`` is the least that it could
            have been.
        reason: why it is undefined.
    """

    n: int
    n_clusters: int | None
    first: float | None = None
    second: float | None = None
    error: float = 0.0
    fixed_error: float = 0.0
    added: float = 0.0
    degrees: float = math.inf
    gains: np.ndarray | None = None
    method: str = ""
    p_value: float | None = None
    least: float = 0.0
    reason: str | None = None

    @property
    def value(self) -> float | None:
        """The difference."""
        if self.first is None or self.second is None:
            return None
        return self.second - self.first

    def bounds(self, tail: float) -> MetricValue:
        """Return the difference with the interval that leaves ``tail`` out on each side."""
        value = self.value
        if value is None or self.reason is not None:
            return MetricValue(value=value, reason=self.reason)
        if self.gains is None:
            reach = float(student.ppf(1 - tail, self.degrees)) * self.error
            low, high = value - reach, value + reach
        else:
            defined = self.gains[np.isfinite(self.gains)]
            low, high = (float(end) for end in np.quantile(defined, [tail, 1 - tail]))
        return MetricValue(
            value=value,
            low=max(-1.0, min(low, value)),
            high=min(1.0, max(high, value)),
            method=self.method,
        )

    def labels_needed(self, distance: float, *, tail: float) -> int | None:
        """Return about how many labels bring a bound within a distance in four cases of five.

        None where the seeds alone keep it from that, or where it takes far more than there are.
        """
        if self.reason is not None or self.error == 0.0:
            return None
        reach = abs(distance) / float(norm.ppf(1 - tail) + norm.ppf(POWER))
        left = reach**2 - self.fixed_error**2
        if left <= 0.0:
            return None
        rows = max(0.0, self.error**2 - self.fixed_error**2 - self.added)
        # With x times the labels the square of the error is rows / x + added / x**2 = left.
        times = (rows + math.sqrt(rows**2 + 4 * left * self.added)) / (2 * left)
        return max(self.n + 1, math.ceil(self.n * times)) if times <= _MOST_TIMES else None


@dataclass(frozen=True, eq=False)
class Cells:
    """The rows and the two sides whose metrics are compared, with resamples for all of them."""

    answers: Answers
    first: tuple[int, ...]
    second: tuple[int, ...]
    n_bootstrap: int
    rng: np.random.Generator

    def effects(self, wanted: Sequence[tuple[Metric, str | None]]) -> list[Effect]:
        """Return the paired difference of each metric over a group, or (None) over all rows."""
        units = (
            count_units(self.answers, (*self.first, *self.second)) if len(self.answers) else None
        )
        if units is None:
            return [Effect(0, None, reason="no_scored_rows") for _ in wanted]
        scope: dict[str | None, int] = {None: 0}
        scope |= {name: number for number, name in enumerate(self.answers.groups, start=1)}
        cells: list[tuple[Metric, int]] = [(metric, scope[group]) for metric, group in wanted]
        drawing, swapping = self.rng.spawn(2)
        split, n = len(self.first), self.n_bootstrap
        swapped: list[float | None] = [None] * len(cells)
        gains: Sequence[np.ndarray | RowVariance]
        if self._are_single:
            gains = bootstrap_gains(units, cells, split=split, n=n, rng=drawing)
            if self.answers.clusters is not None:
                swapped = list(swap_p_values(units, cells, n=n, rng=swapping))
        else:
            gains = row_variances(units, cells, split=split, n=n, rng=drawing)
        return [
            self._effect(units, metric, group, number, drawn, p_value)
            for (metric, group), (_, number), drawn, p_value in zip(
                wanted, cells, gains, swapped, strict=True
            )
        ]

    @property
    def _are_single(self) -> bool:
        return len(self.first) == len(self.second) == 1

    def _effect(
        self,
        units: Units,
        metric: Metric,
        group: str | None,
        scope: int,
        gains: np.ndarray | RowVariance,
        swapped: float | None,
    ) -> Effect:
        rows = {"fpr": ~self.answers.hate, "fnr": self.answers.hate}.get(
            metric, np.ones_like(self.answers.hate)
        )
        rows = rows if group is None else rows & self.answers.groups[group]
        n, clusters = int(rows.sum()), self.answers.clusters
        n_clusters = None if clusters is None else len(np.unique(clusters[rows]))
        values = metric_values(units.totals, metric, scope)[0]
        if np.isnan(values).any():
            return Effect(n, n_clusters, reason=_undefined(metric))
        split = len(self.first)
        first, second = float(values[:split].mean()), float(values[split:].mean())
        n_units = units.holding(metric, scope)
        if n_units < 2:
            return Effect(n, n_clusters, first, second, reason="one_independent_unit")
        if isinstance(gains, RowVariance):
            known = Effect(n, n_clusters)
            return over_seeds(known, values[:split], values[split:], rows=gains, n_units=n_units)
        error = standard_error(gains)
        added = 0.0 if metric == "f1" else 2 / n_units**2
        least = least_p_value(units.disagreeing(metric, scope))
        if metric == "f1":
            p_value = None  # McNemar's test is of rates; F1 is judged by its bound alone
        elif swapped is None:
            ours, theirs = (
                self.answers.flagged[side[0]][rows] for side in (self.first, self.second)
            )
            right = self.answers.hate[rows]
            differ = ours != theirs
            only_first = int((differ & (ours == right)).sum())
            p_value = mcnemar_exact(only_first, int(differ.sum()) - only_first)
        else:
            p_value, least = swapped, max(least, 1 / (self.n_bootstrap + 1))
        return Effect(
            n,
            n_clusters,
            first,
            second,
            error=error,
            added=added,
            gains=gains,
            method="paired_bootstrap",
            p_value=p_value,
            least=least,
        )


def template_effect(
    answers: Answers, first: Sequence[int], second: Sequence[int], rows: np.ndarray
) -> Effect:
    """Return the paired difference of accuracy on some rows, with their templates as the units.

    The variance is that of a ratio of template totals, and bounds are Student's t on the number of
    equal templates less one. One additional disagreement in each direction (Bonett and Price 2012)
    turns as many rows as those templates that changed did on average, one at least.

    Args:
        answers: the rows that every run answered.
        first: the numbers of the first side's runs.
        second: those of the second side's.
        rows: which rows, bool, shape (n,).
    """
    n = int(rows.sum())
    right = answers.flagged[:, rows] == answers.hate[rows]
    if answers.clusters is None:
        n_clusters, template = None, np.arange(n)
    else:
        _, template = np.unique(answers.clusters[rows], return_inverse=True)
        n_clusters = int(template.max(initial=-1)) + 1
    if n == 0:
        return Effect(0, n_clusters, reason="no_cases")
    ours, theirs = right[list(first)].mean(axis=1), right[list(second)].mean(axis=1)
    sizes = np.bincount(template)
    if len(sizes) < 2:
        reason = "one_independent_unit"
        return Effect(n, n_clusters, float(ours.mean()), float(theirs.mean()), reason=reason)
    each = np.stack(
        [np.bincount(template, weights=right[run].astype(float)) for run in (*first, *second)]
    )
    net = each[len(first) :].mean(axis=0) - each[: len(first)].mean(axis=0)
    turned = np.abs(net[np.abs(net) > _TOLERANCE])
    step = max(1.0, float(turned.mean()) if len(turned) else 1.0) / n
    rest = each - each.sum(axis=1, keepdims=True) * sizes / n
    covariance = len(sizes) / (len(sizes) - 1) * (rest @ rest.T) / n**2
    n_units = max(2, round(kish_size(sizes)))
    if len(first) == len(second) == 1:
        spread = float(covariance.trace() - 2 * covariance[0, 1])
        error = math.sqrt(max(0.0, spread) + 2 * step**2)
        return Effect(
            n,
            n_clusters,
            float(ours[0]),
            float(theirs[0]),
            error=error,
            added=2 * step**2,
            degrees=n_units - 1,
            method="t_clustered",
        )
    rows_only = split_variance(covariance, split=len(first), added=2 * step**2)
    return over_seeds(Effect(n, n_clusters), ours, theirs, rows=rows_only, n_units=n_units)


def over_seeds(
    known: Effect, first: np.ndarray, second: np.ndarray, *, rows: RowVariance, n_units: int
) -> Effect:
    """Return the difference of the means over seeds, with the spread of rows and of seeds.

    Args:
        known: the labels that it rests on.
        first: the metric of each seed of the first side, shape (seeds,).
        second: that of the second side.
        rows: the variance that comes from the rows.
        n_units: the independent rows or clusters behind it.
    """
    found = seed_test(first, second, row_variance=rows.beside_seeds, n_units=n_units)
    by_labels = rows.beside_seeds + rows.own
    return replace(
        known,
        first=float(first.mean()),
        second=float(second.mean()),
        error=found.error,
        fixed_error=math.sqrt(max(0.0, found.error**2 - by_labels)),
        added=rows.added,
        degrees=found.degrees,
        method="t_rows_and_seeds",
        p_value=found.p_value,
    )


def _undefined(metric: str) -> str:
    return "no_negatives" if metric == "fpr" else "no_positives"

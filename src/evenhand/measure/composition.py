"""Composition: how much of a group's rate ratio is which kinds of posts the group has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student_t

from evenhand.core.evaluation import Composition, MetricValue, RateRatio
from evenhand.measure.intervals import CONFIDENCE
from evenhand.measure.sample import Sample

_STRATA_COLUMNS = ("source", "fine_label")
_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


def composition(
    frame: pd.DataFrame,
    sample: Sample,
    members: Mapping[str, np.ndarray],
    *,
    by: Sequence[str] = _STRATA_COLUMNS,
) -> dict[str, Composition]:
    """Return each group's FPR and FNR ratios to the rows outside it, crude and stratified.

    The crude ratio has the log-normal interval (Katz et al. 1978), the Mantel-Haenszel risk ratio
    that of Greenland and Robins (1985). Both take rows as independent; where the sample has
    clusters the variance is the larger of theirs and that between the clusters' contributions to
    the linearised ratio, with Student's t, so rows of one cluster may depend on each other in any
    way; where few clusters have an error the interval is still too narrow. A ratio that would be
    infinite, or whose interval would, has a reason in its place.

    Args:
        frame: the rows as :func:`evenhand.measure.sample.ordered_frame` gives them.
        sample: the same rows; only those that are scored count.
        members: per group, which rows belong to it, shape (n,).
        by: the columns whose crossed values are the strata; a missing value is a value of its own,
            and a column that is empty throughout drops out.

    Returns:
        Per group; nothing where no column is left.
    """
    used = tuple(name for name in by if frame[name].notna().any())
    if not used:
        return {}
    strata = _strata(frame, used)
    normal, hate = sample.ok & ~sample.hate, sample.ok & sample.hate
    result = {}
    for group, member in members.items():
        fpr = _Rows(normal, sample.flagged, member, strata, sample.clusters)
        fnr = _Rows(hate, ~sample.flagged, member, strata, sample.clusters)
        result[group] = Composition(
            by=used,
            fpr=_rate_ratio(fpr, undefined="no_negatives", no_rate="no_false_positives"),
            fnr=_rate_ratio(fnr, undefined="no_positives", no_rate="no_false_negatives"),
        )
    return result


def _strata(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Number the crossed values of the columns, shape (n,); a missing value counts as one."""
    code = np.zeros(len(frame), dtype=np.int64)
    for name in columns:
        values, names = pd.factorize(frame[name])
        # Renumbered at each step, so that many columns cannot overflow.
        code = np.unique(code * (len(names) + 1) + values + 1, return_inverse=True)[1]
    return code


class _Rows:
    """The rows of one rate (its denominator), as arrays of shape (n,)."""

    def __init__(
        self,
        eligible: np.ndarray,
        hits: np.ndarray,
        member: np.ndarray,
        strata: np.ndarray,
        clusters: np.ndarray | None,
    ) -> None:
        self.hit = hits[eligible]
        self.member = member[eligible]
        self.stratum = strata[eligible]
        self.cluster = None if clusters is None else clusters[eligible]

    def where(self, mask: np.ndarray) -> _Rows:
        return _Rows(mask, self.hit, self.member, self.stratum, self.cluster)

    def together(self) -> _Rows:
        """Return the rows as one stratum."""
        every = np.ones(len(self.hit), dtype=bool)
        one = np.zeros(len(self.hit), dtype=np.int64)
        return _Rows(every, self.hit, self.member, one, self.cluster)


@dataclass(frozen=True)
class _Tables:
    """One two-by-two table a stratum: hits and rows, inside and outside the group."""

    hits: np.ndarray
    rows: np.ndarray
    hits_outside: np.ndarray
    rows_outside: np.ndarray


def _rate_ratio(rows: _Rows, *, undefined: str, no_rate: str) -> RateRatio:
    tables = _tables(rows)
    shared = (tables.rows > 0) & (tables.rows_outside > 0)
    kept = rows.where(shared[rows.stratum])
    crude = _crude(rows.together(), undefined=undefined, no_rate=no_rate)
    if not len(rows.hit) or not rows.member.any():
        adjusted = MetricValue(reason=undefined)
    elif not shared.any():
        adjusted = MetricValue(reason="no_stratum_with_both_sides")
    else:
        adjusted = _risk_ratio(kept, method="mantel_haenszel", no_rate=no_rate)
    left_out = int(tables.rows[~shared].sum())
    # The group's rows that were left out are not explained by the strata. Rows outside the group
    # in strata that the group does not have are: they are kinds of posts that it lacks.
    comparable = rows.where(shared[rows.stratum] | ~rows.member) if left_out else rows
    explained = None
    if _differs(crude) and shared.any():
        whole = _crude(comparable.together(), undefined=undefined, no_rate=no_rate)
        explained = _explained(whole, adjusted)
    return RateRatio(
        crude=crude,
        adjusted=adjusted,
        explained=explained,
        strata=int(shared.sum()),
        left_out=left_out,
    )


def _crude(rows: _Rows, *, undefined: str, no_rate: str) -> MetricValue:
    """Return the ratio of the two rates over rows that are one stratum."""
    if not rows.member.any():
        return MetricValue(reason=undefined)
    if rows.member.all():
        return MetricValue(reason=f"{undefined}_outside_the_group")
    return _risk_ratio(rows, method="katz", no_rate=no_rate)


def _risk_ratio(rows: _Rows, *, method: str, no_rate: str) -> MetricValue:
    """Return the Mantel-Haenszel risk ratio; over one stratum it is the plain ratio of rates.

    Over one stratum the variance of Greenland and Robins is that of Katz.
    """
    tables = _tables(rows)
    n = np.maximum(tables.rows + tables.rows_outside, 1)
    inside = float((tables.hits * tables.rows_outside / n).sum())
    outside = float((tables.hits_outside * tables.rows / n).sum())
    if outside == 0.0:
        return MetricValue(reason=f"{no_rate}_outside_the_group")
    value = inside / outside
    if inside == 0.0:
        return MetricValue(value=0.0, reason=f"{no_rate}_in_the_group")
    misses, misses_outside = tables.rows - tables.hits, tables.rows_outside - tables.hits_outside
    terms = (
        tables.hits * tables.rows * misses_outside
        + tables.hits_outside * tables.rows_outside * misses
    )
    variance, quantile = float((terms / n**2).sum()) / (inside * outside), _Z
    if variance == 0.0:
        # Every row on both sides is a hit: the formula would give an interval without width.
        return MetricValue(value=value, reason="both_rates_are_one")
    if rows.cluster is not None:
        clusters = _Clusters(rows)
        if clusters.degrees is None:
            return MetricValue(value=value, reason="one_independent_unit")
        between = clusters.variance(rows, tables, value=value) / inside**2
        variance, method = max(variance, between), f"{method}_clustered"
        quantile = float(student_t.ppf(0.5 + CONFIDENCE / 2, clusters.degrees))
    spread = quantile * math.sqrt(variance)
    return MetricValue(
        value=value,
        low=value * math.exp(-spread),
        high=value * math.exp(spread),
        method=method,
    )


class _Clusters:
    """The clusters of the rows of one rate.

    ``degrees`` are the degrees of freedom of a variance that is estimated from them; None where the
    group, or the rest, is one cluster: then nothing shows how clusters differ.
    """

    def __init__(self, rows: _Rows) -> None:
        assert rows.cluster is not None
        _, self._code = np.unique(rows.cluster, return_inverse=True)
        self._inside, self._outside = (
            len(np.unique(self._code[side])) for side in (rows.member, ~rows.member)
        )
        both = self._inside + self._outside - 2
        one_sided = min(self._inside, self._outside) == 1
        self.degrees = None if one_sided else min(both, int(self._code.max()))

    def variance(self, rows: _Rows, tables: _Tables, *, value: float) -> float:
        """Return the variance of (weighted hits inside - ratio x weighted hits outside).

        A row contributes that difference's derivative by the row's own weight, and a cluster the
        sum over its rows. Over independent rows of one stratum the squares add up to Katz's.
        """
        n = np.maximum(tables.rows + tables.rows_outside, 1)
        expected = (tables.hits + value * tables.hits_outside) / n
        at = rows.stratum
        contribution = np.where(
            rows.member,
            _correction(self._inside) * (tables.rows_outside / n)[at] * (rows.hit - expected[at]),
            -_correction(self._outside) * (tables.rows / n)[at] * (value * rows.hit - expected[at]),
        )
        sums = np.bincount(self._code, weights=contribution)
        return float(sums @ sums)


def _correction(units: int) -> float:
    """Return the factor that makes a sum of squares over so many units an unbiased variance."""
    return math.sqrt(units / (units - 1))


def _tables(rows: _Rows) -> _Tables:
    size = int(rows.stratum.max()) + 1 if len(rows.stratum) else 0

    def count(mask: np.ndarray) -> np.ndarray:
        return np.bincount(rows.stratum[mask], minlength=size).astype(float)

    return _Tables(
        hits=count(rows.hit & rows.member),
        rows=count(rows.member),
        hits_outside=count(rows.hit & ~rows.member),
        rows_outside=count(~rows.member),
    )


def _explained(crude: MetricValue, adjusted: MetricValue) -> float | None:
    if crude.value is None or not adjusted.value or not _differs(crude):
        return None
    return 1.0 - math.log(adjusted.value) / math.log(crude.value)


def _differs(ratio: MetricValue) -> bool:
    """Whether the interval of a ratio excludes 1."""
    if ratio.low is None or ratio.high is None:
        return False
    return not ratio.low <= 1.0 <= ratio.high

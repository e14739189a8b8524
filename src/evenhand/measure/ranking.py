"""Ranking: the ROC AUC with DeLong's interval, and the bias AUCs per group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student_t

from evenhand.core.evaluation import BiasAuc, BiasAucs, MetricValue
from evenhand.measure.intervals import CONFIDENCE, auc_score_interval
from evenhand.measure.sample import Sample

MEAN_POWER = -5.0
"""Power of the generalised mean: the worst group counts most (Borkan et al. 2019)."""

_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


def auc_interval(
    hate: np.ndarray, score: np.ndarray, *, clusters: np.ndarray | None = None
) -> MetricValue:
    """Return the ROC AUC, ties counting a half, with DeLong's interval on the logit scale.

    The variance is that of DeLong, DeLong and Clarke-Pearson (1988) by ranks (Sun and Xu 2014);
    with clusters Obuchowski's (1997), for which a cluster may hold rows of both classes, taken with
    Student's t since clusters are few (with 20 of ten rows the normal covers 93%, t 95%). Where
    either has no spread to show (an AUC of 0 or 1, scores that are all the same, one row or
    cluster of a class) the interval is Newcombe's score interval (``newcombe_auc``).

    Args:
        hate: whether the label is hate, shape (n,).
        score: p(hate), shape (n,).
        clusters: cluster number per row, shape (n,); None where rows are independent.

    >>> auc = auc_interval(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.1]))
    >>> auc.value, auc.method
    (0.75, 'delong')
    """
    reason = _why_undefined(hate, score)
    if reason is not None:
        return MetricValue(reason=reason)
    return _auc(hate, _levels(score), clusters).value


def bias_aucs(sample: Sample, members: Mapping[str, np.ndarray]) -> BiasAucs | None:
    """Return each group's bias AUCs and their generalised means with power -5.

    ``subgroup`` ranks the group's own rows; ``bpsn`` (background positive, subgroup negative) the
    group's normal rows below hate rows outside it; ``bnsp`` the group's hate rows above normal rows
    outside it (Borkan et al. 2019, as HateXplain uses them). A mean is over the groups whose AUC is
    defined; its interval is by the delta method on the logit scale, with the covariance of groups
    that share rows. It has none where a group's AUC has no spread (0 or 1, say).

    Args:
        sample: the rows; only those that are scored count.
        members: per group, which rows belong to it, shape (n,).

    Returns:
        None where a scored row has no score, or there are no groups.
    """
    rows = sample.where(sample.ok)
    if not members or not len(rows) or np.isnan(rows.score).any():
        return None
    level = _levels(rows.score)
    inside = {group: member[sample.ok] for group, member in members.items()}
    parts = {
        "subgroup": inside,
        "bpsn": {group: member != rows.hate for group, member in inside.items()},
        "bnsp": {group: member == rows.hate for group, member in inside.items()},
    }
    values: dict[str, dict[str, MetricValue]] = {group: {} for group in members}
    means: dict[str, MetricValue] = {}
    for kind, masks in parts.items():
        aucs = {group: _auc_of_part(rows, level, mask) for group, mask in masks.items()}
        for group, auc in aucs.items():
            values[group][kind] = auc.value
        means[kind] = _generalised_mean(rows, [(masks[group], aucs[group]) for group in aucs])
    return BiasAucs(
        groups={group: BiasAuc(**kinds) for group, kinds in values.items()},
        mean=BiasAuc(**means),
    )


@dataclass(frozen=True, eq=False)
class _Auc:
    """An AUC with its interval, and what each row adds to its error.

    Attributes:
        value: the AUC; undefined with one class.
        influence: shape (rows,), scaled per class so that the squares of its sums over independent
            units add up to an unbiased variance; None where there is no spread to estimate it from.
    """

    value: MetricValue
    influence: np.ndarray | None = None


def _auc(hate: np.ndarray, level: np.ndarray, clusters: np.ndarray | None) -> _Auc:
    """Return the AUC of rows of both classes, from the ordinal numbers of their scores."""
    size = int(level.max()) + 1
    positive = np.bincount(level[hate], minlength=size)
    negative = np.bincount(level[~hate], minlength=size)
    m, n = int(positive.sum()), int(negative.sum())
    # For each level, the rows of the other class that are ranked the right way, ties a half.
    below = np.cumsum(negative) - negative / 2
    above = m - (np.cumsum(positive) - positive / 2)
    value = float(positive @ below) / (m * n)
    influence = np.where(hate, below[level] / n - value, above[level] / m - value)
    influence /= np.where(hate, m, n)
    method, n_units, sides, covariance, quantile = "delong", m + n, (m, n), 0.0, _Z
    if clusters is not None:
        method = "delong_clustered"
        _, unit = np.unique(clusters, return_inverse=True)
        n_units = int(unit.max()) + 1
        sides = _units_per_side(hate, unit)
        quantile = _t_quantile(sides, n_units)
        sums = [_sums(np.where(side, influence, 0.0), unit) for side in (hate, ~hate)]
        covariance = 2 * _correction(n_units) * float(sums[0] @ sums[1])
    else:
        sums = [influence[hate], influence[~hate]]
    if n_units == 1:
        return _Auc(MetricValue(value=value, reason="one_independent_unit"))
    own = (_correction(k) * float(part @ part) for k, part in zip(sides, sums, strict=True))
    variance = sum(own) + covariance
    # Ranks that differ at all give more than this; rounding gives less.
    least = 1e-3 / (m * n) ** 2
    if min(sides) == 1 or not 0.0 < value < 1.0 or variance <= least:
        low, high = auc_score_interval(value, positives=sides[0], negatives=sides[1])
        return _Auc(MetricValue(value=value, low=low, high=high, method="newcombe_auc"))
    scale = np.where(hate, math.sqrt(_correction(sides[0])), math.sqrt(_correction(sides[1])))
    return _Auc(
        _on_logit_scale(value, variance, quantile=quantile, method=method), influence * scale
    )


def _auc_of_part(rows: Sample, level: np.ndarray, part: np.ndarray) -> _Auc:
    hate = rows.hate[part]
    if hate.all() or not hate.any():
        return _Auc(MetricValue(reason="one_class"))
    return _auc(hate, level[part], None if rows.clusters is None else rows.clusters[part])


def _generalised_mean(rows: Sample, aucs: Sequence[tuple[np.ndarray, _Auc]]) -> MetricValue:
    """Return the power mean of the defined AUCs; each comes with the rows that it is over."""
    defined = [(part, auc) for part, auc in aucs if auc.value.value is not None]
    if not defined:
        return MetricValue(reason="no_group_is_defined")
    values = np.array([auc.value.value for _, auc in defined])
    if values.min() <= 0.0:
        return MetricValue(value=0.0, reason="a_group_has_no_spread")
    value = float((values**MEAN_POWER).mean() ** (1 / MEAN_POWER))
    error = np.zeros(len(rows))
    slopes = (values / value) ** (MEAN_POWER - 1) / len(values)
    for slope, (part, auc) in zip(slopes, defined, strict=True):
        if auc.influence is None:
            return MetricValue(value=value, reason="a_group_has_no_spread")
        error[part] += slope * auc.influence
    method, quantile = "delong_delta", _Z
    if rows.clusters is not None:
        method = "delong_delta_clustered"
        _, unit = np.unique(rows.clusters, return_inverse=True)
        error = _sums(error, unit)
        quantile = _t_quantile(_units_per_side(rows.hate, unit), len(error))
    return _on_logit_scale(value, float(error @ error), quantile=quantile, method=method)


def _on_logit_scale(value: float, variance: float, *, quantile: float, method: str) -> MetricValue:
    spread = quantile * math.sqrt(variance) / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-spread, spread]))
    return MetricValue(value=value, low=float(low), high=float(high), method=method)


def _levels(score: np.ndarray) -> np.ndarray:
    """Number the distinct scores in rising order: the one sort that all AUCs share."""
    return np.unique(score, return_inverse=True)[1]


def _sums(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    return np.bincount(unit, weights=values)


def _units_per_side(hate: np.ndarray, unit: np.ndarray) -> tuple[int, int]:
    return len(np.unique(unit[hate])), len(np.unique(unit[~hate]))


def _t_quantile(sides: tuple[int, int], n_units: int) -> float:
    """Return Student's quantile for a variance estimated from so many clusters of each class."""
    degrees = max(1, min(sum(sides) - 2, n_units - 1))
    return float(student_t.ppf(0.5 + CONFIDENCE / 2, degrees))


def _correction(units: int) -> float:
    """Return what makes a mean square an unbiased variance; of one unit there is none."""
    return units / (units - 1) if units > 1 else 0.0


def _why_undefined(hate: np.ndarray, score: np.ndarray) -> str | None:
    missing = np.isnan(score)
    if not len(missing):
        return "no_scored_rows"
    if missing.any():
        return "no_scores" if missing.all() else "some_scores_missing"
    return "one_class" if hate.all() or not hate.any() else None

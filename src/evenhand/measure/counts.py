"""Bootstrap of count metrics: confusion counts are resampled, not rows.

A metric that is a ratio of counts sees of a row only its type: its cell of the confusion and the
groups it is in. How often each type occurs in a resample of n rows is multinomial, so a replicate
costs as much as there are types (at most 4 x 2^groups), whatever the number of rows. Where rows
come in clusters, a cluster is the unit and its table of counts is its type. The resamples have
exactly the distribution of a bootstrap of rows or of clusters (Efron and Tibshirani 1993).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evenhand.core.evaluation import MetricValue
from evenhand.measure.intervals import bootstrap_value, newcombe, proportion, resamples
from evenhand.measure.sample import Sample

# The cells of a confusion in the order tn, fp, fn, tp: twice the label plus the decision.
_N_CELLS = 4
_TN, _FP, _FN, _TP = np.eye(_N_CELLS)
_WIDEST_CODE = 2**61


@dataclass(frozen=True, eq=False)
class _Ratio:
    """A metric as the ratio of two weighted sums of cells, defined where a third is not 0."""

    numerator: np.ndarray
    denominator: np.ndarray
    undefined: str
    needed: np.ndarray

    def of(self, cells: np.ndarray) -> np.ndarray:
        """Return the metric of cells (..., 4); NaN where undefined."""
        top, bottom = cells @ self.numerator, cells @ self.denominator
        out = np.full(np.shape(bottom), np.nan)
        return np.divide(top, bottom, out=out, where=cells @ self.needed > 0)


def _share(numerator: np.ndarray, denominator: np.ndarray, undefined: str) -> _Ratio:
    return _Ratio(numerator, denominator, undefined, needed=denominator)


_METRICS: Mapping[str, _Ratio] = {
    "accuracy": _share(_TN + _TP, _TN + _FP + _FN + _TP, "no_scored_rows"),
    "precision": _share(_TP, _TP + _FP, "no_positive_decisions"),
    "recall": _share(_TP, _TP + _FN, "no_positives"),
    "f1": _Ratio(2 * _TP, 2 * _TP + _FP + _FN, "no_positives", needed=_TP + _FN),
    "fpr": _share(_FP, _FP + _TN, "no_negatives"),
    "fnr": _share(_FN, _FN + _TP, "no_positives"),
}
COUNT_METRICS: tuple[str, ...] = tuple(_METRICS)


class CountBootstrap:
    """Replicates of every count metric of one sample: overall, in each group and outside it.

    All metrics come from the same resamples, so that their differences are paired.

    Args:
        sample: the rows; those that are not scored are left out.
        members: per group a boolean mask over the rows, shape (n,).
        n_bootstrap: replicates.
        rng: draws the resamples.

    >>> rng = np.random.default_rng(0)
    >>> hate, flagged = rng.random((2, 500)) < 0.5
    >>> ok, none = np.ones(500, bool), np.full(500, np.nan)
    >>> sample = Sample(hate, flagged, ok=ok, failed=~ok, score=none, clusters=None)
    >>> replicates = CountBootstrap(sample, {"half": ok & hate}, n_bootstrap=1000, rng=rng)
    >>> replicates.replicates("f1").shape
    (1000,)
    >>> replicates.value("fpr", group="half").reason
    'no_negatives'
    """

    def __init__(
        self,
        sample: Sample,
        members: Mapping[str, np.ndarray],
        *,
        n_bootstrap: int,
        rng: np.random.Generator,
    ) -> None:
        self._rows = sample.where(sample.ok)
        self._members = {name: mask[sample.ok] for name, mask in members.items()}
        self._cell = 2 * self._rows.hate.astype(np.int8) + self._rows.flagged
        self._overall, self._groups = _resample_cells(
            self._cell,
            self._members,
            clusters=self._rows.clusters,
            n_bootstrap=n_bootstrap,
            rng=rng,
        )

    def cells(self, *, group: str | None = None, outside: bool = False) -> np.ndarray:
        """Return the replicates' tn, fp, fn, tp, shape (n_bootstrap, 4).

        They are those of all rows, of a group, or (``outside``) of all rows but the group's.
        """
        if group is None:
            return self._overall
        inside = self._groups[group]
        return self._overall - inside if outside else inside

    def replicates(
        self, metric: str, *, group: str | None = None, outside: bool = False
    ) -> np.ndarray:
        """Return a metric's replicates, shape (n_bootstrap,); NaN where undefined."""
        return _METRICS[metric].of(self.cells(group=group, outside=outside))

    def value(self, metric: str, *, group: str | None = None, outside: bool = False) -> MetricValue:
        """Return a metric with its percentile interval.

        A metric of exactly 0 or 1 is the same in every resample; it takes Wilson's interval, F1
        through the Jaccard index J (F1 = 2J / (1 + J), and J is a proportion).
        """
        ratio = _METRICS[metric]
        part = np.ones(len(self._rows), dtype=bool) if group is None else self._members[group]
        part = ~part if outside else part
        observed = np.bincount(self._cell[part], minlength=_N_CELLS)
        value = float(ratio.of(observed))
        if np.isnan(value):
            return MetricValue(reason=ratio.undefined)
        if value in (0.0, 1.0):
            return self._without_spread(metric, part)
        units = self._units(metric, part)
        if units == 1:
            return MetricValue(value=value, reason="one_independent_unit")
        replicates = self.replicates(metric, group=group, outside=outside)
        return bootstrap_value(value, replicates, method=self._method, n_units=units)

    def gap(self, metric: str, *, group: str) -> MetricValue:
        """Return a metric in the group minus outside it, with its percentile interval.

        Where both are exactly 0 or 1, and no resample differs, it is Newcombe's.
        """
        inside = self.value(metric, group=group)
        rest = self.value(metric, group=group, outside=True)
        if inside.value is None or rest.value is None or {inside.value, rest.value} <= {0.0, 1.0}:
            return newcombe(inside, rest)
        difference = inside.value - rest.value
        if inside.low is None or rest.low is None:
            return MetricValue(value=difference, reason=inside.reason or rest.reason)
        replicates = self.replicates(metric, group=group)
        replicates = replicates - self.replicates(metric, group=group, outside=True)
        mask = self._members[group]
        units = min(self._units(metric, mask), self._units(metric, ~mask))
        return bootstrap_value(difference, replicates, method=self._method, n_units=units)

    @property
    def _method(self) -> str:
        return "bootstrap_percentile" + ("" if self._rows.clusters is None else "_clustered")

    def _units(self, metric: str, part: np.ndarray) -> int:
        """Return how many independent units are in the metric's denominator."""
        eligible = (_METRICS[metric].denominator[self._cell] > 0) & part
        clusters = self._rows.clusters
        return int(eligible.sum()) if clusters is None else len(np.unique(clusters[eligible]))

    def _without_spread(self, metric: str, part: np.ndarray) -> MetricValue:
        ratio = _METRICS[metric]
        share = proportion(
            (ratio.numerator[self._cell] > 0) & part,
            (ratio.denominator[self._cell] > 0) & part,
            clusters=self._rows.clusters,
            undefined=ratio.undefined,
        )
        if metric != "f1":
            return share
        low, high = (2 * end / (1 + end) for end in (share.low or 0.0, share.high or 0.0))
        value = 2 * (share.value or 0.0) / (1 + (share.value or 0.0))
        return MetricValue(value=value, low=low, high=high, method="wilson_jaccard")


def _resample_cells(
    cell: np.ndarray,
    members: Mapping[str, np.ndarray],
    *,
    clusters: np.ndarray | None,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return how many rows each cell has in each replicate, (n_bootstrap, 4), and per group."""
    masks = list(members.values())
    if clusters is None:
        table, sizes = _row_types(cell, masks)
    else:
        table, sizes = _cluster_types(cell, masks, clusters)
    out = np.zeros((n_bootstrap, table.shape[1]))
    start = 0
    for weights in resamples(sizes, n_bootstrap=n_bootstrap, rng=rng):
        out[start : start + len(weights)] = weights @ table
        start += len(weights)
    parts = np.split(out, 1 + len(masks), axis=1)
    return parts[0], dict(zip(members, parts[1:], strict=True))


def _row_types(cell: np.ndarray, masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the table of each type of row (types, cells x parts), and how many rows it has."""
    code, width = cell.astype(np.int64), _N_CELLS
    for mask in masks:
        if width > _WIDEST_CODE:
            distinct, code = np.unique(code, return_inverse=True)
            width = len(distinct)
        code = 2 * code + mask
        width *= 2
    _, first, sizes = np.unique(code, return_index=True, return_counts=True)
    one_hot = np.eye(_N_CELLS)[cell[first]]
    return np.hstack([one_hot, *(one_hot * mask[first, None] for mask in masks)]), sizes


def _cluster_types(
    cell: np.ndarray, masks: list[np.ndarray], clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of each type of cluster (types, cells x parts), and how many it has."""
    names, unit = np.unique(clusters, return_inverse=True)
    place = unit * _N_CELLS + cell
    counts = [np.bincount(place, minlength=len(names) * _N_CELLS)]
    counts += [np.bincount(place[mask], minlength=len(names) * _N_CELLS) for mask in masks]
    table = np.hstack([part.reshape(len(names), _N_CELLS) for part in counts])
    types, sizes = np.unique(table, axis=0, return_counts=True)
    return types.astype(float), sizes

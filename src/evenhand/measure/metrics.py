"""The eight metrics of a sample, each with its interval."""

from __future__ import annotations

import numpy as np

from evenhand.core.evaluation import Bound, Bounds, Confusion, Metrics, MetricValue, SampleSize
from evenhand.measure.intervals import (
    MIN_LABELS,
    Statistic,
    auc_score_interval,
    bootstrap,
    bootstrap_value,
    labels_needed,
    proportion,
)
from evenhand.measure.sample import Sample

ECE_BINS = 15


def measure_metrics(sample: Sample, *, n_bootstrap: int, rng: np.random.Generator) -> Metrics:
    """Return the metrics of the scored rows of ``sample``."""
    scored = sample.where(sample.ok)
    resampled = _Resampled(scored, n_bootstrap=n_bootstrap, rng=rng)
    hate, flagged = scored.hate, scored.flagged
    everything = np.ones(len(scored), dtype=bool)

    def share(hits: np.ndarray, eligible: np.ndarray, undefined: str) -> MetricValue:
        return proportion(hits, eligible, clusters=scored.clusters, undefined=undefined)

    return Metrics(
        accuracy=share(hate == flagged, everything, "no_scored_rows"),
        precision=share(hate, flagged, "no_positive_decisions"),
        recall=share(flagged, hate, "no_positives"),
        f1=resampled.f1(),
        fpr=false_positive_rate(sample),
        fnr=false_negative_rate(sample),
        roc_auc=resampled.roc_auc(),
        ece=resampled.ece(),
    )


def false_positive_rate(sample: Sample) -> MetricValue:
    """Return the share of normal rows that were decided hate."""
    return proportion(
        sample.flagged, sample.ok & ~sample.hate, clusters=sample.clusters, undefined="no_negatives"
    )


def false_negative_rate(sample: Sample) -> MetricValue:
    """Return the share of hate rows that were decided normal."""
    return proportion(
        ~sample.flagged, sample.ok & sample.hate, clusters=sample.clusters, undefined="no_positives"
    )


def sample_size(rate: MetricValue) -> SampleSize:
    """Return whether a rate's denominator is large enough for a claim, and what would be."""
    labels = rate.denominator or 0
    return SampleSize(
        labels=labels, too_small=labels < MIN_LABELS, needed=labels_needed(rate.value)
    )


def unscored_bounds(sample: Sample) -> Bounds | None:
    """Return the metrics with every unscored row wrong and with every one right; None if none."""
    hate = int((sample.hate & ~sample.ok).sum())
    normal = int((~sample.hate & ~sample.ok).sum())
    if hate + normal == 0:
        return None
    seen = sample.confusion()
    worst = Confusion(tp=seen.tp, tn=seen.tn, fp=seen.fp + normal, fn=seen.fn + hate)
    best = Confusion(tp=seen.tp + hate, tn=seen.tn + normal, fp=seen.fp, fn=seen.fn)

    def bound(*, numerator: str, denominator: str) -> Bound:
        low, high = (_ratio(_count(c, numerator), _count(c, denominator)) for c in (worst, best))
        return Bound(worst=low, best=high)

    return Bounds(
        accuracy=bound(numerator="tp tn", denominator="tp tn fp fn"),
        f1=bound(numerator="tp tp", denominator="tp tp fp fn"),
        fpr=bound(numerator="fp", denominator="fp tn"),
        fnr=bound(numerator="fn", denominator="fn tp"),
    )


def _count(confusion: Confusion, cells: str) -> int:
    return sum(getattr(confusion, cell) for cell in cells.split())


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


class _Resampled:
    """F1, AUC and ECE of scored rows from one set of bootstrap resamples."""

    def __init__(self, scored: Sample, *, n_bootstrap: int, rng: np.random.Generator) -> None:
        self._rows = scored
        self._unit = np.arange(len(scored)) if scored.clusters is None else _codes(scored.clusters)
        self._n_units = int(self._unit.max()) + 1 if len(scored) else 0
        self._method = "bootstrap_percentile" + ("" if scored.clusters is None else "_clustered")
        self._confusion = scored.confusion()
        self._score_reason = self._why_no_score()
        statistics: dict[str, Statistic] = {}
        if scored.clusters is not None:
            statistics["f1"] = self._f1_statistic()
        if self._score_reason is None:
            statistics["ece"] = self._ece_statistic()
            if self._auc_is_open():
                statistics["auc"] = self._auc_statistic()
        self._replicates: dict[str, np.ndarray] = {}
        if len(scored):
            values = bootstrap(
                list(statistics.values()), n_units=self._n_units, n_bootstrap=n_bootstrap, rng=rng
            )
            self._replicates = dict(zip(statistics, values, strict=True))
            if scored.clusters is None:
                # Resampling independent rows only redistributes the four cells.
                c = self._confusion
                shares = np.array([c.tp, c.tn, c.fp, c.fn]) / len(scored)
                self._replicates["f1"] = _f1(rng.multinomial(len(scored), shares, size=n_bootstrap))

    def f1(self) -> MetricValue:
        cells, rows = self._confusion, self._rows
        if cells.positives == 0:
            return MetricValue(reason="no_positives")
        errors = cells.fp + cells.fn
        value = 2 * cells.tp / (2 * cells.tp + errors)
        if cells.tp and errors:
            return self._interval(value, "f1")
        # A bootstrap of an F1 of 0 or 1 has no spread. F1 = 2J / (1 + J) rises with the Jaccard
        # index J, which is a proportion and has Wilson's interval.
        jaccard = proportion(
            rows.hate & rows.flagged,
            rows.hate | rows.flagged,
            clusters=rows.clusters,
            undefined="no_positives",
        )
        low, high = (2 * end / (1 + end) for end in (jaccard.low or 0.0, jaccard.high or 0.0))
        return MetricValue(value=value, low=low, high=high, method="wilson_jaccard")

    def roc_auc(self) -> MetricValue:
        reason = self._score_reason or self._one_class()
        if reason is not None:
            return MetricValue(reason=reason)
        value = self._auc()
        if self._auc_is_open():
            return self._interval(value, "auc")
        positives, negatives = (
            len(np.unique(self._unit[self._rows.hate == side])) for side in (True, False)
        )
        low, high = auc_score_interval(value, positives=positives, negatives=negatives)
        return MetricValue(value=value, low=low, high=high, method="newcombe_auc")

    def ece(self) -> MetricValue:
        if self._score_reason is not None:
            return MetricValue(reason=self._score_reason)
        return self._interval(float(self._ece_statistic()(self._ones())[0]), "ece")

    def _interval(self, value: float, name: str) -> MetricValue:
        if self._n_units == 1:
            return MetricValue(value=value, reason="one_independent_unit")
        return bootstrap_value(value, self._replicates[name], method=self._method)

    def _ones(self) -> np.ndarray:
        return np.ones((1, self._n_units))

    def _why_no_score(self) -> str | None:
        missing = np.isnan(self._rows.score)
        if not len(missing):
            return "no_scored_rows"
        if missing.all():
            return "no_scores"
        return "some_scores_missing" if missing.any() else None

    def _one_class(self) -> str | None:
        both = self._confusion.positives and self._confusion.negatives
        return None if both else "one_class"

    def _auc(self) -> float:
        return float(self._auc_statistic()(self._ones())[0])

    def _auc_is_open(self) -> bool:
        return self._one_class() is None and 0.0 < self._auc() < 1.0

    def _f1_statistic(self) -> Statistic:
        rows = self._rows
        members = (
            rows.hate & rows.flagged,
            ~rows.hate & ~rows.flagged,
            ~rows.hate & rows.flagged,
            rows.hate & ~rows.flagged,
        )
        cells = np.stack(
            [np.bincount(self._unit, weights=m, minlength=self._n_units) for m in members], axis=1
        )
        return lambda weights: _f1(weights @ cells)

    def _auc_statistic(self) -> Statistic:
        """Mann-Whitney by ranks: rows sorted once, each replicate two cumulative sums."""
        order = np.argsort(self._rows.score, kind="stable")
        score, hate, unit = self._rows.score[order], self._rows.hate[order], self._unit[order]
        starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
        tied = len(starts) < len(score)

        def statistic(weights: np.ndarray) -> np.ndarray:
            drawn = weights[:, unit]
            positive = drawn * hate
            negative = drawn - positive
            if tied:
                positive = np.add.reduceat(positive, starts, axis=1)
                negative = np.add.reduceat(negative, starts, axis=1)
            below = np.cumsum(negative, axis=1)
            pairs = positive.sum(axis=1) * below[:, -1]
            below -= negative / 2
            wins = np.einsum("ij,ij->i", positive, below)
            return _divide(wins, pairs)

        return statistic

    def _ece_statistic(self) -> Statistic:
        """Equal-width bins of p(hate): |sum of (label - score)| per bin, over the rows."""
        bins = np.minimum((self._rows.score * ECE_BINS).astype(int), ECE_BINS - 1)
        cell = self._unit * ECE_BINS + bins
        residual = np.bincount(
            cell, weights=self._rows.hate - self._rows.score, minlength=self._n_units * ECE_BINS
        ).reshape(self._n_units, ECE_BINS)
        size = np.bincount(self._unit, minlength=self._n_units).astype(float)
        return lambda weights: np.abs(weights @ residual).sum(axis=1) / (weights @ size)


def _codes(clusters: np.ndarray) -> np.ndarray:
    return np.unique(clusters, return_inverse=True)[1]


def _f1(cells: np.ndarray) -> np.ndarray:
    """F1 of cells (..., [tp, tn, fp, fn]); NaN without positives."""
    tp, fp, fn = cells[:, 0], cells[:, 2], cells[:, 3]
    value = _divide(2.0 * tp, 2.0 * tp + fp + fn)
    return np.where(tp + fn > 0, value, np.nan)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)

"""The metrics of a sample, each with its interval."""

from __future__ import annotations

import numpy as np

from evenhand.core.evaluation import Bound, Bounds, Confusion, Metrics, MetricValue, SampleSize
from evenhand.measure.ece import ECE_BINS, ece_bin, ece_if_calibrated, ece_value
from evenhand.measure.intervals import (
    MIN_LABELS,
    Statistic,
    auc_score_interval,
    bootstrap,
    bootstrap_value,
    labels_needed,
    proportion,
)
from evenhand.measure.ranking import auc_interval
from evenhand.measure.sample import Sample

LARGE_SAMPLE = 20_000
"""Above as many scored rows AUC takes DeLong's interval, and the Brier score the normal limit of
its bootstrap: from here on they agree with the bootstrap of rows, at a thousandth of the time."""


def measure_metrics(
    sample: Sample, *, f1: MetricValue, n_bootstrap: int, rng: np.random.Generator
) -> Metrics:
    """Return the metrics of the scored rows of ``sample``, with the F1 of :mod:`.counts`."""
    scored = sample.where(sample.ok)
    scores = _Scores(scored, n_bootstrap=n_bootstrap, rng=rng)
    hate, flagged = scored.hate, scored.flagged

    def share(hits: np.ndarray, eligible: np.ndarray, undefined: str) -> MetricValue:
        return proportion(hits, eligible, clusters=scored.clusters, undefined=undefined)

    return Metrics(
        accuracy=accuracy(sample),
        precision=share(hate, flagged, "no_positive_decisions"),
        recall=share(flagged, hate, "no_positives"),
        f1=f1,
        fpr=false_positive_rate(sample),
        fnr=false_negative_rate(sample),
        roc_auc=scores.roc_auc(),
        ece=scores.ece(),
        brier=scores.brier(),
        ece_if_calibrated=scores.ece_if_calibrated(),
    )


def accuracy(sample: Sample) -> MetricValue:
    """Return the share of scored rows whose decision is their label."""
    right = sample.flagged == sample.hate
    return proportion(right, sample.ok, clusters=sample.clusters, undefined="no_scored_rows")


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


class _Scores:
    """AUC, ECE and Brier score of scored rows; AUC and Brier share their bootstrap resamples."""

    def __init__(self, scored: Sample, *, n_bootstrap: int, rng: np.random.Generator) -> None:
        self._rows = scored
        self._unit = np.arange(len(scored)) if scored.clusters is None else _codes(scored.clusters)
        self._n_units = int(self._unit.max()) + 1 if len(scored) else 0
        self._large = len(scored) > LARGE_SAMPLE
        self._reason = self._why_no_score()
        self._replicates: dict[str, np.ndarray] = {}
        if self._reason is None:
            (self._labels_rng,) = rng.spawn(1)
            self._totals = self._unit_totals()
            resample = self._normal_replicates if self._large else self._resample
            self._replicates = resample(n_bootstrap, rng)

    def roc_auc(self) -> MetricValue:
        reason = self._reason or self._one_class()
        if reason is not None:
            return MetricValue(reason=reason)
        if self._large:
            return auc_interval(self._rows.hate, self._rows.score, clusters=self._rows.clusters)
        value = self._auc()
        positives, negatives = (
            len(np.unique(self._unit[self._rows.hate == side])) for side in (True, False)
        )
        if "auc" in self._replicates:
            return self._interval(value, "auc", n_units=min(positives, negatives))
        low, high = auc_score_interval(value, positives=positives, negatives=negatives)
        return MetricValue(value=value, low=low, high=high, method="newcombe_auc")

    def ece(self) -> MetricValue:
        if self._reason is not None:
            return MetricValue(reason=self._reason)
        by_bin, size = self._totals[:, :ECE_BINS], self._totals[:, -1]
        return ece_value(by_bin, size, clustered=self._rows.clusters is not None)

    def ece_if_calibrated(self) -> float | None:
        if self._reason is not None:
            return None
        return ece_if_calibrated(self._rows.score, rng=self._labels_rng)

    def brier(self) -> MetricValue:
        if self._reason is not None:
            return MetricValue(reason=self._reason)
        value = float(_brier(self._totals.sum(axis=0)))
        return self._interval(value, "brier", n_units=self._n_units)

    def _interval(self, value: float, name: str, *, n_units: int) -> MetricValue:
        if self._n_units == 1:
            return MetricValue(value=value, reason="one_independent_unit")
        method = "bootstrap_normal" if self._large else "bootstrap_percentile"
        if self._rows.clusters is not None:
            method += "_clustered"
        return bootstrap_value(value, self._replicates[name], method=method, n_units=n_units)

    def _resample(self, n_bootstrap: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        totals = self._totals
        statistics: dict[str, Statistic] = {
            "brier": lambda weights: _brier(weights @ totals),
        }
        if self._one_class() is None and 0.0 < self._auc() < 1.0:
            statistics["auc"] = self._auc_statistic()
        values = bootstrap(
            list(statistics.values()),
            n_units=self._n_units,
            n_rows=len(self._rows),
            n_bootstrap=n_bootstrap,
            rng=rng,
        )
        return dict(zip(statistics, values, strict=True))

    def _normal_replicates(
        self, n_bootstrap: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The same from the normal limit of the resampled totals."""
        totals = self._totals[:, ECE_BINS:]
        total = totals.sum(axis=0)
        spread = totals.T @ totals - np.outer(total, total) / self._n_units
        drawn = rng.multivariate_normal(
            total, spread, size=n_bootstrap, method="eigh", check_valid="ignore"
        )
        return {"brier": drawn[:, 0] / drawn[:, 1]}

    def _why_no_score(self) -> str | None:
        missing = np.isnan(self._rows.score)
        if not len(missing):
            return "no_scored_rows"
        if missing.all():
            return "no_scores"
        return "some_scores_missing" if missing.any() else None

    def _one_class(self) -> str | None:
        return "one_class" if self._rows.hate.all() or not self._rows.hate.any() else None

    def _auc(self) -> float:
        return float(self._auc_statistic()(np.ones((1, self._n_units)))[0])

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
            return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)

        return statistic

    def _unit_totals(self) -> np.ndarray:
        """Per unit: label - score summed in each bin, squared errors, rows; (units, bins + 2)."""
        score, n = self._rows.score, self._n_units
        residual = self._rows.hate - score
        cell = self._unit * ECE_BINS + ece_bin(score)
        by_bin = np.bincount(cell, weights=residual, minlength=n * ECE_BINS)
        squared = np.bincount(self._unit, weights=residual**2, minlength=n)
        size = np.bincount(self._unit, minlength=n)
        return np.column_stack([by_bin.reshape(n, ECE_BINS), squared, size])


def _brier(totals: np.ndarray) -> np.ndarray:
    return totals[..., ECE_BINS] / totals[..., -1]


def _codes(clusters: np.ndarray) -> np.ndarray:
    return np.unique(clusters, return_inverse=True)[1]

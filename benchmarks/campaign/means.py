"""Metrics of one configuration over several seeds, with intervals over rows and seeds.

The variance of a mean over seeds is that of the rows which the seeds share (the covariance between
two seeds over a bootstrap of rows, or of clusters) plus that between seeds over their number; the
interval is Student's t with Satterthwaite's degrees of freedom, as in decide/replicates. One seed
has the percentile interval of the bootstrap, or Wilson's for a rate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from evenhand.core.predictions import Predictions
from evenhand.core.seeding import rng_for
from evenhand.measure.intervals import proportion, wilson
from evenhand.measure.sample import group_masks, ordered_frame, sample_from_frame

N_BOOTSTRAP = 2000
Value = dict[str, Any]
Metric = Callable[["Rows", np.ndarray, np.ndarray], np.ndarray]
"""``metric(rows, flagged, weights)``: the metric in each resample, shape (b,); NaN if undefined."""


@dataclass(frozen=True)
class Rows:
    """The rows of one evaluation set, and each run's scores on them.

    Attributes:
        hate: the label is hate, shape (n,).
        groups: each group's rows, shape (n,).
        fine: the fine label, shape (n,); "" where there is none.
        unit: number of the independent unit, shape (n,).
        clusters: as ``unit``; None where rows are independent.
        scores: p(hate) by run, shape (n,).
    """

    name: str
    hate: np.ndarray
    groups: dict[str, np.ndarray]
    fine: np.ndarray
    unit: np.ndarray
    clusters: np.ndarray | None
    scores: dict[str, np.ndarray]
    ids: tuple[str, ...]
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.hate)

    def where(self, mask: np.ndarray, *, hate: np.ndarray | None = None) -> Rows:
        """Return some of the rows, with other labels if given."""
        labels = self.hate if hate is None else hate
        _, unit = np.unique(self.unit[mask], return_inverse=True)
        return Rows(
            name=self.name,
            hate=labels[mask],
            groups={name: member[mask] for name, member in self.groups.items()},
            fine=self.fine[mask],
            unit=unit,
            clusters=None if self.clusters is None else self.clusters[mask],
            scores={run: score[mask] for run, score in self.scores.items()},
            ids=tuple(np.array(self.ids, dtype=object)[mask]),
            frame=self.frame[mask].reset_index(drop=True),
        )


def read_rows(name: str, predictions: dict[str, Predictions]) -> Rows:
    """Join the runs' predictions on one set.

    Raises:
        ValueError: the runs were evaluated on other rows, or a row has no score.
    """
    frames = {run: ordered_frame(one) for run, one in predictions.items()}
    first = next(iter(frames.values()))
    sample = sample_from_frame(first, threshold=0.5)
    for run, frame in frames.items():
        same = frame["id"].tolist() == first["id"].tolist()
        if not same or frame["label"].tolist() != first["label"].tolist():
            raise ValueError(f"{run} was evaluated on other rows of {name} than the rest")
        if frame["score"].isna().any():
            raise ValueError(f"{run} has rows of {name} without a score")
    clusters = sample.clusters
    return Rows(
        name=name,
        hate=sample.hate,
        groups=group_masks(first),
        fine=first["fine_label"].fillna("").to_numpy(dtype=object),
        unit=np.arange(len(first)) if clusters is None else clusters,
        clusters=clusters,
        scores={run: frame["score"].to_numpy(dtype=float) for run, frame in frames.items()},
        ids=tuple(first["id"]),
        frame=first,
    )


def f1(rows: Rows, flagged: np.ndarray, weights: np.ndarray) -> np.ndarray:
    hit, wrong = flagged & rows.hate, flagged != rows.hate
    true, errors = weights @ hit.astype(float), weights @ wrong.astype(float)
    return _ratio(2 * true, 2 * true + errors)


def share(hits: np.ndarray, eligible: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of the weights: the share of eligible rows that are hits."""
    top, bottom = (hits & eligible).astype(float), eligible.astype(float)
    return lambda weights: _ratio(weights @ top, weights @ bottom)


def roc_auc(rows: Rows, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted AUC of each resample; ties count half."""
    values, code = np.unique(score, return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(len(values)))
    ordered, hate = weights[:, order], rows.hate[order]
    positives = np.add.reduceat(ordered * hate, starts, axis=1)
    negatives = np.add.reduceat(ordered * ~hate, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return _ratio((positives * below).sum(axis=1), pairs)


def resamples(rows: Rows) -> np.ndarray:
    """Return row weights of bootstrap resamples of the units, shape (N_BOOTSTRAP, n).

    They are the same for every metric and run of a set.
    """
    drawn = _drawn(f"campaign {rows.name} {len(rows)}", int(rows.unit.max()) + 1)
    return drawn if rows.clusters is None else drawn[:, rows.unit]


@functools.lru_cache(maxsize=8)
def _drawn(purpose: str, units: int) -> np.ndarray:
    """Return how often each unit is drawn, shape (N_BOOTSTRAP, units)."""
    rng = rng_for(0, purpose)
    return rng.multinomial(units, np.full(units, 1 / units), size=N_BOOTSTRAP).astype(float)


def over_seeds(
    rows: Rows,
    metric: Callable[[str, np.ndarray], np.ndarray],
    runs: Sequence[str],
    *,
    least: float = 0.0,
) -> Value:
    """Return the mean of a metric over runs, with its interval and each run's value.

    A metric that is itself a difference within each run is compared as seeds are: in pairs.

    Args:
        rows: the set.
        metric: ``metric(run, weights)`` gives the metric of a run in each resample.
        runs: the runs, one a seed.
        least: the least value that there can be; the largest is 1.
    """
    whole = np.ones((1, len(rows)))
    values = np.array([float(metric(run, whole)[0]) for run in runs])
    if not np.isfinite(values).all():
        return {"value": None, "low": None, "high": None, "seeds": values.tolist()}
    weights = resamples(rows)
    replicates = np.array([metric(run, weights) for run in runs])
    replicates = replicates[:, np.isfinite(replicates).all(axis=0)]
    low, high = _interval(values, replicates, n_units=int(rows.unit.max()) + 1)
    return _value(values, max(least, low), min(1.0, high))


def rate_over_seeds(
    rows: Rows, hits: dict[str, np.ndarray], eligible: np.ndarray, runs: Sequence[str]
) -> Value:
    """Return the mean over runs of the share of eligible rows that are hits."""
    n = int(eligible.sum())
    if n == 0:
        return {"value": None, "low": None, "high": None, "seeds": [], "n": 0}
    if len(runs) == 1:
        one = proportion(hits[runs[0]], eligible, clusters=rows.clusters, undefined="no_rows")
        return {**_value(np.array([one.value]), one.low, one.high), "n": n}
    counted = {run: share(hits[run], eligible) for run in runs}
    found = over_seeds(rows, lambda run, weights: counted[run](weights), runs)
    if found["value"] is not None and found["high"] == found["low"]:
        # All rows alike in every seed: the bootstrap has no spread to show.
        found["low"], found["high"] = wilson(found["value"] * n, n)
    return {**found, "n": n}


def _interval(values: np.ndarray, replicates: np.ndarray, *, n_units: int) -> tuple[float, float]:
    if len(values) == 1:
        low, high = np.quantile(replicates[0], [0.025, 0.975])
        return min(float(low), values[0]), max(float(high), values[0])
    covariance = np.cov(replicates)
    between_two = covariance[~np.eye(len(values), dtype=bool)]
    parts = [
        (max(0.0, float(between_two.mean())), n_units - 1),
        (float(values.var(ddof=1)) / len(values), len(values) - 1),
    ]
    variance = sum(part for part, _ in parts)
    if variance == 0.0:
        return float(values[0]), float(values[0])
    degrees = variance**2 / sum(part**2 / free for part, free in parts)
    spread = float(student.ppf(0.975, degrees)) * math.sqrt(variance)
    mean = float(values.mean())
    return mean - spread, mean + spread


def _value(values: np.ndarray, low: float | None, high: float | None) -> Value:
    return {"value": float(values.mean()), "low": low, "high": high, "seeds": values.tolist()}


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)

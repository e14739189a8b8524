"""The expected calibration error: an interval that covers, and how much of it is noise."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t

from evenhand.core.evaluation import MetricValue
from evenhand.measure.intervals import CONFIDENCE, kish_size

ECE_BINS = 15
_DRAWS = 1000
_CHUNK_ELEMENTS = 2_000_000


def ece_bin(score: np.ndarray) -> np.ndarray:
    """Return the number of each score's bin, shape (n,), of 15 of equal width."""
    return np.minimum((score * ECE_BINS).astype(int), ECE_BINS - 1)


def ece_value(residual: np.ndarray, size: np.ndarray, *, clustered: bool) -> MetricValue:
    """Return the ECE with an interval from 0 to an upper bound that is cautious by construction.

    The ECE of a sample is too large on average, and its bootstrap is too large again, so that a
    bootstrap interval can miss the true value nearly always. The true ECE is the mean of
    ``sign * (label - p)`` with the true sign of each bin. The sample's ECE, which takes the signs
    that make it largest, is never below that mean in the sample. So the true value is below the
    sample's ECE plus the error of a mean, whose variance is at most the Brier score (of clusters:
    the mean square of what their bins' residuals can add up to). The bound has the form of
    Wilson's, with Student's t and Kish's number of equal clusters. A lower end above 0 is not
    claimed.

    Args:
        residual: ``label - p`` summed over each unit's rows in each bin, shape (units, 15).
        size: rows of each unit, shape (units,).
        clustered: whether a unit is a cluster rather than a row.
    """
    n_units, total = len(size), float(size.sum())
    value = float(np.abs(residual.sum(axis=0)).sum() / total)
    if n_units == 1:
        return MetricValue(value=value, reason="one_independent_unit")
    equal_units = kish_size(size)
    z = float(t.ppf(0.5 + CONFIDENCE / 2, max(1.0, equal_units - 1)))
    squares = float((np.abs(residual).sum(axis=1) ** 2).sum())
    variance = n_units / (n_units - 1) * squares / total**2
    shift = z**2 / (2 * equal_units)
    high = min(1.0, value + shift + math.sqrt(z**2 * variance + shift**2))
    method = "ece_bound_clustered" if clustered else "ece_bound"
    return MetricValue(value=value, low=0.0, high=high, method=method)


def ece_if_calibrated(score: np.ndarray, *, rng: np.random.Generator) -> float:
    """Return the mean ECE of rows with these scores whose labels are drawn from the scores.

    Rows are drawn independently of each other. Many rows are drawn fewer times, since the ECE of
    each draw then varies less.

    Args:
        score: p(hate), shape (n,).
        rng: draws the labels.

    >>> few, many = np.full(30, 0.3), np.full(3000, 0.3)
    >>> rng = np.random.default_rng(0)
    >>> round(ece_if_calibrated(few, rng=rng), 3), round(ece_if_calibrated(many, rng=rng), 3)
    (0.066, 0.007)
    """
    score = np.sort(score)
    starts = np.flatnonzero(np.diff(ece_bin(score), prepend=-1))
    expected = np.add.reduceat(score, starts)
    draws = max(20, min(_DRAWS, 10 * _CHUNK_ELEMENTS // len(score)))
    chunk = max(1, _CHUNK_ELEMENTS // len(score))
    total = 0.0
    for start in range(0, draws, chunk):
        shape = (min(chunk, draws - start), len(score))
        hate = (rng.random(shape, dtype=np.float32) < score).astype(np.float32)
        total += float(np.abs(np.add.reduceat(hate, starts, axis=1) - expected).sum())
    return total / draws / len(score)

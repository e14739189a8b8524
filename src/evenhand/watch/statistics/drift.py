"""Has the traffic moved? Tests of a window of posts against the release's first window.

A window is a fixed number of posts. It is tested once, when it is full, so that looking often costs
nothing; window k may spend 6 / (pi^2 k^2) of the allowed error, which sums to all of it over a life
without end. What is statistically certain may still be too small to matter, so a drift also has to
reach a least size, in population stability index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from scipy.stats import binom, chi2_contingency, ks_2samp

_BINS = 10
_LEAST_EXPECTED = 5.0  # posts that a cell of a chi-square test expects; smaller ones are pooled


@dataclass(frozen=True, eq=False)
class Window:
    """A fixed number of consecutive posts.

    Attributes:
        number: 1 for the first window of the release, and so on without gaps.
        scores: p(hate) of the posts that were scored, shape (n,).
        proposed: posts by proposed group, ``none`` where nothing was proposed; each post once.
        errors: posts that could not be scored.
        start: the time of the first post.
        end: the time of the last post.
    """

    number: int
    scores: np.ndarray
    proposed: Mapping[str, int] = field(default_factory=dict)
    errors: int = 0
    start: datetime | None = None
    end: datetime | None = None

    @property
    def posts(self) -> int:
        """All posts of the window."""
        return len(self.scores) + self.errors


@dataclass(frozen=True, slots=True)
class Drift:
    """One window's test.

    Attributes:
        p_value: of the hypothesis that nothing has changed (or that the bound holds).
        level: what the window may spend; the p-value is held against it.
        size: population stability index; for errors the window's error rate.
        proven: the p-value is at most the level.
    """

    p_value: float
    level: float
    size: float

    @property
    def proven(self) -> bool:
        """Whether the window's share of the error suffices to call it a change."""
        return self.p_value <= self.level


def spent(number: int, *, alpha: float) -> float:
    """Return the error that the ``number``-th test of an endless row may spend.

    >>> round(sum(spent(k, alpha=0.05) for k in range(1, 10_000)), 4)
    0.05
    """
    return alpha * 6 / (math.pi**2 * number**2)


def score_drift(first: Window, latest: Window, *, alpha: float) -> Drift:
    """Test whether the scores of two windows come from one distribution (Kolmogorov-Smirnov).

    The size is over the deciles of the first window.
    """
    level = spent(latest.number - 1, alpha=alpha)
    if not (len(first.scores) and len(latest.scores)):
        return Drift(1.0, level, 0.0)
    p_value = float(ks_2samp(first.scores, latest.scores, method="auto").pvalue)
    inner = np.unique(np.quantile(first.scores, np.linspace(0, 1, _BINS + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(inner, scores, side="right"), minlength=len(inner) + 1)
        for scores in (first.scores, latest.scores)
    ]
    return Drift(p_value, level, stability_index(counts[0], counts[1]))


def mix_drift(first: Window, latest: Window, *, alpha: float) -> Drift:
    """Test whether two windows have the same mix of proposed groups (Pearson's chi-square)."""
    level = spent(latest.number - 1, alpha=alpha)
    names = sorted({*first.proposed, *latest.proposed})
    table = np.array([[w.proposed.get(name, 0) for name in names] for w in (first, latest)])
    table = _pooled(table)
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return Drift(1.0, level, 0.0)
    p_value = float(chi2_contingency(table, correction=False)[1])
    return Drift(p_value, level, stability_index(table[0], table[1]))


def error_excess(window: Window, *, bound: float, alpha: float) -> Drift:
    """Test whether more posts than a bound allows could not be scored (exact binomial)."""
    level = spent(window.number, alpha=alpha)
    if not window.posts:
        return Drift(1.0, level, 0.0)
    p_value = float(binom.sf(window.errors - 1, window.posts, bound))
    return Drift(p_value, level, window.errors / window.posts)


def stability_index(first: np.ndarray, latest: np.ndarray) -> float:
    """Return the population stability index of two rows of counts over the same cells.

    Half a post is added to each cell, so that an empty one does not make it infinite.

    >>> round(stability_index(np.array([50, 50]), np.array([80, 20])), 3)
    0.406
    """
    shares = [(counts + 0.5) / (counts + 0.5).sum() for counts in (first, latest)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _pooled(table: np.ndarray) -> np.ndarray:
    """Put the cells that expect too few posts together, the smallest first."""
    while table.shape[1] > 1 and table.sum() > 0:
        columns = table.sum(axis=0)
        expected = columns * table.sum(axis=1).min() / table.sum()
        if expected.min() >= _LEAST_EXPECTED:
            break
        order = np.argsort(columns, kind="stable")
        merged = table[:, order[:2]].sum(axis=1, keepdims=True)
        table = np.concatenate([merged, table[:, order[2:]]], axis=1)
    return table

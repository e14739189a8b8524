"""Correction for many tests: Holm's, over the tests that can reach their level at all (Tarone)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Corrected:
    """The adjusted p-values of a family, and how many of its tests count.

    Attributes:
        p_values: shape (tests,).
        size: the tests that count.
    """

    p_values: np.ndarray
    size: int


def correct(p_values: Sequence[float], least: Sequence[float], *, alpha: float) -> Corrected:
    """Return p-values adjusted by Holm's method over the tests that can reach their level.

    An exact test of few disagreements cannot give a small p-value whatever their direction. With k
    the least number such that at most k tests can come to alpha / k, the others can never be
    rejected, and so cost the family nothing (Tarone 1990, Biometrics 46). They are left out, which
    depends on the number of disagreements but not on their direction. Their adjusted p-value is k
    times the plain one, above alpha.

    Args:
        p_values: plain p-values.
        least: the least p-value that each test could have given; 0 where there is no such limit.
        alpha: the level of the family.

    >>> correct([0.02, 0.5, 1.0], [0.001, 0.001, 0.25], alpha=0.05).p_values
    array([0.04, 0.5 , 1.  ])
    """
    plain, lowest = np.array(p_values, dtype=float), np.array(least, dtype=float)
    k = 1
    while int((lowest <= alpha / k).sum()) > k:
        k += 1
    counts = lowest <= alpha / k
    adjusted = np.minimum(1.0, plain * k)
    if counts.any():
        adjusted[counts] = _holm(plain[counts])
    return Corrected(adjusted, int(counts.sum()))


def _holm(p_values: np.ndarray) -> np.ndarray:
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted

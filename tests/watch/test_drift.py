"""Tests of windows of posts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from evenhand.watch.statistics.drift import (
    Window,
    error_excess,
    mix_drift,
    score_drift,
    spent,
    stability_index,
)


def window(number: int, *, seed: int = 0, power: float = 1.0, n: int = 1000) -> Window:
    rng = np.random.default_rng([seed, number])
    names = rng.choice(["none", "lgbtq", "mexican"], p=[0.9, 0.07, 0.03], size=n)
    groups, counts = np.unique(names, return_counts=True)
    mix = dict(zip(groups.tolist(), counts.tolist(), strict=True))
    return Window(number, rng.random(n) ** power, mix)


def test_equal_windows_are_not_proven_different() -> None:
    """Over many releases of ten windows, false findings stay within the whole alpha."""
    found = {"score": 0, "mix": 0}
    for seed in range(60):
        first = window(1, seed=seed, n=300)
        later = [window(k, seed=seed, n=300) for k in range(2, 12)]
        found["score"] += any(score_drift(first, one, alpha=0.05).proven for one in later)
        found["mix"] += any(mix_drift(first, one, alpha=0.05).proven for one in later)
    assert max(found.values()) <= binom.ppf(0.999, 60, 0.05)


def test_moved_scores_are_found_at_once_and_sized() -> None:
    test = score_drift(window(1), window(9, power=2.0), alpha=0.05)
    assert test.proven
    assert test.size > 0.25
    small = score_drift(window(1, n=20_000), window(2, power=1.1, n=20_000), alpha=0.05)
    assert small.proven
    assert small.size < 0.1  # certain, and too small to matter


def test_a_moved_mix() -> None:
    first = Window(1, np.zeros(0), {"none": 900, "lgbtq": 100})
    moved = Window(2, np.zeros(0), {"none": 700, "lgbtq": 300})
    assert mix_drift(first, moved, alpha=0.05).proven
    rare = Window(2, np.zeros(0), {"none": 898, "lgbtq": 100, "mexican": 2})
    assert not mix_drift(first, rare, alpha=0.05).proven  # cells too small are pooled


def test_errors_are_tested_exactly() -> None:
    many = Window(1, np.zeros(970), errors=30)
    test = error_excess(many, bound=0.01, alpha=0.05)
    assert test.p_value == pytest.approx(1 - binom.cdf(29, 1000, 0.01), rel=1e-6)
    assert test.proven
    assert test.size == 0.03
    assert not error_excess(Window(1, np.zeros(990), errors=10), bound=0.01, alpha=0.05).proven
    assert error_excess(Window(1, np.zeros(0), errors=5), bound=0.01, alpha=0.05).p_value < 1e-9


def test_empty_windows_show_nothing() -> None:
    empty = Window(2, np.zeros(0))
    for test in (
        score_drift(window(1), empty, alpha=0.05),
        mix_drift(window(1), empty, alpha=0.05),
        error_excess(empty, bound=0.01, alpha=0.05),
    ):
        assert (test.p_value, test.proven) == (1.0, False)


def test_one_score_for_all() -> None:
    """Ties make the test careful, not wrong; a point mass that moves is found."""
    first = Window(1, np.full(500, 0.2))
    assert not score_drift(first, Window(2, np.full(500, 0.2)), alpha=0.05).proven
    assert score_drift(first, Window(2, np.full(500, 0.9)), alpha=0.05).proven


def test_spending_sums_to_alpha() -> None:
    assert sum(spent(k, alpha=0.05) for k in range(1, 1000)) < 0.05
    assert spent(1, alpha=0.05) == pytest.approx(0.0304, abs=1e-4)


def test_the_index_is_symmetric_and_finite() -> None:
    one, other = np.array([500, 300, 0]), np.array([100, 300, 400])
    assert stability_index(one, other) == pytest.approx(stability_index(other, one), rel=1e-6)
    assert stability_index(one, one) == 0

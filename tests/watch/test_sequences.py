"""The confidence sequences: properties that must hold for every sample."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from evenhand.watch.statistics.sequences import (
    CHECKPOINT_ITEMS,
    FRACTIONS,
    Draws,
    interval,
    log_alarm_wealth,
    log_start_shares,
    log_wealth_above,
    log_wealth_below,
    lower_end,
    upper_end,
)


def draws_from(
    error: np.ndarray,
    *,
    inclusion: np.ndarray | float = 0.5,
    pending: np.ndarray | None = None,
    least: float = 0.1,
) -> Draws:
    n = len(error)
    late = np.zeros(n, dtype=bool) if pending is None else pending
    return Draws(
        member=~late,
        pending=late,
        error=error,
        inclusion=np.broadcast_to(inclusion, (n,)).astype(float),
        least_error=np.full(n, least),
        least_right=np.full(n, least),
    )


def random_draws(seed: int, n: int = 300, *, rate: float = 0.3) -> Draws:
    rng = np.random.default_rng(seed)
    made = draws_from(rng.random(n) < rate, inclusion=rng.uniform(0.1, 1.0, n))
    return replace(made, member=rng.random(n) < 0.7)


@pytest.mark.parametrize("side", [1, -1])
def test_the_wealth_is_the_mean_of_the_products(side: int) -> None:
    """Item by item, as the module's text says it: a pending one with the worst that it could be."""
    rng = np.random.default_rng(0)
    made = random_draws(0, 160)
    draws = replace(
        made,
        pending=~made.member & (rng.random(160) < 0.4),
        least_right=made.inclusion * rng.uniform(0.1, 1, 160),
    )
    rate = 0.25
    products, expected = np.ones(len(FRACTIONS)), []
    for i in range(len(draws)):
        z = (draws.error[i] - rate) / draws.inclusion[i]
        largest = rate / draws.least_right[i] if side == 1 else (1 - rate) / draws.least_error[i]
        factors = 1 + side * FRACTIONS * z / largest
        if draws.member[i]:
            products = products * factors
        elif draws.pending[i]:
            products = products * np.minimum(1, factors)
        if (i + 1) % CHECKPOINT_ITEMS == 0 or i + 1 == len(draws):
            expected.append(np.log(products.mean()))
    found = (log_wealth_above if side == 1 else log_wealth_below)(draws, rate)
    assert found == pytest.approx(np.array(expected))


def test_a_bet_gains_nothing_on_average_whatever_the_plan_and_the_mix() -> None:
    """The exact expectation over sampling, group and error, for plans that reuse no rate."""
    rate, hit = 0.3, {True: 0.3, False: 0.7}
    for about, rates in itertools.product(
        (0.05, 0.9), ({True: 0.8, False: 0.1}, {True: 0.2, False: 0.9})
    ):
        for fraction, side in itertools.product((0.1, 0.9), (1, -1)):
            expected = 0.0
            for member, error in itertools.product((True, False), (True, False)):
                chance = (about if member else 1 - about) * hit[error]
                pi = rates[error]
                z = (error - rate) / pi if member else 0.0
                largest = rate / rates[False] if side == 1 else (1 - rate) / rates[True]
                factor = 1 + side * fraction * z / largest
                assert factor >= 1 - fraction - 1e-12
                expected += chance * (pi * factor + (1 - pi))
            assert expected == pytest.approx(1.0)


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
@settings(max_examples=40)
def test_late_labels_never_add_evidence(seed: int, share: float) -> None:
    """Whichever labels are missing, no checkpoint's wealth is above that of the full labels."""
    full = random_draws(seed)
    rng = np.random.default_rng(seed + 1)
    late = rng.random(len(full)) < share
    if seed % 2:
        late &= full.error == full.member  # a delay that depends on the label
    part = replace(full, member=full.member & ~late, pending=late)
    for rate in (0.1, 0.3, 0.6):
        for wealth in (log_wealth_above, log_wealth_below, log_alarm_wealth):
            assert (wealth(part, rate) <= wealth(full, rate) + 1e-9).all()
    known, all_known = interval(part, alpha=0.05), interval(full, alpha=0.05)
    if not all_known.drifted:
        assert known.low <= all_known.low + 1e-6
        assert known.high >= all_known.high - 1e-6


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_ends_are_where_the_wealth_passes(seed: int) -> None:
    draws = random_draws(seed)
    low, high = lower_end(draws, alpha=0.025), upper_end(draws, alpha=0.025)
    goal = np.log(40)
    assert (
        log_wealth_above(draws, low - 1e-5).max()
        >= goal
        > log_wealth_above(draws, low + 1e-5).max()
    )
    assert (
        log_wealth_below(draws, high + 1e-5).max()
        >= goal
        > log_wealth_below(draws, high - 1e-5).max()
    )


@given(seed=st.integers(0, 10_000), start=st.integers(26, 290))
@settings(max_examples=20)
def test_more_items_never_widen(seed: int, start: int) -> None:
    """The running intersection, at the checkpoints that a shorter queue shares with a longer."""
    draws = random_draws(seed)
    n = start - start % CHECKPOINT_ITEMS
    first = Draws(*(getattr(draws, name)[:n] for name in Draws.__dataclass_fields__))
    assert lower_end(first, alpha=0.05) <= lower_end(draws, alpha=0.05)
    assert upper_end(first, alpha=0.05) >= upper_end(draws, alpha=0.05)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_errors_and_rights_are_mirror_images(seed: int) -> None:
    draws = random_draws(seed)
    mirror = replace(
        draws, error=~draws.error, least_error=draws.least_right, least_right=draws.least_error
    )
    ends, mirrored = interval(draws, alpha=0.1), interval(mirror, alpha=0.1)
    assert mirrored.low == pytest.approx(1 - ends.high, abs=1e-6)
    assert mirrored.high == pytest.approx(1 - ends.low, abs=1e-6)


def test_without_labels_nothing_is_known() -> None:
    for draws in (draws_from(np.zeros(0, dtype=bool)), replace_members(random_draws(1), False)):
        ends = interval(draws, alpha=0.05)
        assert (ends.low, ends.high, ends.drifted) == (0.0, 1.0, False)
        assert draws.value is None
        assert draws.weight_max is None
        assert not (log_alarm_wealth(draws, 0.3) > 0).any()


def replace_members(draws: Draws, member: bool) -> Draws:
    return replace(draws, member=np.full(len(draws), member))


def test_width_is_near_that_of_one_look() -> None:
    """The price of looking whenever one likes, with equal weights: about half as wide again."""
    rng = np.random.default_rng(3)
    widths = []
    for _ in range(20):
        ends = interval(draws_from(rng.random(500) < 0.2, inclusion=0.5, least=0.5), alpha=0.05)
        widths.append(ends.high - ends.low)
    assert 0.07 < np.mean(widths) < 0.12  # Clopper and Pearson's at one look: 0.072


def test_a_rate_that_moves_is_said_to_have_moved() -> None:
    rng = np.random.default_rng(4)
    error = np.concatenate([rng.random(600) < 0.05, rng.random(600) < 0.7])
    ends = interval(draws_from(error, inclusion=0.5, least=0.5), alpha=0.05)
    assert ends.drifted
    assert 0.05 < ends.low < ends.high < 0.7


def test_a_late_rise_alarms_although_the_average_is_low() -> None:
    rng = np.random.default_rng(5)
    error = np.concatenate([rng.random(2000) < 0.05, rng.random(150) < 0.6])
    draws = draws_from(error, inclusion=0.5, least=0.5)
    assert draws.value is not None
    assert draws.value < 0.15
    wealth = log_alarm_wealth(draws, 0.3)
    assert wealth[-1] > np.log(20)
    assert wealth[: 2000 // CHECKPOINT_ITEMS].max() < np.log(20)


def test_shares_of_the_starts_sum_to_one_at_most() -> None:
    assert np.exp(log_start_shares(100_000)).sum() <= 1


def test_alarm_wealth_is_the_sum_over_starts() -> None:
    draws = random_draws(6, 130)
    shares = np.exp(log_start_shares(6))
    expected = np.zeros(6)
    for start in range(6):
        later = log_wealth_above(draws.since(start * CHECKPOINT_ITEMS), 0.3)
        expected[start:] += shares[start] * np.exp(later)
    assert np.exp(log_alarm_wealth(draws, 0.3)) == pytest.approx(expected)


def sampled(rng: np.random.Generator, posts: int, *, rate: np.ndarray | float) -> Draws:
    """Sample posts at two rates for flagged and two for unflagged ones, by an unrelated trait."""
    error, proposed = rng.random(posts) < rate, rng.random(posts) < 0.8
    inclusion = np.where(error, np.where(proposed, 0.9, 0.3), np.where(proposed, 0.4, 0.08))
    chosen = rng.random(posts) < inclusion
    n = int(chosen.sum())
    return Draws(
        member=rng.random(n) < 0.5,
        pending=np.zeros(n, dtype=bool),
        error=error[chosen],
        inclusion=inclusion[chosen],
        least_error=np.full(n, 0.3),
        least_right=np.full(n, 0.08),
    )


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
def test_the_truth_is_kept_over_the_whole_life(rate: float) -> None:
    """Weights differ elevenfold; in 5% of lives at most is the truth ever left out."""
    rng = np.random.default_rng(8)
    lives, goal = 400, np.log(40)
    missed = 0
    for _ in range(lives):
        draws = sampled(rng, 2000, rate=rate)
        above, below = log_wealth_above(draws, rate).max(), log_wealth_below(draws, rate).max()
        missed += max(above, below) >= goal
    assert missed <= binom.ppf(0.999, lives, 0.05)


def test_false_alarms_stay_rare_under_any_path_below_the_bound() -> None:
    rng = np.random.default_rng(9)
    lives, posts, bound = 300, 3000, 0.3
    paths = (
        np.full(posts, bound),
        np.where(np.arange(posts) % 600 < 300, bound, 0.02),
        np.linspace(0.0, bound, posts),
    )
    alarms = sum(
        log_alarm_wealth(sampled(rng, posts, rate=paths[life % 3]), bound).max() >= np.log(20)
        for life in range(lives)
    )
    assert alarms <= binom.ppf(0.999, lives, 0.05)


def test_impossible_draws_are_refused() -> None:
    one = np.ones(1, dtype=bool)
    with pytest.raises(ValueError, match="both labelled and pending"):
        replace(draws_from(one), pending=one)
    with pytest.raises(ValueError, match="under its plan's least"):
        draws_from(one, inclusion=0.05, least=0.1)

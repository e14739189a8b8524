from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from evenhand.core.evaluation import MetricValue
from evenhand.measure.intervals import (
    auc_score_interval,
    bootstrap_value,
    labels_needed,
    newcombe,
    proportion,
    wilson,
)


def rate(count: int, total: int) -> MetricValue:
    hits = np.arange(total) < count
    return proportion(hits, np.ones(total, bool), clusters=None, undefined="empty")


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_estimate_and_stays_in_range(pair: tuple[int, int]) -> None:
    count, total = pair
    low, high = wilson(count, total)
    assert 0.0 <= low <= count / total <= high <= 1.0
    assert (low, high) == pytest.approx(proportion_confint(count, total, method="wilson"))


@given(
    st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
)
def test_newcombe_equals_statsmodels(first: tuple[int, int], second: tuple[int, int]) -> None:
    gap = newcombe(rate(*first), rate(*second))
    low, high = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    assert gap.value == pytest.approx(first[0] / first[1] - second[0] / second[1])
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=1e-9)


def test_an_undefined_side_leaves_the_gap_undefined() -> None:
    assert newcombe(rate(0, 0), rate(1, 2)).reason == "empty"
    assert newcombe(rate(1, 2), rate(0, 0)).reason == "empty_outside_the_group"


@pytest.mark.parametrize("p", [0.1, 0.2, 0.35, 0.5, 0.8])
def test_labels_needed_is_the_least_that_gives_the_width(p: float) -> None:
    def half_width(n: int) -> float:
        low, high = wilson(p * n, n)
        return (high - low) / 2

    needed = labels_needed(p)
    assert half_width(needed) <= 0.1 < half_width(needed - 1)


def test_labels_needed_for_five_points_is_near_the_published_figures() -> None:
    assert labels_needed(0.2, half_width=0.05) == pytest.approx(246, abs=4)
    assert labels_needed(0.4, half_width=0.05) == pytest.approx(369, abs=4)


def test_clusters_of_identical_rows_count_once() -> None:
    hits = np.repeat(np.arange(20) < 6, 10)
    clusters = np.repeat(np.arange(20), 10)
    every = np.ones(200, bool)
    naive = proportion(hits, every, clusters=None, undefined="")
    clustered = proportion(hits, every, clusters=clusters, undefined="")
    assert clustered.value == naive.value == 0.3
    assert (clustered.denominator, clustered.method) == (200, "wilson_clustered")
    # Twenty decisions, not two hundred; 19 and Student's t, since the variance is estimated.
    size = 19 * (norm.ppf(0.975) / t.ppf(0.975, 19)) ** 2
    assert (clustered.low, clustered.high) == pytest.approx(wilson(0.3 * size, size))
    assert clustered.high - clustered.low > 2.5 * (naive.high - naive.low)


def test_unequal_clusters_count_for_less_than_equal_ones() -> None:
    rng = np.random.default_rng(1)
    hit = rng.random(30) < 0.4

    def width(sizes: np.ndarray) -> float:
        clusters = np.repeat(np.arange(30), sizes)
        value = proportion(hit[clusters], np.ones(300, bool), clusters=clusters, undefined="")
        return value.high - value.low

    assert width(np.r_[np.full(29, 5), 155]) > 1.5 * width(np.full(30, 10))


def test_clusters_without_dependence_change_little() -> None:
    rng = np.random.default_rng(0)
    hits, clusters = rng.random(4000) < 0.3, np.repeat(np.arange(400), 10)
    every = np.ones(4000, bool)
    naive = proportion(hits, every, clusters=None, undefined="")
    clustered = proportion(hits, every, clusters=clusters, undefined="")
    assert clustered.high - clustered.low == pytest.approx(naive.high - naive.low, rel=0.15)


def test_a_clustered_rate_of_zero_counts_each_cluster_once() -> None:
    every = np.ones(100, bool)
    zero = proportion(~every, every, clusters=np.repeat(np.arange(5), 20), undefined="")
    assert (zero.low, zero.high) == pytest.approx(wilson(0, 5))


@pytest.mark.parametrize(("positives", "negatives"), [(10, 10), (40, 25), (300, 400)])
def test_auc_score_interval_is_symmetric_and_narrows(positives: int, negatives: int) -> None:
    low, high = auc_score_interval(1.0, positives=positives, negatives=negatives)
    assert high == 1.0
    assert 0.5 < low < 1.0
    mirrored = auc_score_interval(0.0, positives=positives, negatives=negatives)
    assert mirrored == pytest.approx((0.0, 1.0 - low))
    assert auc_score_interval(1.0, positives=positives * 4, negatives=negatives * 4)[0] > low


def test_bootstrap_value_ignores_undefined_replicates_and_contains_the_value() -> None:
    replicates = np.r_[np.linspace(0.4, 0.6, 100), np.nan]
    value = bootstrap_value(0.35, replicates, method="m")
    assert value.low == 0.35
    assert value.high == pytest.approx(0.595)
    assert bootstrap_value(0.3, np.array([np.nan]), method="m").reason == "no_defined_replicate"


def test_the_bootstrap_interval_of_few_units_is_that_of_students_t() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=12)
    replicates = rng.choice(sample, size=(40_000, 12)).mean(axis=1)
    plain = bootstrap_value(sample.mean(), replicates, method="m")
    few = bootstrap_value(sample.mean(), replicates, method="m", n_units=12)
    expected = sample.mean() + t.ppf([0.025, 0.975], 11) * sample.std(ddof=1) / np.sqrt(12)
    assert plain.high - plain.low < 0.9 * (expected[1] - expected[0])
    assert (few.low, few.high) == pytest.approx(expected, abs=0.1)
    many = bootstrap_value(sample.mean(), replicates, method="m", n_units=10_000)
    assert (many.low, many.high) == pytest.approx((plain.low, plain.high), abs=1e-3)

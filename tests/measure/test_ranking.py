from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from evenhand.core.predictions import Predictions
from evenhand.measure.intervals import auc_score_interval
from evenhand.measure.ranking import auc_interval, bias_aucs
from evenhand.measure.sample import Sample, group_masks, ordered_frame, sample_from_frame


def build(score: np.ndarray, hate: np.ndarray, *, clusters: np.ndarray | None = None) -> Sample:
    every = np.ones(len(score), dtype=bool)
    return Sample(
        hate=hate, flagged=score >= 0.5, ok=every, failed=~every, score=score, clusters=clusters
    )


def simulate(n: int, *, rng: np.random.Generator, lift: float = 1.0) -> tuple[np.ndarray, ...]:
    hate = np.arange(n) % 5 < 2
    return hate, 1 / (1 + np.exp(-rng.normal(size=n) - lift * hate))


def brute_force(
    hate: np.ndarray, score: np.ndarray, clusters: np.ndarray | None
) -> tuple[float, float]:
    """The AUC and its variance from the matrix of all pairs, as DeLong and Obuchowski print it."""
    positive, negative = score[hate][:, None], score[~hate][None, :]
    wins = (positive > negative) + 0.5 * (positive == negative)
    value = wins.mean()
    m, n = wins.shape
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    if clusters is None:
        return value, v10.var(ddof=1) / m + v01.var(ddof=1) / n
    names = np.unique(clusters)
    x = np.array([(v10[clusters[hate] == k] - value).sum() for k in names])
    y = np.array([(v01[clusters[~hate] == k] - value).sum() for k in names])
    k10, k01 = len(np.unique(clusters[hate])), len(np.unique(clusters[~hate]))
    s10, s01 = k10 / (k10 - 1) / m * (x @ x), k01 / (k01 - 1) / n * (y @ y)
    s11 = len(names) / (len(names) - 1) * (x @ y)
    return value, s10 / m + s01 / n + 2 * s11 / (m * n)


rows_strategy = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=50)


@given(rows_strategy)
def test_the_value_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    score = np.array([s for s, _ in rows]) / 9
    hate = np.array([h for _, h in rows])
    found = auc_interval(hate, score)
    if hate.all() or not hate.any():
        assert (found.value, found.reason) == (None, "one_class")
        return
    assert found.value == pytest.approx(roc_auc_score(hate, score), abs=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


@given(rows_strategy, st.integers(2, 12), st.booleans())
def test_the_interval_is_that_of_all_pairs(
    rows: list[tuple[int, bool]], n_clusters: int, clustered: bool
) -> None:
    score = np.array([s for s, _ in rows]) / 9
    hate = np.array([h for _, h in rows])
    clusters = np.arange(len(rows)) * 7 % n_clusters if clustered else None
    found = auc_interval(hate, score, clusters=clusters)
    if found.method not in ("delong", "delong_clustered"):
        return
    assert found.method == ("delong_clustered" if clustered else "delong")
    value, variance = brute_force(hate, score, clusters)
    quantile = 1.959964
    if clusters is not None:
        sides = len(np.unique(clusters[hate])) + len(np.unique(clusters[~hate]))
        quantile = t.ppf(0.975, min(sides - 2, len(np.unique(clusters)) - 1))
    spread = quantile * math.sqrt(variance) / (value * (1 - value))
    logit = math.log(value / (1 - value))
    expected = [1 / (1 + math.exp(-(logit + side * spread))) for side in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(expected, rel=1e-6)


def test_each_row_its_own_cluster_is_no_clustering_and_copies_count_once() -> None:
    hate, score = simulate(300, rng=np.random.default_rng(0))
    plain = auc_interval(hate, score)
    alone = auc_interval(hate, score, clusters=np.arange(300))
    copied = auc_interval(
        np.repeat(hate, 5), np.repeat(score, 5), clusters=np.repeat(np.arange(300), 5)
    )
    for other in (alone, copied):
        assert other.method == "delong_clustered"
        assert (other.value, other.low, other.high) == pytest.approx(
            (plain.value, plain.low, plain.high), rel=1e-3
        )


@pytest.mark.parametrize(
    ("score", "auc"), [([0.1, 0.2, 0.8, 0.9], 1.0), ([0.8, 0.9, 0.1, 0.2], 0.0), ([0.5] * 4, 0.5)]
)
def test_without_spread_the_interval_is_newcombes(score: list[float], auc: float) -> None:
    hate = np.array([False, False, True, True])
    found = auc_interval(hate, np.array(score))
    assert (found.value, found.method) == (auc, "newcombe_auc")
    assert (found.low, found.high) == auc_score_interval(auc, positives=2, negatives=2)
    clusters = np.array([0, 1, 2, 2])
    clustered = auc_interval(hate, np.array(score), clusters=clusters)
    assert (clustered.low, clustered.high) == auc_score_interval(auc, positives=1, negatives=2)


def test_one_row_of_a_class_and_one_cluster() -> None:
    hate = np.array([True, False, False, False])
    score = np.array([0.5, 0.1, 0.2, 0.9])
    assert auc_interval(hate, score).method == "newcombe_auc"
    one = auc_interval(hate, score, clusters=np.zeros(4, dtype=int))
    assert one.value == pytest.approx(2 / 3)
    assert (one.low, one.reason) == (None, "one_independent_unit")


def test_missing_scores_have_a_reason() -> None:
    hate = np.array([True, False])
    assert auc_interval(hate, np.array([np.nan, np.nan])).reason == "no_scores"
    assert auc_interval(hate, np.array([0.1, np.nan])).reason == "some_scores_missing"
    assert auc_interval(hate[:0], np.empty(0)).reason == "no_scored_rows"


@pytest.mark.parametrize(
    ("n", "lift", "per_cluster"), [(60, 1.0, 1), (250, 2.0, 1), (400, 1.0, 4), (200, 1.0, 10)]
)
def test_the_interval_covers_the_true_auc(n: int, lift: float, per_cluster: int) -> None:
    # Normal scores, so the true AUC is known: Phi(lift / sqrt(variance of a difference)).
    rng = np.random.default_rng(20)
    shared = 1.0 if per_cluster > 1 else 0.0
    true = 0.5 * (1 + math.erf(lift / math.sqrt(2 * (1 + shared)) / math.sqrt(2)))
    clusters = np.repeat(np.arange(n // per_cluster), per_cluster)
    hate = clusters % 5 < 2
    covered, trials = 0, 1000
    for _ in range(trials):
        score = rng.normal(size=n) + math.sqrt(shared) * rng.normal(size=n)[clusters] + lift * hate
        found = auc_interval(hate, score, clusters=clusters if per_cluster > 1 else None)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    # The simulation's own error is 0.7 pp.
    assert covered / trials > 0.935


def test_bias_aucs_are_scikit_learns_on_their_rows(
    make_predictions: Callable[..., Predictions],
) -> None:
    frame = ordered_frame(make_predictions(900))
    sample = sample_from_frame(frame, threshold=0.5)
    members = group_masks(frame)
    found = bias_aucs(sample, members)
    assert found is not None
    assert set(found.groups) == set(members)
    for group, inside in members.items():
        hate, aucs = sample.hate, found.groups[group]
        masks = {
            "subgroup": inside,
            "bpsn": (inside & ~hate) | (~inside & hate),
            "bnsp": (inside & hate) | (~inside & ~hate),
        }
        for kind, mask in masks.items():
            value = getattr(aucs, kind)
            assert value.value == pytest.approx(roc_auc_score(hate[mask], sample.score[mask]))
            assert value == auc_interval(hate[mask], sample.score[mask])
    for kind in ("subgroup", "bpsn", "bnsp"):
        values = np.array([getattr(found.groups[group], kind).value for group in members])
        mean = getattr(found.mean, kind)
        assert mean.value == pytest.approx(np.mean(values**-5.0) ** -0.2)
        assert values.min() <= mean.value <= values.max()
        assert (mean.method, mean.low < mean.value < mean.high) == ("delong_delta", True)


def test_the_mean_over_one_group_is_that_group_and_over_a_copy_too() -> None:
    hate, score = simulate(200, rng=np.random.default_rng(1))
    inside = np.arange(200) % 3 == 0
    for clusters in (None, np.arange(200) // 2):
        sample = build(score, hate, clusters=clusters)
        one = bias_aucs(sample, {"alpha": inside})
        # The same rows twice: fully dependent, so the mean is no better known than one group.
        two = bias_aucs(sample, {"alpha": inside, "beta": inside})
        assert one is not None
        assert two is not None
        for kind in ("subgroup", "bpsn", "bnsp"):
            own = getattr(one.groups["alpha"], kind)
            for mean in (getattr(one.mean, kind), getattr(two.mean, kind)):
                assert (mean.value, mean.low, mean.high) == pytest.approx(
                    (own.value, own.low, own.high), rel=2e-3
                )


def test_the_means_interval_covers_in_simulation() -> None:
    rng = np.random.default_rng(7)
    n, lifts = 600, np.array([0.6, 1.0, 1.6])
    group = np.arange(n) % 3
    hate = np.arange(n) // 3 % 2 == 0
    members = {str(g): group == g for g in range(3)}
    each = np.array([0.5 * (1 + math.erf(lift / 2)) for lift in lifts])
    true = np.mean(each**-5.0) ** -0.2
    covered, trials = 0, 800
    for _ in range(trials):
        score = 1 / (1 + np.exp(-rng.normal(size=n) - lifts[group] * hate))
        found = bias_aucs(build(score, hate), members)
        assert found is not None
        mean = found.mean.subgroup
        assert mean.low is not None
        assert mean.high is not None
        covered += mean.low <= true <= mean.high
    assert covered / trials > 0.93


def test_undefined_groups_stay_out_of_the_mean() -> None:
    hate, score = simulate(100, rng=np.random.default_rng(2))
    sample = build(score, hate)
    both, only_hate = np.arange(100) < 50, hate & (np.arange(100) > 60)
    found = bias_aucs(sample, {"alpha": both, "beta": only_hate})
    assert found is not None
    assert found.groups["beta"].subgroup.reason == "one_class"
    assert found.groups["beta"].bpsn.reason == "one_class"
    assert found.groups["beta"].bnsp.value is not None
    assert found.mean.subgroup.value == pytest.approx(found.groups["alpha"].subgroup.value)
    alone = bias_aucs(sample, {"beta": only_hate})
    assert alone is not None
    assert alone.mean.subgroup.reason == "no_group_is_defined"


def test_a_group_without_spread_leaves_the_mean_without_interval() -> None:
    hate, score = simulate(100, rng=np.random.default_rng(3))
    perfect = np.arange(100) < 30
    better = np.where(perfect, np.where(hate, 0.99, 0.01), score)
    found = bias_aucs(build(better, hate), {"alpha": perfect, "beta": ~perfect})
    assert found is not None
    assert found.groups["alpha"].subgroup.value == 1.0
    assert (found.mean.subgroup.low, found.mean.subgroup.reason) == (None, "a_group_has_no_spread")
    worst = np.where(perfect, np.where(hate, 0.01, 0.99), score)
    reversed_ = bias_aucs(build(worst, hate), {"alpha": perfect, "beta": ~perfect})
    assert reversed_ is not None
    assert reversed_.mean.subgroup.value == 0.0


def test_no_groups_or_a_missing_score_is_none_and_unscored_rows_do_not_count() -> None:
    hate, score = simulate(100, rng=np.random.default_rng(4))
    sample = build(score, hate)
    inside = np.arange(100) % 2 == 0
    assert bias_aucs(sample, {}) is None
    gap = np.arange(100) == 7
    missing = np.where(gap, np.nan, score)
    assert bias_aucs(replace(sample, score=missing), {"alpha": inside}) is None
    without = bias_aucs(replace(sample, score=missing, ok=~gap), {"alpha": inside})
    assert without == bias_aucs(sample.where(~gap), {"alpha": inside[~gap]})

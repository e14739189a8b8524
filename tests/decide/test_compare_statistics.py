"""The statistics of a paired comparison against independent references and simulated truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gamma, norm
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evenhand.decide.alignment import Answers
from evenhand.decide.families import correct
from evenhand.decide.paired import (
    METRICS,
    Units,
    bootstrap_gains,
    count_units,
    detectable,
    f1_randomisation,
    least_p_value,
    mcnemar_exact,
    metric_values,
    row_variances,
    split_variance,
    standard_error,
    swap_p_values,
)
from evenhand.decide.replicates import seed_test

RNG = np.random.default_rng


def answers_of(
    hate: np.ndarray, *flagged: np.ndarray, clusters: np.ndarray | None = None
) -> Answers:
    names = tuple(f"m{number}" for number in range(len(flagged)))
    return Answers(names, hate, np.stack(flagged), {}, clusters, 0)


def draw_pair(
    n: int, *, rng: np.random.Generator, first: float, second: float, shared: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and decisions of two models that are right so often, partly on the same rows."""
    hate = rng.random(n) < 0.45
    luck = rng.random(n)
    same = rng.random(n) < shared
    right = [np.where(same, luck, rng.random(n)) < chance for chance in (first, second)]
    return hate, hate == right[0], hate == right[1]


def brute_force_f1(hate: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Exchange the answers of the differing rows in every possible way."""

    def gain(a: np.ndarray, b: np.ndarray) -> float:
        f1 = [2 * (hate & x).sum() / (hate.sum() + x.sum()) for x in (a, b)]
        return f1[1] - f1[0]

    assert gain(first, second) == pytest.approx(f1_score(hate, second) - f1_score(hate, first))
    observed = abs(gain(first, second))
    places = np.flatnonzero(first != second)
    at_least = 0
    for swapped in itertools.product([False, True], repeat=len(places)):
        a, b = first.copy(), second.copy()
        chosen = places[np.array(swapped, dtype=bool)]
        a[chosen], b[chosen] = second[chosen], first[chosen]
        at_least += abs(gain(a, b)) >= observed - 1e-12
    return at_least / 2 ** len(places)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_statsmodels(b: int, c: int) -> None:
    expected = mcnemar([[5, b], [c, 7]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, expected))


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.3, 0.95), st.floats(0.3, 0.95))
def test_f1_randomisation_is_the_brute_force_one(seed: int, first: float, second: float) -> None:
    hate, a, b = draw_pair(12, rng=RNG(seed), first=first, second=second, shared=0.4)
    hate[0] = True
    assert f1_randomisation(hate, a, b) == pytest.approx(brute_force_f1(hate, a, b))


def test_f1_randomisation_agrees_with_sampling_on_many_rows() -> None:
    hate, a, b = draw_pair(2000, rng=RNG(4), first=0.75, second=0.77)
    units = count_units(answers_of(hate, a, b), (0, 1))
    (sampled,) = swap_p_values(units, [("f1", 0)], n=20_000, rng=RNG(0))
    exact = f1_randomisation(hate, a, b)
    assert 0.005 < exact < 0.6
    assert sampled == pytest.approx(exact, abs=0.012)


def test_f1_randomisation_is_symmetric_and_one_without_disagreement() -> None:
    hate, a, b = draw_pair(300, rng=RNG(5), first=0.6, second=0.75)
    assert f1_randomisation(hate, a, b) == pytest.approx(f1_randomisation(hate, b, a))
    assert f1_randomisation(hate, a, a) == 1.0
    assert f1_randomisation(np.zeros(4, bool), np.ones(4, bool), np.zeros(4, bool)) == 1.0


def test_f1_randomisation_of_a_million_rows_is_quick() -> None:
    hate, a, b = draw_pair(1_000_000, rng=RNG(6), first=0.7, second=0.702)
    assert 0.0 <= f1_randomisation(hate, a, b) <= 1.0


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 80), st.booleans())
def test_units_hold_the_counts_of_the_rows(seed: int, n: int, clustered: bool) -> None:
    rng = RNG(seed)
    hate, a, b = draw_pair(n, rng=rng, first=0.7, second=0.6)
    group = rng.random(n) < 0.5
    clusters = rng.integers(max(1, n // 4), size=n) if clustered else None
    units = count_units(
        Answers(("a", "b"), hate, np.stack([a, b]), {"g": group}, clusters, 0), (0, 1)
    )
    assert units.n == (n if clusters is None else len(np.unique(clusters)))
    for scope, rows in enumerate((np.ones(n, bool), group)):
        h, f = hate[rows], np.stack([a, b])[:, rows]
        expected = {
            "f1": [f1_score(h, x) for x in f] if h.any() else [np.nan] * 2,
            "accuracy": [accuracy_score(h, x) for x in f] if len(h) else [np.nan] * 2,
            "fpr": [x[~h].mean() for x in f] if (~h).any() else [np.nan] * 2,
            "fnr": [(~x[h]).mean() for x in f] if h.any() else [np.nan] * 2,
        }
        for metric in METRICS:
            found = metric_values(units.totals, metric, scope)[0]
            np.testing.assert_allclose(found, expected[metric], err_msg=metric)


def bootstrap_interval(units: Units, metric: str, *, seed: int) -> tuple[float, float]:
    (gains,) = bootstrap_gains(units, [(metric, 0)], split=1, n=600, rng=RNG(seed))
    low, high = np.nanquantile(gains, [0.025, 0.975])
    return float(low), float(high)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("n", "second", "runs"),
    [(60, 0.65, 400), *(pytest.param(*p, 600, marks=SLOW) for p in ((60, 0.8), (250, 0.7)))],
    ids=str,
)
def test_intervals_cover_the_true_difference(n: int, second: float, runs: int) -> None:
    large = draw_pair(500_000, rng=RNG(0), first=0.65, second=second)
    truth_units = count_units(answers_of(*large), (0, 1))
    truth = {m: float(np.diff(metric_values(truth_units.totals, m, 0)[0])[0]) for m in METRICS}
    covered = dict.fromkeys(METRICS, 0)
    for run in range(runs):
        units = count_units(
            answers_of(*draw_pair(n, rng=RNG([1, run]), first=0.65, second=second)), (0, 1)
        )
        tests = [(metric, 0) for metric in METRICS]
        drawn = bootstrap_gains(units, tests, split=1, n=400, rng=RNG([2, run]))
        for metric, gains in zip(METRICS, drawn, strict=True):
            low, high = np.nanquantile(gains, [0.025, 0.975])
            covered[metric] += low - 1e-9 <= truth[metric] <= high + 1e-9
    # 400 runs at 95% have a standard error of 1.1 points.
    shares = {metric: hits / runs for metric, hits in covered.items()}
    assert min(shares.values()) > 0.92, shares
    assert np.mean(list(shares.values())) > 0.94, shares


def test_intervals_of_rare_disagreement_are_not_too_narrow() -> None:
    """Where the bare bootstrap covers 85% (5% of 40 rows differ, all in one direction)."""
    covered, runs = 0, 400
    for run in range(runs):
        differ = RNG([3, run]).random(40) < 0.05
        units = count_units(answers_of(np.zeros(40, bool), differ, np.zeros(40, bool)), (0, 1))
        low, high = bootstrap_interval(units, "fpr", seed=run)
        covered += low <= -0.05 <= high
    assert covered / runs > 0.94


def clustered_pair(
    rng: np.random.Generator, *, clusters: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two equally good models, each of which gets whole clusters right or wrong."""
    cluster = np.repeat(np.arange(clusters), size)
    hate = (rng.random(clusters) < 0.5)[cluster]
    wrong = rng.random((2, clusters)) < 0.3
    noise = rng.random((2, clusters * size)) < 0.05
    first, second = hate ^ wrong[:, cluster] ^ noise
    return hate, first, second, cluster


def test_type_one_error_is_nominal() -> None:
    runs = 1000
    rejected = {"f1": 0, "accuracy": 0}
    for run in range(runs):
        hate, a, b = draw_pair(200, rng=RNG([5, run]), first=0.7, second=0.7)
        right = a == hate
        differ = a != b
        rejected["f1"] += f1_randomisation(hate, a, b) <= 0.05
        p_value = mcnemar_exact(int((differ & right).sum()), int((differ & ~right).sum()))
        rejected["accuracy"] += p_value <= 0.05
    # Exact tests are at most nominal; 1,000 runs have a standard error of 0.7 points.
    assert 0.02 <= rejected["f1"] / runs <= 0.065
    assert 0.01 <= rejected["accuracy"] / runs <= 0.065


def test_type_one_error_is_nominal_with_clusters_where_the_naive_test_fails() -> None:
    runs = 400
    clustered = dict.fromkeys(METRICS, 0)
    naive = 0
    for run in range(runs):
        hate, a, b, cluster = clustered_pair(RNG([6, run]), clusters=40, size=8)
        units = count_units(answers_of(hate, a, b, clusters=cluster), (0, 1))
        tests = [(metric, 0) for metric in METRICS]
        p_values = swap_p_values(units, tests, n=199, rng=RNG([7, run]))
        for metric, p_value in zip(METRICS, p_values, strict=True):
            clustered[metric] += p_value <= 0.05
        naive += f1_randomisation(hate, a, b) <= 0.05
    assert naive / runs > 0.25
    assert max(clustered.values()) / runs <= 0.08, clustered
    assert min(clustered.values()) / runs >= 0.02, clustered


def test_clustered_intervals_cover_and_are_wider() -> None:
    runs, covered = 300, 0
    widths = []
    for run in range(runs):
        hate, a, b, cluster = clustered_pair(RNG([8, run]), clusters=60, size=6)
        ends = []
        for clusters in (cluster, None):
            units = count_units(answers_of(hate, a, b, clusters=clusters), (0, 1))
            ends.append(bootstrap_interval(units, "accuracy", seed=run))
        covered += ends[0][0] <= 0.0 <= ends[0][1]
        widths.append([high - low for low, high in ends])
    assert covered / runs > 0.92
    assert np.mean(widths, axis=0)[0] > 1.8 * np.mean(widths, axis=0)[1]


def test_the_detectable_difference_is_found_with_eighty_percent_power() -> None:
    n, runs = 400, 300
    found, sizes = 0, []
    for run in range(runs):
        rng = RNG([9, run])
        hate = np.zeros(n, bool)
        kind = rng.random(n)
        a, b = kind < 0.14, (kind >= 0.14) & (kind < 0.21)
        units = count_units(answers_of(hate, a, b), (0, 1))
        (gains,) = bootstrap_gains(units, [("fpr", 0)], split=1, n=400, rng=rng)
        sizes.append(detectable(units, "fpr", 0, error=standard_error(gains)))
        found += mcnemar_exact(int(b.sum()), int(a.sum())) <= 0.05
    # The true difference is 7.0 points: about what these rows can find.
    assert np.mean(sizes) == pytest.approx(0.066, abs=0.006)
    assert 0.72 <= found / runs <= 0.92


def test_a_stricter_level_detects_less() -> None:
    hate, a, b = draw_pair(400, rng=RNG(2), first=0.7, second=0.75)
    units = count_units(answers_of(hate, a, b), (0, 1))
    sizes = [detectable(units, "f1", 0, error=0.02, level=level) for level in (0.05, 0.005)]
    expected = [(norm.ppf(1 - level / 2) + norm.ppf(0.8)) * 0.02 for level in (0.05, 0.005)]
    assert sizes == pytest.approx(expected)
    # Nine disagreements in one direction are the fewest with p at most 0.005 (six: 0.05).
    few = [detectable(units, "fpr", 0, error=0.0, level=level) for level in (0.05, 0.005)]
    assert few[1] / few[0] == pytest.approx(gamma.ppf(0.8, 9) / gamma.ppf(0.8, 6))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(0, 1000))
def test_leaving_out_tests_that_cannot_be_rejected_loses_none(ns: list[int], seed: int) -> None:
    rng = RNG(seed)
    plain = [mcnemar_exact(k := int(rng.integers(n + 1)), n - k) for n in ns]
    found = correct(plain, [least_p_value(n) for n in ns], alpha=0.05)
    holm = multipletests(plain, method="holm")[1]
    assert ((holm <= 0.05) <= (found.p_values <= 0.05)).all()
    assert (found.p_values <= 1).all() and (found.p_values >= np.array(plain) - 1e-12).all()
    assert found.size <= len(ns)


def test_the_family_keeps_its_level_with_discrete_tests() -> None:
    """Thirty groups of 3 to 40 differing answers, none of the models better in any."""
    rng, runs = RNG(11), 2000
    ns = rng.integers(3, 41, size=30)
    least = [least_p_value(int(n)) for n in ns]
    wrong, size = 0, 0
    table = {int(n): [mcnemar_exact(k, int(n) - k) for k in range(int(n) + 1)] for n in ns}
    for _ in range(runs):
        plain = [table[int(n)][rng.binomial(n, 0.5)] for n in ns]
        found = correct(plain, least, alpha=0.05)
        wrong += found.p_values.min() <= 0.05
        size = found.size
    assert size < 30
    assert wrong / runs <= 0.05


def test_without_disagreement_the_interval_is_not_a_point() -> None:
    hate, a, _ = draw_pair(100, rng=RNG(1), first=0.8, second=0.8)
    units = count_units(answers_of(hate, a, a), (0, 1))
    for metric in METRICS:
        low, high = bootstrap_interval(units, metric, seed=0)
        assert low < 0.0 < high
        assert detectable(units, metric, 0, error=0.0) > 0.05


def test_seeds_widen_what_rows_alone_would_say() -> None:
    first, second = np.array([0.60, 0.64, 0.62]), np.array([0.66, 0.70, 0.68])
    steady = seed_test(
        first.mean().repeat(3), second.mean().repeat(3), row_variance=1e-4, n_units=500
    )
    spread = seed_test(first, second, row_variance=1e-4, n_units=500)
    assert steady.p_value < spread.p_value
    assert spread.high - spread.low > steady.high - steady.low
    assert (spread.low + spread.high) / 2 == pytest.approx(0.06)


def test_the_test_over_seeds_keeps_its_level() -> None:
    """Seeds shift a model's rate, rows are shared: no difference between the configurations."""
    runs, rejected = 300, 0
    for run in range(runs):
        rng = RNG([10, run])
        luck = rng.random(400)
        shift = rng.normal(0.0, 0.04, size=6)
        flagged = [np.where(rng.random(400) < 0.6, luck, rng.random(400)) < 0.3 + s for s in shift]
        units = count_units(answers_of(np.zeros(400, bool), *flagged), range(6))
        values = metric_values(units.totals, "fpr", 0)[0]
        (rows,) = row_variances(units, [("fpr", 0)], split=3, n=300, rng=rng)
        found = seed_test(values[:3], values[3:], row_variance=rows.beside_seeds, n_units=400)
        rejected += found.p_value <= 0.05
    assert rejected / runs <= 0.075


def test_a_baseline_without_seeds_keeps_the_level_and_is_not_given_the_seeds_variance() -> None:
    """Three seeds whose expected rate is that of a model which no seed changes."""
    runs, rejected, borrowed = 300, 0, 0
    for run in range(runs):
        rng = RNG([11, run])
        luck = rng.random(400)
        shift = (0.0, *rng.normal(0.0, 0.04, size=3))
        flagged = [np.where(rng.random(400) < 0.6, luck, rng.random(400)) < 0.3 + s for s in shift]
        answers = answers_of(np.zeros(400, bool), *flagged)
        found = []
        for first in ((0, 0, 0), (0,)):
            units = count_units(answers, (*first, 1, 2, 3))
            values = metric_values(units.totals, "fpr", 0)[0]
            split = len(first)
            (rows,) = row_variances(units, [("fpr", 0)], split=split, n=300, rng=RNG(run))
            found.append(
                seed_test(
                    values[:split],
                    values[split:],
                    row_variance=rows.beside_seeds,
                    n_units=400,
                ).p_value
            )
        rejected += found[0] <= 0.05
        borrowed += found[1] <= 0.05
    assert rejected / runs <= 0.075
    assert borrowed < rejected


def test_what_each_seed_answers_in_its_own_way_is_counted_once() -> None:
    """Seeds that answer independently: all of the variance is in the spread between them."""
    n, runs = 300, 400
    differences, errors = [], []
    for run in range(runs):
        rng = RNG([12, run])
        flagged = rng.random((6, n)) < 0.3
        values = flagged.mean(axis=1)
        covariance = np.cov(flagged) / n
        rows = split_variance(covariance, split=3, added=2 / n**2)
        found = seed_test(values[:3], values[3:], row_variance=rows.beside_seeds, n_units=n)
        differences.append(values[3:].mean() - values[:3].mean())
        errors.append(found.error)
    truth = np.sqrt(2 * 0.3 * 0.7 / n / 3)
    assert np.std(differences) == pytest.approx(truth, rel=0.1)
    # Counted twice it would be 1.41 times the truth.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(truth, rel=0.2)


def test_the_parts_of_the_row_variance_are_those_of_two_way_components() -> None:
    """Rates are means over rows: the parts follow from the mean squares of rows x runs."""
    rng = RNG(13)
    n, sizes = 500, (3, 2)
    hard = rng.random(n)
    answers = np.array([hard + rng.normal(0, 0.3, n) < 0.4 for _ in range(sum(sizes))])
    own = 0.0
    for side in (answers[:3], answers[3:]):
        rest = side - side.mean(axis=0) - side.mean(axis=1, keepdims=True) + side.mean()
        square = (rest**2).sum() / ((n - 1) * (len(side) - 1))
        own += square / n / len(side)
    change = answers[3:].mean(axis=0) - answers[:3].mean(axis=0)
    total = change.var(ddof=1) / n
    found = split_variance(np.cov(answers) / n, split=3, added=0.0)
    assert found.own == pytest.approx(own)
    assert found.shared == pytest.approx(max(0.0, total - own))
    units = count_units(answers_of(np.zeros(n, bool), *answers), range(5))
    (drawn,) = row_variances(units, [("fpr", 0)], split=3, n=4000, rng=rng)
    assert drawn.own == pytest.approx(own, rel=0.1)
    assert drawn.shared + drawn.own == pytest.approx(total, rel=0.1)
    lone = split_variance(np.cov(answers[:4]) / n, split=3, added=0.0)
    assert lone.own == pytest.approx(
        4 * split_variance(np.cov(answers[[0, 1, 2, 0, 1, 2]]) / n, split=3, added=0.0).own / 2
    )


def test_one_seed_borrows_the_other_sides_spread() -> None:
    many, one = np.array([0.60, 0.64, 0.62]), np.array([0.68])
    found = seed_test(many, one, row_variance=1e-6, n_units=500)
    # The spread of 0.02 is that of a single run, so one run may be 0.06 away.
    assert found.p_value > 0.05

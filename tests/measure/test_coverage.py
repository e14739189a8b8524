"""Mean coverage of every kind of interval is 95%, less one point at most.

Coverage of a discrete rate oscillates with the rate and the number of rows, so it is averaged over
a grid of true values (Brown, Cai and DasGupta 2001). Where tables can be listed the coverage is
exact; elsewhere it is simulated from fixed seeds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binom, norm

from evenhand.core.evaluation import MetricValue
from evenhand.measure.counts import CountBootstrap
from evenhand.measure.ece import ece_bin, ece_if_calibrated, ece_value
from evenhand.measure.intervals import newcombe, proportion
from evenhand.measure.metrics import measure_metrics
from evenhand.measure.ranking import auc_interval
from evenhand.measure.sample import Sample

LEAST = 0.94
NO_F1 = MetricValue(reason="not_needed")


def rate(count: int, total: int) -> MetricValue:
    return proportion(np.arange(total) < count, np.ones(total, bool), clusters=None, undefined="")


def ends(values: list[MetricValue]) -> np.ndarray:
    """Intervals as an array (2, n); a missing one covers nothing."""
    return np.array([(v.low, v.high) if v.low is not None else (9, -9) for v in values]).T


def covers(value: MetricValue, truth: float) -> bool:
    return value.low is not None and value.low <= truth <= value.high


@pytest.mark.parametrize("n", [10, 44, 85, 300])
def test_wilson(n: int) -> None:
    low, high = ends([rate(count, n) for count in range(n + 1)])
    truths = np.linspace(0.02, 0.98, 97)
    chance = binom.pmf(np.arange(n + 1), n, truths[:, None])
    covered = (low <= truths[:, None]) & (truths[:, None] <= high)
    assert (chance * covered).sum(axis=1).mean() >= LEAST


@pytest.mark.parametrize(("n", "rest"), [(12, 40), (30, 30), (18, 85)])
def test_newcombe(n: int, rest: int) -> None:
    one, other = ([rate(count, m) for count in range(m + 1)] for m in (n, rest))
    low, high = ends([newcombe(a, b) for a in one for b in other]).reshape(2, n + 1, rest + 1)
    grid = np.linspace(0.05, 0.95, 13)
    coverage = []
    for p in grid:
        for q in grid:
            chance = np.outer(
                binom.pmf(np.arange(n + 1), n, p), binom.pmf(np.arange(rest + 1), rest, q)
            )
            coverage.append((chance * ((low <= p - q) & (p - q <= high))).sum())
    assert np.mean(coverage) >= LEAST


def clustered_rows(
    p: float, rng: np.random.Generator, *, n_clusters: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Hits in clusters of 1 to 12 rows with an intra-cluster correlation of 0.2."""
    size = rng.integers(1, 13, size=n_clusters)
    chance = rng.beta(4 * p, 4 * (1 - p), size=n_clusters)
    clusters = np.repeat(np.arange(n_clusters), size)
    return rng.random(len(clusters)) < chance[clusters], clusters


def test_clustered_wilson() -> None:
    rng = np.random.default_rng(0)
    clustered, naive = [], []
    for p in np.linspace(0.1, 0.9, 9):
        for _ in range(250):
            hits, clusters = clustered_rows(p, rng)
            every = np.ones(len(hits), bool)
            clustered.append(covers(proportion(hits, every, clusters=clusters, undefined=""), p))
            naive.append(covers(proportion(hits, every, clusters=None, undefined=""), p))
    assert np.mean(clustered) >= LEAST
    assert np.mean(naive) < 0.85


def truths_of_f1() -> Iterator[tuple[float, float, float, float]]:
    for prevalence in (0.2, 0.45):
        for recall in (0.5, 0.75, 0.9):
            for fpr in (0.05, 0.3, 0.6):
                tp, fp = prevalence * recall, (1 - prevalence) * fpr
                yield prevalence, recall, fpr, 2 * tp / (tp + fp + prevalence)


@pytest.mark.parametrize("clustered", [pytest.param(False, marks=pytest.mark.slow), True])
def test_f1_and_gap_bootstrap(clustered: bool) -> None:
    rng = np.random.default_rng(2)
    covered: dict[str, list[bool]] = {"f1": [], "f1 in group": [], "f1 gap": [], "fpr gap": []}
    n, units = 400, 100
    group = np.arange(n) % 4 == 0
    for prevalence, recall, fpr, truth in truths_of_f1():
        for _ in range(60):
            # A cluster's rows are copies; the group gets one of each cluster's four.
            draws = rng.random((2, units)).repeat(4, axis=1) if clustered else rng.random((2, n))
            hate = draws[0] < prevalence
            flagged = draws[1] < np.where(hate, recall, fpr)
            clusters = np.repeat(np.arange(units), 4) if clustered else None
            every = np.ones(n, bool)
            sample = Sample(hate, flagged, every, ~every, np.full(n, np.nan), clusters)
            counts = CountBootstrap(sample, {"g": group}, n_bootstrap=400, rng=rng)
            covered["f1"].append(covers(counts.value("f1"), truth))
            covered["f1 in group"].append(covers(counts.value("f1", group="g"), truth))
            if not clustered:
                covered["f1 gap"].append(covers(counts.gap("f1", group="g"), 0.0))
                # At an FPR of 5% a group of 100 rows has four false positives: too few for a
                # bootstrap, so an evaluation's gaps are Newcombe's.
                if fpr > 0.05:
                    covered["fpr gap"].append(covers(counts.gap("fpr", group="g"), 0.0))
    for name, values in covered.items():
        assert not values or np.mean(values) >= LEAST, name


def test_auc_and_brier() -> None:
    rng = np.random.default_rng(3)
    bootstrap, delong, brier = [], [], []
    n = 150
    every = np.ones(n, bool)
    for separation in (0.3, 0.8, 1.4):
        truth = norm.cdf(separation / np.sqrt(2))

        def draw(size: int, by: float = separation) -> tuple[np.ndarray, np.ndarray]:
            hate = rng.random(size) < 0.4
            return hate, 1 / (1 + np.exp(-(rng.normal(size=size) + by * (hate - 0.5))))

        hate, score = draw(400_000)
        true_brier = ((hate - score) ** 2).mean()
        for _ in range(200):
            hate, score = draw(n)
            sample = Sample(hate, score >= 0.5, every, ~every, score, None)
            found = measure_metrics(sample, f1=NO_F1, n_bootstrap=400, rng=rng)
            bootstrap.append(covers(found.roc_auc, truth))
            brier.append(covers(found.brier, true_brier))
            delong.append(covers(auc_interval(hate, score), truth))
    assert np.mean(bootstrap) >= LEAST
    assert np.mean(delong) >= LEAST
    assert np.mean(brier) >= LEAST


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("n", [30, 150, 1000])
@pytest.mark.parametrize("kind", ["calibrated", "overconfident", "too high", "rare hate"])
def test_ece(n: int, kind: str) -> None:
    """Where a bootstrap of the ECE covers 0% to 50%."""
    scores = {"calibrated": (1.0, 0.0), "overconfident": (2.0, 0.0), "too high": (1.0, 0.5)}

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        logit = rng.normal(size=size)
        if kind == "rare hate":
            return np.full(size, 0.01), np.full(size, 0.05)
        scale, shift = scores[kind]
        return sigmoid(scale * logit + shift), sigmoid(logit)

    rng = np.random.default_rng(5)
    score, chance = draw(200_000)
    truth = np.abs(np.bincount(ece_bin(score), weights=chance - score)).sum() / len(score)
    covered, seen, calibrated = [], [], []
    for number in range(200):
        score, chance = draw(n)
        residual = np.zeros((n, 15))
        residual[np.arange(n), ece_bin(score)] = (rng.random(n) < chance) - score
        found = ece_value(residual, np.ones(n), clustered=False)
        covered.append(covers(found, truth))
        seen.append(found.value)
        if number < 20:
            calibrated.append(ece_if_calibrated(score, rng=rng))
    assert np.mean(covered) >= LEAST
    if kind == "calibrated":
        # All of the ECE is noise, and as much as was said.
        assert np.mean(seen) == pytest.approx(np.mean(calibrated), rel=0.06)


@pytest.mark.parametrize("n_clusters", [20, 60])
def test_ece_in_clusters(n_clusters: int) -> None:
    rng = np.random.default_rng(6)
    covered = []
    for off in (0.0, 0.1, 0.25):
        for dependence in (0.0, 0.3, 1.0):
            for _ in range(60):
                size = rng.integers(1, 61, size=n_clusters)
                code = np.repeat(np.arange(n_clusters), size)
                score = rng.choice([0.2, 0.5, 0.7], size=n_clusters)[code]
                together = rng.random(len(code)) < dependence
                luck = np.where(together, rng.random(n_clusters)[code], rng.random(len(code)))
                residual = np.zeros((n_clusters, 15))
                np.add.at(residual, (code, ece_bin(score)), (luck < score + off) - score)
                covered.append(covers(ece_value(residual, size, clustered=True), off))
    assert np.mean(covered) >= LEAST

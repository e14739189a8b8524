from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
)

from evenhand.core.predictions import Predictions
from evenhand.measure.counts import COUNT_METRICS, CountBootstrap
from evenhand.measure.intervals import newcombe, proportion, resamples, wilson
from evenhand.measure.sample import Sample, group_masks, ordered_frame, sample_from_frame

Make = Callable[..., Predictions]


def sample_of(
    hate: np.ndarray,
    flagged: np.ndarray,
    *,
    ok: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> Sample:
    n = len(hate)
    ok = np.ones(n, bool) if ok is None else ok
    return Sample(hate, flagged & ok, ok, np.zeros(n, bool), np.full(n, np.nan), clusters)


def resampled_rows(
    sample: Sample, mask: np.ndarray, metric: Callable[..., float], *, n: int
) -> np.ndarray:
    """The bootstrap as it is usually written: rows, or whole clusters, one replicate at a time."""
    rng = np.random.default_rng(11)
    size = len(sample)
    unit = np.arange(size) if sample.clusters is None else sample.clusters
    rows_of = [np.flatnonzero(unit == one) for one in np.unique(unit)]
    values = []
    for _ in range(n):
        drawn = [rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))]
        rows = np.concatenate(drawn)
        rows = rows[mask[rows]]
        values.append(metric(sample.hate[rows], sample.flagged[rows]))
    return np.array(values)


@pytest.mark.parametrize("clusters", [None, 60])
def test_replicates_are_distributed_as_those_of_resampled_rows(
    make_predictions: Make, clusters: int | None
) -> None:
    frame = ordered_frame(make_predictions(240, clusters=clusters))
    sample = sample_from_frame(frame, threshold=0.5)
    members = group_masks(frame)
    counts = CountBootstrap(sample, members, n_bootstrap=6000, rng=np.random.default_rng(0))

    def fpr(hate: np.ndarray, flagged: np.ndarray) -> float:
        return flagged[~hate].mean()

    def f1(hate: np.ndarray, flagged: np.ndarray) -> float:
        return 2 * (hate & flagged).sum() / (hate.sum() + flagged.sum())

    def accuracy(hate: np.ndarray, flagged: np.ndarray) -> float:
        return (hate == flagged).mean()

    everything = np.ones(len(sample), bool)
    for metric, own, mask, group in (
        (f1, "f1", everything, None),
        (fpr, "fpr", members["alpha"], "alpha"),
        (accuracy, "accuracy", members["beta"], "beta"),
    ):
        plain = resampled_rows(sample, mask, metric, n=1200)
        fast = counts.replicates(own, group=group)
        assert fast.mean() == pytest.approx(plain.mean(), abs=4 * plain.std() / np.sqrt(1200))
        assert fast.std() == pytest.approx(plain.std(), rel=0.1)
        assert np.quantile(fast, [0.025, 0.975]) == pytest.approx(
            np.quantile(plain, [0.025, 0.975]), abs=0.3 * plain.std()
        )


def test_the_gap_pairs_the_group_with_the_rows_outside_it(make_predictions: Make) -> None:
    frame = ordered_frame(make_predictions(400))
    sample = sample_from_frame(frame, threshold=0.5)
    members = group_masks(frame)
    counts = CountBootstrap(sample, members, n_bootstrap=4000, rng=np.random.default_rng(0))
    for metric in COUNT_METRICS:
        inside, outside = (
            counts.replicates(metric, group="alpha", outside=side) for side in (False, True)
        )
        gap = counts.gap(metric, group="alpha")
        assert gap.low == pytest.approx(np.quantile(inside - outside, 0.025), abs=0.005)
        assert gap.method == "bootstrap_percentile"
    together = counts.cells(group="alpha") + counts.cells(group="alpha", outside=True)
    assert (together == counts.cells()).all()
    assert (counts.cells().sum(axis=1) == 400).all()
    fpr = counts.gap("fpr", group="alpha")
    close = newcombe(
        counts.value("fpr", group="alpha"), counts.value("fpr", group="alpha", outside=True)
    )
    assert (fpr.low, fpr.high) == pytest.approx((close.low, close.high), abs=0.02)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 4)),
        min_size=0,
        max_size=30,
    ),
    st.booleans(),
)
def test_values_equal_scikit_learns_and_lie_in_their_interval(
    rows: list[tuple], clustered: bool
) -> None:
    columns = np.array(rows, dtype=int).reshape(-1, 4)
    hate, flagged, member = (columns[:, i].astype(bool) for i in range(3))
    sample = sample_of(hate, flagged, clusters=columns[:, 3] if clustered else None)
    counts = CountBootstrap(sample, {"one": member}, n_bootstrap=100, rng=np.random.default_rng(0))
    for group, mask in ((None, np.ones(len(rows), bool)), ("one", member)):
        y, d = hate[mask], flagged[mask]
        cells = confusion_matrix(y, d, labels=[False, True]).ravel() if len(y) else np.zeros(4)
        tn, fp, fn, tp = cells
        expected = {
            "accuracy": accuracy_score(y, d) if len(y) else None,
            "precision": precision_score(y, d) if tp + fp else None,
            "recall": recall_score(y, d) if tp + fn else None,
            "f1": f1_score(y, d) if tp + fn else None,
            "fpr": fp / (fp + tn) if fp + tn else None,
            "fnr": fn / (fn + tp) if fn + tp else None,
        }
        for metric, value in expected.items():
            found = counts.value(metric, group=group)
            assert found.value == (None if value is None else pytest.approx(value)), metric
            if found.low is not None:
                assert 0 <= found.low <= found.value <= found.high <= 1
            else:
                assert found.reason
    for metric in COUNT_METRICS:
        gap = counts.gap(metric, group="one")
        assert gap.low is None or -1 <= gap.low <= gap.value <= gap.high <= 1


def test_rates_of_zero_and_one_keep_an_interval() -> None:
    hate = np.arange(40) < 20
    right = CountBootstrap(
        sample_of(hate, hate), {"g": hate | (np.arange(40) < 30)}, n_bootstrap=200,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    fpr, recall, f1 = (right.value(metric) for metric in ("fpr", "recall", "f1"))
    assert (fpr.low, fpr.high) == pytest.approx(wilson(0, 20))
    assert (recall.low, recall.high) == pytest.approx(wilson(20, 20))
    jaccard = wilson(20, 20)[0]
    assert (f1.value, f1.low, f1.method) == (
        1,
        pytest.approx(2 * jaccard / (1 + jaccard)),
        "wilson_jaccard",
    )
    assert right.gap("fpr", group="g").method == "newcombe"
    none = CountBootstrap(sample_of(hate, ~hate), {}, n_bootstrap=200, rng=np.random.default_rng(0))
    assert none.value("f1").value == 0
    assert 0 < none.value("f1").high < 0.2


def test_one_cluster_has_no_interval() -> None:
    hate, flagged = np.arange(20) < 10, np.arange(20) % 3 == 0
    clusters = np.where(np.arange(20) % 2, 0, np.arange(20))
    odd = np.arange(20) % 2 == 1
    counts = CountBootstrap(
        sample_of(hate, flagged, clusters=clusters), {"odd": odd}, n_bootstrap=200,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert counts.value("accuracy", group="odd").reason == "one_independent_unit"
    assert counts.gap("accuracy", group="odd").reason == "one_independent_unit"
    assert counts.value("accuracy").low is not None


def test_unscored_rows_are_not_resampled() -> None:
    hate, flagged = np.arange(50) < 25, np.arange(50) % 2 == 0
    ok = np.arange(50) % 5 > 0
    counts = CountBootstrap(
        sample_of(hate, flagged, ok=ok), {"g": ~hate}, n_bootstrap=100,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert (counts.cells().sum(axis=1) == 40).all()
    assert counts.value("accuracy").value == pytest.approx((hate == flagged)[ok].mean())


@pytest.mark.parametrize("sizes", [[1] * 50, [20, 20, 5, 5], [3, 2, 2, 1]])
def test_resamples_draw_as_many_units_as_there_are_in_the_given_shares(sizes: list[int]) -> None:
    counts = np.array(sizes)
    drawn = np.vstack(
        list(resamples(counts, n_bootstrap=3000, rng=np.random.default_rng(0), n_rows=10_000))
    )
    assert drawn.shape == (3000, len(sizes))
    assert (drawn.sum(axis=1) == counts.sum()).all()
    share = counts / counts.sum()
    assert drawn.mean(axis=0) == pytest.approx(counts, abs=0.15 * np.sqrt(counts.max()))
    assert drawn.var(axis=0) == pytest.approx(counts * (1 - share), rel=0.2)


def test_more_groups_than_a_code_has_bits() -> None:
    rng = np.random.default_rng(3)
    hate, flagged = rng.random((2, 300)) < 0.5
    members = {f"g{i}": rng.random(300) < 0.5 for i in range(70)}
    counts = CountBootstrap(sample_of(hate, flagged), members, n_bootstrap=400, rng=rng)
    for name in ("g0", "g35", "g69"):
        mask = members[name]
        expected = [(2 * hate + flagged)[mask] == cell for cell in range(4)]
        assert counts.cells(group=name).mean(axis=0) == pytest.approx(
            [part.sum() for part in expected], abs=2.5
        )


def test_a_wilson_interval_and_the_bootstrap_agree_on_many_rows() -> None:
    rng = np.random.default_rng(0)
    hate = rng.random(20_000) < 0.5
    flagged = rng.random(20_000) < np.where(hate, 0.8, 0.2)
    counts = CountBootstrap(sample_of(hate, flagged), {}, n_bootstrap=4000, rng=rng)
    fpr = counts.value("fpr")
    expected = proportion(flagged, ~hate, clusters=None, undefined="")
    assert (fpr.low, fpr.high) == pytest.approx((expected.low, expected.high), abs=0.001)

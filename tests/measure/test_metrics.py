"""The metrics against scikit-learn, statsmodels and fairlearn, on small, odd and large samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fairlearn.metrics import false_negative_rate, false_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from statsmodels.stats.proportion import proportion_confint

from evenhand.core.evaluation import Evaluation
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.measure import metrics as metrics_module
from evenhand.measure.classification import evaluate

Make = Callable[..., Predictions]


def measured(predictions: Predictions, *, n_bootstrap: int) -> Evaluation:
    rng = np.random.default_rng(0)
    return evaluate(predictions, name="set", rng=rng, n_bootstrap=n_bootstrap)


def test_brier_equals_scikit_learns_and_has_the_interval_of_a_mean(make_predictions: Make) -> None:
    predictions = make_predictions(500)
    hate = (predictions.frame["label"] == "hate").to_numpy()
    score = predictions.frame["score"].to_numpy()
    brier = measured(predictions, n_bootstrap=2000).metrics.brier
    assert brier.value == pytest.approx(brier_score_loss(hate, score))
    error = (hate - score) ** 2
    half = 1.96 * error.std() / np.sqrt(500)
    expected = (brier.value - half, brier.value + half)
    assert (brier.low, brier.high) == pytest.approx(expected, abs=0.1 * half)


@pytest.mark.parametrize("clusters", [None, 150])
def test_large_samples_have_the_intervals_of_small_ones(
    make_predictions: Make, clusters: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = make_predictions(2000, clusters=clusters)
    small = measured(predictions, n_bootstrap=2000).metrics
    monkeypatch.setattr(metrics_module, "LARGE_SAMPLE", 1000)
    large = measured(predictions, n_bootstrap=2000).metrics
    suffix = "" if clusters is None else "_clustered"
    for name, method in (
        ("roc_auc", "delong"),
        ("brier", "bootstrap_normal"),
    ):
        one, other = getattr(small, name), getattr(large, name)
        assert other.method == method + suffix
        assert one.method == "bootstrap_percentile" + suffix
        assert other.value == pytest.approx(one.value)
        tolerance = 0.1 * (one.high - one.low)
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=tolerance)
    assert large.f1 == small.f1


answers = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]),
        st.sets(st.sampled_from(["alpha", "beta"])),
        st.sampled_from(["ok", "ok", "ok", "error"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=50)
@given(answers)
def test_every_metric_equals_the_reference_on_any_rows(rows: list[tuple]) -> None:
    """Single classes, empty groups, ties and unscored rows included."""
    predictions = predictions_from_rows(
        [
            Row(id=f"{i:02}", text="t", label="hate" if y else "normal", groups=tuple(sorted(g)))
            for i, (y, _, g, _) in enumerate(rows)
        ],
        scores=np.array([score if status == "ok" else np.nan for _, score, _, status in rows]),
    )
    result = measured(predictions, n_bootstrap=100)
    for name in (None, *result.groups):
        scored = [row for row in rows if row[3] == "ok" and (name is None or name in row[2])]
        hate = np.array([row[0] for row in scored], dtype=bool)
        score = np.array([row[1] for row in scored], dtype=float)
        flagged = score >= 0.5
        n, positives, negatives = len(scored), hate.sum(), (~hate).sum()
        found = result.metrics if name is None else result.groups[name]
        reference = {
            "accuracy": (n, lambda y, d, _: accuracy_score(y, d)),
            "precision": (flagged.sum(), lambda y, d, _: precision_score(y, d)),
            "recall": (positives, lambda y, d, _: recall_score(y, d)),
            "f1": (positives, lambda y, d, _: f1_score(y, d)),
            "fpr": (negatives, lambda y, d, _: false_positive_rate(y, d, pos_label=1)),
            "fnr": (positives, lambda y, d, _: false_negative_rate(y, d, pos_label=1)),
            "roc_auc": (min(positives, negatives), lambda y, _, s: roc_auc_score(y, s)),
            "brier": (n, lambda y, _, s: brier_score_loss(y, s, pos_label=1)),
        }
        for metric, (needed, compute) in reference.items():
            value = getattr(found, metric)
            if needed:
                expected = compute(hate.astype(int), flagged.astype(int), score)
                assert value.value == pytest.approx(expected), metric
            else:
                assert value.value is None, metric
                assert value.reason, metric
            if value.method == "wilson":
                low, high = proportion_confint(value.numerator, value.denominator, method="wilson")
                assert (value.low, value.high) == pytest.approx((low, high), abs=1e-9), metric
    shuffled = Predictions(predictions.frame.sample(frac=1, random_state=1))
    assert measured(shuffled, n_bootstrap=100) == result

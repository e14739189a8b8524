from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from evenhand.core.errors import DataError
from evenhand.core.predictions import Predictions
from evenhand.measure.calibration import (
    TEMPERATURE_BOUNDS,
    calibrate,
    calibration_measures,
    fit_temperature,
    reliability,
)
from evenhand.measure.classification import evaluate
from evenhand.measure.intervals import wilson
from evenhand.measure.sample import ordered_frame, sample_from_frame

scores_strategy = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40)
temperatures = st.floats(0.05, 20.0)


@given(scores_strategy, temperatures)
def test_calibrating_keeps_the_order_and_half(scores: list[float], temperature: float) -> None:
    score = np.sort(np.array(scores))
    found = calibrate(score, temperature)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0.0) & (found <= 1.0)).all()
    assert ((found > 0.5) <= (score >= 0.5)).all()
    assert calibrate(np.array([0.5]), temperature)[0] == 0.5


@given(scores_strategy)
def test_temperature_one_changes_nothing(scores: list[float]) -> None:
    score = np.array(scores)
    assert calibrate(score, 1.0) == pytest.approx(score, abs=2e-12)


@given(scores_strategy, temperatures)
def test_the_inverse_temperature_takes_it_back(scores: list[float], temperature: float) -> None:
    score = 0.3 + 0.4 * np.array(scores)
    back = calibrate(calibrate(score, 1 / min(temperature, 3)), min(temperature, 3))
    assert back == pytest.approx(score, abs=1e-6)


def test_a_missing_score_stays_missing() -> None:
    assert np.isnan(calibrate(np.array([np.nan, 0.2]), 2.0)).tolist() == [True, False]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature is"):
        calibrate(np.array([0.5]), temperature)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=2, max_size=60))
def test_fitting_never_makes_the_nll_worse(rows: list[tuple[float, bool]]) -> None:
    score, hate = np.array([s for s, _ in rows]), np.array([h for _, h in rows])
    if hate.all() or not hate.any():
        with pytest.raises(DataError):
            fit_temperature(score, hate)
        return
    found = fit_temperature(score, hate)
    assert found.nll_after <= found.nll_before
    assert TEMPERATURE_BOUNDS[0] <= found.temperature <= TEMPERATURE_BOUNDS[1]
    after = calibration_measures(calibrate(score, found.temperature), hate)
    assert after["nll"] == pytest.approx(found.nll_after, abs=1e-9)


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_true_temperature_is_recovered(true: float) -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(scale=1.5, size=40_000)
    hate = rng.random(40_000) < expit(z)
    found = fit_temperature(expit(z * true), hate)
    assert found.temperature == pytest.approx(true, rel=0.03)
    assert found.ece_after < 0.01
    if true != 1.0:
        assert found.nll_after < found.nll_before
        assert found.brier_after < found.brier_before
        assert found.ece_after < found.ece_before


def test_the_fit_is_that_of_a_direct_search() -> None:
    rng = np.random.default_rng(6)
    z = rng.normal(size=500)
    score, hate = expit(3 * z), rng.random(500) < expit(z + 0.4)
    best = minimize_scalar(
        lambda log_t: log_loss(hate, expit(logit(score) / np.exp(log_t))),
        bounds=(-3, 3),
        method="bounded",
        options={"xatol": 1e-9},
    )
    found = fit_temperature(score, hate)
    assert found.temperature == pytest.approx(np.exp(best.x), rel=1e-5)
    assert found.nll_after == pytest.approx(best.fun)
    assert found.n == 500
    assert roc_auc_score(hate, calibrate(score, found.temperature)) == roc_auc_score(hate, score)


def test_scores_that_rank_perfectly_or_backwards_end_at_a_bound() -> None:
    hate = np.array([True, True, False, False])
    right = np.array([0.9, 0.8, 0.2, 0.1])
    assert fit_temperature(right, hate).temperature == TEMPERATURE_BOUNDS[0]
    assert fit_temperature(1 - right, hate).temperature == TEMPERATURE_BOUNDS[1]


def test_saturated_scores_are_fitted_too() -> None:
    hate = np.arange(40) < 20
    score = np.where(np.arange(40) % 10 == 0, ~hate, hate).astype(float)
    found = fit_temperature(score, hate)
    # One in ten is wrong, so the answer is 0.9 and 0.1.
    assert calibrate(score, found.temperature) == pytest.approx(np.where(score == 1, 0.9, 0.1))
    assert found.nll_after < found.nll_before < np.inf


def test_a_constant_half_needs_no_temperature() -> None:
    assert fit_temperature(np.full(6, 0.5), np.arange(6) < 2).temperature == 1.0


@pytest.mark.parametrize(
    ("score", "hate", "message"),
    [
        ([], [], "no scored rows"),
        ([np.nan, 0.2], [True, False], "1 of 2 rows have no score"),
        ([0.1, 0.2], [True, True], "all 2 labels are the same"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    score: list[float], hate: list[bool], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        fit_temperature(np.array(score, dtype=float), np.array(hate, dtype=bool))
    assert message in caught.value.render()


def test_measures_without_scores_are_refused() -> None:
    with pytest.raises(DataError):
        calibration_measures(np.empty(0), np.empty(0, dtype=bool))


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=1, max_size=60))
def test_measures_agree_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    score, hate = np.array([s for s, _ in rows]), np.array([h for _, h in rows])
    found = calibration_measures(score, hate)
    assert found["nll"] == pytest.approx(log_loss(hate, score, labels=[False, True]))
    assert found["brier"] == pytest.approx(brier_score_loss(hate, score, labels=[False, True]))
    assert 0.0 <= found["ece"] <= 1.0


def test_ece_and_brier_are_those_of_the_evaluation(
    make_predictions: Callable[..., Predictions],
) -> None:
    predictions = make_predictions(400)
    sample = sample_from_frame(ordered_frame(predictions), threshold=0.5)
    found = calibration_measures(sample.score, sample.hate)
    # From the definition: the bins' |share of hate - mean score|, weighted by their sizes.
    index = np.minimum(np.floor(sample.score * 15), 14)
    defined = sum(
        (index == b).mean() * abs(sample.hate[index == b].mean() - sample.score[index == b].mean())
        for b in np.unique(index)
    )
    assert found["ece"] == pytest.approx(defined)
    metrics = evaluate(predictions, name="x", rng=np.random.default_rng(0), n_bootstrap=100).metrics
    assert metrics.ece.value == pytest.approx(found["ece"])
    assert metrics.brier.value == pytest.approx(found["brier"])


def test_reliability_agrees_with_scikit_learn(make_predictions: Callable[..., Predictions]) -> None:
    frame = ordered_frame(make_predictions(800))
    sample = sample_from_frame(frame, threshold=0.5)
    bins = reliability(sample)
    assert [(b.low, b.high) for b in bins] == [(k / 10, (k + 1) / 10) for k in range(10)]
    assert sum(b.n for b in bins) == 800
    share, mean = calibration_curve(sample.hate, sample.score, n_bins=10)
    filled = [b for b in bins if b.n]
    assert [b.mean_score for b in filled] == pytest.approx(mean)
    assert [b.hate_rate.value for b in filled] == pytest.approx(share)
    for b in filled:
        rate = b.hate_rate
        assert (rate.low, rate.high) == wilson(rate.numerator or 0, rate.denominator or 0)


def test_an_empty_bin_has_a_reason_and_the_edges_belong_somewhere(
    make_predictions: Callable[..., Predictions],
) -> None:
    frame = ordered_frame(make_predictions(4))
    sample = sample_from_frame(frame, threshold=0.5)
    edges = replace(sample, score=np.array([0.0, 0.25, 0.5, 1.0]))
    bins = reliability(edges, n_bins=4)
    assert [b.n for b in bins] == [1, 1, 1, 1]
    bins = reliability(edges, n_bins=2)
    assert [b.n for b in bins] == [2, 2]
    empty = reliability(replace(sample, score=np.zeros(4)), n_bins=2)[1]
    assert (empty.n, empty.mean_score) == (0, None)
    assert empty.hate_rate.reason == "no_rows_in_the_bin"


def test_reliability_needs_scores(make_predictions: Callable[..., Predictions]) -> None:
    frame = ordered_frame(make_predictions(6))
    sample = sample_from_frame(frame, threshold=0.5)
    gap = np.arange(6) == 0
    missing = np.where(gap, np.nan, sample.score)
    assert reliability(replace(sample, score=missing)) == ()
    assert reliability(sample.where(sample.ok & ~sample.ok)) == ()
    assert sum(b.n for b in reliability(replace(sample, score=missing, ok=~gap))) == 5

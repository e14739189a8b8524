from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import f1_score
from statsmodels.stats.proportion import proportion_confint
from tests.decide.synthetic import drawn

from evenhand.core.errors import ConfigError, DataError
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.decide.bounds import counts_at, lower_bound, negatives_needed, upper_bound
from evenhand.decide.threshold import (
    CANDIDATES,
    FittedThreshold,
    NoThreshold,
    fit_threshold,
    threshold_rule,
)


def fitted(predictions: Predictions, **limits: float | str) -> FittedThreshold:
    found = fit_threshold(predictions, threshold_rule(**limits))  # pyright: ignore
    assert isinstance(found, FittedThreshold)
    return found


def arrays(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frame = predictions.frame
    group = np.array([one[0] for one in frame["group"]])
    return (frame["label"] == "hate").to_numpy(), frame["score"].to_numpy(), group


def f1_of(hate: np.ndarray, score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    flagged = score >= thresholds[:, None]
    hits = (flagged & hate).sum(axis=1)
    return 2 * hits / (flagged.sum(axis=1) + hate.sum())


def test_candidates_are_fixed_and_descend() -> None:
    assert len(CANDIDATES) == len(set(CANDIDATES)) == 1053
    assert (np.diff(CANDIDATES) < 0).all()
    assert {0.5, 0.62, 0.999999, 0.000001} <= set(CANDIDATES)


def test_without_limits_the_best_f1_of_all_candidates_is_taken() -> None:
    predictions = drawn(400, seed=1)
    hate, score, _ = arrays(predictions)
    values = f1_of(hate, score, CANDIDATES)
    assert values[::100] == pytest.approx([f1_score(hate, score >= t) for t in CANDIDATES[::100]])
    found = fitted(predictions)
    assert found.value == CANDIDATES[int(np.argmax(values))]  # of equal ones the highest
    assert found.lowest == CANDIDATES[-1]
    assert "no guarantee" in found.rule.procedure
    assert found.unlimited == found.chosen


def test_every_group_meets_the_limit_by_the_exact_bound() -> None:
    predictions = drawn(600, seed=2)
    hate, score, group = arrays(predictions)
    found = fitted(predictions, max_group_fpr=0.25)
    for name, rate in found.chosen.groups.items():
        negatives = ~hate & (group == name)
        hits = int((score[negatives] >= found.value).sum())
        # A one-sided bound at 95% is the upper end of the two-sided interval at 90%.
        _, upper = proportion_confint(hits, negatives.sum(), alpha=0.1, method="beta")
        assert (rate.negatives, rate.false_positives) == (negatives.sum(), hits)
        assert rate.fpr_upper == pytest.approx(upper)
        assert upper <= 0.25
    above = CANDIDATES[found.lowest <= CANDIDATES]
    assert found.value == above[int(np.argmax(f1_of(hate, score, above)))]


def test_the_search_stops_at_the_first_candidate_that_fails() -> None:
    # Below 0.4 the group would meet a limit on the gap again, since all rows are flagged there.
    rows, scores = [], []
    for group, normal_score in (("alpha", 0.6), ("beta", 0.3)):
        for i in range(200):
            label = "hate" if i % 2 else "normal"
            rows.append(Row(id=f"{group}{i}", text="-", label=label, groups=(group,)))
            scores.append(0.9 if label == "hate" else normal_score)
    predictions = predictions_from_rows(rows, scores=np.array(scores))
    found = fitted(predictions, max_fpr_gap=0.2)
    assert found.lowest == 0.601
    assert found.chosen.groups["alpha"].gap == 0.0


def test_recall_is_maximised_within_the_limit() -> None:
    predictions = drawn(600, seed=3)
    found = fitted(predictions, maximise="recall", max_group_fpr=0.3)
    hate, score, _ = arrays(predictions)
    assert (score[hate] >= found.value).sum() == (score[hate] >= found.lowest).sum()


def test_too_few_labels_are_said_with_what_would_do() -> None:
    found = fit_threshold(drawn(100, seed=4), threshold_rule(max_group_fpr=0.02))
    assert isinstance(found, NoThreshold)
    assert found.reason == "not_certified"
    for one in found.groups.values():
        assert not one.meets
        assert one.rate.false_positives == 0
        assert one.needed_at_zero == 149  # 0.98 ** 149 is the first power below 0.05
        assert one.needed_at_default is None  # the FPR at 0.5 is far above 2%


def test_negatives_that_would_do_at_the_observed_rate() -> None:
    found = fit_threshold(drawn(40, seed=5), threshold_rule(max_group_fpr=0.05, confidence=0.9))
    assert isinstance(found, NoThreshold)
    assert negatives_needed(0.1, limit=0.2, tail=0.05) == pytest.approx(50, abs=15)
    n = negatives_needed(0.1, limit=0.2, tail=0.05)
    assert n is not None
    _, upper = proportion_confint(0.1 * n, n, alpha=0.1, method="beta")
    assert upper <= 0.2
    _, upper = proportion_confint(0.1 * (n - 1), n - 1, alpha=0.1, method="beta")
    assert upper > 0.2


def test_a_group_without_negatives_cannot_be_certified() -> None:
    predictions = drawn(300, seed=6)
    frame = predictions.frame.copy()
    only_hate = [
        ["gamma"] if label == "hate" else g
        for label, g in zip(frame.label, frame.group, strict=True)
    ]
    frame["group"] = only_hate
    found = fit_threshold(Predictions(frame), threshold_rule(max_group_fpr=0.5))
    assert isinstance(found, NoThreshold)
    assert found.groups["gamma"].reason == "no_negatives"
    assert found.groups["gamma"].rate.fpr is None
    assert found.groups["alpha"].meets


def test_a_gap_needs_rows_outside_the_group() -> None:
    found = fit_threshold(drawn(200, seed=7, groups=("one",)), threshold_rule(max_fpr_gap=0.5))
    assert isinstance(found, NoThreshold)
    assert found.groups["one"].reason == "no_negatives_outside_the_group"


def test_a_threshold_that_finds_no_hate_is_none() -> None:
    rows = [
        Row(id=f"{i}", text="-", label="normal" if i < 50 else "hate", groups=("a",))
        for i in range(100)
    ]
    scores = np.where(np.arange(100) < 50, 0.8, 0.2)  # the wrong way round
    found = fit_threshold(
        predictions_from_rows(rows, scores=scores), threshold_rule(max_group_fpr=0.3)
    )
    assert isinstance(found, NoThreshold)
    assert found.reason == "no_hate_found"
    assert found.stopped_at == 0.8


def test_poor_recall_is_kept_in_sight() -> None:
    found = fitted(drawn(300, seed=8, lift=0.5), max_group_fpr=0.1)
    assert found.chosen.confusion.tp < found.unlimited.confusion.tp / 2
    assert found.default.threshold == 0.5


def test_rows_without_score_are_counted() -> None:
    predictions = drawn(200, seed=9)
    frame = predictions.frame.copy()
    frame.loc[:4, ["score", "decision", "status"]] = [np.nan, None, "error"]
    found = fitted(Predictions(frame))
    assert (found.n, found.n_left_out) == (195, 5)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_group_fpr": 30.0}, "between 0 and 1"),
        ({"max_fpr_gap": 0.0}, "between 0 and 1"),
        ({"confidence": 95.0}, "confidence"),
        ({"maximise": "recall"}, "everything is flagged"),
        ({"maximise": "recall", "max_fpr_gap": 0.1}, "everything is flagged"),
    ],
)
def test_rules_that_make_no_sense_are_refused(limits: Mapping[str, float], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        threshold_rule(**limits)  # pyright: ignore
    assert words in caught.value.render()


def test_data_that_cannot_be_fitted_on_are_refused() -> None:
    everything = drawn(60, seed=10).frame
    only_hate = Predictions(everything[everything.label == "hate"])
    with pytest.raises(DataError, match="1 problem"):
        fit_threshold(only_hate, threshold_rule())
    no_groups = drawn(60, seed=10).frame.assign(group=[[] for _ in range(60)])
    with pytest.raises(DataError) as caught:
        fit_threshold(Predictions(no_groups), threshold_rule(max_group_fpr=0.3))
    assert "names a target group" in caught.value.render()
    assert isinstance(fit_threshold(Predictions(no_groups), threshold_rule()), FittedThreshold)


@pytest.mark.parametrize("limit", [{"max_group_fpr": 0.2}, {"max_fpr_gap": 0.15}])
def test_the_limit_holds_on_new_rows_at_the_stated_confidence(limit: dict[str, float]) -> None:
    """The rate over simulations with which the chosen threshold's true rate breaks the limit."""
    rng = np.random.default_rng(11)
    sims, n, means = 120, 240, {"a": 0.0, "b": -0.4}
    broken = satisfied = 0
    for _ in range(sims):
        group = rng.integers(2, size=n)
        hate = rng.random(n) < 0.3
        logit = rng.normal(size=n) + np.where(group == 0, means["a"], means["b"]) + 1.0 * hate
        rows = [
            Row(
                id=f"{i:04}",
                text="-",
                label="hate" if hate[i] else "normal",
                groups=("ab"[group[i]],),
            )
            for i in range(n)
        ]
        predictions = predictions_from_rows(rows, scores=1 / (1 + np.exp(-logit)))
        found = fit_threshold(predictions, threshold_rule(**limit))  # pyright: ignore
        if isinstance(found, NoThreshold):
            continue
        satisfied += 1
        # Not only the chosen threshold: the lowest certified one has to keep the limit.
        cut = math.log(found.lowest / (1 - found.lowest))
        true = {name: float(norm.sf(cut - mean)) for name, mean in means.items()}
        worst = true["a"] - (true["b"] if "max_fpr_gap" in limit else 0.0)
        broken += worst > next(iter(limit.values()))
    assert satisfied > sims / 2
    # 5% of them, and three standard errors of that count.
    assert broken <= 0.05 * sims + 3 * math.sqrt(sims * 0.05 * 0.95)


def test_clusters_widen_the_bounds() -> None:
    score = np.repeat(np.random.default_rng(12).random(30), 10)  # ten equal rows in each cluster
    clusters = np.repeat(np.arange(30), 10)
    at = np.array([0.8])
    alone = upper_bound(counts_at(score, None, thresholds=at), tail=0.05)
    together = upper_bound(counts_at(score, clusters, thresholds=at), tail=0.05)
    assert together[0] > alone[0]
    hits = int((score[::10] >= 0.8).sum())
    _, of_clusters = proportion_confint(hits, 30, alpha=0.1, method="beta")
    assert together[0] == pytest.approx(of_clusters, abs=0.02)
    one = counts_at(score, np.zeros(300, dtype=int), thresholds=at)
    assert upper_bound(one, tail=0.05)[0] == 1.0
    assert lower_bound(one, tail=0.05)[0] == 0.0


def test_clustered_rows_are_fitted_more_cautiously() -> None:
    alone = fitted(drawn(600, seed=13), max_group_fpr=0.25)
    together = fitted(drawn(600, seed=13, clusters=40), max_group_fpr=0.25)
    assert together.lowest >= alone.lowest
    assert "Korn and Graubard" in together.rule.procedure


@pytest.mark.parametrize("n_clusters", [20, 60])
def test_the_limit_holds_with_clusters_of_unequal_size(n_clusters: int) -> None:
    """Clusters of 1 to 60 rows, most of the spread between them."""
    rng, runs = np.random.default_rng(15), 120
    candidates = CANDIDATES[(CANDIDATES > 0.4) & (CANDIDATES < 0.999)][::5]
    broken = satisfied = 0
    for _ in range(runs):
        code = np.repeat(np.arange(n_clusters), rng.integers(1, 61, size=n_clusters))
        z = np.sqrt(0.6) * rng.normal(size=n_clusters)[code]
        z += np.sqrt(0.4) * rng.normal(size=len(code))
        counts = counts_at(1 / (1 + np.exp(-z)), code, thresholds=candidates)
        passes = np.logical_and.accumulate(upper_bound(counts, tail=0.05) <= 0.2)
        if passes.any():
            satisfied += 1
            lowest = candidates[passes.sum() - 1]
            broken += norm.sf(math.log(lowest / (1 - lowest))) > 0.2
    assert satisfied > runs / 3
    assert broken <= 0.05 * runs


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("dependence", [0.3, 0.99])
def test_bounds_of_clusters_of_unequal_size_cover(rate: float, dependence: float) -> None:
    rng, runs, missed = np.random.default_rng(16), 400, 0
    spread = (1 - dependence) / dependence
    for _ in range(runs):
        code = np.repeat(np.arange(40), rng.integers(1, 61, size=40))
        chance = rng.beta(spread * rate, spread * (1 - rate), size=40)[code]
        flagged = (rng.random(len(code)) < chance).astype(float)
        counts = counts_at(flagged, code, thresholds=np.array([0.5]))
        missed += upper_bound(counts, tail=0.05)[0] < rate
    # 5% of them, and two standard errors of that count.
    assert missed <= 0.05 * runs + 2 * math.sqrt(runs * 0.05 * 0.95)


def falsely_certified(found: FittedThreshold | NoThreshold, limit: float, shift: float) -> bool:
    if isinstance(found, NoThreshold):
        return False
    return norm.sf(math.log(found.lowest / (1 - found.lowest)) - shift) > limit


def test_the_limit_holds_for_the_model_that_the_same_rows_chose() -> None:
    """Nine phases, equally good; the one with the best F1 on the rows is taken."""
    rng, runs, n, limit = np.random.default_rng(17), 150, 150, 0.2
    broken = {1: 0, 9: 0}
    for _ in range(runs):
        hate = rng.random(n) < 0.3
        shared = rng.normal(size=n)
        models = []
        for _ in range(9):
            z = np.sqrt(0.3) * shared + np.sqrt(0.7) * rng.normal(size=n) + 1.0 * hate
            models.append(1 / (1 + np.exp(-z)))
        best = max(models, key=lambda score: f1_score(hate, score >= 0.5))
        rows = [
            Row(id=f"{i:04}", text="-", label="hate" if hate[i] else "normal", groups=("a",))
            for i in range(n)
        ]
        predictions = predictions_from_rows(rows, scores=best)
        for candidates in broken:
            rule = threshold_rule(max_group_fpr=limit, n_candidates=candidates)
            broken[candidates] += falsely_certified(fit_threshold(predictions, rule), limit, 0.0)
    assert broken[1] > 0.05 * runs  # what the correction is for
    assert broken[9] <= 0.05 * runs


def test_the_models_that_the_rows_chose_among_are_said() -> None:
    alone, among = (threshold_rule(max_group_fpr=0.25, n_candidates=n) for n in (1, 6))
    assert "each of the 6 models" in among.procedure
    assert "models" not in alone.procedure
    assert "models" not in threshold_rule(n_candidates=6).procedure  # no limit, no promise
    rows = drawn(600, seed=2)
    found = [fit_threshold(rows, rule) for rule in (alone, among)]
    assert isinstance(found[0], FittedThreshold) and isinstance(found[1], FittedThreshold)
    assert found[1].lowest > found[0].lowest
    strict = fit_threshold(drawn(100, seed=4), threshold_rule(max_group_fpr=0.02, n_candidates=6))
    assert isinstance(strict, NoThreshold)
    # 0.98 ** 237 is the first power below 0.05 / 6.
    assert {one.needed_at_zero for one in strict.groups.values()} == {237}
    with pytest.raises(ConfigError, match="1 problem"):
        threshold_rule(n_candidates=0)


def test_clustered_rows_are_needed_in_clusters() -> None:
    alone = fit_threshold(drawn(100, seed=4), threshold_rule(max_group_fpr=0.02))
    rows = drawn(100, seed=4)
    twice = Predictions(
        pd.concat(
            [
                rows.frame.assign(id=rows.frame["id"] + suffix, cluster=rows.frame["id"])
                for suffix in "ab"
            ],
            ignore_index=True,
        )
    )
    together = fit_threshold(twice, threshold_rule(max_group_fpr=0.02))
    assert isinstance(alone, NoThreshold) and isinstance(together, NoThreshold)
    for name, one in alone.groups.items():
        other = together.groups[name]
        assert one.design_effect is None
        assert (one.needed_at_zero, other.needed_at_zero) == (149, 298)
        assert other.design_effect == pytest.approx(2.0, abs=0.1)


@settings(max_examples=60)
@given(
    hits=st.integers(0, 60), more=st.integers(0, 60), tail=st.sampled_from([0.01, 0.025, 0.05, 0.2])
)
def test_bounds_are_clopper_and_pearsons(hits: int, more: int, tail: float) -> None:
    total = hits + more
    if total == 0:
        return
    score = np.r_[np.ones(hits), np.zeros(more)]
    counts = counts_at(score, None, thresholds=np.array([0.5]))
    low, high = proportion_confint(hits, total, alpha=2 * tail, method="beta")
    assert upper_bound(counts, tail=tail)[0] == pytest.approx(high, abs=1e-9)
    assert lower_bound(counts, tail=tail)[0] == pytest.approx(low, abs=1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), strict=st.floats(0.05, 0.4), slack=st.floats(0.0, 0.4))
def test_a_stricter_limit_never_lowers_the_certified_end(
    seed: int, strict: float, slack: float
) -> None:
    predictions = drawn(150, seed=seed)
    found = [
        fit_threshold(predictions, threshold_rule(max_group_fpr=limit))
        for limit in (strict, min(0.9, strict + slack))
    ]
    if isinstance(found[0], FittedThreshold):
        assert isinstance(found[1], FittedThreshold)
        assert found[0].lowest >= found[1].lowest


def test_the_order_of_rows_does_not_matter() -> None:
    predictions = drawn(300, seed=14)
    shuffled = Predictions(predictions.frame.sample(frac=1, random_state=0))
    rule = threshold_rule(max_group_fpr=0.3)
    assert fit_threshold(predictions, rule) == fit_threshold(shuffled, rule)

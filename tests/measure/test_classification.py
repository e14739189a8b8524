from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from statsmodels.stats.proportion import proportion_confint

from evenhand.core.errors import DataError, StorageError
from evenhand.core.evaluation import (
    Evaluation,
    MetricValue,
    read_evaluation,
    write_evaluation,
)
from evenhand.core.predictions import Predictions, predictions_from_rows
from evenhand.core.records import Row
from evenhand.measure.classification import DEFAULT_SLICES, evaluate, learned_nothing

Make = Callable[..., Predictions]


def measured(predictions: Predictions, **options: object) -> Evaluation:
    options = {"name": "set", "rng": np.random.default_rng(0), "n_bootstrap": 200} | options
    return evaluate(predictions, **options)


def truth(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frame = predictions.frame
    return (
        (frame["label"] == "hate").to_numpy(),
        (frame["decision"] == "hate").to_numpy(),
        frame["score"].to_numpy(),
    )


def test_metrics_equal_scikit_learns(make_predictions: Make) -> None:
    predictions = make_predictions(600)
    hate, flagged, score = truth(predictions)
    result = measured(predictions)
    metrics = result.metrics
    tn, fp, fn, tp = confusion_matrix(hate, flagged).ravel()
    assert result.confusion.model_dump() == {"tp": tp, "tn": tn, "fp": fp, "fn": fn}
    assert metrics.accuracy.value == pytest.approx(accuracy_score(hate, flagged))
    assert metrics.precision.value == pytest.approx(precision_score(hate, flagged))
    assert metrics.recall.value == pytest.approx(recall_score(hate, flagged))
    assert metrics.f1.value == pytest.approx(f1_score(hate, flagged))
    assert metrics.roc_auc.value == pytest.approx(roc_auc_score(hate, score))
    assert metrics.fpr.value == pytest.approx(fp / (fp + tn))
    interval = (metrics.fpr.low, metrics.fpr.high)
    assert interval == pytest.approx(proportion_confint(fp, fp + tn, method="wilson"))
    assert (metrics.fpr.numerator, metrics.fpr.denominator) == (fp, fp + tn)


def test_group_rates_equal_fairlearns(make_predictions: Make) -> None:
    predictions = make_predictions(600)
    hate, flagged, _ = truth(predictions)
    result = measured(predictions)
    for name, group in result.groups.items():
        member = np.array([name in groups for groups in predictions.frame["group"]])
        frame = MetricFrame(
            metrics={"fpr": false_positive_rate, "fnr": false_negative_rate},
            y_true=hate.astype(int),
            y_pred=flagged.astype(int),
            sensitive_features=member,
        )
        assert group.n == member.sum()
        assert group.fpr.value == pytest.approx(frame.by_group.loc[True, "fpr"])
        assert group.fnr.value == pytest.approx(frame.by_group.loc[True, "fnr"])
        difference = frame.by_group.loc[True] - frame.by_group.loc[False]
        assert result.gaps[name].fpr.value == pytest.approx(difference["fpr"])
        assert result.gaps[name].fnr.value == pytest.approx(difference["fnr"])


def test_ties_in_the_scores_count_half() -> None:
    rows = [Row(id=str(i), text="t", label="hate" if i % 3 else "normal") for i in range(90)]
    score = np.round(np.random.default_rng(3).random(90), 1)
    result = measured(predictions_from_rows(rows, scores=score))
    hate = [row.label == "hate" for row in rows]
    assert result.metrics.roc_auc.value == pytest.approx(roc_auc_score(hate, score))


def test_the_auc_bootstrap_agrees_with_a_plain_one(make_predictions: Make) -> None:
    predictions = make_predictions(300)
    hate, _, score = truth(predictions)
    rng = np.random.default_rng(5)
    plain = []
    for _ in range(600):
        drawn = rng.integers(300, size=300)
        plain.append(roc_auc_score(hate[drawn], score[drawn]))
    auc = measured(predictions, n_bootstrap=2000).metrics.roc_auc
    assert (auc.low, auc.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.01)


def test_the_f1_bootstrap_agrees_with_a_plain_one(make_predictions: Make) -> None:
    predictions = make_predictions(300)
    hate, flagged, _ = truth(predictions)
    rng = np.random.default_rng(5)
    plain = []
    for _ in range(600):
        drawn = rng.integers(300, size=300)
        plain.append(f1_score(hate[drawn], flagged[drawn]))
    f1 = measured(predictions, n_bootstrap=2000).metrics.f1
    assert (f1.low, f1.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.015)


def test_ece_equals_a_plain_computation(make_predictions: Make) -> None:
    predictions = make_predictions(500)
    hate, _, score = truth(predictions)
    total = 0.0
    for b in range(15):
        inside = (score >= b / 15) & (score < (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(hate[inside].mean() - score[inside].mean())
    ece = measured(predictions).metrics.ece
    assert ece.value == pytest.approx(total)
    assert ece.low <= ece.value <= ece.high


def test_annotator_agreement_is_averaged_where_it_is_known() -> None:
    shares = [1.0, 0.5, None, "0.75", "most"]
    rows = [
        Row(
            id=str(i),
            text="t",
            label="hate",
            groups=("g",) if i > 2 else (),
            extra={"agreement": x},
        )
        for i, x in enumerate(shares)
    ]
    result = measured(predictions_from_rows(rows, scores=np.full(5, 0.7)))
    assert result.agreement == {"": pytest.approx(0.75), "g": 0.75}
    plain = [Row(id="a", text="t", label="hate")]
    assert measured(predictions_from_rows(plain, scores=np.array([0.7]))).agreement == {}


def test_the_analyses_are_part_of_an_evaluation(make_predictions: Make) -> None:
    predictions = make_predictions(300)
    result = measured(predictions, baselines={"same": predictions})
    assert set(result.composition) == set(result.groups)
    assert result.composition["alpha"].by == ("source", "fine_label")
    assert result.reachable.recall.value >= 0.75
    assert result.baselines["same"].reachable == result.reachable
    assert set(result.bias_aucs.groups) == set(result.groups)
    assert sum(one.n for one in result.reliability) == 300
    decided = Predictions(predictions.frame.assign(score=np.nan))
    without = measured(decided, method="import")
    assert without.bias_aucs is None
    assert without.reliability == ()
    assert without.reachable.threshold is None


def test_further_slices_are_measured_when_asked_for(make_predictions: Make) -> None:
    predictions = make_predictions(60, clusters=6)
    result = measured(predictions, slices=(("cluster",), ("source", "label")))
    assert [tuple(part.keys) for part in result.slices[:6]] == [("cluster",)] * 6
    assert len(result.slices) == 6 + 4
    with pytest.raises(DataError, match="predictions"):
        measured(predictions, slices=(("clustr",),))


def test_dependent_rows_widen_every_interval() -> None:
    rng = np.random.default_rng(0)
    templates, copies = 40, 20
    label = rng.random(templates) < 0.5
    score = np.clip(0.5 + 0.15 * (2 * label - 1) + 0.25 * rng.normal(size=templates), 0.01, 0.99)
    noisy = np.clip(np.repeat(score, copies) + 0.01 * rng.normal(size=templates * copies), 0, 1)

    def widths(*, clustered: bool) -> dict[str, float]:
        rows = [
            Row(
                id=f"{i:04}",
                text="t",
                label="hate" if label[i // copies] else "normal",
                cluster=f"t{i // copies}" if clustered else None,
            )
            for i in range(templates * copies)
        ]
        result = measured(predictions_from_rows(rows, scores=noisy), n_bootstrap=1000)
        assert result.n_clusters == (templates if clustered else None)
        values = [(n, v) for n, v in result.metrics if isinstance(v, MetricValue)]
        return {name: value.high - value.low for name, value in values}

    naive, clustered = widths(clustered=False), widths(clustered=True)
    for name in ("f1", "roc_auc", "fpr", "fnr", "accuracy", "precision", "brier"):
        assert clustered[name] > 2 * naive[name], name


def test_no_number_depends_on_the_order_of_the_rows(make_predictions: Make) -> None:
    predictions = make_predictions(120, clusters=30)
    shuffled = Predictions(predictions.frame.sample(frac=1, random_state=4))
    assert measured(shuffled) == measured(predictions)


def test_clusters_of_one_row_each_are_no_clusters() -> None:
    rows = [Row(id=str(i), text="t", label="hate", cluster=f"c{i}") for i in range(5)]
    assert measured(predictions_from_rows(rows, scores=np.full(5, 0.7))).n_clusters is None


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hate", "normal"]),
            st.sampled_from(["hate", "normal", None]),
            st.sets(st.sampled_from(["alpha", "beta"])),
            st.booleans(),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_counts_add_up_and_bounds_enclose(answers: list[tuple]) -> None:
    rows = [
        Row(id=str(i), text="t", label=label, groups=tuple(sorted(groups)), source="s")
        for i, (label, _, groups, _) in enumerate(answers)
    ]
    statuses = [
        "ok" if decision else ("error" if failed else "unparseable")
        for _, decision, _, failed in answers
    ]
    predictions = predictions_from_rows(
        rows, decisions=[decision for _, decision, _, _ in answers], statuses=statuses
    )
    result = measured(predictions, method="generate", n_bootstrap=100)
    assert result.n == len(rows) == result.n_scored + result.n_unparseable + result.n_error
    assert result.confusion.n == result.n_scored
    assert result.threshold is None
    for name, group in result.groups.items():
        assert group.n == sum(name in row.groups for row in rows)
        assert group.confusion.n == group.n_scored
        assert group.confusion.n + result.gaps[name].rest.n == result.n_scored
    assert sum(part.n for part in result.slices if set(part.keys) == {"source"}) == result.n
    assert (result.bounds is None) == (result.n_scored == result.n)
    for part in (result.metrics, *result.groups.values()):
        for _, value in part if part is result.metrics else dict(part).items():
            if isinstance(value, MetricValue) and value.low is not None:
                assert value.low <= value.value <= value.high
    if result.bounds is not None:
        for name in ("accuracy", "f1", "fpr", "fnr"):
            bound, value = getattr(result.bounds, name), getattr(result.metrics, name).value
            if value is not None and bound.worst is not None:
                assert min(bound.worst, bound.best) <= value <= max(bound.worst, bound.best)


def test_bounds_count_the_unscored_rows_as_all_wrong_and_all_right() -> None:
    rows = [Row(id=str(i), text="t", label="hate" if i < 4 else "normal") for i in range(10)]
    decisions = ["hate", "hate", "normal", None, "normal", "normal", "hate", "normal", None, None]
    result = measured(predictions_from_rows(rows, decisions=decisions), method="import")
    assert result.n_unparseable == 3
    assert result.metrics.accuracy.value == pytest.approx(5 / 7)
    assert (result.bounds.accuracy.worst, result.bounds.accuracy.best) == (0.5, 0.8)
    assert (result.bounds.fpr.worst, result.bounds.fpr.best) == (3 / 6, 1 / 6)
    assert (result.bounds.fnr.worst, result.bounds.fnr.best) == (2 / 4, 1 / 4)
    assert result.bounds.f1.best == pytest.approx(6 / 8)
    assert result.bounds.f1.worst == pytest.approx(4 / 9)


def test_constant_scores_have_an_auc_of_one_half(make_predictions: Make) -> None:
    frame = make_predictions(80).frame
    for constant in (0.0, 0.5, 1.0):
        predictions = Predictions(frame.assign(score=constant))
        auc = measured(predictions).metrics.roc_auc
        assert (auc.value, auc.low, auc.high) == (0.5, 0.5, 0.5)
        assert learned_nothing(measured(predictions))


def test_perfect_scores_keep_an_interval(make_predictions: Make) -> None:
    frame = make_predictions(60).frame
    score = np.where(frame["label"] == "hate", 0.9, 0.1)
    metrics = measured(Predictions(frame.assign(score=score))).metrics
    for value in (metrics.f1, metrics.roc_auc, metrics.accuracy):
        assert value.value == value.high == 1.0
        assert 0.8 < value.low < 1.0


def test_undefined_is_null_with_a_reason() -> None:
    rows = [Row(id=str(i), text="t", label="hate", groups=("alpha",)) for i in range(3)]
    result = measured(predictions_from_rows(rows, scores=np.full(3, 0.2)))
    assert result.metrics.fpr == MetricValue(reason="no_negatives", numerator=0, denominator=0)
    assert result.metrics.precision.reason == "no_positive_decisions"
    assert result.metrics.roc_auc.reason == "one_class"
    assert result.gaps["alpha"].fpr.reason == "no_negatives"
    assert result.gaps["alpha"].fnr.reason == "no_positives_outside_the_group"
    assert learned_nothing(result)
    unscored = measured(predictions_from_rows(rows, decisions=["hate"] * 3), method="generate")
    assert unscored.metrics.roc_auc.reason == "no_scores"
    assert unscored.metrics.ece.reason == "no_scores"
    nothing = measured(predictions_from_rows(rows, scores=np.full(3, np.nan)))
    assert nothing.metrics.f1.reason == "no_positives"
    assert nothing.metrics.accuracy.reason == "no_scored_rows"
    assert nothing.n_error == 3


def test_an_empty_set_is_undefined_throughout() -> None:
    result = measured(predictions_from_rows([], scores=np.empty(0)))
    assert result.n == 0
    assert result.metrics.ece_if_calibrated is None
    values = [value for _, value in result.metrics if value is not None]
    assert len(values) == 9
    assert all(value.value is None and value.reason for value in values)


def test_the_threshold_decides_scores_but_not_given_decisions(make_predictions: Make) -> None:
    predictions = make_predictions(200)
    hate, flagged, score = truth(predictions)
    strict = measured(predictions, threshold=0.8)
    assert strict.confusion.fp == ((score >= 0.8) & ~hate).sum()
    assert strict.threshold == 0.8
    imported = measured(predictions, threshold=0.8, method="import")
    assert imported.confusion.fp == (flagged & ~hate).sum()
    assert imported.threshold is None


def test_decisions_without_scores_are_judged_by_their_lift(make_predictions: Make) -> None:
    frame = make_predictions(300).frame.assign(score=np.nan)
    informed = Predictions(frame.assign(decision=frame["label"]))
    assert not learned_nothing(measured(informed, method="import"))
    assert learned_nothing(measured(Predictions(frame.assign(decision="hate")), method="import"))


def test_rows_without_label_or_score_are_refused_with_the_remedy() -> None:
    rows = [Row(id="a", text="t"), Row(id="b", text="t", label="hate")]
    with pytest.raises(DataError) as caught:
        measured(predictions_from_rows(rows, decisions=["hate", "normal"]))
    text = caught.value.render()
    assert "1 of 2 rows have no label; add the labels" in text
    assert 'method "generate" or "import"' in text


def test_small_slices_say_how_many_labels_they_need(make_predictions: Make) -> None:
    result = measured(make_predictions(90))
    keys = [frozenset(part.keys) for part in result.slices]
    assert set(keys) == {frozenset(crossing) for crossing in DEFAULT_SLICES}
    assert {part.keys["fine_label"] for part in result.slices if "fine_label" in part.keys} == {
        "plain",
        "offensive",
        "(missing)",
    }
    for part in result.slices:
        assert part.negatives.labels == part.confusion.negatives
        assert part.negatives.too_small == (part.confusion.negatives < 30)
        assert part.negatives.needed >= 30


def test_baselines_are_measured_like_the_model(make_predictions: Make) -> None:
    predictions = make_predictions(150)
    own = measured(predictions, baselines={"same": predictions})
    baseline = own.baselines["same"]
    assert baseline.confusion == own.confusion
    assert baseline.metrics.fpr == own.metrics.fpr
    assert baseline.groups["alpha"].fpr == own.groups["alpha"].fpr
    assert measured(predictions).metrics == own.metrics


def test_json_round_trip(make_predictions: Make, tmp_path: Path) -> None:
    predictions = make_predictions(100)
    result = measured(predictions, baselines={"same": predictions}, dataset_sha256="ab")
    write_evaluation(result, tmp_path / "evaluation.json")
    assert read_evaluation(tmp_path / "evaluation.json") == result
    (tmp_path / "evaluation.json").write_text('{"name": "x"}')
    with pytest.raises(StorageError, match="is not an evaluation"):
        read_evaluation(tmp_path / "evaluation.json")


def test_a_missing_value_needs_a_reason() -> None:
    with pytest.raises(ValidationError):
        MetricValue()
    with pytest.raises(ValidationError):
        MetricValue(value=0.5)
    with pytest.raises(ValidationError):
        MetricValue(value=0.5, low=0.4, reason="half an interval")


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"n_bootstrap": 10}])
def test_options_out_of_range_are_refused(make_predictions: Make, options: dict) -> None:
    with pytest.raises(ValueError, match="is "):
        measured(make_predictions(10), **options)


def test_a_thousand_rows_take_under_a_second_of_cpu(make_predictions: Make) -> None:
    predictions = make_predictions(1000)
    measured(predictions, n_bootstrap=100)
    start = time.process_time()
    measured(predictions, n_bootstrap=2000)
    assert time.process_time() - start < 1.0

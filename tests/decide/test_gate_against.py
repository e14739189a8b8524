from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score
from tests.decide.gates import (
    answered,
    criterion,
    one_group,
    result_of,
)
from tests.decide.synthetic import Counts, counted, measured

from evenhand.core.predictions import Predictions
from evenhand.decide.compare import compare
from evenhand.decide.figures import unscored_range
from evenhand.decide.rivals import constant_answers


def test_against_another_set() -> None:
    drop = criterion(metric="f1", at_least=-0.05, judged_on="lower", against={"set": "validation"})
    here, there = one_group(600, 600, 400, 400), one_group(900, 900, 100, 100, name="validation")
    found = result_of(here, drop, references={"validation": there})
    assert found.measured.value == pytest.approx(-0.3)
    assert (found.measured.method, found.status) == ("mover", "fail")
    assert found.against == "validation"
    missing = result_of(here, drop)
    assert (missing.status, missing.measured.reason) == ("not_evaluated", "no_reference")
    # A stated figure has no interval, so nothing can be said of the lower end.
    stated = result_of(here, drop, stated={"validation.f1": 0.6})
    assert (stated.status, stated.against) == ("not_evaluated", "validation (stated, not verified)")
    by_group = criterion(metric="fpr", group="a", at_most=0.0, against={"set": "validation"})
    found = result_of(here, by_group, stated={"validation.a.fpr": 0.45})
    assert (found.status, found.measured.value) == ("pass", pytest.approx(-0.05))


def test_against_a_baseline() -> None:
    cells: dict[str, Counts] = {"a": (900, 900, 100, 100)}
    evaluation, rows = measured(cells), counted(cells)
    beats = criterion(
        metric="f1", at_least=0.0, judged_on="lower", against={"baseline": "tfidf_logreg"}
    )
    other = {"tfidf_logreg": answered(cells, lambda i: i % 10 < 4)}
    more = {"rows": rows, "baselines": other}
    found = result_of(evaluation, beats, **more)
    assert (found.status, found.measured.value) == ("pass", pytest.approx(0.3))
    assert "0.9000 against 0.6000 of tfidf_logreg" in found.note
    missing = result_of(evaluation, beats, rows=rows)
    assert (missing.status, missing.measured.reason) == ("not_evaluated", "no_baseline")
    for metric in ("fnr", "f1", "precision", "roc_auc"):
        of_group = criterion(
            metric=metric,
            group="a",
            **({"at_most": 0.0} if metric == "fnr" else {"at_least": 0.0}),
            against={"baseline": "tfidf_logreg"},
        )
        assert result_of(evaluation, of_group, **more).status == "pass", metric


@pytest.mark.parametrize("metric", ["f1", "accuracy", "fpr", "fnr", "recall"])
@pytest.mark.parametrize("group", [None, "a"])
def test_a_difference_to_a_baseline_is_that_of_the_paired_comparison(
    metric: str, group: str | None
) -> None:
    cells: dict[str, Counts] = {"a": (80, 70, 30, 20), "b": (30, 40, 10, 20)}
    rows, baseline = counted(cells), answered(cells, lambda i: i % 7 < 2)
    one = criterion(metric=metric, group=group, at_least=-1.0, against={"baseline": "tfidf_logreg"})
    found = result_of(measured(cells), one, rows=rows, baselines={"tfidf_logreg": baseline})
    if group is not None:
        inside = np.array([group in names for names in rows.frame["group"].tolist()])
        rows, baseline = Predictions(rows.frame[inside]), Predictions(baseline.frame[inside])
    comparison = compare(
        {"tfidf": baseline, "model": rows}, set_name="test", rng=np.random.default_rng(5)
    )
    test = comparison.pairs[0].test("fnr" if metric == "recall" else metric)
    assert test is not None and test.difference.value is not None
    sign = -1 if metric == "recall" else 1
    assert found.measured.value == pytest.approx(sign * test.difference.value)
    assert found.measured.method == "paired_bootstrap"
    ends = sorted((sign * float(test.difference.low or 0), sign * float(test.difference.high or 0)))
    assert (found.measured.low, found.measured.high) == pytest.approx(ends, abs=0.02)


def test_pairing_finds_what_independent_intervals_miss() -> None:
    cells: dict[str, Counts] = {"a": (70, 70, 30, 30)}
    frame = counted(cells).frame
    # A baseline with the model's errors and ten more.
    wrong = (frame["decision"] != frame["label"]).to_numpy()
    baseline = answered(cells, lambda i: bool(wrong[i]) or i < 10)
    one = criterion(
        metric="accuracy", at_least=0.0, judged_on="lower", against={"baseline": "tfidf_logreg"}
    )
    found = result_of(
        measured(cells), one, rows=counted(cells), baselines={"tfidf_logreg": baseline}
    )
    assert found.status == "pass"


def test_both_sides_of_a_difference_are_of_the_rows_that_have_an_answer() -> None:
    cells: dict[str, Counts] = {"a": (80, 80, 20, 20)}
    rows = counted(cells, unparseable=100)  # all of them hateful
    evaluation = measured(cells, unparseable=100)
    everything = {"always_hate": constant_answers(rows, "always_hate")}
    for metric, bound in (("f1", 0.0), ("precision", 0.0)):
        one = criterion(metric=metric, at_least=bound, against={"baseline": "always_hate"})
        found = result_of(evaluation, one, rows=rows, baselines=everything)
        own = f1_score if metric == "f1" else precision_score
        truth = np.r_[np.ones(100), np.zeros(100)]
        expected = 0.8 - own(truth, np.ones(200))
        assert found.measured.value == pytest.approx(expected)
        assert found.constants == {"always_hate": pytest.approx(0.0)}


def test_rows_without_an_answer_count_against_the_model_in_gaps() -> None:
    cells: dict[str, Counts] = {"a": (900, 900, 100, 100), "b": (900, 900, 100, 100)}
    one = criterion(metric="fnr_gap", group="a", at_most=0.1, judged_on="upper")
    assert result_of(measured(cells), one).status == "pass"
    evaluation = measured(cells, unparseable=300)  # hateful rows of a
    found = result_of(evaluation, one)
    assert (found.status, found.labels_needed) == ("undecided", None)
    assert "without an answer" in found.settling
    ends = unscored_range(evaluation, metric="fnr_gap", group="a")
    assert ends == pytest.approx((100 / 1300 - 0.1, 400 / 1300 - 0.1))
    of_b = unscored_range(evaluation, metric="fnr_gap", group="b")
    assert of_b == pytest.approx((0.1 - 400 / 1300, 0.1 - 100 / 1300))

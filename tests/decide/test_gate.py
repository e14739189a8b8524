from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from statsmodels.stats.proportion import proportion_confint
from tests.decide.synthetic import Counts, counted, measured

from evenhand.config.criteria import Criteria, Criterion, load_criteria
from evenhand.core.decisions import Binding, CriterionResult, GateVerdict
from evenhand.core.evaluation import Evaluation
from evenhand.core.predictions import Predictions
from evenhand.decide.basis import Basis
from evenhand.decide.compare import compare
from evenhand.decide.figures import ClassCounts, constant_value, unscored_range
from evenhand.decide.gate import deploy, judge
from evenhand.decide.rivals import constant_answers, rivals_of

TODAY = date(2026, 11, 22)
BINDING = Binding(run="r", adapter=None, prompt=None, base=None)
DUTY = {"monitor": "FPR", "owner": "me", "due_days": 14, "action": "Tune the threshold."}
# The reference's production figures: lgbtq, mexican, middle_east.
PRODUCTION: dict[str, Counts] = {
    "lgbtq": (132, 128, 192, 38),
    "mexican": (96, 67, 18, 24),
    "middle_east": (127, 96, 45, 34),
}


def criterion(**keys: Any) -> Criterion:
    return Criterion.model_validate({"name": "it", **keys})


def verdict_of(
    evaluation: Evaluation,
    *criteria: Criterion,
    references: Mapping[str, Evaluation] | None = None,
    stated: Mapping[str, float] | None = None,
    rows: Predictions | None = None,
    baselines: Mapping[str, Predictions] | None = None,
) -> GateVerdict:
    named = tuple(
        one.model_copy(update={"name": f"{one.name} {index}"}) for index, one in enumerate(criteria)
    )
    asked = Criteria(name="test", criteria=named)
    return judge(
        basis(evaluation, asked, rows, baselines, references=references, stated=stated),
        asked,
        binding=BINDING,
        today=TODAY,
    )


def basis(
    evaluation: Evaluation,
    criteria: Criteria,
    rows: Predictions | None = None,
    baselines: Mapping[str, Predictions] | None = None,
    *,
    references: Mapping[str, Evaluation] | None = None,
    stated: Mapping[str, float] | None = None,
) -> Basis:
    """What is judged; without the rows those that have the evaluation's counts are made up."""
    if rows is None:
        cells = {
            name: (one.confusion.tp, one.confusion.tn, one.confusion.fp, one.confusion.fn)
            for name, one in evaluation.groups.items()
        }
        rows = counted(cells, unparseable=evaluation.n - evaluation.n_scored)
    return Basis(
        evaluation,
        references=references or {},
        stated=stated or {},
        rivals=rivals_of(
            rows,
            baselines or {},
            criteria,
            set_name=evaluation.name,
            rng=np.random.default_rng(0),
        ),
    )


def result_of(evaluation: Evaluation, one: Criterion, **more: Any) -> CriterionResult:
    always = criterion(metric="accuracy", at_least=0.0)
    return verdict_of(evaluation, one, always, **more).results[0]


def answered(groups: Mapping[str, Counts], is_wrong: Callable[[int], bool]) -> Predictions:
    """A baseline on the rows of ``counted(groups)``, wrong on the rows that are named."""
    frame = counted(groups).frame
    decisions = [
        label if not is_wrong(i) else {"hate": "normal", "normal": "hate"}[label]
        for i, label in enumerate(frame["label"])
    ]
    scores = [{"hate": 0.9, "normal": 0.1}[one] for one in decisions]
    return Predictions(frame.assign(decision=decisions, score=scores))


def one_group(tp: int, tn: int, fp: int, fn: int, **more: Any) -> Evaluation:
    return measured({"a": (tp, tn, fp, fn)}, **more)


def test_the_reference_assessment_comes_out() -> None:
    evaluation = measured(PRODUCTION, name="production", scored=False)
    verdict = judge(
        Basis(evaluation, stated={"validation.f1": 0.6852}),
        load_criteria("reference"),
        binding=BINDING,
        today=TODAY,
    )
    found = {one.name: one for one in verdict.results}
    assert [one.status for one in verdict.results] == [
        "pass",
        "fail",
        "pass",
        "fail",
        "pass",
        "pass",
    ]
    assert verdict.outcome == "PASS WITH CONDITIONS"
    assert found["F1 >= 0.615"].measured.value == pytest.approx(0.6692, abs=5e-5)
    assert found["F1 >= 0.615"].constants["always_hate"] == pytest.approx(0.6229, abs=5e-5)
    assert found["Generalisation"].measured.value == pytest.approx(-0.0160, abs=5e-5)
    assert "stated, not verified" in found["Generalisation"].note
    bias = found["Bias fairness"]
    assert (bias.group, bias.measured.value) == ("lgbtq", 0.6)
    assert "lgbtq (60.0%)" in bias.note
    assert bias.duty == {
        "monitor": "false positives of the groups that do not meet it",
        "owner": "the model's owner",
        "action": "Tune the decision threshold.",
        "due": "2026-12-06",
    }
    assert found["Stability"].measured.value == pytest.approx(0.2235294 - 0.2, abs=1e-6)
    assert verdict.vacuous == ("always_hate",)
    assert deploy(verdict, model="m", today=TODAY).status == "needs_review"


def test_no_constant_meets_the_default_set() -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        groups = {name: tuple(map(int, rng.integers(1, 200, 4))) for name in "abc"}
        evaluation = measured(groups)  # pyright: ignore
        criteria = load_criteria("default")
        verdict = judge(
            basis(evaluation, criteria, stated={"validation.f1": 0.0}),
            criteria,
            binding=BINDING,
            today=TODAY,
        )
        assert verdict.vacuous == ()


def test_a_very_good_model_passes_the_default_set() -> None:
    groups: dict[str, Counts] = {"a": (950, 950, 50, 50), "b": (950, 950, 50, 50)}
    baselines = {"tfidf_logreg": answered(groups, lambda i: i % 10 < 3)}
    criteria = load_criteria("default")
    verdict = judge(
        basis(
            measured(groups),
            criteria,
            counted(groups),
            baselines,
            references={"validation": measured(groups, name="validation")},
        ),
        criteria,
        binding=BINDING,
        today=TODAY,
    )
    assert verdict.outcome == "PASS"
    deployment = deploy(verdict, model="m", today=TODAY)
    assert (deployment.status, deployment.conditions) == ("approved", ())
    assert (deployment.next_action, deployment.due) == (None, None)


def test_point_lower_and_upper() -> None:
    evaluation = one_group(80, 80, 20, 20)  # recall 0.8 [0.711, 0.867], FPR 0.2 [0.133, 0.289]
    cases = [
        ("recall", {"at_least": 0.8}, "point", "pass"),
        ("recall", {"at_least": 0.81}, "point", "fail"),
        ("recall", {"at_least": 0.7}, "lower", "pass"),
        ("recall", {"at_least": 0.75}, "lower", "undecided"),
        ("recall", {"at_least": 0.85}, "lower", "undecided"),
        ("recall", {"at_least": 0.87}, "lower", "fail"),
        ("fpr", {"at_most": 0.3}, "upper", "pass"),
        ("fpr", {"at_most": 0.25}, "upper", "undecided"),
        ("fpr", {"at_most": 0.13}, "upper", "fail"),
    ]
    for metric, bound, judged_on, status in cases:
        found = result_of(evaluation, criterion(metric=metric, judged_on=judged_on, **bound))
        assert found.status == status, (metric, bound, judged_on)
        assert (found.labels_needed is None) == (status != "undecided")


def test_the_labels_needed_settle_it_in_four_cases_of_five() -> None:
    one = criterion(metric="recall", at_least=0.75, judged_on="lower")
    found = result_of(one_group(160, 80, 40, 40), one)
    needed = found.labels_needed
    assert (found.labels, found.label_unit) == (200, "hate rows")
    assert needed is not None and needed > 200
    assert f"(there are {found.labels} now)" in found.settling
    assert "hate rows in all" in found.settling and "four cases of five" in found.settling
    hits = np.random.default_rng(1).binomial(needed, 0.8, size=4000)
    low = proportion_confint(hits, needed, alpha=0.05, method="wilson")[0]
    assert (low >= 0.75).mean() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("bound", [0.8, 0.797, 0.79])
def test_what_is_too_close_to_the_bound_has_no_number(bound: float) -> None:
    one = criterion(metric="recall", at_least=bound, judged_on="lower")
    found = result_of(one_group(80, 80, 20, 20), one)
    assert (found.status, found.labels_needed) == ("undecided", None)
    assert found.settling == "too close to the bound to be settled by labelling"


def test_no_number_of_labels_shows_that_an_ece_is_too_large() -> None:
    one = criterion(metric="ece", at_most=0.05, judged_on="upper")
    found = result_of(one_group(500, 500, 200, 200), one)
    assert (found.status, found.labels_needed) == ("undecided", None)
    assert "no lower bound above 0" in found.settling


def test_each_metric_names_its_kind_of_label() -> None:
    evaluation = one_group(80, 160, 40, 20)
    units = {
        "recall": ({"at_least": 0.75}, 100, "hate rows"),
        "fpr": ({"at_most": 0.25, "judged_on": "upper"}, 200, "normal rows"),
        "accuracy": ({"at_least": 0.76}, 300, "rows"),
    }
    for metric, (bound, n, unit) in units.items():
        found = result_of(evaluation, criterion(metric=metric, **{"judged_on": "lower"} | bound))
        assert (found.status, found.labels, found.label_unit) == ("undecided", n, unit)
        assert f"{unit} in all (there are {n} now)" in found.settling


def test_the_next_action_keeps_the_units_apart() -> None:
    evaluation = one_group(80, 160, 40, 20)
    recall = criterion(metric="recall", at_least=0.75, judged_on="lower")
    fpr = criterion(metric="fpr", at_most=0.25, judged_on="upper")
    action = str(deploy(verdict_of(evaluation, recall, fpr), model="m", today=TODAY).next_action)
    assert re.search(r"it 0 \(if .* hate rows .*\); it 1 \(if .* normal rows .*\)\.$", action)


def test_a_group_with_few_labels_never_passes() -> None:
    groups: dict[str, Counts] = {"big": (50, 99, 1, 5), "small": (50, 29, 0, 5)}
    each = criterion(metric="fpr", group="each", at_most=0.5, judged_on="upper")
    found = result_of(measured(groups), each)
    assert found.parts["small"].measured.high is not None
    assert found.parts["small"].measured.high < 0.5
    assert (found.status, found.group, found.labels_needed) == ("undecided", "small", 30)
    assert found.settling == (
        "small: at least 30 normal rows in all (there are 29 now) are needed for a claim"
    )
    enough = measured({**groups, "small": (50, 30, 0, 5)})
    assert result_of(enough, each).status == "pass"
    point = criterion(metric="fpr", group="each", at_most=0.5)
    found = result_of(measured(groups), point)
    assert found.status == "pass"
    assert "Too few labels for a claim: small (29 normal rows)" in found.note


def test_f1_of_a_group_with_few_hateful_rows_never_passes() -> None:
    one = criterion(metric="f1", group="a", at_least=0.1, judged_on="lower")
    found = result_of(one_group(20, 500, 1, 1), one)
    assert (found.status, found.labels, found.label_unit) == ("undecided", 21, "hate rows")


def test_the_other_set_is_named_where_its_own_uncertainty_is_too_large() -> None:
    drop = criterion(metric="recall", at_least=-0.05, judged_on="lower", against={"set": "val"})
    here = one_group(1600, 1600, 400, 400)
    small = result_of(here, drop, references={"val": one_group(40, 40, 10, 10, name="val")})
    assert (small.status, small.labels_needed) == ("undecided", None)
    assert small.settling == "the figure on val is too uncertain itself: label more rows there"
    here = one_group(160, 160, 40, 40)
    large = result_of(here, drop, references={"val": one_group(16000, 16000, 4000, 4000)})
    assert large.status == "undecided"
    assert large.labels_needed is not None and large.labels_needed > 200


@pytest.mark.parametrize(
    ("keys", "unit"),
    [
        ({"metric": "recall", "at_least": 0.5}, "share"),
        ({"metric": "f1", "at_least": 0.5}, "plain"),
        ({"metric": "f1", "at_least": 0.0, "against": {"baseline": "always_hate"}}, "points"),
        ({"metric": "fpr_gap", "group": "a", "at_most": 0.1}, "points"),
        ({"metric": "fnr", "group": "range", "at_most": 0.1}, "points"),
    ],
)
def test_each_result_names_its_unit(keys: dict[str, Any], unit: str) -> None:
    groups: dict[str, Counts] = {"a": (50, 50, 10, 10), "b": (50, 50, 10, 10)}
    assert result_of(measured(groups), criterion(**keys)).unit == unit


OK = criterion(metric="recall", at_least=0.5)
BAD = criterion(metric="recall", at_least=0.9)
OPEN = criterion(metric="recall", at_least=0.75, judged_on="lower")
MISSING = criterion(metric="roc_auc", at_least=0.5)


def as_(one: Criterion, role: str) -> Criterion:
    duty = {"duty": DUTY} if role == "condition" else {}
    return Criterion.model_validate(
        {**one.model_dump(exclude={"role", "duty"}), "role": role, **duty}
    )


@pytest.mark.parametrize(
    ("criteria", "outcome", "status"),
    [
        ([OK], "PASS", "approved"),
        ([OK, as_(BAD, "stretch"), as_(MISSING, "stretch")], "PASS", "approved"),
        ([OK, as_(OK, "condition")], "PASS", "approved"),
        ([OK, as_(BAD, "condition")], "PASS WITH CONDITIONS", "approved_with_conditions"),
        ([OK, as_(OPEN, "condition")], "PASS WITH CONDITIONS", "approved_with_conditions"),
        ([OK, as_(MISSING, "condition")], "PASS WITH CONDITIONS", "approved_with_conditions"),
        ([OK, OPEN], "REVIEW", "needs_review"),
        ([OK, MISSING], "REVIEW", "needs_review"),
        ([OPEN, BAD, as_(BAD, "condition")], "FAIL", "rejected"),
    ],
)
def test_outcomes(criteria: list[Criterion], outcome: str, status: str) -> None:
    not_vacuous = criterion(metric="f1", at_least=0.01, against={"baseline": "always_hate"})
    evaluation = one_group(80, 80, 20, 20, scored=False)
    verdict = verdict_of(evaluation, not_vacuous, *criteria)
    deployment = deploy(verdict, model="m", today=TODAY)
    assert (verdict.outcome, verdict.vacuous, deployment.status) == (outcome, (), status)
    for one in verdict.results:
        assert (one.duty is not None) == (one.role == "condition" and one.status != "pass")


def test_conditions_carry_their_duty_and_the_first_due_date() -> None:
    later = Criterion.model_validate(
        {**as_(BAD, "condition").model_dump(), "duty": {**DUTY, "due_days": 30, "action": "Later."}}
    )
    verdict = verdict_of(one_group(80, 80, 20, 20), OK, later, as_(BAD, "condition"))
    deployment = deploy(verdict, model="m", today=TODAY)
    assert [one["due"] for one in deployment.conditions] == ["2026-12-22", "2026-12-06"]
    assert deployment.conditions[0]["criterion"] == "it 1"


def test_next_action_says_what_is_missing() -> None:
    hard = criterion(metric="f1", at_least=0.01, against={"baseline": "always_hate"})
    evaluation = one_group(80, 80, 20, 20)
    review = deploy(verdict_of(evaluation, hard, OPEN), model="m", today=TODAY)
    assert "in four cases of five" in str(review.next_action)
    failed = deploy(verdict_of(evaluation, hard, BAD), model="m", today=TODAY)
    assert failed.next_action == "Do not deploy. Not met: it 1."


def test_every_group_is_judged_and_the_worst_decides() -> None:
    groups: dict[str, Counts] = {"a": (50, 90, 10, 5), "b": (50, 40, 60, 5), "c": (50, 3, 1, 5)}
    each = criterion(metric="fpr", group="each", at_most=0.3, judged_on="upper")
    found = result_of(measured(groups), each)
    assert (found.status, found.group, found.measured.value) == ("fail", "b", 0.6)
    assert {name: part.status for name, part in found.parts.items()} == {
        "a": "pass",
        "b": "fail",
        "c": "undecided",
    }
    small = result_of(measured({"a": (50, 90, 10, 5), "c": (50, 3, 1, 5)}), each)
    assert (small.status, small.group) == ("undecided", "c")
    assert small.labels_needed is not None and small.labels_needed > 4


def test_a_group_without_negatives_does_not_pass_by_being_empty() -> None:
    groups: dict[str, Counts] = {"a": (50, 90, 10, 5), "c": (50, 0, 0, 5)}
    found = result_of(measured(groups), criterion(metric="fpr", group="each", at_most=0.9))
    assert (found.status, found.group) == ("not_evaluated", "c")
    assert "no negatives" in found.note


def test_unknown_groups_and_missing_groups() -> None:
    evaluation = measured({"women": (50, 90, 10, 5), "men": (50, 90, 10, 5)})
    found = result_of(evaluation, criterion(metric="fpr", group="womn", at_most=0.9))
    assert found.status == "not_evaluated"
    assert 'did you mean "women"' in found.note
    frame_without = measured({"women": (50, 90, 10, 5)})
    lonely = result_of(frame_without, criterion(metric="fnr", group="range", at_most=0.5))
    assert lonely.measured.reason == "fewer_than_two_groups"


def test_gaps_are_read_per_group() -> None:
    groups: dict[str, Counts] = {"a": (50, 90, 10, 5), "b": (50, 40, 60, 5)}
    found = result_of(measured(groups), criterion(metric="fpr_gap", group="b", at_most=0.2))
    assert found.measured.value == pytest.approx(0.5)
    assert found.constants == {"always_hate": 0.0, "always_normal": 0.0}
    assert found.required == "<= +20 pp for b"


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


def test_rows_without_an_answer_count_against_the_model() -> None:
    one = criterion(metric="recall", at_least=0.75, judged_on="lower")
    assert result_of(one_group(900, 900, 100, 100), one).status == "pass"
    found = result_of(one_group(900, 900, 100, 100, unparseable=300), one)
    assert (found.status, found.labels_needed) == ("undecided", None)
    point = criterion(metric="recall", at_least=0.75)
    found = result_of(one_group(900, 900, 100, 100, unparseable=300), point)
    assert found.status == "pass"
    assert "69.2% if every row without an answer were wrong" in found.note


def test_a_single_required_criterion_that_a_constant_meets_is_noted() -> None:
    hard = criterion(metric="f1", at_least=0.01, against={"baseline": "always_hate"})
    verdict = verdict_of(one_group(80, 80, 20, 20), criterion(metric="f1", at_least=0.6), hard)
    assert verdict.vacuous == ()
    assert verdict.results[0].constants == {"always_hate": pytest.approx(2 / 3)}
    assert verdict.results[1].constants == {}


def test_constants_are_taken_over_all_rows_where_the_baseline_is_there() -> None:
    rows: dict[str, Counts] = {"a": (80, 80, 20, 20)}
    evaluation = one_group(80, 80, 20, 20, unparseable=100)
    everything = {"always_hate": counted({"a": (200, 0, 100, 0)})}
    with_baseline = measured(rows, unparseable=100, baselines=everything)
    f1 = criterion(metric="f1", at_least=0.6)
    assert result_of(evaluation, f1).constants["always_hate"] == pytest.approx(2 / 3)
    assert result_of(with_baseline, f1).constants["always_hate"] == pytest.approx(0.8)


def test_a_constant_is_compared_with_itself_on_the_other_set() -> None:
    drop = criterion(metric="f1", at_least=-0.05, against={"set": "validation"})
    here, there = one_group(50, 150, 50, 50), one_group(150, 50, 50, 50, name="validation")
    found = result_of(here, drop, references={"validation": there})
    assert found.constants == {"always_normal": 0.0}  # always_hate: 0.5 here, 0.8 there


@settings(deadline=None, max_examples=80)
@given(positives=st.integers(0, 40), negatives=st.integers(0, 40), says=st.booleans())
def test_constants_agree_with_scikit_learn(positives: int, negatives: int, says: bool) -> None:
    truth = np.r_[np.ones(positives), np.zeros(negatives)]
    if not len(truth):
        return
    answers = np.full(len(truth), float(says))
    name = "always_hate" if says else "always_normal"
    counts = ClassCounts(positives, negatives)

    def found(metric: str) -> float | None:
        return constant_value(name, metric, counts)

    assert found("accuracy") == pytest.approx(accuracy_score(truth, answers))
    if positives:
        assert found("recall") == pytest.approx(recall_score(truth, answers))
        assert found("f1") == pytest.approx(f1_score(truth, answers, zero_division=0))
        assert found("fnr") == pytest.approx(1 - recall_score(truth, answers))
    else:
        assert found("recall") is found("f1") is found("fnr") is None
    if says:
        assert found("precision") == pytest.approx(precision_score(truth, answers, zero_division=0))
    else:
        assert found("precision") is None
    assert found("fpr") == (None if not negatives else float(says))
    assert found("brier") == pytest.approx(float(((truth - answers) ** 2).mean()))


counts = st.integers(1, 60)
RANK = {"fail": 0, "undecided": 1, "pass": 2}


@settings(deadline=None, max_examples=20)
@given(
    cells=st.tuples(counts, counts, counts, counts),
    factor=st.integers(2, 5),
    bound=st.floats(0.05, 0.95),
    metric=st.sampled_from(["recall", "fpr", "accuracy", "precision"]),
)
def test_more_rows_at_the_same_rates_never_unsettle_a_verdict(
    cells: tuple[int, int, int, int], factor: int, bound: float, metric: str
) -> None:
    way = (
        {"at_most": bound, "judged_on": "upper"}
        if metric == "fpr"
        else {
            "at_least": bound,
            "judged_on": "lower",
        }
    )
    one = criterion(metric=metric, **way)
    small = result_of(one_group(*cells), one).status
    large = result_of(one_group(*(factor * cell for cell in cells)), one).status
    if small in ("pass", "fail"):
        assert large == small
    point = criterion(metric=metric, **{**way, "judged_on": "point"})
    assert result_of(one_group(*cells), point).status in ("pass", "fail")


@settings(deadline=None, max_examples=40)
@given(
    cells=st.tuples(counts, counts, counts, counts),
    strict=st.floats(0.0, 1.0),
    loose=st.floats(0.0, 1.0),
    judged_on=st.sampled_from(["point", "lower"]),
)
def test_a_stricter_bound_is_never_easier(
    cells: tuple[int, int, int, int], strict: float, loose: float, judged_on: str
) -> None:
    loose, strict = sorted((loose, strict))
    evaluation = one_group(*cells)
    ranks = [
        RANK[result_of(evaluation, criterion(metric="f1", at_least=b, judged_on=judged_on)).status]
        for b in (strict, loose)
    ]
    assert ranks[0] <= ranks[1]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from tests.decide.gates import (
    BINDING,
    TODAY,
    answered,
    basis,
    criterion,
    one_group,
    result_of,
    verdict_of,
)
from tests.decide.synthetic import Counts, counted, measured

from evenhand.config.criteria import Criterion, load_criteria
from evenhand.decide.basis import Basis
from evenhand.decide.figures import ClassCounts, constant_value
from evenhand.decide.gate import deploy, judge

DUTY = {"monitor": "FPR", "owner": "me", "due_days": 14, "action": "Tune the threshold."}
# The reference's production figures: lgbtq, mexican, middle_east.
PRODUCTION: dict[str, Counts] = {
    "lgbtq": (132, 128, 192, 38),
    "mexican": (96, 67, 18, 24),
    "middle_east": (127, 96, 45, 34),
}


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


@settings(max_examples=80)
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


@settings(max_examples=20)
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


@settings(max_examples=40)
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

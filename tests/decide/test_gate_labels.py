from __future__ import annotations

import re

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint
from tests.decide.gates import (
    TODAY,
    criterion,
    one_group,
    result_of,
    verdict_of,
)
from tests.decide.synthetic import Counts, measured

from evenhand.decide.gate import deploy


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

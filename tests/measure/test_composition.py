from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import Table2x2

from evenhand.core.evaluation import Composition, RateRatio
from evenhand.core.predictions import predictions_from_rows
from evenhand.core.records import Row
from evenhand.measure.composition import composition
from evenhand.measure.sample import Sample, ordered_frame, sample_from_frame

Table = tuple[int, int, int, int]
"""Hits and misses in the group, hits and misses outside it."""


def build(
    tables: list[Table], *, hate: bool = False, clusters: np.ndarray | None = None
) -> tuple[pd.DataFrame, Sample, np.ndarray]:
    """Rows that have these tables as strata, of normal posts (or of hate posts)."""
    stratum = np.repeat(np.arange(len(tables)), [sum(table) for table in tables])
    hit = np.concatenate([np.repeat([True, False, True, False], table) for table in tables])
    member = np.concatenate([np.repeat([True, True, False, False], table) for table in tables])
    n = len(hit)
    sample = Sample(
        hate=np.full(n, hate),
        flagged=hit != hate,
        ok=np.ones(n, dtype=bool),
        failed=np.zeros(n, dtype=bool),
        score=np.full(n, np.nan),
        clusters=clusters,
    )
    frame = pd.DataFrame({"source": [None] * n, "fine_label": [f"s{k}" for k in stratum]})
    return frame, sample, member


def scaled(tables: list[Table], times: int) -> list[Table]:
    return [(times * a, times * b, times * c, times * d) for a, b, c, d in tables]


def ratio(
    tables: list[Table], *, hate: bool = False, clusters: np.ndarray | None = None
) -> RateRatio:
    frame, sample, member = build(tables, hate=hate, clusters=clusters)
    result = composition(frame, sample, {"alpha": member})["alpha"]
    return result.fnr if hate else result.fpr


def test_a_worked_example() -> None:
    # By hand: R = 8*10/20 + 20*40/60 = 4 + 13.333; S = 6*10/20 + 10*20/60 = 3 + 3.333.
    tables = [(8, 2, 6, 4), (20, 0, 10, 30)]
    found = ratio(tables)
    assert found.adjusted.value == pytest.approx((4 + 40 / 3) / (3 + 10 / 3))
    # P = (14*10*10 - 8*6*20)/20^2 + (30*20*40 - 20*10*60)/60^2 = 1.1 + 10/3.
    variance = (1.1 + 10 / 3) / ((4 + 40 / 3) * (3 + 10 / 3))
    spread = 1.959964 * math.sqrt(variance)
    assert found.adjusted.value is not None
    assert (found.adjusted.low, found.adjusted.high) == pytest.approx(
        (found.adjusted.value * math.exp(-spread), found.adjusted.value * math.exp(spread))
    )
    assert found.crude.value == pytest.approx((28 / 30) / (16 / 50))
    assert (found.strata, found.left_out) == (2, 0)
    assert found.explained == pytest.approx(
        1 - math.log(found.adjusted.value) / math.log((28 / 30) / (16 / 50))
    )


counts = st.integers(1, 40)
table_strategy = st.tuples(counts, counts, counts, counts)


@given(table_strategy)
def test_one_stratum_agrees_with_statsmodels_and_needs_no_adjustment(table: Table) -> None:
    found = ratio([table])
    reference = Table2x2(np.array([[table[0], table[1]], [table[2], table[3]]]))
    for value in (found.crude, found.adjusted):
        assert value.value == pytest.approx(reference.riskratio)
        assert (value.low, value.high) == pytest.approx(reference.riskratio_confint(0.05))
    if found.explained is not None:
        assert found.explained == pytest.approx(0.0, abs=1e-9)


@given(st.lists(table_strategy, min_size=1, max_size=4), st.integers(2, 5))
def test_more_of_the_same_rows_leave_the_ratios_and_narrow_them(
    tables: list[Table], times: int
) -> None:
    once = ratio(tables)
    again = ratio(scaled(tables, times))
    for name in ("crude", "adjusted"):
        first, second = getattr(once, name), getattr(again, name)
        assert second.value == pytest.approx(first.value)
        assert math.log(second.high / second.low) == pytest.approx(
            math.log(first.high / first.low) / math.sqrt(times)
        )


@given(st.lists(table_strategy, min_size=1, max_size=4))
def test_the_rest_against_the_group_is_the_inverse(tables: list[Table]) -> None:
    there = ratio(tables)
    back = ratio([(c, d, a, b) for a, b, c, d in tables])
    for name in ("crude", "adjusted"):
        first, second = getattr(there, name), getattr(back, name)
        assert second.value == pytest.approx(1 / first.value)
        assert (second.low, second.high) == pytest.approx((1 / first.high, 1 / first.low))
    if there.explained is not None:
        assert back.explained == pytest.approx(there.explained)


@given(st.lists(table_strategy, min_size=1, max_size=4))
def test_misses_of_hate_rows_are_measured_alike(tables: list[Table]) -> None:
    assert ratio(tables, hate=True) == ratio(tables)


def test_a_common_ratio_agrees_with_a_poisson_regression() -> None:
    tables = [(60, 140, 90, 510), (150, 150, 80, 220), (18, 82, 40, 360)]
    frame, sample, member = build(tables)
    design = pd.get_dummies(frame["fine_label"], dtype=float).assign(member=member.astype(float))
    fit = sm.GLM(sample.flagged.astype(float), design, family=sm.families.Poisson()).fit(
        cov_type="HC0"
    )
    adjusted = ratio(tables).adjusted
    assert adjusted.value is not None
    assert adjusted.low is not None
    assert adjusted.high is not None
    assert math.log(adjusted.value) == pytest.approx(fit.params["member"], abs=0.01)
    width = math.log(adjusted.high / adjusted.low)
    assert width == pytest.approx(2 * 1.96 * fit.bse["member"], rel=0.02)


def test_a_gap_that_is_all_composition_is_explained_altogether() -> None:
    found = ratio([(90, 10, 18, 2), (2, 18, 10, 90)])
    assert found.crude.low is not None
    assert found.crude.low > 1.0
    assert found.adjusted.value == pytest.approx(1.0)
    assert found.explained == pytest.approx(1.0)


def test_kinds_of_posts_that_the_group_lacks_are_composition_too() -> None:
    found = ratio([(90, 10, 90, 10), (0, 0, 20, 180)])
    assert (found.strata, found.left_out) == (1, 0)
    assert found.explained == pytest.approx(1.0)


def test_rows_of_the_group_without_a_counterpart_are_counted_and_explain_nothing() -> None:
    found = ratio([(40, 60, 20, 80), (50, 0, 0, 0)])
    assert (found.strata, found.left_out) == (1, 50)
    assert found.adjusted.value == pytest.approx(2.0)
    assert found.crude.value == pytest.approx(3.0)
    assert found.explained == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("tables", "crude", "adjusted"),
    [
        ([(0, 0, 3, 4)], (None, "no_negatives"), (None, "no_negatives")),
        (
            [(3, 4, 0, 0)],
            (None, "no_negatives_outside_the_group"),
            (None, "no_stratum_with_both_sides"),
        ),
        ([(3, 4, 0, 5)], (None, "no_false_positives_outside_the_group"), None),
        ([(0, 4, 0, 5)], (None, "no_false_positives_outside_the_group"), None),
        ([(0, 4, 2, 5)], (0.0, "no_false_positives_in_the_group"), None),
        ([(4, 0, 5, 0)], (1.0, "both_rates_are_one"), None),
    ],
)
def test_what_is_undefined_has_a_reason(
    tables: list[Table],
    crude: tuple[float | None, str],
    adjusted: tuple[float | None, str] | None,
) -> None:
    found = ratio(tables)
    assert (found.crude.value, found.crude.reason) == crude
    assert (found.adjusted.value, found.adjusted.reason) == (adjusted or crude)
    assert found.explained is None
    assert found.crude.low is None


def test_nothing_is_explained_where_the_adjusted_ratio_is_undefined() -> None:
    found = ratio([(30, 20, 0, 50), (0, 0, 20, 100)])
    assert found.crude.low is not None
    assert found.crude.low > 1.0
    assert found.adjusted.reason == "no_false_positives_outside_the_group"
    assert found.explained is None


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 4), min_size=1, max_size=4))
def test_empty_cells_never_break_it(tables: list[Table]) -> None:
    assume(sum(map(sum, tables)) > 0)
    found = ratio(tables)
    for value in (found.crude, found.adjusted):
        assert value.reason is None or value.low is None
        if value.low is not None and value.value is not None and value.high is not None:
            assert 0.0 < value.low < value.value < value.high < math.inf


def test_single_rows_as_clusters_change_little_and_copies_count_once() -> None:
    tables = [(80, 120, 60, 240), (30, 20, 40, 60)]
    plain = ratio(tables)
    n = sum(map(sum, tables))
    alone = ratio(tables, clusters=np.arange(n))
    copied = ratio(scaled(tables, 9), clusters=np.repeat(np.arange(n), 9))
    for name, method in (("crude", "katz"), ("adjusted", "mantel_haenszel")):
        first, second, third = (getattr(one, name) for one in (plain, alone, copied))
        assert (first.method, second.method) == (method, f"{method}_clustered")
        assert (second.value, third.value) == pytest.approx((first.value, first.value))
        assert math.log(second.high / second.low) == pytest.approx(
            math.log(first.high / first.low), rel=0.02
        )
        # Nine copies of every row in its cluster are no more evidence than one.
        assert (third.low, third.high) == pytest.approx((second.low, second.high), rel=0.02)


def test_a_group_that_is_one_cluster_has_no_interval() -> None:
    clusters = np.r_[np.zeros(20, dtype=int), np.arange(1, 21)]
    found = ratio([(10, 10, 5, 15)], clusters=clusters)
    assert found.crude.value == pytest.approx(2.0)
    assert found.crude.reason == found.adjusted.reason == "one_independent_unit"


def test_columns_that_are_empty_drop_out_and_missing_values_are_a_stratum() -> None:
    frame, sample, member = build([(5, 5, 5, 5), (5, 5, 5, 5)])
    members = {"alpha": member}
    assert composition(frame, sample, members)["alpha"].by == ("fine_label",)
    assert composition(frame, sample, members, by=("source",)) == {}
    assert composition(frame, sample, {}) == {}
    some = frame.assign(fine_label=[None if v == "s1" else v for v in frame["fine_label"]])
    assert composition(some, sample, members) == composition(frame, sample, members)


def test_columns_are_crossed() -> None:
    frame, sample, member = build([(5, 5, 5, 5)])
    n = len(frame)
    crossed = frame.assign(
        source=["x" if k % 2 else "y" for k in range(n)],
        fine_label=["p" if k % 4 < 2 else "q" for k in range(n)],
    )
    found = composition(crossed, sample, {"alpha": member})["alpha"]
    assert found.by == ("source", "fine_label")
    assert found.fpr.strata == 4


def test_unscored_rows_do_not_count() -> None:
    frame, sample, member = build([(5, 5, 5, 5)])
    ok = np.arange(len(frame)) % 2 == 0
    part = Sample(sample.hate, sample.flagged & ok, ok, ~ok, sample.score, None)
    whole = composition(frame[ok], sample.where(ok), {"alpha": member[ok]})
    assert composition(frame, part, {"alpha": member}) == whole


@pytest.fixture(scope="module")
def production(shared_data: Path) -> tuple[pd.DataFrame, Sample, dict[str, Composition]]:
    """The reference's production predictions with each post's original label."""
    (path,) = (shared_data / "reference_runs" / "production_high_capacity").glob("strategy*.csv")
    table = pd.read_csv(path)
    posts = json.loads((shared_data / "unified" / "unified_test.json").read_text("utf-8"))
    original = {post["text"]: post["label_multiclass"] for post in posts}
    rows = [
        Row(
            id=f"{k:04}",
            text=text,
            label=label,
            groups=(group,),
            source=source,
            fine_label=original[text],
        )
        for k, (text, label, group, source) in enumerate(
            zip(
                table["input_text"],
                table["true_label"],
                table["target_group_norm"],
                table["source_dataset"],
                strict=True,
            )
        )
    ]
    answers = [
        answer if answer in ("hate", "normal") else None for answer in table["predicted_label"]
    ]
    frame = ordered_frame(predictions_from_rows(rows, decisions=answers))
    sample = sample_from_frame(frame, threshold=None)
    groups = np.array([group[0] for group in frame["group"]])
    members = {name: groups == name for name in ("lgbtq", "mexican", "middle_east")}
    return frame, sample, composition(frame, sample, members)


def test_the_references_lgbtq_gap_is_mostly_composition(
    production: tuple[pd.DataFrame, Sample, dict[str, Composition]],
) -> None:
    frame, sample, found = production
    fpr = found["lgbtq"].fpr
    assert fpr.crude.value == pytest.approx(2.15, abs=0.005)
    assert fpr.adjusted.value == pytest.approx(1.09, abs=0.005)
    assert (fpr.adjusted.low, fpr.adjusted.high) == pytest.approx((0.92, 1.30), abs=0.005)
    assert fpr.explained is not None
    assert 0.85 < fpr.explained < 0.92
    assert (fpr.strata, fpr.left_out) == (3, 0)
    normal = sample.ok & ~sample.hate
    rates = {
        label: sample.flagged[normal & (frame["fine_label"] == label)].mean()
        for label in ("offensive", "normal", "benign_implicit")
    }
    assert rates == pytest.approx(
        {"offensive": 0.91, "normal": 0.61, "benign_implicit": 0.14}, abs=0.005
    )

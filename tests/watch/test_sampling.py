"""Which posts are reviewed: strata and rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.errors import ConfigError
from evenhand.watch.statistics.sampling import Plan, all_strata, decision_of, make_plan, stratum_of

GROUPS = ("lgbtq", "mexican")
SHARES = {
    f"{group}/{decision}/{band}": share * decided * banded
    for group, share in (("lgbtq", 0.08), ("mexican", 0.04), ("none", 0.88))
    for decision, decided in (("hate", 0.3), ("normal", 0.7))
    for band, banded in (("near", 0.2), ("far", 0.8))
}


def plan_for(posts_per_day: float = 1000.0, *, labels: float = 200.0, floor: float = 0.01) -> Plan:
    traffic = {stratum: posts_per_day * share for stratum, share in SHARES.items()}
    return make_plan(traffic, labels_per_day=labels, min_inclusion=floor, groups=GROUPS)


@pytest.mark.parametrize(
    ("proposed", "decision", "score", "stratum"),
    [
        ((), "normal", 0.1, "none/normal/far"),
        (("women",), "hate", 0.95, "none/hate/far"),
        (("mexican",), "hate", 0.64, "mexican/hate/near"),
        (("mexican", "lgbtq"), "normal", 0.36, "lgbtq/normal/near"),
    ],
)
def test_stratum(proposed: tuple[str, ...], decision: str, score: float, stratum: str) -> None:
    named = stratum_of(proposed, decision, score, threshold=0.5, band_width=0.15, groups=GROUPS)
    assert named == stratum
    assert named in all_strata(GROUPS)
    assert decision_of(named) == decision


@given(
    traffic=st.dictionaries(
        st.sampled_from([*all_strata(GROUPS), "women/hate/far"]), st.floats(0, 1e6), max_size=13
    ),
    labels=st.floats(1, 1e5),
    floor=st.floats(1e-4, 0.5),
)
def test_a_plan_keeps_its_promises(traffic: dict[str, float], labels: float, floor: float) -> None:
    plan = make_plan(traffic, labels_per_day=labels, min_inclusion=floor, groups=GROUPS)
    posts = sum(traffic.values())
    assert all(floor <= plan.rate(stratum) <= 1 for stratum in (*traffic, "else/hate/far"))
    floors = sum(n * floor for n in traffic.values())
    if posts <= labels:
        assert plan.expected_labels == pytest.approx(posts)
    elif floors <= labels:
        assert plan.expected_labels == pytest.approx(labels, rel=1e-6)
        assert plan.excess_labels == pytest.approx(0, abs=1e-6 * labels)
    else:
        assert plan.excess_labels == pytest.approx(floors - labels, rel=1e-6, abs=1e-6)
    for decision in ("hate", "normal"):
        rates = [rate for stratum, rate in plan.rates.items() if decision_of(stratum) == decision]
        assert min(rates) == plan.least_rate(decision)
        assert max(rates) <= min(rates) * 5 * 1.5 * (1 + 1e-9)  # the weights stay comparable


def test_watched_groups_and_near_posts_get_more() -> None:
    plan = plan_for()
    for decision in ("hate", "normal"):
        for group in GROUPS:
            assert plan.rate(f"{group}/{decision}/far") > 1.5 * plan.rate(f"none/{decision}/far")
        assert plan.rate(f"none/{decision}/near") > plan.rate(f"none/{decision}/far")
    assert plan.rate("lgbtq/hate/far") > plan.rate("lgbtq/normal/far") > 0.01
    assert plan.rate("mexican/normal/far") > plan.rate("lgbtq/normal/far")  # fewer posts


def test_floors_beyond_the_budget_are_said() -> None:
    plan = plan_for(100_000)
    assert plan.expected_labels == pytest.approx(1000)
    assert plan.excess_labels == pytest.approx(800)
    assert plan_for(100_000, floor=0.001).excess_labels == pytest.approx(0, abs=1e-6)


def test_a_plan_without_traffic_can_sample() -> None:
    plan = make_plan({}, labels_per_day=200, min_inclusion=0.01, groups=GROUPS)
    assert plan.expected_labels == 0
    assert set(all_strata(GROUPS)) <= set(plan.rates)


def test_least_rates_count_strata_that_are_not_named() -> None:
    plan = Plan(rates={"lgbtq/hate/far": 0.5, "none/normal/far": 0.2}, default_rate=0.3)
    assert plan.least_rate("hate") == 0.3
    assert plan.least_rate("normal") == 0.2


def test_bad_groups_and_rates_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 problems"):
        make_plan({}, labels_per_day=1, min_inclusion=0.1, groups=["none", "a/b"])
    with pytest.raises(ValueError, match="above 0"):
        Plan(rates={"a": 0.0}, default_rate=0.1)

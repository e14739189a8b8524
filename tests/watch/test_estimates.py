"""Error rates of production from a weighted sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.watch.reviewed_samples import GROUPS, PLAN, make_sample

from evenhand.watch.statistics.estimates import about, draws_of, estimate


def by_name(estimates: tuple) -> dict:
    return {(one.metric, one.group): one for one in estimates}


def test_estimates_of_each_group_and_of_all() -> None:
    sample = make_sample(3000, fpr=0.4, fnr=0.2, others_fpr=0.1, share=0.5)
    found = by_name(estimate(sample, groups=GROUPS, confidence=0.95))
    assert set(found) == {(m, g) for m in ("fpr", "fnr") for g in (None, *GROUPS)}
    for metric, group, truth in (
        ("fpr", "lgbtq", 0.4),
        ("fpr", None, 0.25),
        ("fnr", "lgbtq", 0.2),
        ("fnr", None, 0.2),
    ):
        one = found[metric, group]
        assert one.value == pytest.approx(truth, abs=0.05)
        assert one.low < truth < one.high
        assert one.low < one.value < one.high
        assert not one.drifted
    assert found["fpr", "mexican"].value is None
    assert (found["fpr", "mexican"].low, found["fpr", "mexican"].high) == (0.0, 1.0)
    normal = (~sample.hate & about(sample, "lgbtq")).sum()
    assert found["fpr", "lgbtq"].labels == normal


def test_the_weights_matter() -> None:
    """Flagged posts are sampled more often; the plain share of the sample is far off."""
    sample = make_sample(4000, fpr=0.3, share=0.5)
    draws = draws_of(sample, metric="fpr", group="lgbtq")
    plain = draws.error[draws.member].mean()
    assert plain > 0.4
    assert draws.value == pytest.approx(0.3, abs=0.04)
    weights = 1 / sample.inclusion[draws.member]
    assert draws.value == pytest.approx(np.average(draws.error[draws.member], weights=weights))
    assert draws.weight_max == pytest.approx(weights.max() / weights.mean())


def test_bets_are_limited_by_the_lowest_rate_of_the_plan_in_force() -> None:
    sample = make_sample(50, fpr=0.3)
    tighter = replace(PLAN, rates={**PLAN.rates, "none/normal/far": 0.05})
    sample = replace(sample, plans=(PLAN, tighter), plan=np.r_[np.zeros(25, int), np.ones(25, int)])
    draws = draws_of(sample, metric="fpr", group="lgbtq")
    assert set(draws.least_right[:25]) == {0.1}
    assert set(draws.least_right[25:]) == {0.05}
    assert set(draws.least_error) == {0.4}
    other = draws_of(sample, metric="fnr", group="lgbtq")
    assert set(other.least_right) == {0.4}  # of a hateful post, the flagged are right
    assert set(other.least_error[:25]) == {0.1}


def test_a_group_and_the_posts_outside_it_share_all_labels() -> None:
    sample = make_sample(500, fpr=0.3, late=0.1)
    inside = draws_of(sample, metric="fpr", group="lgbtq")
    outside = draws_of(sample, metric="fpr", group="lgbtq", outside=True)
    every = draws_of(sample, metric="fpr")
    assert (inside.member ^ outside.member)[every.member].all()
    assert inside.labels + outside.labels == every.labels
    assert (inside.pending == (sample.state == "pending")).all()


def test_pending_items_widen_and_are_counted() -> None:
    sample = make_sample(1500, fpr=0.3)
    late = np.zeros(1500, dtype=bool)
    late[100:130] = True
    groups = tuple(() if is_late else g for g, is_late in zip(sample.groups, late, strict=True))
    known = replace(
        sample,
        state=np.where(late, "pending", "labelled"),
        hate=sample.hate & ~late,
        groups=groups,
    )
    before = by_name(estimate(sample, groups=GROUPS, confidence=0.95))["fpr", "lgbtq"]
    after = by_name(estimate(known, groups=GROUPS, confidence=0.95))["fpr", "lgbtq"]
    assert after.pending == 30
    assert after.low <= before.low
    assert after.high >= before.high
    assert after.high < 1


def test_an_empty_sample() -> None:
    sample = make_sample(1, fpr=0.3)
    empty = replace(
        sample,
        groups=(),
        plans=(),
        **{
            name: getattr(sample, name)[:0]
            for name in ("item", "post", "plan", "inclusion", "score", "flagged", "stratum")
        },
        **{name: getattr(sample, name)[:0] for name in ("time", "state", "hate")},
    )
    for one in estimate(empty, groups=GROUPS, confidence=0.95):
        assert (one.value, one.low, one.high, one.labels, one.pending) == (None, 0.0, 1.0, 0, 0)

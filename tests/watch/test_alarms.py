"""What raises an alarm, and what does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from tests.watch.reviewed_samples import GROUPS, make_sample

from evenhand.config.production_schema import AlarmConfig
from evenhand.core.errors import ConfigError
from evenhand.watch.statistics.alarms import ALL_POSTS, Alarm, find_alarms, group_bounds
from evenhand.watch.statistics.drift import Window

DAY = timedelta(days=1)
START = datetime(2026, 11, 2, tzinfo=UTC)


def alarms_of(
    sample: object, *windows: Window, since: dict | None = None, **config: object
) -> dict:
    found = find_alarms(
        sample,  # pyright: ignore[reportArgumentType]
        windows,
        config=AlarmConfig(**config),  # pyright: ignore[reportArgumentType]
        groups=GROUPS,
        since=since,
    )
    assert all(isinstance(alarm, Alarm) for alarm in found)
    json.dumps([dict(alarm.evidence) for alarm in found])
    return {(alarm.kind, alarm.subject): alarm for alarm in found}


def window(number: int, *, power: float = 1.0, errors: int = 0, lgbtq: int = 100) -> Window:
    rng = np.random.default_rng(number)
    start = START + number * DAY
    mix = {"lgbtq": lgbtq, "none": 1000 - lgbtq}
    scores = rng.random(1000 - errors) ** power
    return Window(number, scores, mix, errors=errors, start=start, end=start + DAY)


def test_all_is_well() -> None:
    sample = make_sample(2000, fpr=0.2, others_fpr=0.15)
    assert alarms_of(sample, window(1), window(2), window(3)) == {}


def test_a_group_above_its_bound() -> None:
    found = alarms_of(make_sample(1000, fpr=0.6, others_fpr=0.5))
    assert set(found) == {("fpr", "lgbtq")}
    alarm = found["fpr", "lgbtq"]
    assert "The FPR of posts about lgbtq has been above 0.30" in alarm.message
    assert alarm.evidence["alpha"] == pytest.approx(0.05 / 2)
    assert alarm.evidence["shown_by"].startswith("2026-11-0")


def test_bounds_by_group() -> None:
    sample = make_sample(1000, fpr=0.6, others_fpr=0.5)
    assert not alarms_of(sample, max_group_fpr={"mexican": 0.3})
    assert ("fpr", "lgbtq") in alarms_of(sample, max_group_fpr={"lgbtq": 0.3})
    assert group_bounds(AlarmConfig(max_group_fpr=0.2), groups=GROUPS) == {
        "lgbtq": 0.2,
        "mexican": 0.2,
    }


def test_a_bound_on_an_unwatched_group_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        alarms_of(make_sample(10, fpr=0.1), max_group_fpr={"lgbt": 0.3, "mexican": 0.3})
    assert "max_group_fpr.lgbt " in caught.value.render()
    assert "lgbtq, mexican" in caught.value.render()


def test_a_gap() -> None:
    found = alarms_of(make_sample(3000, fpr=0.6, others_fpr=0.05), max_group_fpr=0.9)
    assert set(found) == {("gap", "lgbtq")}
    evidence = found["gap", "lgbtq"].evidence
    assert evidence["low"] - evidence["high_of_others"] > 0.2
    assert "more than 20 pp above that of the other posts" in found["gap", "lgbtq"].message


def test_what_was_before_a_closed_alarm_does_not_count_again() -> None:
    sample = make_sample(1000, fpr=0.6, others_fpr=0.5)
    end = START + timedelta(minutes=10 * 999)
    assert alarms_of(sample, since={("fpr", "lgbtq"): START - DAY})
    assert not alarms_of(sample, since={("fpr", "lgbtq"): end - timedelta(minutes=100)})
    assert not alarms_of(sample, since={("fpr", "lgbtq"): end + DAY})
    assert alarms_of(sample, since={("gap", "lgbtq"): end + DAY})


def test_windows_that_moved() -> None:
    sample = make_sample(50, fpr=0.1)
    found = alarms_of(
        sample, window(1), window(2), window(3, power=2.5), window(4, errors=60, lgbtq=400)
    )
    assert set(found) == {(kind, ALL_POSTS) for kind in ("score", "mix", "errors")}
    assert found["score", ALL_POSTS].evidence["window"] == 3
    assert found["mix", ALL_POSTS].evidence["window"] == 4
    assert found["errors", ALL_POSTS].message.startswith("60 of 1000 posts up to 2026-11-07 could")


def test_a_proven_drift_that_is_small_does_not_alarm() -> None:
    sample = make_sample(50, fpr=0.1)
    windows = (window(1), window(2, power=1.3))
    assert alarms_of(sample, *windows, min_score_drift=0.01)
    assert not alarms_of(sample, *windows, min_score_drift=0.5)


def test_windows_before_a_closed_alarm_are_left_out() -> None:
    sample = make_sample(50, fpr=0.1)
    windows = (window(1), window(2, power=2.5), window(3))
    closed = {("score", ALL_POSTS): START + 3 * DAY}
    assert alarms_of(sample, *windows)
    assert not alarms_of(sample, *windows, since=closed)


def test_without_the_first_window_only_errors_are_tested() -> None:
    sample = make_sample(50, fpr=0.1)
    found = alarms_of(sample, window(3, power=2.5), window(4, errors=60, lgbtq=400))
    assert set(found) == {("errors", ALL_POSTS)}

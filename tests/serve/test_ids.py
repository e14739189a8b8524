from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from evenhand.serve.ids import IdMaker

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=200))
def test_ids_grow_whatever_the_clock_does(steps: list[int]) -> None:
    maker = IdMaker()
    now = NOW
    made = []
    for step in steps:
        now += timedelta(milliseconds=step)
        made.append(maker.make(now))
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {26}


def test_an_id_begins_with_its_time() -> None:
    # The specification's own example: 1469918176385 ms is 01ARYZ6S41.
    at = datetime.fromtimestamp(1469918176.385, tz=UTC)
    assert IdMaker().make(at).startswith("01ARYZ6S41")

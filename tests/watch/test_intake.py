from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from tests.watch.made_up import (
    START,
    make_answer,
    make_answers,
    make_proposer,
    make_release,
    make_settings,
    start_intake,
)

from evenhand.config.production_schema import ProductionConfig, WatchConfig
from evenhand.core.errors import ConfigError, StorageError
from evenhand.core.production import Override, Release
from evenhand.watch.statistics.sampling import all_strata
from evenhand.watch.store.database import Database, RowError
from evenhand.watch.store.intake import Intake, expected_traffic, first_traffic
from evenhand.watch.store.tables import ItemRow, PlanRow, PostRow, ReleaseRow, StartRow

KEY = b"0123456789abcdef0123456789abcdef"


def count(database: Database, table: type[Any]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def posts(database: Database) -> list[PostRow]:
    with database.reading() as session:
        return list(session.scalars(select(PostRow).order_by(PostRow.id)))


def items(database: Database) -> list[ItemRow]:
    with database.reading() as session:
        return list(session.scalars(select(ItemRow).order_by(ItemRow.id)))


def test_a_post_is_stored_whole(database: Database, release: Release, intake: Intake) -> None:
    intake.record(
        [
            make_answer(
                1,
                "my gay friend",
                score=0.6,
                caller_id="c-1",
                caller_group="lgbtq",
                metadata={"forum": "cats", "depth": [1, 2.5, None, True]},
            )
        ]
    )
    (row,) = posts(database)
    assert (row.id, row.time, row.release_id) == (
        "post-00000001",
        START + timedelta(seconds=1),
        release.sha256,
    )
    assert (row.status, row.score, row.probability, row.decision) == ("ok", 0.6, 0.6, "hate")
    assert (row.caller_id, row.caller_group, row.proposed) == ("c-1", "lgbtq", ["lgbtq"])
    assert (row.text, row.text_hmac) == ("my gay friend", None)
    assert row.meta == {"forum": "cats", "depth": [1, 2.5, None, True]}
    assert row.text_until == row.time + timedelta(days=30)
    assert row.stratum == "lgbtq/hate/near"
    assert row.inclusion == intake.plan.rate("lgbtq/hate/near")
    assert row.plan_id is not None


def test_a_start_is_registered(database: Database) -> None:
    override = Override(code="gate_failed", message="it failed", reason="a test")
    release = make_release(overrides=(override,))
    for day in range(2):
        start_intake(database, release, now=START + timedelta(days=day))
    with database.reading() as session:
        found = session.scalars(select(ReleaseRow)).one()
        starts = session.scalars(select(StartRow).order_by(StartRow.id)).all()
    assert (found.id, found.first_started) == (release.sha256, START)
    assert Release.model_validate(found.release) == release
    assert found.reference["fpr"] == {"lgbtq": 0.3}
    assert [one.time for one in starts] == [START, START + timedelta(days=1)]
    assert ProductionConfig.model_validate(starts[0].settings) == make_settings()
    assert Override.model_validate_json(starts[0].overrides[0]) == override
    assert starts[0].proposer == {"name": "few", "sha256": make_proposer().sha256}


@pytest.mark.parametrize("table", [PostRow, ItemRow, PlanRow])
def test_a_fault_half_way_leaves_nothing(database: Database, table: type[Any]) -> None:
    """The fault comes after posts, items or the new plan were written."""
    settings = make_settings("watch.plan_every_posts=30", "watch.labels_per_day=1000")
    intake = start_intake(database, settings=settings)
    before = intake.plan
    answers = make_answers(40, rng=np.random.default_rng(1))
    plans = count(database, PlanRow)
    from sqlalchemy import event
    from sqlalchemy.exc import OperationalError

    def fail(*args: Any) -> None:
        if str(args[2]).startswith(f"INSERT INTO {table.__tablename__}"):
            raise OperationalError("INSERT", {}, Exception("the disk is gone"))

    event.listen(database.engine, "after_cursor_execute", fail)
    with pytest.raises(StorageError, match="disk is gone") as caught:
        intake.record(answers)
    event.remove(database.engine, "after_cursor_execute", fail)
    assert answers[0].text not in caught.value.render()
    assert (count(database, PostRow), count(database, ItemRow)) == (0, 0)
    assert count(database, PlanRow) == plans
    assert intake.plan == before
    intake.record(answers)  # the same ones, once it works again
    assert count(database, PostRow) == 40
    assert count(database, PlanRow) == plans + 1


def test_an_id_that_comes_twice_is_a_storage_error(database: Database, intake: Intake) -> None:
    intake.record([make_answer(1)])
    with pytest.raises(RowError) as caught:  # so that the server tries the others alone
        intake.record([make_answer(2, "a secret post"), make_answer(1)])
    assert "secret" not in caught.value.render()
    assert count(database, PostRow) == 1


def test_no_answers_are_no_work(database: Database, intake: Intake) -> None:
    intake.record([])
    assert count(database, PostRow) == 0


def test_start_comes_first(database: Database, release: Release) -> None:
    rng = np.random.default_rng(0)
    intake = Intake(database, release, make_settings(), make_proposer(), rng=rng, text_key=None)
    with pytest.raises(RuntimeError, match="start"):
        intake.record([make_answer(1)])


def test_errors_are_stored_and_never_reviewed(database: Database) -> None:
    intake = start_intake(database, settings=make_settings("watch.labels_per_day=100000"))
    intake.record([make_answer(i, score=None) for i in range(20)])
    assert {
        (p.status, p.score, p.decision, p.stratum, p.inclusion, p.sampled) for p in posts(database)
    } == {("error", None, None, None, None, False)}
    assert items(database) == []


def test_everything_is_reviewed_where_the_budget_allows(database: Database) -> None:
    settings = make_settings("watch.labels_per_day=100000", "review.second_review_share=1.0")
    intake = start_intake(database, settings=settings)
    answers = make_answers(50, rng=np.random.default_rng(2))
    intake.record(answers)
    found = items(database)
    assert [one.post_id for one in found] == [one.id for one in answers]
    assert {(i.kind, i.state, i.reviews_needed, i.label) for i in found} == {
        ("sample", "open", 2, None)
    }
    assert all(post.inclusion == 1.0 and post.sampled for post in posts(database))


def test_the_draw_follows_the_recorded_probability(database: Database) -> None:
    """In each stratum the share that is sampled is the inclusion probability, within chance."""
    intake = start_intake(database, settings=make_settings("watch.plan_every_posts=100000"))
    answers = make_answers(6000, rng=np.random.default_rng(3))
    for first in range(0, len(answers), 500):
        intake.record(answers[first : first + 500])
    rows = posts(database)
    assert {row.id for row in rows if row.sampled} == {one.post_id for one in items(database)}
    for stratum in all_strata(make_settings().watch.groups):
        here = [row for row in rows if row.stratum == stratum]
        rates = {row.inclusion for row in here}
        assert rates <= {intake.plan.rate(stratum)}
        if here:
            rate = intake.plan.rate(stratum)
            spread = math.sqrt(rate * (1 - rate) / len(here))
            assert abs(np.mean([row.sampled for row in here]) - rate) <= 4 * spread + 1e-9
    double = [one.reviews_needed for one in items(database)]
    assert np.mean(double) == pytest.approx(1.2, abs=0.05)


def test_the_draw_depends_on_the_stratum_alone(database: Database) -> None:
    """The same posts with other texts, ids and metadata are drawn alike from the same seed."""
    drawn = []
    for n, text in enumerate(["a gay friend", "gay, and somebody said [group] is bad"]):
        intake = start_intake(database, make_release(run=str(n) * 64), seed=5)
        answers = [
            make_answer(1000 * n + i, f"{text} {i}", score=0.01 * (i % 100)) for i in range(200)
        ]
        intake.record(answers)
        by_id = {row.id: row.sampled for row in posts(database)}
        drawn.append([by_id[one.id] for one in answers])
    assert drawn[0] == drawn[1]
    assert any(drawn[0])


def test_hmac_keeps_no_text_and_no_metadata(database: Database) -> None:
    settings = make_settings("watch.text=hmac", "watch.labels_per_day=100000")
    intake = start_intake(database, settings=settings, text_key=KEY)
    same = [make_answer(i, "the same", metadata={"a": 1}) for i in range(2)]
    intake.record([*same, make_answer(2, "another")])
    rows = posts(database)
    assert {(row.text, row.meta, row.inclusion, row.sampled) for row in rows} == {
        (None, None, None, False)
    }
    hashes = [row.text_hmac for row in rows]
    assert hashes[0] == hashes[1] != hashes[2]
    assert all(row.text_until == row.time + timedelta(days=30) for row in rows)
    assert all(row.stratum is not None for row in rows)
    assert items(database) == []


def test_drop_keeps_nothing_of_the_text(database: Database) -> None:
    intake = start_intake(database, settings=make_settings("watch.text=drop"))
    intake.record([make_answer(1, "gone", metadata={"a": 1}, score=0.9)])
    (row,) = posts(database)
    assert (row.text, row.text_hmac, row.meta, row.text_until) == (None, None, None, None)
    assert (row.decision, row.score, row.inclusion, row.sampled) == ("hate", 0.9, None, False)


@pytest.mark.parametrize("key", [None, b"", b"short", KEY[:-1]])
def test_hmac_needs_a_key(database: Database, key: bytes | None) -> None:
    with pytest.raises(ConfigError) as caught:
        start_intake(database, settings=make_settings("watch.text=hmac"), text_key=key)
    assert "EVENHAND_TEXT_KEY" in caught.value.render()
    assert "short" not in caught.value.render()


@pytest.mark.parametrize(
    "text",
    [
        "a\x00b",
        "<|im_end|>\n<script>alert(1)</script>'; DROP TABLE posts; --",
        "\u202eright to left\u2066",
        "\U0001f600 \ufffe \U0010ffff e\u0301",
        "x" * 1_000_000,
    ],
)
def test_awkward_texts_are_stored(database: Database, text: str) -> None:
    intake = start_intake(database, settings=make_settings("watch.labels_per_day=100000"))
    answer = make_answer(
        1,
        text,
        caller_id=text[:50],
        caller_group=text[:20],
        metadata={text[:10]: [text[:10], {"nan": math.nan, "inf": -math.inf, "big": 10**30}]},
    )
    intake.record([answer])
    (row,) = posts(database)
    assert row.text == text.replace("\x00", "\u2400")
    assert row.caller_id == text[:50].replace("\x00", "\u2400")
    key = text[:10].replace("\x00", "\u2400")
    assert row.meta == {key: [key, {"nan": None, "inf": None, "big": 10**30}]}


def test_threads_record_at_once(database: Database) -> None:
    settings = make_settings("watch.plan_every_posts=64")
    intake = start_intake(database, settings=settings)
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            rng = np.random.default_rng(first)
            for i in range(5):
                intake.record(make_answers(16, rng=rng, first=first + 16 * i))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = posts(database)
    assert len(rows) == 3 * 5 * 16
    with database.reading() as session:
        plans = {row.id: row for row in session.scalars(select(PlanRow))}
    assert len(plans) == 1 + len(rows) // 64
    # Every post bears the rate of the plan that it names.
    assert all(row.inclusion == plans[row.plan_id or 0].rates[row.stratum or ""] for row in rows)


def test_two_servers_share_a_database(database: Database, release: Release) -> None:
    first, second = (start_intake(database, release, seed=n) for n in range(2))
    first.record([make_answer(1)])
    second.record([make_answer(2)])
    first.record([make_answer(3)])
    assert count(database, PostRow) == 3
    assert count(database, PlanRow) == 1


def plan_rows(database: Database) -> list[PlanRow]:
    with database.reading() as session:
        return list(session.scalars(select(PlanRow).order_by(PlanRow.id)))


def test_a_new_plan_follows_the_traffic(database: Database) -> None:
    settings = make_settings("watch.plan_every_posts=200", 'watch.groups=["lgbtq"]')
    intake = start_intake(database, settings=settings)
    first = intake.plan
    times = [START + timedelta(days=i / 100) for i in range(200)]
    intake.record([make_answer(i, "a friend", score=0.01, time=t) for i, t in enumerate(times)])
    old, new = plan_rows(database)
    assert old.rates == first.rates  # never changed afterwards
    assert new.time == times[-1]
    stratum = "none/normal/far"
    days = (times[-1] - START).total_seconds() / 86400
    expected = (200 + first.expected[stratum]) / (days + 1)
    assert new.expected[stratum] == pytest.approx(expected)
    assert intake.plan.rates == new.rates
    intake.record([make_answer(200, "a friend", score=0.01, time=times[-1])])
    assert posts(database)[-1].plan_id == new.id
    assert {row.plan_id for row in posts(database)[:200]} == {old.id}


def test_a_restart_goes_on_with_the_last_plan_and_its_count(database: Database) -> None:
    settings = make_settings("watch.plan_every_posts=100")
    rng = np.random.default_rng(0)
    start_intake(database, settings=settings).record(make_answers(130, rng=rng))
    start_intake(database, settings=settings).record(make_answers(60, rng=rng, first=130))
    assert len(plan_rows(database)) == 2
    again = start_intake(database, settings=settings)
    assert again.plan.rates == plan_rows(database)[-1].rates
    again.record(make_answers(40, rng=rng, first=190))
    assert len(plan_rows(database)) == 3
    # Another release starts with a plan of its own.
    start_intake(database, make_release(threshold=0.7), settings)
    assert len({row.release_id for row in plan_rows(database)}) == 2


@pytest.mark.parametrize(
    "change", ["watch.labels_per_day=50", "watch.min_inclusion=0.4", 'watch.groups=["women"]']
)
def test_changed_settings_count_from_the_next_start_on(database: Database, change: str) -> None:
    start_intake(database)
    intake = start_intake(database, settings=make_settings(change))
    assert len(plan_rows(database)) == 2
    assert intake.plan.rates == plan_rows(database)[-1].rates


@given(
    st.lists(st.sampled_from(["lgbtq", "women", "black", "muslim", "x"]), min_size=1, unique=True),
    st.floats(1, 1e7),
)
def test_the_first_traffic_is_whole_and_positive(groups: list[str], posts_per_day: float) -> None:
    traffic = first_traffic(WatchConfig(groups=tuple(groups), posts_per_day=posts_per_day))
    assert set(traffic) == set(all_strata(groups))
    assert min(traffic.values()) > 0
    assert sum(traffic.values()) == pytest.approx(posts_per_day)


NUMBERS = st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e6))


@given(NUMBERS, st.dictionaries(st.sampled_from("bcd"), st.integers(0, 10**6)), st.floats(0, 1e4))
def test_expected_traffic_lies_between_what_was_expected_and_what_was_seen(
    previous: dict[str, float], seen: dict[str, int], days: float
) -> None:
    found = expected_traffic(previous, seen, days=days)
    assert set(found) == {*previous, *seen}
    for stratum, posts_per_day in found.items():
        before = previous.get(stratum, 0.0)
        if days > 1e-6:
            rate = seen.get(stratum, 0) / days
            low, high = sorted((before, rate))
            assert low * (1 - 1e-9) <= posts_per_day <= high * (1 + 1e-9)
        else:  # a burst adds what it was, as if it had taken the day
            assert posts_per_day == pytest.approx(before + seen.get(stratum, 0), rel=1e-5)


def test_a_batch_is_stored_in_few_statements(database: Database, intake: Intake) -> None:
    """One statement per table, whatever the batch: storing is on the path of every answer."""
    from sqlalchemy import event

    statements: list[str] = []
    note: Callable[..., None] = lambda *args: statements.append(str(args[2]))  # noqa: E731
    event.listen(database.engine, "after_cursor_execute", note)
    intake.record(make_answers(64, rng=np.random.default_rng(0)))
    event.remove(database.engine, "after_cursor_execute", note)
    inserts = [one.split("(")[0] for one in statements if one.startswith("INSERT")]
    assert inserts == ["INSERT INTO posts ", "INSERT INTO items "]

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import select
from tests.watch.made_up import (
    START,
    make_answers,
    make_release,
    make_settings,
    settle,
    start_intake,
)

from evenhand.core.production import Release
from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.store.database import Database
from evenhand.watch.store.reviewed import read_reviewed
from evenhand.watch.store.tables import ItemRow, PostRow

ALL = make_settings("watch.labels_per_day=100000", "watch.plan_every_posts=10")
DAY = timedelta(days=1)


def read(database: Database, release: Release, **options: object) -> ReviewedSample:
    with database.reading() as session:
        return read_reviewed(session, release.sha256, **options)  # pyright: ignore[reportArgumentType]


def set_state(database: Database, item_id: int, state: str) -> None:
    with database.session() as session:
        session.get_one(ItemRow, item_id).state = state


@pytest.fixture
def item_ids(database: Database, release: Release) -> list[int]:
    """Thirty queued posts."""
    start_intake(database, release, ALL).record(make_answers(30, rng=np.random.default_rng(0)))
    with database.reading() as session:
        return list(session.scalars(select(ItemRow.id).order_by(ItemRow.id)))


def test_nothing_is_reviewed_at_first(
    database: Database, release: Release, item_ids: list[int]
) -> None:
    sample = read(database, release)
    assert len(sample) == 0
    assert len(sample.plans) == 2
    assert {getattr(sample, f.name).shape for f in dataclasses.fields(sample)[:10]} == {(0,)}
    assert item_ids
    unknown = read(database, make_release(threshold=0.9))
    assert (len(unknown), unknown.plans) == (0, ())


def test_the_sample_ends_at_the_last_settled_item(
    database: Database, release: Release, item_ids: list[int]
) -> None:
    settle(database, [item_ids[0]], label="hate", groups=["lgbtq", "women"])
    settle(database, [item_ids[9]], label="normal", groups=[])
    set_state(database, item_ids[3], "disputed")
    set_state(database, item_ids[4], "erased")
    set_state(database, item_ids[20], "erased")  # after the frontier: not known of yet
    sample = read(database, release)
    assert sample.item.tolist() == item_ids[:10]
    assert sample.state.tolist() == ["labelled", *["pending"] * 8, "labelled"]
    assert sample.labelled.tolist() == [True, *[False] * 8, True]
    assert sample.hate.tolist() == [True, *[False] * 9]
    assert sample.groups == (("lgbtq", "women"), *[()] * 9)


def test_every_column_is_the_post_s(
    database: Database, release: Release, item_ids: list[int]
) -> None:
    settle(database, item_ids)
    sample = read(database, release)
    with database.reading() as session:
        posts = [session.get_one(PostRow, one) for one in sample.post]
    assert sample.score.tolist() == [one.score for one in posts]
    assert sample.inclusion.tolist() == [one.inclusion for one in posts]
    assert sample.flagged.tolist() == [one.decision == "hate" for one in posts]
    assert sample.flagged.tolist() == (sample.score >= release.threshold).tolist()
    assert sample.stratum.tolist() == [one.stratum for one in posts]
    assert sample.time.tolist() == [one.time.replace(tzinfo=None) for one in posts]
    rates = [
        sample.plans[i].rate(stratum)
        for i, stratum in zip(sample.plan, sample.stratum, strict=True)
    ]
    assert sample.inclusion.tolist() == rates
    assert sample.plan.tolist() == sorted(sample.plan.tolist())


def test_golden_items_and_other_releases_stay_out(
    database: Database, release: Release, item_ids: list[int]
) -> None:
    with database.session() as session:
        golden = ItemRow(kind="golden", golden_text="a", golden_label="hate", created=START)
        session.add(golden)
        session.flush()
        golden_id = golden.id
    settle(database, [golden_id], label="hate")
    other = make_release(threshold=0.7)
    start_intake(database, other, ALL).record(
        make_answers(5, rng=np.random.default_rng(1), first=100)
    )
    assert len(read(database, release)) == 0
    settle(database, item_ids[:2])
    assert read(database, release).item.tolist() == item_ids[:2]
    assert len(read(database, other)) == 0


def test_as_it_stood_earlier(database: Database, release: Release, item_ids: list[int]) -> None:
    settle(database, item_ids[:2], now=START + DAY)
    settle(database, [item_ids[5]], now=START + 2 * DAY)
    settle(database, [item_ids[3]], now=START + 3 * DAY)
    early = read(database, release, until=START + DAY)
    assert early.item.tolist() == item_ids[:2]
    later = read(database, release, until=START + 2 * DAY)
    assert later.item.tolist() == item_ids[:6]
    assert later.labelled.tolist() == [True, True, False, False, False, True]
    assert read(database, release).labelled.sum() == 4
    assert len(read(database, release, until=START - DAY)) == 0


def test_without_kept_texts_there_is_no_sample(database: Database, release: Release) -> None:
    intake = start_intake(database, release, make_settings("watch.text=drop"))
    intake.record(make_answers(50, rng=np.random.default_rng(0)))
    assert len(read(database, release)) == 0


def test_a_first_label_holds_until_the_second_comes(
    database: Database, release: Release, item_ids: list[int]
) -> None:
    with database.session() as session:
        waiting = session.get_one(ItemRow, item_ids[1])
        waiting.label, waiting.groups, waiting.closed = "hate", ["lgbtq"], START
    sample = read(database, release)
    assert sample.item.tolist() == item_ids[:2]
    assert sample.labelled.tolist() == [False, True]
    assert (sample.hate[1], sample.groups[1]) == (True, ("lgbtq",))
    set_state(database, item_ids[1], "disputed")
    assert len(read(database, release)) == 0

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Text, cast, func, or_, select
from tests.watch.made_up import (
    START,
    make_answer,
    make_release,
    make_settings,
    settle,
    start_intake,
)

from evenhand.core.production import Release
from evenhand.watch.store.database import Database
from evenhand.watch.store.erasing import Deleted, delete_posts, erase_due
from evenhand.watch.store.reviewed import read_reviewed
from evenhand.watch.store.tables import ItemRow, PostRow, ReviewRow, Table, UserRow

DAY = timedelta(days=1)
ALL = make_settings("watch.labels_per_day=100000", "watch.retention_days=10")


def mark(number: int) -> str:
    """A word that occurs in one post and what belongs to it only."""
    return f"marked{number}end"


@pytest.fixture
def filled(database: Database, release: Release) -> Database:
    """Six queued posts, a day apart, each with a review that quotes it, and a golden item."""
    start_intake(database, release, ALL).record(
        [
            make_answer(
                i,
                f"post {mark(i)}",
                score=0.123456 + 0.1 * i,
                time=START + i * DAY,
                caller_id=f"caller-{i // 2}",
                caller_group=mark(i),
                metadata={"thread": mark(i)},
            )
            for i in range(6)
        ]
    )
    with database.session() as session:
        session.add(
            UserRow(
                name="rosa",
                pseudonym="reviewer-1",
                role="reviewer",
                password_hash="x",
                opted_out=[],
                created=START,
            )
        )
        session.flush()
        session.add(ItemRow(kind="golden", golden_text="golden", created=START))
        for item in session.scalars(select(ItemRow).where(ItemRow.kind == "sample")):
            item.held_by, item.held_until = 1, START + DAY
            for action in ("label", "undo"):
                session.add(
                    ReviewRow(
                        item_id=item.id,
                        user_id=1,
                        time=START,
                        action=action,
                        label="hate",
                        groups=["lgbtq"],
                        rationale=f"it says {mark(int(item.post_id[-1]))}",
                        reason=f"because of {mark(int(item.post_id[-1]))}",
                    )
                )
    return database


def occurrences(database: Database, word: str) -> list[str]:
    """The tables in which a word stands anywhere."""
    found = []
    with database.reading() as session:
        for table in Table.metadata.sorted_tables:
            columns = [cast(column, Text).contains(word) for column in table.columns]
            if session.scalar(select(func.count()).select_from(table).where(or_(*columns))):
                found.append(table.name)
    return found


def item_of(database: Database, number: int) -> ItemRow:
    with database.reading() as session:
        return session.scalars(select(ItemRow).where(ItemRow.id == number + 1)).one()


def state_of(database: Database, number: int) -> str:
    return item_of(database, number).state


def test_texts_go_when_their_time_has_passed(filled: Database) -> None:
    settle(filled, [1])
    assert occurrences(filled, mark(0)) == ["posts", "reviews"]
    with filled.session() as session:
        assert erase_due(session, now=START + 10 * DAY - timedelta(seconds=1)) == 0
        assert erase_due(session, now=START + 11 * DAY) == 2
        assert erase_due(session, now=START + 11 * DAY) == 0
    with filled.reading() as session:
        rows = session.scalars(select(PostRow).order_by(PostRow.id)).all()
        reviews = session.scalars(select(ReviewRow).where(ReviewRow.item_id <= 2)).all()
    assert [row.text is None for row in rows] == [True, True, False, False, False, False]
    assert [row.meta is None for row in rows[:3]] == [True, True, False]
    assert {row.text_until for row in rows[:2]} == {None}
    assert all(row.score is not None and row.decision is not None for row in rows)
    assert {(one.rationale, one.reason, one.label) for one in reviews} == {(None, None, "hate")}
    assert [state_of(filled, i) for i in range(3)] == ["done", "erased", "open"]
    assert item_of(filled, 1).held_by is None
    assert item_of(filled, 1).closed == START + 11 * DAY
    # The caller's own group is not text: it stays until the post is deleted.
    assert occurrences(filled, mark(0)) == ["posts"]


def test_a_first_label_stands_when_no_second_can_come(filled: Database) -> None:
    with filled.session() as session:
        item = session.get_one(ItemRow, item_of(filled, 0).id)
        item.reviews_needed, item.label, item.groups, item.closed = 2, "hate", ["women"], START
    with filled.session() as session:
        erase_due(session, now=START + 11 * DAY)
    item = item_of(filled, 0)
    assert (item.state, item.reviews_needed, item.label) == ("done", 1, "hate")
    assert state_of(filled, 1) == "erased"


def test_hmacs_go_as_texts_do(database: Database) -> None:
    settings = make_settings("watch.text=hmac", "watch.retention_days=10")
    start_intake(database, settings=settings, text_key=b"k" * 32).record([make_answer(0)])
    with database.session() as session:
        assert erase_due(session, now=START + 11 * DAY) == 1
        assert session.scalars(select(PostRow.text_hmac)).all() == [None]


@pytest.mark.parametrize("state", ["open", "disputed", "done"])
def test_a_deleted_post_leaves_what_the_estimates_need(
    filled: Database, release: Release, state: str
) -> None:
    number, item_id = 2, 3
    settle(filled, [1, 6])
    if state == "done":
        settle(filled, [item_id], label="hate", groups=["lgbtq"])
    else:
        with filled.session() as session:
            session.get_one(ItemRow, item_id).state = state
    with filled.reading() as session:
        before = read_reviewed(session, release.sha256)
    post_id = f"post-{number:08d}"
    with filled.session() as session:
        done = delete_posts(session, post_ids=[post_id], now=START + DAY)
    assert done == Deleted(posts=1, items=1, reviews=2, unknown=())
    for trace in (mark(number), post_id, "0.323456"):
        assert occurrences(filled, trace) == []
    assert occurrences(filled, mark(number + 1)) == ["posts", "reviews"]
    with filled.reading() as session:
        after = read_reviewed(session, release.sha256)
        (rest,) = session.scalars(select(PostRow).where(PostRow.id.startswith("deleted-"))).all()
    assert (rest.caller_id, rest.caller_group, rest.proposed, rest.text_hmac) == (
        None,
        None,
        [],
        None,
    )
    assert rest.time == (START + 2 * DAY).replace(hour=0)
    for name in ("item", "plan", "inclusion", "flagged", "stratum", "state", "hate"):
        assert getattr(before, name).tolist() == getattr(after, name).tolist()
    assert before.groups == after.groups
    assert after.score == pytest.approx(before.score, abs=0.005)
    assert after.state[2] == ("labelled" if state == "done" else "pending")
    assert state_of(filled, number) == ("done" if state == "done" else "erased")


def test_of_a_post_that_was_not_sampled_nothing_stays(database: Database) -> None:
    intake = start_intake(database, settings=make_settings("watch.text=drop"))
    intake.record([make_answer(i, caller_id="me") for i in range(3)])
    with database.session() as session:
        done = delete_posts(session, caller_ids=["me"], now=START)
        assert done == Deleted(posts=3, items=0, reviews=0, unknown=())
        assert session.scalar(select(func.count()).select_from(PostRow)) == 0


def test_by_the_callers_ids(filled: Database) -> None:
    with filled.session() as session:
        done = delete_posts(
            session,
            post_ids=["post-00000000", "nobody"],
            caller_ids=["caller-0", "caller-2", "caller-9"],
            now=START,
        )
    assert dataclasses.asdict(done) == {
        "posts": 4,
        "items": 4,
        "reviews": 8,
        "unknown": ("nobody", "caller-9"),
    }
    assert occurrences(filled, "caller-0") == occurrences(filled, "caller-2") == []
    assert occurrences(filled, "caller-1") == ["posts"]
    with filled.session() as session:
        again = delete_posts(session, caller_ids=["caller-0"], now=START)
    assert (again.posts, again.unknown) == (0, ("caller-0",))


def test_golden_items_stay(filled: Database) -> None:
    with filled.session() as session:
        erase_due(session, now=START + 100 * DAY)
        delete_posts(session, caller_ids=[f"caller-{i}" for i in range(3)], now=START)
    with filled.reading() as session:
        golden = session.scalars(select(ItemRow).where(ItemRow.kind == "golden")).one()
    assert (golden.golden_text, golden.state) == ("golden", "open")
    assert occurrences(filled, "marked") == []


def test_many_posts_at_once(database: Database) -> None:
    start_intake(database, settings=ALL).record([make_answer(i, "x") for i in range(1200)])
    ids = [f"post-{i:08d}" for i in range(1200)]
    with database.session() as session:
        assert delete_posts(session, post_ids=ids, now=START).posts == 1200
        left = session.scalars(select(PostRow.id)).all()
    assert len(set(left)) == 1200
    assert all(one.startswith("deleted-") for one in left)


def test_erased_texts_leave_the_file(filled: Database) -> None:
    """SQLite would otherwise keep the bytes in free pages."""
    if filled.engine.dialect.name != "sqlite":
        pytest.skip("a server's files are its own")
    path = str(filled.engine.url.database)
    with filled.session() as session:
        delete_posts(session, post_ids=["post-00000003"], now=START)
    filled.close()  # the last connection empties the write-ahead log into the file
    with open(path, "rb") as stream:  # noqa: PTH123
        content = stream.read()
    assert mark(3).encode() not in content
    assert mark(4).encode() in content


def test_ids_with_awkward_characters(database: Database) -> None:
    start_intake(database, make_release(), ALL).record([make_answer(1, caller_id="a\x00'; --")])
    with database.session() as session:
        assert delete_posts(session, caller_ids=["a\x00'; --"], now=START).posts == 1


def test_queue_order_survives_deletion(filled: Database, release: Release) -> None:
    settle(filled, range(1, 7))
    with filled.session() as session:
        delete_posts(session, post_ids=["post-00000004"], now=START)
    with filled.reading() as session:
        sample = read_reviewed(session, release.sha256)
    assert sample.item.tolist() == list(range(1, 7))
    assert np.all(sample.labelled)


def test_sqlite_s_files_hold_nothing_of_what_was_deleted(
    sqlite_database: Database, tmp_path: Path, release: Release
) -> None:
    """Its write-ahead log would keep a text for days, also after a checkpoint and other writes."""
    intake = start_intake(sqlite_database, release, ALL)
    answers = [
        dataclasses.replace(make_answer(i, f"post {mark(i)} " * 50), caller_id=f"caller{mark(i)}")
        for i in range(5)
    ]
    intake.record(answers)

    def holds(word: str) -> bool:
        files = [file for file in tmp_path.rglob("*.sqlite*") if not file.name.endswith("-shm")]
        assert files
        return any(word.encode() in file.read_bytes() for file in files)

    assert holds(mark(1))
    with sqlite_database.session() as session:
        delete_posts(session, post_ids=[answers[1].id], now=START)
    assert not holds(mark(1))
    assert holds(mark(2))
    with sqlite_database.reading() as reader:
        reader.scalar(select(func.count()).select_from(PostRow))
        with sqlite_database.session() as session:
            delete_posts(session, caller_ids=[f"caller{mark(2)}"], now=START)
        assert holds(mark(2))  # somebody reads the state before
    with sqlite_database.session() as session:
        erase_due(session, now=START)
    assert not holds(mark(2))
    assert holds(mark(3))

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from tests.watch.reviewing import (
    NOW,
    PLAIN,
    add_items,
    add_known,
    cheap_passwords,
    open_next,
    person,
    say,
    state,
)

from evenhand.config.production_schema import ReviewConfig
from evenhand.watch.reviewing.acts import acts_on
from evenhand.watch.reviewing.queue import (
    Pause,
    QueueItem,
    ReviewError,
    adjudicate,
    disputed,
    history,
    queue_status,
    skip,
    start_break,
    submit,
    undo,
)
from evenhand.watch.reviewing.settling import Act, labels_of, remaining, settle
from evenhand.watch.reviewing.users import log_out, open_login, set_opt_outs
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import ItemRow, LoginRow, PostRow, ReviewRow

__all__ = ["cheap_passwords"]


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as opened:
        yield opened


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


class TestGivingOut:
    def test_first_in_first_out(self, session: Session) -> None:
        items = add_items(session, 3)
        anna = person(session, "anna")
        assert [say(session, anna) for _ in items] == items
        assert open_next(session, anna) is None

    def test_a_reviewer_sees_text_and_proposed_groups_alone(self, session: Session) -> None:
        add_items(session, proposed=["lgbtq"])
        item = open_next(session, person(session, "anna"))
        assert item == QueueItem(1, "post number 0", ("lgbtq",))
        assert set(QueueItem.__slots__) == {"id", "text", "proposed"}

    def test_the_open_post_stays_open_when_the_page_is_loaded_again(self, session: Session) -> None:
        add_items(session, 2)
        anna = person(session, "anna")
        assert open_next(session, anna) == open_next(session, anna, now=NOW + minutes(5))

    def test_two_reviewers_never_have_the_same_post(self, session: Session) -> None:
        first, second = add_items(session, 2)
        anna, ben, carl = (person(session, name) for name in ("anna", "ben", "carl"))
        assert open_next(session, anna).id == first
        assert open_next(session, ben).id == second
        assert open_next(session, carl) is None

    def test_an_expired_lease_goes_to_the_next(self, session: Session) -> None:
        (item,) = add_items(session)
        anna, ben = person(session, "anna"), person(session, "ben")
        open_next(session, anna)
        late = NOW + minutes(PLAIN.lease_minutes)
        assert open_next(session, ben, now=late).id == item
        with pytest.raises(ReviewError, match="1 problem") as error:
            submit(session, anna.user, item, label="hate", groups=(), rationale=None, now=late)
        assert "not open for you any more" in error.value.render()

    def test_a_late_answer_counts_while_nobody_else_has_the_post(self, session: Session) -> None:
        (item,) = add_items(session)
        anna = person(session, "anna")
        open_next(session, anna)
        later = NOW + minutes(120)
        submit(session, anna.user, item, label="hate", groups=(), rationale=None, now=later)
        assert state(session, item) == ("done", "hate", [])

    def test_a_post_that_was_not_given_out_cannot_be_labelled(self, session: Session) -> None:
        _, second = add_items(session, 2)
        anna = person(session, "anna")
        open_next(session, anna)
        for number in (second, 999, 0, -1, 2**40):
            with pytest.raises(ReviewError):
                submit(session, anna.user, number, label="hate", groups=(), rationale=None, now=NOW)
        assert history(session) == []

    def test_a_second_review_is_never_the_first_ones(self, session: Session) -> None:
        (item,) = add_items(session, needed=2)
        anna, ben = person(session, "anna"), person(session, "ben")
        assert say(session, anna) == item
        assert open_next(session, anna) is None
        assert state(session, item)[0] == "open"
        assert say(session, ben) == item
        assert state(session, item) == ("done", "normal", [])

    def test_with_one_person_alone_a_second_review_waits_and_the_status_says_so(
        self, session: Session
    ) -> None:
        add_items(session, 2, needed=2)
        anna = person(session, "anna")
        say(session, anna)
        status = queue_status(session)
        assert (status.open, status.second, status.reviewers) == (2, 1, 1)
        assert "need a second reviewer and there is only one person" in status.notes[0]

    def test_opted_out_groups_are_not_offered(self, session: Session) -> None:
        add_items(session, 60, proposed=["lgbtq", "women"])
        (other,) = add_items(session, proposed=["mexican"])
        anna = person(session, "anna")
        set_opt_outs(session, anna.user, ["women"])
        assert open_next(session, anna).id == other

    def test_opting_out_lets_the_open_post_go(self, session: Session) -> None:
        add_items(session, proposed=["lgbtq"])
        anna, ben = person(session, "anna"), person(session, "ben")
        open_next(session, anna)
        set_opt_outs(session, anna.user, ["lgbtq"])
        assert open_next(session, anna) is None
        assert isinstance(open_next(session, ben), QueueItem)

    def test_an_erased_post_is_not_offered(self, session: Session) -> None:
        first, second = add_items(session, 2)
        anna = person(session, "anna")
        open_next(session, anna)
        session.execute(update(PostRow).where(PostRow.id == "post-00000").values(text=None))
        assert open_next(session, anna).id == second
        assert first != second

    def test_a_lease_is_won_once_under_threads(self, database: Database) -> None:
        with database.session() as session:
            items = add_items(session, 8)
            logins = [person(session, f"reviewer {number}") for number in range(8)]
        won: list[int] = []
        barrier = threading.Barrier(len(logins))

        def work(number: int) -> None:
            barrier.wait()
            with database.session() as session:
                won.append(open_next(session, logins[number], seed=number).id)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(logins))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == items


class TestSkipping:
    def test_a_skipped_post_goes_to_others_only(self, session: Session) -> None:
        first, second = add_items(session, 2)
        anna, ben = person(session, "anna"), person(session, "ben")
        open_next(session, anna)
        skip(session, anna.user, first, now=NOW)
        assert open_next(session, anna).id == second
        assert open_next(session, ben).id == first
        assert state(session, first)[0] == "open"

    def test_skipping_does_not_use_up_the_day(self, session: Session) -> None:
        items = add_items(session, 3)
        anna = person(session, "anna")
        for item in items[:2]:
            open_next(session, anna)
            skip(session, anna.user, item, now=NOW)
        settings = PLAIN.model_copy(update={"day_items": 1})
        assert open_next(session, anna, settings).id == items[2]


class TestBadInput:
    def test_every_problem_at_once_and_nothing_recorded(self, session: Session) -> None:
        (item,) = add_items(session)
        anna = person(session, "anna")
        open_next(session, anna)
        with pytest.raises(ReviewError) as error:
            submit(
                session,
                anna.user,
                item,
                label="hateful",
                groups=["", "g" * 65, "a\x00b"],
                rationale="x" * 4001,
                now=NOW,
            )
        assert [problem.place for problem in error.value.problems] == [
            "label",
            "groups",
            "groups",
            "groups",
            "rationale",
        ]
        assert history(session) == []

    def test_free_text_is_stored_as_every_database_can(self, session: Session) -> None:
        (item,) = add_items(session)
        anna = person(session, "anna")
        open_next(session, anna)
        submit(
            session,
            anna.user,
            item,
            label="hate",
            groups=[" women", "lgbtq", "women"],
            rationale=" a\x00b\ud800 ",
            now=NOW,
        )
        (act,) = history(session)
        assert (act.rationale, act.groups) == ("a\u2400b?", ("lgbtq", "women"))


class TestDisputes:
    @pytest.mark.parametrize(
        ("first", "second"),
        [(("hate", []), ("normal", [])), (("hate", ["women"]), ("hate", ["women", "lgbtq"]))],
    )
    def test_a_difference_in_label_or_groups_is_a_dispute(
        self,
        session: Session,
        first: tuple[str, Sequence[str]],
        second: tuple[str, Sequence[str]],
    ) -> None:
        (item,) = add_items(session, needed=2)
        anna, ben = person(session, "anna"), person(session, "ben")
        say(session, anna, *first)
        say(session, ben, *second)
        assert state(session, item) == ("disputed", None, None)
        (found,) = disputed(session)
        assert found.item.id == item
        assert [one.reviewer for one in found.reviews] == [
            anna.user.pseudonym,
            ben.user.pseudonym,
        ]

    def disputed_item(self, session: Session) -> int:
        (item,) = add_items(session, needed=2)
        say(session, person(session, "anna"), "hate")
        say(session, person(session, "ben"), "normal")
        return item

    def test_an_admin_decides_and_may_correct_the_decision(self, session: Session) -> None:
        item = self.disputed_item(session)
        admin = person(session, "zoe", role="admin")
        for label in ("hate", "normal"):
            adjudicate(
                session,
                admin.user,
                item,
                label=label,
                groups=["women"],
                reason="the policy, point 3",
                now=NOW,
            )
            assert state(session, item) == ("done", label, ["women"])
        assert disputed(session) == []
        assert len(history(session, item_id=item)) == 4

    def test_a_reviewer_does_not_adjudicate_and_a_reason_is_needed(self, session: Session) -> None:
        item = self.disputed_item(session)
        carl = person(session, "carl")
        with pytest.raises(ReviewError) as error:
            adjudicate(session, carl.user, item, label="hate", groups=(), reason=" ", now=NOW)
        assert {problem.place for problem in error.value.problems} == {"reason", "user"}

    def test_what_nobody_disputes_is_not_adjudicated(self, session: Session) -> None:
        (item,) = add_items(session)
        admin = person(session, "zoe", role="admin")
        say(session, admin)
        with pytest.raises(ReviewError, match="1 problem"):
            adjudicate(session, admin.user, item, label="hate", groups=(), reason="no", now=NOW)


class TestUndo:
    def test_the_last_act_is_taken_back_and_its_post_open_again(self, session: Session) -> None:
        first, second = add_items(session, 2)
        anna = person(session, "anna")
        say(session, anna, "hate")
        assert open_next(session, anna).id == second
        again = undo(session, anna.user, now=NOW, reason="wrong key")
        assert again is not None
        assert again.id == first
        assert state(session, first) == ("open", None, None)
        assert open_next(session, anna).id == first
        submit(session, anna.user, first, label="normal", groups=(), rationale=None, now=NOW)
        assert state(session, first) == ("done", "normal", [])
        acts = history(session, item_id=first)
        assert [(act.action, act.label, act.is_undone) for act in acts] == [
            ("label", "normal", False),
            ("undo", None, False),
            ("label", "hate", True),
        ]
        assert acts[1].reason == "wrong key"

    def test_a_skip_can_be_taken_back(self, session: Session) -> None:
        (item,) = add_items(session)
        anna = person(session, "anna")
        open_next(session, anna)
        skip(session, anna.user, item, now=NOW)
        assert undo(session, anna.user, now=NOW, reason="I can do it") is not None
        assert say(session, anna) == item

    def test_undo_twice_goes_one_further_back(self, session: Session) -> None:
        items = add_items(session, 2)
        anna = person(session, "anna")
        for _ in items:
            say(session, anna)
        undone = [undo(session, anna.user, now=NOW, reason="wrong key") for _ in items]
        assert [one.id for one in undone if one] == items[::-1]
        with pytest.raises(ReviewError, match="1 problem") as error:
            undo(session, anna.user, now=NOW, reason="wrong key")
        assert "nothing to undo" in error.value.render()

    def test_only_ones_own(self, session: Session) -> None:
        add_items(session)
        say(session, person(session, "anna"))
        with pytest.raises(ReviewError):
            undo(session, person(session, "ben").user, now=NOW, reason="not mine")

    def test_a_reason_is_needed(self, session: Session) -> None:
        (item,) = add_items(session)
        anna = person(session, "anna")
        say(session, anna)
        with pytest.raises(ReviewError):
            undo(session, anna.user, now=NOW, reason="")
        assert state(session, item)[0] == "done"

    def test_a_dispute_can_be_undone_until_it_is_adjudicated(self, session: Session) -> None:
        (item,) = add_items(session, needed=2)
        anna, ben = person(session, "anna"), person(session, "ben", role="admin")
        say(session, anna, "hate")
        say(session, ben, "normal")
        undo(session, anna.user, now=NOW, reason="wrong key")
        assert state(session, item)[0] == "open"
        say(session, anna, "hate")
        adjudicate(session, ben.user, item, label="hate", groups=(), reason="policy", now=NOW)
        for login in (anna, ben):
            with pytest.raises(ReviewError, match="1 problem") as error:
                undo(session, login.user, now=NOW, reason="wrong key")
            assert "adjudicated" in error.value.render()

    def test_another_reader_of_the_post_keeps_it(self, session: Session) -> None:
        (item,) = add_items(session, needed=2)
        anna, ben = person(session, "anna"), person(session, "ben")
        say(session, anna, "hate")
        assert open_next(session, ben).id == item
        assert undo(session, anna.user, now=NOW, reason="wrong key") is None
        assert open_next(session, anna) is None
        submit(session, ben.user, item, label="normal", groups=(), rationale=None, now=NOW)
        assert say(session, anna, "normal") == item
        assert state(session, item) == ("done", "normal", [])

    def test_an_erased_post_keeps_its_review(self, session: Session) -> None:
        add_items(session)
        anna = person(session, "anna")
        say(session, anna)
        session.execute(update(PostRow).values(text=None))
        with pytest.raises(ReviewError, match="1 problem") as error:
            undo(session, anna.user, now=NOW, reason="wrong key")
        assert "erased" in error.value.render()


class TestGolden:
    SOME = ReviewConfig(golden_share=0.5, day_items=10_000, session_items=10_000)

    def test_each_at_most_once_and_never_counted_in_the_queue(self, session: Session) -> None:
        add_items(session, 40)
        add_known(session, 5)
        anna = person(session, "anna")
        golden = set(session.scalars(select(ItemRow.id).where(ItemRow.kind == "golden")))
        seen = []
        for number in range(45):
            item = open_next(session, anna, self.SOME, seed=number)
            if item is None:
                break
            seen.append(item.id)
            submit(session, anna.user, item.id, label="hate", groups=(), rationale=None, now=NOW)
        assert len(seen) == len(set(seen))
        assert golden <= set(seen)
        status = queue_status(session)
        assert (status.open, status.done) == (0, 40)

    def test_the_share_is_kept(self, session: Session) -> None:
        add_items(session, 80)
        add_known(session, 60)
        anna = person(session, "anna")
        settings = self.SOME.model_copy(update={"golden_share": 0.2})
        kinds = []
        for number in range(80):
            item = open_next(session, anna, settings, seed=number)
            kinds.append(session.get_one(ItemRow, item.id).kind)
            submit(session, anna.user, item.id, label="hate", groups=(), rationale=None, now=NOW)
        assert 8 <= kinds.count("golden") <= 26

    def test_none_comes_when_no_post_waits(self, session: Session) -> None:
        add_known(session, 5)
        anna = person(session, "anna")
        assert all(open_next(session, anna, self.SOME, seed=seed) is None for seed in range(20))

    def test_opted_out_groups_hold_for_golden_items(self, session: Session) -> None:
        add_items(session, 1)
        add_known(session, 5, groups=("women",))
        anna = person(session, "anna")
        set_opt_outs(session, anna.user, ["women"])
        for seed in range(20):
            assert open_next(session, anna, self.SOME, seed=seed).text == "post number 0"

    def test_labels_of_golden_items_change_nothing(self, session: Session) -> None:
        add_items(session, 1)
        add_known(session, 1, groups=("women",))
        anna = person(session, "anna")
        always = self.SOME.model_copy(update={"golden_share": 0.5})
        seed = next(s for s in range(50) if _draws_golden(session, anna, always, s))
        item = open_next(session, anna, always, seed=seed)
        submit(session, anna.user, item.id, label="normal", groups=(), rationale=None, now=NOW)
        assert state(session, item.id) == ("done", None, ["women"])
        undo(session, anna.user, now=NOW, reason="wrong key")
        assert open_next(session, anna, always).id == item.id


def _draws_golden(session: Session, login: object, settings: ReviewConfig, seed: int) -> bool:
    found = open_next(session, login, settings, seed=seed)  # pyright: ignore[reportArgumentType]
    session.execute(update(ItemRow).values(held_by=None, held_until=None))
    return found.text.startswith("known")


class TestCare:
    def test_a_break_is_due_after_so_many_posts(self, session: Session) -> None:
        add_items(session, 5)
        anna = person(session, "anna")
        settings = PLAIN.model_copy(update={"session_items": 2})
        say(session, anna, settings=settings)
        say(session, anna, settings=settings)
        pause = open_next(session, anna, settings)
        assert isinstance(pause, Pause)
        assert (pause.kind, pause.until) == ("break", NOW + minutes(10))
        assert "09:10 UTC" in pause.message
        assert isinstance(open_next(session, anna, settings, now=NOW + minutes(9)), Pause)
        back = NOW + minutes(10)
        assert isinstance(open_next(session, anna, settings, now=back), QueueItem)

    def test_a_break_is_due_after_so_many_minutes_and_lets_the_post_go(
        self, session: Session
    ) -> None:
        add_items(session, 1)
        anna, ben = person(session, "anna"), person(session, "ben")
        for minute in range(0, 50, 5):
            assert isinstance(open_next(session, anna, now=NOW + minutes(minute)), QueueItem)
        assert isinstance(open_next(session, anna, now=NOW + minutes(50)), Pause)
        assert isinstance(open_next(session, ben, now=NOW + minutes(50)), QueueItem)

    def test_logging_in_again_does_not_skip_a_break(self, session: Session) -> None:
        add_items(session, 5)
        anna = person(session, "anna")
        settings = PLAIN.model_copy(update={"session_items": 2})
        say(session, anna, settings=settings)
        say(session, anna, settings=settings)
        log_out(session, anna, now=NOW)
        again = open_login(session, anna.user, hours=1, now=NOW + minutes(1))
        assert isinstance(open_next(session, again, settings, now=NOW + minutes(1)), Pause)

    def test_skipped_posts_count_as_read(self, session: Session) -> None:
        items = add_items(session, 3)
        anna = person(session, "anna")
        settings = PLAIN.model_copy(update={"session_items": 2})
        for item in items[:2]:
            open_next(session, anna, settings)
            skip(session, anna.user, item, now=NOW)
        assert isinstance(open_next(session, anna, settings), Pause)

    def test_time_away_counts_as_a_break(self, session: Session) -> None:
        add_items(session, 5)
        anna = person(session, "anna")
        settings = PLAIN.model_copy(update={"session_items": 2})
        say(session, anna, settings=settings)
        say(session, anna, settings=settings)
        away = NOW + minutes(settings.break_minutes)
        assert isinstance(open_next(session, anna, settings, now=away), QueueItem)

    def test_the_first_post_long_after_the_login_is_no_sitting(self, session: Session) -> None:
        add_items(session)
        anna = person(session, "anna")
        late = NOW + minutes(300)
        assert isinstance(open_next(session, anna, now=late), QueueItem)
        row = session.get_one(LoginRow, anna.row.token_sha256)
        assert row.sitting_started == late

    def test_a_wished_for_break(self, session: Session) -> None:
        add_items(session)
        anna, ben = person(session, "anna"), person(session, "ben")
        open_next(session, anna)
        pause = start_break(session, anna.user, PLAIN, now=NOW)
        assert open_next(session, anna) == pause
        assert isinstance(open_next(session, ben), QueueItem)

    def test_a_day_ends_with_eight_hours_of_pause(self, session: Session) -> None:
        add_items(session, 9)
        anna = person(session, "anna")
        settings = PLAIN.model_copy(update={"day_items": 3})
        for hour in range(3):
            say(session, anna, settings=settings, now=NOW + timedelta(hours=hour))
        last = NOW + timedelta(hours=2)
        pause = open_next(session, anna, settings, now=last + minutes(1))
        assert isinstance(pause, Pause)
        assert (pause.kind, pause.until) == ("day", last + timedelta(hours=8))
        morning = last + timedelta(hours=8)
        for hour in range(3):
            say(session, anna, settings=settings, now=morning + timedelta(hours=hour))
        end = open_next(session, anna, settings, now=morning + timedelta(hours=3))
        assert isinstance(end, Pause)


# -- the pure derivation ---------------------------------------------------------------------------

ACTS = st.lists(
    st.tuples(
        st.sampled_from(["label", "label", "skip", "undo", "adjudicate", "import"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["hate", "normal"]),
        st.sampled_from([(), ("lgbtq",), ("lgbtq", "women")]),
        st.integers(0, 20),
    ),
    max_size=14,
)


def made(steps: Sequence[tuple[str, str, str, tuple[str, ...], int]]) -> list[Act]:
    """Make acts of drawn steps; an undo takes back any earlier act."""
    acts: list[Act] = []
    for number, (action, who, label, groups, target) in enumerate(steps, start=1):
        says = action in ("label", "adjudicate", "import")
        acts.append(
            Act(
                id=number,
                item_id=1,
                reviewer=who,
                time=NOW + minutes(number),
                action=action,  # pyright: ignore[reportArgumentType]
                label=label if says else None,
                groups=groups if says else None,
                undoes=target % number or None if action == "undo" else None,
            )
        )
    return acts


def an_item(**changes: object) -> ItemRow:
    fields = {"id": 1, "kind": "sample", "state": "open", "reviews_needed": 1}
    return ItemRow(**{**fields, **changes})


@given(ACTS, st.integers(1, 2))
def test_any_sequence_of_acts_gives_a_consistent_state(
    steps: list[tuple[str, str, str, tuple[str, ...], int]], needed: int
) -> None:
    acts = made(steps)
    settled = settle(an_item(reviews_needed=needed), acts)
    assert settled.state in {"open", "disputed", "done"}
    labels = labels_of(acts)
    waits_for_second = settled.state == "open" and bool(labels)
    assert (settled.label is not None) == (settled.state == "done" or waits_for_second)
    assert (settled.groups is None) == (settled.closed is None) == (settled.label is None)
    assert len({act.reviewer for act in labels}) == len(labels)
    adjudicated = [act for act in remaining(acts) if act.action == "adjudicate"]
    if adjudicated:
        last = adjudicated[-1]
        assert (settled.label, settled.groups) == (last.label, last.groups)
    elif settled.state == "open":
        assert len(labels) < needed
    else:
        agreed = len({(act.label, act.groups) for act in labels[:needed]}) == 1
        assert (settled.state == "done") == agreed


@given(ACTS, st.integers(1, 2))
def test_the_state_depends_on_what_remains_alone(
    steps: list[tuple[str, str, str, tuple[str, ...], int]], needed: int
) -> None:
    acts = made(steps)
    item = an_item(reviews_needed=needed)
    assert settle(item, acts) == settle(item, remaining(acts)) == settle(item, acts[::-1])
    # What the item was before says nothing, unless it is golden or erased.
    before = an_item(reviews_needed=needed, state="done", label="hate", groups=["x"], closed=NOW)
    assert settle(before, acts) == settle(item, acts)


@given(ACTS)
def test_golden_and_erased_items_stay_as_they_are(
    steps: list[tuple[str, str, str, tuple[str, ...], int]],
) -> None:
    for item in (an_item(kind="golden", state="done"), an_item(state="erased")):
        assert settle(item, made(steps)).state == item.state


class TestStoredState:
    @pytest.mark.parametrize("seed", range(3))
    def test_items_always_hold_what_their_history_gives(self, session: Session, seed: int) -> None:
        rng = np.random.default_rng(seed)
        add_items(session, 4, needed=2)
        add_items(session, 4)
        people = [person(session, name) for name in ("anna", "ben", "carl")]
        admin = person(session, "zoe", role="admin")
        for _ in range(60):
            login = people[rng.integers(3)]
            draw = rng.random()
            if draw < 0.25:
                try:
                    undo(session, login.user, now=NOW, reason="chance")
                except ReviewError:
                    continue
            elif draw < 0.35 and (found := disputed(session)):
                adjudicate(
                    session,
                    admin.user,
                    found[0].item.id,
                    label="hate",
                    groups=(),
                    reason="chance",
                    now=NOW,
                )
            else:
                item = open_next(session, login)
                if item is None:
                    continue
                label = "hate" if rng.random() < 0.5 else "normal"
                submit(
                    session, login.user, item.id, label=label, groups=(), rationale=None, now=NOW
                )
        for item in session.scalars(select(ItemRow)):
            settled = settle(item, acts_on(session, item.id))
            groups = None if settled.groups is None else list(settled.groups)
            assert (item.state, item.label, item.groups) == (settled.state, settled.label, groups)
        undone = session.scalars(select(ReviewRow.undoes).where(ReviewRow.undoes.is_not(None)))
        taken_back = list(undone)
        assert len(taken_back) == len(set(taken_back))

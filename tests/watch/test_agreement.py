from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from sqlalchemy import select
from sqlalchemy.orm import Session
from tests.watch.reviewing import NOW, add_items, cheap_passwords, person, say

from evenhand.core.errors import DataError
from evenhand.core.records import Row
from evenhand.watch.reviewing.agreement import agreement, golden_scores, kappa
from evenhand.watch.reviewing.golden import add_golden, choose_golden, starter_rows
from evenhand.watch.reviewing.queue import adjudicate, submit, undo
from evenhand.watch.reviewing.users import Login
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import ItemRow

__all__ = ["cheap_passwords"]

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as opened:
        yield opened


def arrays(pairs: list[tuple[bool, bool]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = zip(*pairs, strict=True)
    return np.array(first), np.array(second)


@given(PAIRS)
def test_kappa_is_scikit_learns(pairs: list[tuple[bool, bool]]) -> None:
    first, second = arrays(pairs)
    found = kappa(first, second)
    if len({*first, *second}) == 1:
        assert (found.value, found.reason) == (None, "one_label_only")
        return
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    assert found.denominator == len(pairs)


def test_full_agreement_is_not_certain_agreement() -> None:
    labels = np.array([True, False] * 5)
    found = kappa(labels, labels)
    assert found.value == 1
    assert found.low is not None
    assert 0.2 < found.low < 0.7


@pytest.mark.parametrize(("share", "n"), [(0.5, 20), (0.1, 40)])
def test_the_interval_covers(share: float, n: int) -> None:
    rng = np.random.default_rng(7)
    right = np.outer([0.9, 0.1], [0.9, 0.1])
    joint = share * right + (1 - share) * right[::-1, ::-1]
    chance = float((joint.sum(axis=0) * joint.sum(axis=1)).sum())
    truth = (float(np.trace(joint)) - chance) / (1 - chance)
    covered, runs = 0, 400
    for _ in range(runs):
        cell = rng.choice(4, size=n, p=joint.ravel())
        found = kappa(cell < 2, cell % 2 == 0)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / runs > 0.93


class TestAgreement:
    def test_without_double_reviews_it_is_undefined(self, session: Session) -> None:
        add_items(session)
        say(session, person(session, "anna"))
        found = agreement(session)
        assert (found.posts, found.kappa.reason) == (0, "no_double_reviews")
        assert found.agreed.value is None

    def test_the_first_two_labels_count_and_no_adjudication(self, session: Session) -> None:
        items = add_items(session, 4, needed=2)
        anna, ben = person(session, "anna"), person(session, "ben")
        zoe = person(session, "zoe", role="admin")
        for label in ("hate", "hate", "normal", "normal"):
            say(session, anna, label)
        for label in ("hate", "normal", "normal", "normal"):
            say(session, ben, label)
        before = agreement(session)
        adjudicate(session, zoe.user, items[1], label="hate", groups=(), reason="policy", now=NOW)
        assert agreement(session) == before
        assert before.posts == 4
        assert before.agreed.value == 0.75
        expected = cohen_kappa_score([1, 1, 0, 0], [1, 0, 0, 0])
        assert before.kappa.value == pytest.approx(expected)

    def test_what_was_taken_back_does_not_count(self, session: Session) -> None:
        add_items(session, 1, needed=2)
        anna, ben = person(session, "anna"), person(session, "ben")
        say(session, anna, "hate", ["women"])
        say(session, ben, "normal")
        undo(session, ben.user, now=NOW, reason="wrong key")
        assert agreement(session).posts == 0
        say(session, ben, "hate", ["lgbtq"])
        found = agreement(session)
        assert (found.posts, found.agreed.value, found.same_groups.value) == (1, 1, 0)


class TestGolden:
    def label(self, session: Session, login: Login, labels: dict[str, str]) -> None:
        for item in session.scalars(select(ItemRow).where(ItemRow.kind == "golden")).all():
            item.held_by = login.user.id
            session.flush()
            label = labels[item.golden_text or ""]
            submit(session, login.user, item.id, label=label, groups=(), rationale=None, now=NOW)

    def test_accuracy_by_pseudonym(self, session: Session) -> None:
        rows = [Row("1", "one", "hate"), Row("2", "two", "normal")]
        add_golden(session, rows, now=NOW)
        anna, ben = person(session, "anna"), person(session, "ben")
        assert golden_scores(session) == []
        self.label(session, anna, {"one": "hate", "two": "normal"})
        self.label(session, ben, {"one": "normal", "two": "normal"})
        found = {score.reviewer: score.right for score in golden_scores(session)}
        assert list(found) == sorted([anna.user.pseudonym, ben.user.pseudonym])
        assert found[anna.user.pseudonym].value == 1
        assert found[ben.user.pseudonym].value == 0.5
        assert found[anna.user.pseudonym].low == pytest.approx(0.342, abs=0.001)

    def test_adding_twice_adds_once(self, session: Session) -> None:
        rows = [Row("1", "one", "hate"), Row("2", " one ", "hate"), Row("3", "two", "normal")]
        assert (add_golden(session, rows, now=NOW)).added == 2
        again = add_golden(session, rows, now=NOW)
        assert (again.added, again.already) == (0, 3)

    def test_every_row_without_a_label_is_named(self, session: Session) -> None:
        rows = [Row("1", "one"), Row("2", "two", "hate"), Row("3", "three")]
        with pytest.raises(DataError) as error:
            add_golden(session, rows, now=NOW)
        assert [problem.place for problem in error.value.problems] == ["1", "3"]
        assert session.scalars(select(ItemRow)).all() == []

    def test_the_starter_rows_are_spread_over_groups_and_labels(self) -> None:
        rows = choose_golden(starter_rows(), count=60, rng=np.random.default_rng(0))
        assert len({row.text for row in rows}) == 60
        assert {row.label for row in rows} == {"hate", "normal"}
        per_group = dict.fromkeys({row.groups for row in rows}, 0)
        for row in rows:
            per_group[row.groups] += 1
        assert max(per_group.values()) - min(per_group.values()) <= 4

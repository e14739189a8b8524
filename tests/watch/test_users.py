from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select
from sqlalchemy.orm import Session
from tests.watch.reviewing import NOW, PASSWORD, cheap_passwords

from evenhand.core.errors import ConfigError
from evenhand.watch.reviewing import users
from evenhand.watch.reviewing.lock_out import LockedOutError, LockOut
from evenhand.watch.reviewing.users import (
    Login,
    LoginError,
    add_user,
    authenticate,
    check_password,
    deactivate,
    find_login,
    find_user,
    list_users,
    log_in,
    log_out,
    set_opt_outs,
    set_password,
)
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import LoginRow, UserRow

__all__ = ["cheap_passwords"]

# As it is before the tests put a cheap one in its place.
DEFAULT_HASHER = users.HASHER


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as opened:
        yield opened


@pytest.fixture
def anna(session: Session) -> UserRow:
    return add_user(session, "Anna", role="reviewer", password=PASSWORD, now=NOW)


def enter(session: Session, name: str, password: str, lock_out: LockOut | None = None) -> Login:
    return log_in(session, name, password, hours=10, now=NOW, lock_out=lock_out or LockOut())


class TestPeople:
    def test_a_pseudonym_says_nothing_of_the_name(self, session: Session, anna: UserRow) -> None:
        ben = add_user(session, "ben", role="admin", password=PASSWORD, now=NOW)
        assert anna.pseudonym.startswith("reviewer-")
        assert anna.pseudonym != ben.pseudonym
        assert "anna" not in anna.pseudonym
        assert [user.name for user in list_users(session)] == ["anna", "ben"]

    @pytest.mark.usefixtures("anna")
    def test_every_problem_of_a_new_person_at_once(self, session: Session) -> None:
        with pytest.raises(ConfigError) as error:
            add_user(session, " ", role="boss", password="short", now=NOW)
        assert [problem.place for problem in error.value.problems] == ["name", "password", "role"]
        with pytest.raises(ConfigError, match="1 problem") as taken:
            add_user(session, " ANNA ", role="admin", password=PASSWORD, now=NOW)
        assert "taken" in taken.value.render()

    @pytest.mark.parametrize("name", ["a" * 65, "a\x00b", "\ud800"])
    def test_names_that_no_database_stores(self, session: Session, name: str) -> None:
        with pytest.raises(ConfigError):
            add_user(session, name, role="admin", password=PASSWORD, now=NOW)
        with pytest.raises(LoginError):
            enter(session, name, PASSWORD)

    @pytest.mark.usefixtures("anna")
    def test_an_unknown_name_suggests_a_known_one(self, session: Session) -> None:
        with pytest.raises(ConfigError) as error:
            find_user(session, "ana")
        assert 'did you mean "anna"' in error.value.render()

    @pytest.mark.usefixtures("anna")
    def test_any_twelve_characters_will_do(self, session: Session) -> None:
        with pytest.raises(ConfigError):
            add_user(session, "b", role="admin", password="a" * 11, now=NOW)
        assert add_user(session, "b", role="admin", password="a" * 12, now=NOW)


class TestPasswords:
    def test_hashing_costs_what_attackers_mind(self) -> None:
        assert DEFAULT_HASHER.memory_cost >= 19_456  # KiB; OWASP's least for argon2id
        assert DEFAULT_HASHER.time_cost >= 2

    def test_the_password_is_not_stored(self, anna: UserRow) -> None:
        assert anna.password_hash.startswith("$argon2id$")
        assert check_password(anna, PASSWORD)
        assert not check_password(anna, PASSWORD + "x")
        assert not check_password(anna, "x" * 2000)

    def test_composed_and_decomposed_letters_are_the_same(
        self, session: Session, anna: UserRow
    ) -> None:
        set_password(session, anna, "caf\u00e9 au lait", now=NOW)
        assert check_password(anna, "cafe\u0301 au lait")

    def test_an_unknown_name_costs_a_verification_as_well(
        self, session: Session, anna: UserRow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        class Counting(PasswordHasher):
            def verify(self, hash: str | bytes, password: str | bytes) -> bool:
                calls.append(hash)
                return super().verify(hash, password)

        monkeypatch.setattr(users, "HASHER", Counting(time_cost=1, memory_cost=8, parallelism=1))
        for name in ("anna", "nobody", "bad\x00name"):
            with pytest.raises(LoginError, match="the name or the password is wrong"):
                enter(session, name, "not the password")
        assert len(calls) == 3
        assert calls[0] == anna.password_hash
        # Not the same work for everybody would be a way to find names.
        assert calls[1].split("$")[:4] == calls[0].split("$")[:4]

    def test_a_hash_of_old_costs_is_made_anew(
        self, session: Session, anna: UserRow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = anna.password_hash
        dearer = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
        monkeypatch.setattr(users, "HASHER", dearer)
        enter(session, "anna", PASSWORD)
        assert anna.password_hash != old
        assert check_password(anna, PASSWORD)

    def test_a_damaged_hash_opens_nothing(self, anna: UserRow) -> None:
        anna.password_hash = "damaged"
        assert not check_password(anna, PASSWORD)


class TestLogins:
    def test_the_token_is_known_by_its_hash_alone(self, session: Session, anna: UserRow) -> None:
        login = enter(session, " ANNA", PASSWORD)
        (row,) = session.scalars(select(LoginRow))
        assert login.token not in {row.token_sha256, row.csrf}
        assert len(login.token) >= 43
        found = find_login(session, login.token, now=NOW)
        assert found is not None
        assert found.user is anna
        assert found.accepts(login.csrf)
        assert not found.accepts(login.csrf + "x")
        assert not found.accepts("é\ud800")
        assert find_login(session, login.token + "x", now=NOW) is None
        assert find_login(session, "\ud800", now=NOW) is None

    @pytest.mark.usefixtures("anna")
    def test_two_logins_share_nothing(self, session: Session) -> None:
        first, second = enter(session, "anna", PASSWORD), enter(session, "anna", PASSWORD)
        assert first.token != second.token
        assert not first.accepts(second.csrf)

    @pytest.mark.usefixtures("anna")
    def test_a_login_ends_by_time_and_by_logging_out(self, session: Session) -> None:
        login = enter(session, "anna", PASSWORD)
        assert find_login(session, login.token, now=NOW + timedelta(hours=10)) is None
        log_out(session, login, now=NOW + timedelta(hours=1))
        assert find_login(session, login.token, now=NOW + timedelta(hours=1)) is None

    def test_a_new_password_ends_the_other_logins(self, session: Session, anna: UserRow) -> None:
        first, second = enter(session, "anna", PASSWORD), enter(session, "anna", PASSWORD)
        set_password(session, anna, "another long password", now=NOW, keep=second)
        session.expire_all()
        assert find_login(session, first.token, now=NOW) is None
        assert find_login(session, second.token, now=NOW) is not None
        with pytest.raises(LoginError):
            enter(session, "anna", PASSWORD)
        with pytest.raises(ConfigError):
            set_password(session, anna, "short", now=NOW)

    @pytest.mark.usefixtures("anna")
    def test_a_deactivated_person_is_out(self, session: Session) -> None:
        login = enter(session, "anna", PASSWORD)
        deactivate(session, "anna", now=NOW)
        assert find_login(session, login.token, now=NOW) is None
        with pytest.raises(LoginError, match="the name or the password is wrong"):
            enter(session, "anna", PASSWORD)

    def test_old_logins_are_cleared_away(self, session: Session, anna: UserRow) -> None:
        enter(session, "anna", PASSWORD)
        later = NOW + timedelta(days=3)
        log_in(session, "anna", PASSWORD, hours=1, now=later, lock_out=LockOut())
        assert len(session.scalars(select(LoginRow)).all()) == 1
        assert anna.is_active

    def test_opt_outs_are_kept(self, session: Session, anna: UserRow) -> None:
        set_opt_outs(session, anna, ["women", " lgbtq ", "women", ""])
        assert anna.opted_out == ["lgbtq", "women"]

    def test_authenticating_holds_no_transaction_while_it_hashes(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with database.session() as session:
            add_user(session, "anna", role="admin", password=PASSWORD, now=NOW)
        written = threading.Event()

        class Writing(PasswordHasher):
            def verify(self, hash: str | bytes, password: str | bytes) -> bool:
                with database.session() as other:
                    other.get_one(UserRow, 1).opted_out = ["women"]
                written.set()
                return super().verify(hash, password)

        monkeypatch.setattr(users, "HASHER", Writing(time_cost=1, memory_cost=8, parallelism=1))
        login = authenticate(database, "anna", PASSWORD, hours=1, now=NOW, lock_out=LockOut())
        assert written.is_set()
        with database.session() as session:
            assert find_login(session, login.token, now=NOW) is not None
        with pytest.raises(LoginError):
            authenticate(database, "anna", "wrong" * 3, hours=1, now=NOW, lock_out=LockOut())


class TestLockOut:
    @pytest.mark.usefixtures("anna")
    def test_repeated_failures_lock_a_name_even_for_the_right_password(
        self, session: Session
    ) -> None:
        lock_out = LockOut(free_failures=3)
        for _ in range(3):
            with pytest.raises(LoginError, match="wrong"):
                enter(session, "anna", "not the password", lock_out)
        with pytest.raises(LockedOutError, match="try again in 15 seconds"):
            enter(session, "anna", PASSWORD, lock_out)
        later = NOW + timedelta(seconds=15)
        login = log_in(session, "anna", PASSWORD, hours=1, now=later, lock_out=lock_out)
        assert login.user.name == "anna"

    def test_the_delay_grows_up_to_a_limit(self) -> None:
        lock_out = LockOut(free_failures=1, first_seconds=10, longest_seconds=60)
        now, waits = NOW, []
        for _ in range(6):
            lock_out.begin("anna", now=now)
            with pytest.raises(LockedOutError) as error:
                lock_out.begin("anna", now=now)
            waits.append((error.value.until - now).total_seconds())
            now = error.value.until
        assert waits == [10, 20, 40, 60, 60, 60]

    def test_success_forgets_failures(self) -> None:
        lock_out = LockOut(free_failures=3)
        for _ in range(5):
            lock_out.begin("anna", now=NOW)
            lock_out.begin("anna", now=NOW)
            lock_out.succeed("anna")

    def test_names_are_locked_one_by_one_and_the_memory_is_bounded(self) -> None:
        lock_out = LockOut(free_failures=1, names=3)
        for name in "abcd":
            lock_out.begin(name, now=NOW)
        lock_out.begin("a", now=NOW)
        with pytest.raises(LockedOutError):
            lock_out.begin("d", now=NOW)

    def test_attempts_at_once_count_before_they_are_checked(self) -> None:
        lock_out, refused = LockOut(free_failures=5), []
        barrier = threading.Barrier(16)

        def work() -> None:
            barrier.wait()
            try:
                lock_out.begin("anna", now=NOW)
            except LockedOutError:
                refused.append(1)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 11

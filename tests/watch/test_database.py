from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from tests.watch.made_up import START

from evenhand.core.errors import StorageError
from evenhand.watch.store.database import Database, default_url, open_database
from evenhand.watch.store.tables import AlarmRow, ApiKeyRow


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """SQLite alone: what is tested here is how it is set up."""
    return sqlite_database


def add_key(database: Database, name: str) -> None:
    with database.session() as session:
        session.add(ApiKeyRow(name=name, key_sha256=name, created=START))


def count_keys(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(ApiKeyRow)) or 0


@pytest.mark.parametrize("name", ["plain", "with space", "question?mark", "per%20cent", "ü#"])
def test_the_default_url_names_the_run_s_own_file(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    run.mkdir()
    open_database(default_url(run)).close()
    assert (run / "production.sqlite").is_file()
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_what_was_stored_is_there_after_a_new_start(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    first = open_database(url)
    add_key(first, "forum")
    first.close()
    second = open_database(url)
    with second.reading() as session:
        row = session.scalars(select(ApiKeyRow)).one()
    assert (row.name, row.created) == ("forum", START)
    assert row.created.utcoffset() == timedelta(0)
    second.close()


def test_an_exception_undoes_the_whole_session(database: Database) -> None:
    with pytest.raises(RuntimeError, match="half-way"), database.session() as session:
        session.add(ApiKeyRow(name="a", key_sha256="a", created=START))
        session.flush()
        raise RuntimeError("half-way")
    assert count_keys(database) == 0


def test_a_reading_session_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError), database.reading() as session:
        session.add(ApiKeyRow(name="a", key_sha256="a", created=START))
    add_key(database, "b")  # the same connection writes again
    assert count_keys(database) == 1


def test_a_reader_sees_one_state_and_keeps_nobody_from_writing(database: Database) -> None:
    with database.reading() as session:
        query = select(func.count()).select_from(ApiKeyRow)
        before = session.scalar(query)
        add_key(database, "meanwhile")
        assert session.scalar(query) == before == 0
    assert count_keys(database) == 1


def test_writers_wait_for_each_other(database: Database) -> None:
    """Each reads a number and writes the next: without turns, updates are lost or refused."""
    with database.session() as session:
        session.execute(text("CREATE TABLE counter (n INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    failures: list[BaseException] = []

    def count_up() -> None:
        try:
            for _ in range(25):
                with database.session() as session:
                    n = session.scalar(text("SELECT n FROM counter"))
                    time.sleep(0.0005)
                    session.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.reading() as session:
        assert session.scalar(text("SELECT n FROM counter")) == 100


def test_a_commit_reaches_the_disk_before_it_returns(database: Database) -> None:
    with database.reading() as session:
        found = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_processes_that_start_at_once_make_the_tables_once(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    code = (
        "import sys\n"
        "from evenhand.watch.store.database import open_database\n"
        "sys.stdin.readline()\n"
        f"open_database({url!r}).close()\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    time.sleep(0.2)
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended


def test_threads_may_open_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def open_one(name: str) -> None:
        try:
            open_database(f"sqlite:///{tmp_path / name}").close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_one, args=(f"{i % 2}.sqlite",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("url", "found", "remedy"),
    [
        ("sqlite://", "in memory", "name a file"),
        ("sqlite:///:memory:", "in memory", "name a file"),
        ("sqlite:////no/such/folder/a.sqlite", "unable to open", "make its folder"),
        ("mysql://me:secret@host/name", '"mysql" is no kind', "sqlite:///FILE"),
        ("me:secret", "cannot be read", "sqlite:///FILE"),
        ("postgresql://me:sec@ret@host:port/name", "cannot be read", "postgresql://USER"),
        ("postgresql://me:secret@127.0.0.1:1/name", "refused", "check that the server runs"),
        ("postgresql://127.0.0.1:1/name?user=me&password=secret", "refused", "check that"),
        ("postgres://me:secret@127.0.0.1:1/name", "refused", "check that the server runs"),
    ],
)
def test_a_wrong_url_is_told_with_its_remedy(url: str, found: str, remedy: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_database(url)
    assert found in caught.value.message
    assert remedy in (caught.value.hint or "")
    for secret in ("secret", "sec@", "@ret"):
        assert secret not in caught.value.render()


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError) as caught:
        open_database("postgresql://me:secret@127.0.0.1:1/name")
    assert "needs the driver psycopg" in caught.value.message
    assert caught.value.hint == 'pip install "evenhand[postgres]"'
    assert "secret" not in caught.value.render()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and there are quite a few of them\n" * 40)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not a database"):
        open_database(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_may_not_be_written_to(tmp_path: Path) -> None:
    open_database(default_url(tmp_path)).close()
    database = open_database(f"sqlite:///file:{tmp_path}/production.sqlite?mode=ro&uri=true")
    with pytest.raises(StorageError, match="readonly") as caught:
        add_key(database, "forum")
    database.close()
    assert "right to write" in (caught.value.hint or "")


def test_a_full_disk_is_a_storage_error_without_the_rows(database: Database) -> None:
    with database.session() as session:
        session.execute(text("PRAGMA max_page_count=1"))
    with pytest.raises(StorageError) as caught, database.session() as session:
        session.execute(text("PRAGMA max_page_count=1"))  # the pool may give another connection
        for i in range(200):
            session.add(ApiKeyRow(name=f"somebody's post {i}", key_sha256=str(i), created=START))
            session.flush()
    assert "full" in caught.value.message
    assert "free some space" in (caught.value.hint or "")
    assert "somebody" not in caught.value.render()


def test_times_without_a_zone_are_refused(database: Database) -> None:
    naive = START.replace(tzinfo=None)
    with pytest.raises(Exception, match="without a zone"), database.session() as session:
        session.add(ApiKeyRow(name="a", key_sha256="a", created=naive))


def test_foreign_keys_hold(database: Database) -> None:
    from sqlalchemy.exc import IntegrityError

    alarm = AlarmRow(
        release_id="nobody", kind="fpr", subject="lgbtq", opened=START, message="", evidence={}
    )
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(alarm)


def test_a_new_file_is_its_owner_s_alone_and_an_old_one_keeps_its_rights(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    file = tmp_path / "production.sqlite"
    first = open_database(url)
    add_key(first, "forum")
    modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    first.close()
    assert modes[file.name] == modes[f"{file.name}-wal"] == 0o600
    file.chmod(0o660)
    open_database(url).close()
    assert file.stat().st_mode & 0o777 == 0o660


def test_an_error_s_own_words_hold_no_row(database: Database) -> None:
    add_key(database, "secret")
    with pytest.raises(IntegrityError) as caught:
        add_key(database, "secret")
    assert "secret" not in str(caught.value)

"""What only a real PostgreSQL shows; every other test with a ``database`` runs on it as well."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url
from tests.watch.made_up import START, make_answer, make_answers, start_intake

from evenhand.core.errors import StorageError
from evenhand.core.production import Release
from evenhand.watch.store.database import Database, open_database
from evenhand.watch.store.migrating import migrate
from evenhand.watch.store.tables import ApiKeyRow, PostRow

pytestmark = pytest.mark.slow


def refusal(url: str) -> StorageError:
    with pytest.raises(StorageError) as caught:
        open_database(url)
    return caught.value


def test_a_wrong_password_is_told_and_not_shown(postgres_database_url: str) -> None:
    wrong = make_url(postgres_database_url).set(password="a wrong secret")
    error = refusal(wrong.render_as_string(hide_password=False))
    assert "password authentication failed" in error.message
    assert "check the user's name and password" in (error.hint or "")
    assert "secret" not in error.render()
    right = make_url(postgres_database_url).password
    assert right is not None
    assert right not in error.render()


def test_a_database_that_is_not_there(postgres_database_url: str) -> None:
    url = make_url(postgres_database_url).set(database="nowhere")
    error = refusal(url.render_as_string(hide_password=False))
    assert '"nowhere" does not exist' in error.message
    assert "create the database" in (error.hint or "")


def test_processes_that_start_at_once_make_the_tables_once(postgres_database_url: str) -> None:
    code = (
        "import sys\n"
        "from evenhand.watch.store.database import open_database\n"
        "url = sys.stdin.readline()\n"
        "open_database(url.strip()).close()\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(f"{postgres_database_url}\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended


def test_all_or_none_of_the_tables(
    postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import command

    def fail_after(config: object, revision: str) -> None:
        real(config, revision)  # pyright: ignore[reportArgumentType]
        raise RuntimeError("the power went")

    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", fail_after)
    with pytest.raises(RuntimeError, match="power"):
        open_database(postgres_database_url)
    monkeypatch.undo()
    opened = open_database(postgres_database_url)
    migrate(opened.engine, opened.shown)
    opened.close()


def test_reading_sees_one_state_and_writes_nothing(postgres_database: Database) -> None:
    query = select(func.count()).select_from(ApiKeyRow)
    with postgres_database.reading() as reader:
        assert reader.scalar(query) == 0
        with postgres_database.session() as writer:
            writer.add(ApiKeyRow(name="a", key_sha256="a", created=START))
        assert reader.scalar(query) == 0
    with postgres_database.reading() as reader:
        assert reader.scalar(query) == 1
    with pytest.raises(Exception, match="read-only"), postgres_database.reading() as reader:
        reader.add(ApiKeyRow(name="b", key_sha256="b", created=START))
        reader.flush()


def test_two_servers_write_at_once(postgres_database: Database, release: Release) -> None:
    intakes = [start_intake(postgres_database, release, seed=n) for n in range(2)]

    def work(n: int) -> None:
        rng = np.random.default_rng(n)
        for i in range(10):
            intakes[n].record(make_answers(20, rng=rng, first=1000 * n + 20 * i))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    with postgres_database.reading() as session:
        assert session.scalar(select(func.count()).select_from(PostRow)) == 400


def test_a_lost_connection_is_a_storage_error_and_the_next_batch_is_stored(
    postgres_database: Database, release: Release
) -> None:
    intake = start_intake(postgres_database, release)
    with pytest.raises(StorageError), postgres_database.session() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    intake.record([make_answer(1)])
    with postgres_database.reading() as session:
        assert session.scalars(select(PostRow.id)).all() == ["post-00000001"]


def test_times_come_back_in_utc_whatever_the_server_s_zone(postgres_database: Database) -> None:
    with postgres_database.session() as session:
        session.execute(text("SET TIME ZONE 'Asia/Kolkata'"))
        session.add(ApiKeyRow(name="a", key_sha256="a", created=START))
        session.flush()
        session.expire_all()
        created = session.scalars(select(ApiKeyRow.created)).one()
    assert created == START
    assert created.utcoffset() == timedelta(0)
